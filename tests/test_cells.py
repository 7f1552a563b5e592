"""Python and shell cells: grouping without I/O, the rest on a launched cluster."""

from __future__ import annotations

import _thread
import textwrap
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ppe_jupyter import errors
from ppe_jupyter.remote.ranks.cells import Event, Grouped
from ppe_jupyter.remote.sessions.session import Output, Text

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster


class Shown:
    """Collects what a cell shows; ``on_text`` is called with all of it after each piece."""

    def __init__(self, on_text: Callable[[str], None] = lambda text: None) -> None:
        self.text = ""
        self.errors = ""
        self._on_text = on_text

    def __call__(self, output: Output) -> None:
        assert isinstance(output, Text)
        self.text += output.text
        self.errors += output.text if output.stream == "stderr" else ""
        self._on_text(self.text)


# --- Grouping


def text(source: int | str | None, words: str) -> Event:
    return {"source": source, "host": f"h{source}", "stream": "stdout", "text": words}


def end(source: int | str | None, error: str | None = None) -> Event:
    return {"source": source, "host": f"h{source}", "status": 0 if error is None else 1, "error": error}


def test_the_first_rank_is_live_and_the_others_wait_for_their_turn() -> None:
    grouped = Grouped([0, 1, 2])

    def feed(event: Event) -> str:
        return "".join(each.text for each in grouped.feed(event))

    assert feed(text(1, "b\n")) == ""
    assert feed(text(0, "a\n")) == "── rank 0 on h0 ──\na\n"
    assert feed(end(1)) == ""
    assert feed(text(0, "more")) == "more"
    assert feed(end(0)) == "\n── rank 1 on h1 ──\nb\n"
    assert feed(text(2, "c\n")) == "── rank 2 on h2 ──\nc\n"


def test_what_waits_is_shown_when_its_turn_will_not_come() -> None:
    grouped = Grouped([0, 1])
    assert list(grouped.feed(text(1, "late\n"))) == []
    assert "late" in "".join(each.text for each in grouped.rest())


def test_a_single_source_has_no_heading() -> None:
    assert list(Grouped([None]).feed(text(None, "x"))) == [Text("stdout", "x")]


# --- On a cluster


def test_python_on_the_master(cluster: Cluster) -> None:
    shown = Shown()
    cluster.run_python("import socket\nprint('Grüße', 1)\nsocket.gethostname()", on_output=shown)
    assert shown.text == f"Grüße 1\n'{cluster.master.private_dns.split('.')[0]}'\n"


def test_an_exception_shows_the_cells_own_lines(cluster: Cluster) -> None:
    shown = Shown()
    with pytest.raises(errors.RemoteCommandFailed, match="ZeroDivisionError: division by zero"):
        cluster.run_python("def half(x):\n    return x / 0\n\nhalf(1)", on_output=shown)
    assert 'File "<cell>", line 2, in half' in shown.errors and "return x / 0" in shown.errors
    assert "python_cell" not in shown.errors


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("print('last', flush=True); import os; os._exit(4)", "exit status 4"),
        ("raise ValueError('ä' * 99999)", "ValueError: ää"),
        ("import multiprocessing, time; multiprocessing.get_context('fork').Process(target=time.sleep, args=(300,),"
         " daemon=True).start(); 1 / 0", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_how_a_cell_failed_is_said(cluster: Cluster, code: str, why: str) -> None:
    with pytest.raises(errors.RemoteCommandFailed, match=why):
        cluster.run_python(code, on_output=Shown())


def test_all_that_a_cell_has_printed_comes(cluster: Cluster) -> None:
    shown = Shown()
    cluster.run_python("print('x' * 5_000_000)", on_output=shown)
    assert shown.text == "x" * 5_000_000 + "\n"


def test_ranks_fill_all_slots_and_report_in_order(cluster: Cluster) -> None:
    shown = Shown()
    code = "from mpi4py import MPI\nimport os\nworld = MPI.COMM_WORLD\nprint(world.allreduce(1))\nworld.rank"
    cluster.run_python(code, ranks=-1, on_output=shown)
    names = [node.private_dns.split(".")[0] for node in cluster.nodes]
    assert shown.text == "".join(f"── rank {i} on {names[i // 2]} ──\n6\n{i}\n" for i in range(6))


def test_what_a_cell_defines_can_be_sent_between_ranks(cluster: Cluster) -> None:
    shown = Shown()
    code = """
        from mpi4py import MPI
        class Point: x = 3
        def double(point): return 2 * point.x
        function, point = MPI.COMM_WORLD.bcast((double, Point()) if MPI.COMM_WORLD.rank == 0 else None)
        print(function(point))
    """
    cluster.run_python(textwrap.dedent(code), ranks=2, on_output=shown)
    assert [line for line in shown.text.splitlines() if "rank" not in line] == ["6", "6"]


def test_output_of_any_size_and_of_children_keeps_its_rank(cluster: Cluster) -> None:
    shown = Shown()
    code = """
        from mpi4py import MPI
        import os, sys
        rank = MPI.COMM_WORLD.rank
        for line in range(2000):
            print(rank, line)
        sys.stdout.flush()
        os.system(f"echo child of {rank}")
    """
    cluster.run_python(textwrap.dedent(code), ranks=6, on_output=shown)
    parts = shown.text.split("── rank ")[1:]
    for rank, part in enumerate(parts):
        expected = [f"{rank} {line}" for line in range(2000)] + [f"child of {rank}", "0"]
        assert part.splitlines()[1:] == expected


def test_an_exception_on_one_rank_ends_the_others(cluster: Cluster) -> None:
    shown = Shown()
    code = "from mpi4py import MPI\nif MPI.COMM_WORLD.rank == 3: [][0]\nMPI.COMM_WORLD.Barrier()"
    with pytest.raises(errors.RankFailed, match="IndexError") as failed:
        cluster.run_python(code, ranks=6, on_output=shown)
    assert failed.value.rank == 3
    assert failed.value.node == cluster.nodes[1].private_dns.split(".")[0]
    assert "── rank 3 on" in shown.text and "list index out of range" in shown.errors


def test_a_killed_rank_is_named(cluster: Cluster) -> None:
    code = "from mpi4py import MPI\nimport os\nif MPI.COMM_WORLD.rank == 5: os.kill(os.getpid(), 9)\n"
    with pytest.raises(errors.RankFailed, match=r"rank 5 on .* SIGKILL"):
        cluster.run_python(f"{code}MPI.COMM_WORLD.Barrier()", ranks=6, on_output=Shown())


def test_more_ranks_than_slots_are_refused(cluster: Cluster) -> None:
    with pytest.raises(errors.RemoteCommandFailed, match="6 slots"):
        cluster.run_python("1", ranks=7, on_output=Shown())


def test_shell_on_every_node(cluster: Cluster) -> None:
    shown = Shown()
    cluster.run_shell("hostname", all_nodes=True, on_output=shown)
    names = [node.private_dns.split(".")[0] for node in cluster.nodes]
    assert shown.text == "".join(f"── {name} ──\n{name}\n" for name in names)


def test_a_shells_status_is_reported_with_its_node(cluster: Cluster) -> None:
    names = [node.private_dns.split(".")[0] for node in cluster.nodes]
    shown = Shown()
    with pytest.raises(errors.RemoteCommandFailed, match=f"^{names[1]}: exit status 3$") as failed:
        cluster.run_shell(f"test $(hostname) != {names[1]} || exit 3", all_nodes=True, on_output=shown)
    assert failed.value.status == 3
    assert shown.text == f"── {names[1]} ──\n[exit status 3]\n"


def test_a_background_process_does_not_hold_the_cell(cluster: Cluster) -> None:
    shown = Shown()
    cluster.run_shell("sleep 300 & echo $!", on_output=shown, timeout=30)
    cluster.ssh().run(f"kill {int(shown.text)}")


def left_of(cluster: Cluster, word: str) -> str:
    shown = Shown()
    cluster.run_shell(f"pgrep -f [{word[0]}]{word[1:]} || true", all_nodes=True, on_output=shown)
    return "".join(line for line in shown.text.splitlines() if line.isdigit())


@pytest.mark.parametrize("where", ["shell", "ranks"])
def test_the_stop_button_ends_everything_everywhere(cluster: Cluster, where: str) -> None:
    pressed: list[str] = []

    def press(text: str) -> None:
        if text.endswith("begun\n") and not pressed:
            pressed.append(text)
            _thread.interrupt_main()

    shown = Shown(press)
    with pytest.raises(errors.RemoteInterrupted):
        if where == "shell":
            cluster.run_shell("echo begun; sleep 4321", all_nodes=True, on_output=shown)
        else:
            code = "import os\nfrom mpi4py import MPI\nprint('begun')\nos.system('sleep 4321')"
            cluster.run_python(code, ranks=6, on_output=shown)
    assert left_of(cluster, "sleep 4321") == ""


def test_a_cell_ends_at_its_timeout(cluster: Cluster) -> None:
    with pytest.raises(errors.RemoteInterrupted, match=r"no end within 0\.5 s"):
        cluster.run_python("import time; time.sleep(4321)", on_output=Shown(), timeout=0.5)
    assert left_of(cluster, "python_cell.py") == ""


def test_cells_run_beside_each_other(cluster: Cluster) -> None:
    shown = [Shown() for _ in range(3)]
    threads = [
        threading.Thread(target=cluster.run_python, args=(f"print({i})",), kwargs={"on_output": shown[i]})
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.text for each in shown] == ["0\n", "1\n", "2\n"]
