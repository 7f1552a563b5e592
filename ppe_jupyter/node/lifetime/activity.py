"""Who works on a node outside of the session's R: cells, MPI programs, and processes that use the processor.

Looks at the login user's processes in /proc. Not work: the session's own R and workers, whatever they poll; sshd;
processes that come and go between two looks, as the panel's questions do (their time counts if the shell that
started them stays). Must not know of evaluations: those the session knows itself. Standard library and no neighbours:
deadman.py takes it along.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
WINDOW_SECONDS = 60.0
# Of a core, over the window. An open RStudio tab that polls takes less than 1 %.
WORKING_SHARE = 0.05
MPI_PROGRAMS = {"mpirun", "mpiexec", "orterun", "prterun", "prun"}
# Our programs (node/__main__.py): cells,
CELLS = {"run_cell", "team_cell"}
# a script that runs without a client (its name is the next word), and who watches runs or fetches from them.
RUN, RUNS = "run_script", "runs"
# They keep ranks that wait for a cell or a map: their mpirun is no work by itself. While one has work it has a file,
# named by its process with this behind it.
KEEPERS = {"team": "a cell on ranks", "map_keeper": "a map"}
BUSY = ".busy"
# What runs below these on a worker belongs to an MPI program on the master, or to R.
MPI_DAEMONS = {"orted", "prted"}
NOT_WORK = {"sshd", "sshd-session", "agent.py"}


class Process(NamedTuple):
    """A process; ``seconds`` of processor time with that of its children that have ended and were waited for."""

    pid: int
    parent: int
    started: int
    seconds: float
    words: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """What it is called: its program and, of an interpreter, the script or module."""
        return {word.rsplit("/", 1)[-1].split(":")[0] for word in self.words[:4]}

    @property
    def ours(self) -> str:
        """Which of our programs it is; "" if it is none."""
        return self.words[2] if len(self.words) > 2 and self.words[1].endswith("/.ppe/node") else ""


def processes(user: int) -> dict[int, Process]:
    """All processes of that user id."""
    found = (_process(entry) for entry in PROC.iterdir() if entry.name.isdigit() and _owner(entry) == user)
    return {process.pid: process for process in found if process is not None}


def _owner(entry: Path) -> int | None:
    with contextlib.suppress(OSError):
        return entry.stat().st_uid
    return None


def _process(entry: Path) -> Process | None:
    with contextlib.suppress(OSError, IndexError):
        fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        words = (entry / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
        ticks = sum(int(field) for field in fields[11:15])
        seconds = ticks / os.sysconf("SC_CLK_TCK")
        return Process(int(entry.name), int(fields[1]), int(fields[19]), seconds, tuple(words))
    return None


def tree(root: int, among: Mapping[int, Process]) -> set[int]:
    """A process and all that descends from it."""
    found = {root}
    while more := {pid for pid, process in among.items() if process.parent in found} - found:
        found |= more
    return found


def outside(among: Mapping[int, Process], *, agent: int, r: Iterable[int]) -> list[Process]:
    """The processes that count: not the agent's own, but what R has started and left to compute."""
    own = tree(agent, among)
    for each in r:
        own = own - tree(each, among) | {each}
    return [process for pid, process in among.items() if pid not in own and not process.names & NOT_WORK]


def on_worker(among: Mapping[int, Process]) -> list[Process]:
    """The processes that count on another node than the master."""
    roots = [pid for pid, process in among.items() if process.names & MPI_DAEMONS]
    own = {pid for root in roots for pid in tree(root, among)}
    return [process for pid, process in among.items() if pid not in own and not process.names & NOT_WORK]


def keepers_at_work(folder: Path) -> set[int]:
    """The process ids of keepers that have work, and of some that were killed in it; ``folder`` is ~/.ppe/run."""
    return {int(each.stem) for each in folder.glob(f"*{BUSY}") if each.stem.isdigit()}


def programs(found: Iterable[Process], *, busy: Collection[int] = ()) -> list[str]:
    """The cells, maps and MPI programs among them, in words. ``busy``: keepers that have work."""
    found = list(found)
    keepers = {each.pid for each in found if each.ours in {*KEEPERS, RUN}}
    cells = [f"a cell (process {each.pid})" for each in found if each.ours in CELLS]
    runs = [f"the run {each.words[-1]}" for each in found if each.ours == RUN]
    watching = [each for each in found if each.ours == RUNS and "watch" in each.words]
    watchers = [f"a client at the run {each.words[4]}" for each in watching if len(each.words) > 4]
    ranks = [
        f"{what} (process {each.pid})"
        for each in found
        for keeper, what in KEEPERS.items()
        if keeper == each.ours and each.pid in busy
    ]
    return [*cells, *ranks, *runs, *watchers] + [
        f"mpirun (process {each.pid})"
        for each in found
        if each.names & MPI_PROGRAMS and each.parent not in keepers
    ]


class Meter:
    """How much of a core processes have used over the last ``WINDOW_SECONDS``."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, int], float] = {}
        self._used: deque[tuple[float, float]] = deque()

    def share(self, found: Iterable[Process], *, now: float) -> float:
        """The share after another look, ``now`` in seconds of any clock."""
        times = {(each.pid, each.started): each.seconds for each in found}
        used = sum(seconds - self._before[key] for key, seconds in times.items() if key in self._before)
        self._before = times
        self._used.append((now, max(0.0, used)))
        while self._used[0][0] <= now - WINDOW_SECONDS:
            self._used.popleft()
        return sum(seconds for _, seconds in self._used) / WINDOW_SECONDS
