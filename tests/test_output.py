"""Tables, reviews and the order of what a remote evaluation shows."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_jupyter.cloud.records import ClusterState, InstanceState, besides
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.frontends import output, tables, views
from ppe_jupyter.frontends.output import FLUSH_AFTER, Console
from ppe_jupyter.overview import losses
from ppe_jupyter.remote.sessions.answers import in_local_time
from ppe_jupyter.remote.sessions.session import Text
from ppe_jupyter.remote.sessions.watchdog import Losses, Objects, Watchdog


class FakeCluster:
    """What a table of clusters looks at."""

    name, state, cost_so_far, is_free = "lab", ClusterState.DEGRADED, None, False
    nodes = (Namespace(instance_type="m5.xlarge", zone="us-east-1a", state=InstanceState.RUNNING),) * 2
    record = Namespace(
        slots=4,
        wanted=3,
        launched=datetime.now(timezone.utc),
        usd_per_hour=0.5912,
        owner="<me> on a laptop",
        guests=(),
        troubles=("node 1 (i-1) is stopped",),
        spec=ClusterSpec(idle_hours=2, budget_usd=5),
    )


LAB: Any = FakeCluster()


def test_a_table_shows_all_columns_and_what_is_unknown() -> None:
    table = views.clusters([LAB], connected=None)
    header, row = str(table).splitlines()
    assert header.split()[:4] == ["cluster", "state", "nodes", "slots"]
    assert row.split()[:6] == ["lab", "degraded", "2", "4", "m5.xlarge", "us-east-1a"]
    assert "0.591" in row and "?" in row
    assert table.loc["lab", "EC2 $/h"] == 0.5912
    assert "&lt;me&gt;" in table._repr_html_()


def test_a_long_table_is_cut_in_a_notebook_only() -> None:
    table = tables.table([{"n": n, "ok": n % 2 == 0} for n in range(tables.MOST_ROWS + 3)])
    assert str(table).endswith("\n… and 3 more") and "… and 3 more" in table._repr_html_()
    assert len(table.text().splitlines()) == tables.MOST_ROWS + 4
    assert table.text().splitlines()[1].split() == ["0", "✓"]


def test_a_review_begins_with_who_pays_and_dollars_are_no_tex() -> None:
    plan: Any = Namespace(rows=lambda: [("step", "a"), ("step", "b"), ("price", "$1 or $2"), ("error", "no")])
    review = views.review("AWS account 1", plan)
    lines = str(review).splitlines()
    # What forbids it is in the error that follows.
    assert [line.split(maxsplit=1) for line in lines] == [
        ["pays", "AWS account 1"],
        ["step", "a"],
        ["b"],
        ["price", "$1 or $2"],
    ]
    assert "mathjax_ignore" in review._repr_html_()


def test_the_status_says_when_and_why_the_watchdog_acts() -> None:
    soon = datetime.now(timezone.utc) + timedelta(minutes=90, seconds=30)
    watch = Watchdog(
        acts_at=soon,
        why="idle",
        then="park",
        idle_since=None,
        working=(),
        spent_usd=1.0,
        notices=("spot",),
        spot=("spot",),
    )
    text = str(views.status("AWS account 1", LAB, watch))
    assert text.splitlines()[0].split(maxsplit=1) == ["pays", "AWS account 1"]
    at = soon.astimezone()
    assert f"parks the cluster at {tables.local_time(at)}, in 1 h 30 min: idle" in text
    assert "degraded · 2 of 3 nodes · 4 slots" in text
    assert "parked after 2 h without work" in text and "parked when $5.00 are spent" in text
    assert text.count("spot") == 1 and "node 1 (i-1) is stopped" in text and "%ppe_retry lab" in text
    assert "cannot be asked" in str(views.status("AWS", LAB, "cannot be asked: no key"))
    never = replace(watch, acts_at=None, working=("R evaluates",))
    assert "R evaluates" in str(views.status("AWS", LAB, never))


def test_losses_name_the_biggest_that_were_never_pulled() -> None:
    objects = (("small", 900, False), ("here", 5, True), *((f"x{n}", 10**6 * n, False) for n in range(1, 7)))
    lost = Losses(objects=objects, files=(("out.csv", 1234),), jobs=("mpirun",), more_files=7, more_bytes=70)
    assert losses.rows(lost) == [
        ("at work", "mpirun"),
        (
            "lost",
            "in R, never pulled: x6 (6 MB), x5 (5 MB), x4 (4 MB), x3 (3 MB), x2 (2 MB) and 2 more (1 MB)",
        ),
        ("lost", "files: out.csv (1.23 kB) and 7 more (70 bytes)"),
    ]
    assert losses.rows(Losses(objects=None, files=(), jobs=(), silent=("ip-10-0-0-2",))) == [
        ("lost", "R is busy, and cannot say what it holds"),
        ("lost", "ip-10-0-0-2: cannot be asked for files"),
    ]
    others: tuple[tuple[str, Objects], ...] = (("fit", (("model", 7, False),)), ("sim", None))
    assert losses.rows(
        Losses(
            objects=(), files=(), jobs=(), others=others, unfetched=2, results=("3 of 9 results of a map",)
        )
    ) == [
        ("lost", "R session sim is busy, and cannot say what it holds"),
        ("lost", "in R session fit, never pulled: model (7 bytes)"),
        ("lost", "2 jobs whose results were never fetched"),
        ("lost", "3 of 9 results of a map that nobody has: last_map()"),
    ]
    since = datetime(2026, 5, 4, 9, 5).astimezone()
    lost = Losses(objects=(), files=(), jobs=(), rstudio=((210_000_000, since),), suspended_bytes=3_000)
    assert losses.rows(lost) == [
        ("lost", "in RStudio: an R session of 210 MB, since Mon 09:05; what it holds is seen there only"),
        ("lost", "in RStudio: suspended R sessions, 3 kB"),
    ]


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "an unknown amount"),
        (0.0, "$0.00"),
        (0.0004, "less than $0.001"),
        (0.0423, "$0.042"),
        (1234.5, "$1,234.50"),
    ],
)
def test_money_has_sensible_digits(usd: float | None, text: str) -> None:
    assert tables.dollars(usd) == text


@given(
    st.lists(st.text("ab\n", max_size=400), max_size=40),
    st.integers(1, 50),
    st.integers(1, 20),
    st.integers(1, 9),
)
def test_of_much_text_head_and_tail_are_shown_and_the_rest_is_counted(
    pieces: list[str], lines: int, tail_lines: int, line_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "TAIL_LINES", tail_lines)
        patch.setattr(output, "LINE_BYTES", line_bytes)
        allowance, tail, head = output.Allowance(lines), output.Tail(), ""
        for piece in pieces:
            shown = allowance.take(piece)
            head += shown
            if len(shown) < len(piece):
                tail.add(Text("stdout", piece[len(shown) :]))
        whole = "".join(pieces)
        last = "".join(text.text for text in tail.end()) if len(head) < len(whole) else ""
    hidden = whole[len(head) : len(whole) - len(last)]
    assert whole.startswith(head) and whole.endswith(last)
    assert (tail.lines, tail.bytes) == (hidden.count("\n"), len(hidden))
    assert head.count("\n") <= lines and len(head) <= lines * line_bytes + lines
    assert last.count("\n") <= tail_lines or not hidden


def test_a_line_that_is_overwritten_counts_once() -> None:
    allowance = output.Allowance(3)
    bars = [f"\r{'=' * (number % 70):70} {number:6}" for number in range(10_000)]
    assert "".join(map(allowance.take, [*bars, "\n"])) == "".join([*bars, "\n"])


def test_streams_are_flushed_in_order_and_not_for_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def write(self, text: str) -> None:
            log.append(text)

        def flush(self) -> None:
            log.append(f"flush {self.name}")

    monkeypatch.setattr("sys.stdout", Stream("out"))
    monkeypatch.setattr("sys.stderr", Stream("err"))
    now = 0.0
    console = Console(clock=lambda: now)
    for stream, text in [("stdout", "1\n"), ("stdout", "2\n"), ("stderr", "3\n")]:
        console(Text(stream, text))  # type: ignore[arg-type]
    now = 2 * FLUSH_AFTER
    console(Text("stderr", "4\n"))
    # Nothing else flushes a terminal; a question or a "fitting … " without a line end waits for nothing.
    console(Text("stderr", "5 "))
    monkeypatch.undo()
    assert log[log.index("1\n") :] == [
        "1\n",
        "2\n",
        "flush out",
        "3\n",
        "4\n",
        "flush err",
        "5 ",
        "flush err",
    ]


def test_a_cluster_that_there_is_not() -> None:
    assert besides(["a", "b"]) == "; there are: a, b"
    assert besides([]) == ", nor any other; launch one with: %ppe_launch"


def test_times_of_the_nodes_are_told_as_they_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    told = in_local_time("EC2 will stop node 1 at 2026-01-05T20:00:30Z: save; x2026")
    monkeypatch.undo()
    time.tzset()
    assert told == "EC2 will stop node 1 at Tue 06 Jan 01:30: save; x2026"
