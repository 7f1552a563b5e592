"""Tables, reviews and the order of what a remote evaluation shows."""

from __future__ import annotations

from argparse import Namespace

import pytest

from ppe_jupyter.frontends import tables
from ppe_jupyter.frontends.output import FLUSH_AFTER, Console
from ppe_jupyter.remote.session import Text


class Clusterlike:
    """What a table of clusters looks at."""

    name, state, cost_so_far = "lab", "running", None
    nodes = (Namespace(instance_type="m5.xlarge", zone="us-east-1a"),) * 2
    record = Namespace(
        slots=4, launched=tables.datetime.now(tables.timezone.utc), usd_per_hour=0.5912, owner="<me>"
    )


def test_a_table_shows_all_columns_and_what_is_unknown() -> None:
    table = tables.clusters([Clusterlike()], connected=None)  # type: ignore[list-item]
    header, row = str(table).splitlines()
    assert header.split()[:4] == ["cluster", "state", "nodes", "slots"]
    assert row.split()[:6] == ["lab", "running", "2", "4", "m5.xlarge", "us-east-1a"]
    assert "0.591" in row and "?" in row
    assert table.loc["lab", "EC2 $/h"] == 0.5912
    assert "&lt;me&gt;" in table._repr_html_()


def test_a_review_begins_with_who_pays_and_dollars_are_no_tex() -> None:
    plan = Namespace(rows=lambda: [("step", "a"), ("step", "b"), ("price", "$1 or $2"), ("error", "no")])
    review = tables.Review("AWS account 1", plan)  # type: ignore[arg-type]
    lines = str(review).splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        ["pays", "AWS account 1"],
        ["step", "a"],
        ["b"],
        ["price", "$1 or $2"],
        ["error", "no"],
    ]
    assert "mathjax_ignore" in review._repr_html_()


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
    for stream, text in [("stdout", "1"), ("stdout", "2"), ("stderr", "3")]:
        console(Text(stream, text))  # type: ignore[arg-type]
    now = 2 * FLUSH_AFTER
    console(Text("stderr", "4"))
    monkeypatch.undo()
    assert log[log.index("1") :] == ["1", "2", "flush out", "3", "4", "flush err"]
