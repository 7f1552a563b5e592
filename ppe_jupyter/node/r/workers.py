"""The workers that R has spawned over the nodes: whether they live, and whether R hangs in MPI for them.

``slaves.json`` is written by the hooks of Rprofile.site while workers run. Must not know of the session.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from .. import whole

# Share of kernel time in an MPI call that waits: Open MPI yields the processor all the time (measured: 0.5 to 0.7;
# R that computes: below 0.1).
YIELDING = 0.25
# sched_yield() and the kinds of nanosleep(), of x86_64 and arm64. R's own Sys.sleep() waits in select().
YIELDS = {"24", "35", "230", "124", "101", "115"}

# A node that does not answer within them is asked once more, then it is lost.
ANSWER_SECONDS = 3


@dataclass(frozen=True)
class Worker:
    """One MPI worker of R's; ``silent``: its node does not answer."""

    rank: int
    host: str
    pid: int
    silent: bool = False

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def listed(path: Path) -> list[Worker]:
    """The workers on the list."""
    try:
        return [Worker(int(w["rank"]), str(w["host"]), int(w["pid"])) for w in json.loads(path.read_text())]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or being closed


async def lost(path: Path) -> list[Worker]:
    """The workers on the list that are processes no more; one ssh for each other node."""
    workers = listed(path)
    by_host = _by_host(workers)
    answers = await asyncio.gather(*(_missing(host, pids) for host, pids in by_host.items()))
    missing = dict(zip(by_host, answers))  # Python 3.9 on nodes
    silent = {host for host, pids in missing.items() if pids is None}
    # What R itself ended meanwhile is off the list.
    now = [worker for worker in listed(path) if worker.host in missing]
    return [
        replace(worker, silent=worker.host in silent)
        for worker in now
        if worker.host in silent or worker.pid in (missing[worker.host] or ())
    ]


async def fate(worker: Worker) -> str:
    """What has become of a lost one, in words."""
    if worker.silent:
        return "lost, as its node does not answer"
    words = await _ask(worker.host, f"exec python3 ~/.ppe/node census why {worker.pid}")
    return f"killed: {' '.join(words)}" if words else "lost"


def name_lost(folder: Path, lost: list[Worker], fate: str) -> Path:
    """Have the MPI calls of the R whose PPE_RUN that is end with an error; the file that is there until one has.

    Raises OSError.
    """
    more = f" ({len(lost)} workers in all)" if len(lost) > 1 else ""
    # For dispatch.R, which goes on without them.
    (folder / "lost-ranks").write_text(" ".join(str(worker.rank) for worker in lost))
    return whole.write(folder / "lost", f"{lost[0]} was {fate}{more}")


async def signal_all(path: Path, number: int) -> None:
    """Signal the workers on the list."""
    groups = _by_host(listed(path)).items()
    commands = [(host, f"kill -{number} {' '.join(map(str, pids))}") for host, pids in groups]
    await asyncio.gather(*(_ask(host, command) for host, command in commands))


def _by_host(workers: list[Worker]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for worker in workers:
        found.setdefault(worker.host, set()).add(worker.pid)
    return found


async def lost_daemons(path: Path) -> set[str]:
    """The nodes on that list ("host pid") where Open MPI's daemon, without which it cannot go on, is no more."""
    try:
        daemons = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return set()
    answers = await asyncio.gather(
        *(_ask(host, f"grep -qxE 'orted|prted' /proc/{pid}/comm || echo lost") for host, pid in daemons)
    )
    return {host for (host, _), answer in zip(daemons, answers) if answer != []}


async def _missing(host: str, pids: set[int]) -> set[int] | None:
    """Those that are processes no more; None if the node does not answer, twice."""
    if host == socket.gethostname():
        return {pid for pid in pids if not os.path.isdir(f"/proc/{pid}")}  # noqa: PTH112
    numbers = " ".join(map(str, sorted(pids)))
    command = f"for p in {numbers}; do [ -d /proc/$p ] || echo $p; done"
    answer = await _ask(host, command)
    if answer is None:
        answer = await _ask(host, command)
    return None if answer is None else {int(word) for word in answer}


async def _ask(host: str, command: str) -> list[str] | None:
    """The words that the command prints there; None if the node does not answer."""
    process = await asyncio.create_subprocess_exec(
        *("ssh", "-o", f"ConnectTimeout={ANSWER_SECONDS}", host, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), ANSWER_SECONDS)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        return None
    return None if process.returncode == 255 else out.decode().split()


async def waits(pid: int, seconds: float = 1.0, looks: int = 20) -> bool:
    """Whether the process is in an MPI call that waits: it polls without a break, or naps in between (patience.c)."""
    before = _times(pid)
    yields = 0
    for _ in range(looks):
        await asyncio.sleep(seconds / looks)
        yields += _call(pid) in YIELDS
    after = _times(pid)
    if not before or not after:
        return False
    user, system = (after[i] - before[i] for i in range(2))
    # On a machine with more to do than processors it gets a few ticks only.
    return yields > looks / 3 or (user + system >= 3 and system / (user + system) > YIELDING)


def _call(pid: int) -> str:
    """The number of the system call that the process is in; "running" in none."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except (OSError, IndexError):
        return ""


def _times(pid: int) -> list[int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [int(fields[11]), int(fields[12])]
