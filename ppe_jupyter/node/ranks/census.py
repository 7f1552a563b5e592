"""Every MPI rank of the cluster: where it runs, what it uses, and the MPI call that it is in.

    census.py                  on the master: asks all nodes at once; JSON {"ranks": […], "silent": [node]}
    census.py here             one node's: {"ranks": […], "killed": {pid: [bytes, of bytes]}}
    census.py why PID          what a process here had when the kernel killed it for memory, in words; or nothing
    census.py kill JOB RANK    on the master: end a rank; its row

A rank is a process that has libmpi and was started by mpirun or MPI_Comm_spawn. The call is read from its stack
(eu-stack or gdb), since a rank that waits spins or naps: the kernel knows nothing of it. Run in ~/.ppe; standard
library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..cells.cell import NODE, hosts
from .stacks import mpi_calls

HERE = "exec python3 ~/.ppe/node "
SAMPLE_SECONDS = 0.25
ANSWER_SECONDS = 15.0
LOG_SECONDS = 5.0
# A control group that has used up its own limit tells that before.
KILLED = re.compile(
    r"memory: usage \d+kB, limit (\d+)kB|"
    r"(Memory cgroup)? ?[Oo]ut of memory: Killed process (\d+) .*?anon-rss:(\d+)kB, file-rss:(\d+)kB"
)
# Where a container's host keeps what its kernel told of it (dmesg is the host's own, or refused).
LOG_FILE = Path("/var/log/kern.log")
BUSY_PERCENT = 20.0

Row = dict[str, Any]


def here(*, deep: bool = True) -> Row:
    """This node's ranks; not ``deep``: no stack is read, which stops a rank for a moment, nor the kernel's log."""
    found = {pid: told for pid in _own_processes() if (told := _rank(pid))}
    # A child that R has forked is no rank of its own.
    ranks = {pid: told for pid, told in found.items() if _parent(pid) not in found}
    before = {pid: _ticks(pid) for pid in ranks}
    begun = time.monotonic()
    calls = mpi_calls(ranks) if deep else dict.fromkeys(ranks, "")
    time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - begun)))
    spent = time.monotonic() - begun
    rows = []
    for pid, told in ranks.items():
        with contextlib.suppress(OSError, IndexError):
            cpu = 100 * (_ticks(pid) - before[pid]) / os.sysconf("SC_CLK_TCK") / spent
            # One that computes gets little of a machine with too much to do.
            busy = cpu > BUSY_PERCENT or (cpu > 0 and _fields(pid)[0] == "R")
            rows.append(
                {**told, "pid": pid, "node": socket.gethostname(), "cpu": round(cpu, 1), "memory": _memory(pid),
                 "seconds": _age(pid), "call": _doing(calls[pid], busy)}
            )  # fmt: skip
    return {"ranks": rows, "killed": killed(_kernel_log()) if deep else {}}


def _doing(call: str | None, busy: bool) -> str:
    if call is None:
        return "?"
    return f"waits in {call}" if call else "computes" if busy else "sleeps"


def killed(kernel_log: str) -> dict[str, list[int]]:
    """The processes that the kernel killed for memory: what they had, and what there is, in bytes."""
    total = 0
    with contextlib.suppress(OSError):
        total = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) * 1024
    found, limit = {}, 0
    for own_limit, own, pid, anonymous, of_files in KILLED.findall(kernel_log):
        if own_limit:
            limit = int(own_limit) * 1024
        else:
            found[pid] = [(int(anonymous) + int(of_files)) * 1024, limit if own else total]
    return found


def _kernel_log() -> str:
    for command in (["dmesg"], ["sudo", "-n", "dmesg"], ["cat", str(LOG_FILE)]):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOG_SECONDS, check=True)
            return done.stdout
    return ""


def _own_processes() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and folder.stat().st_uid == os.getuid():
                yield int(folder.name)


def _rank(pid: int) -> Row | None:
    """Its job and rank in it, if it is one."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        session = environment.get("PPE_SESSION") == str(pid)
        if not session and "libmpi.so" not in Path(f"/proc/{pid}/maps").read_text():
            return None
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        job = environment["PMIX_NAMESPACE"]
        rank = int(environment.get("PMIX_RANK") or environment["OMPI_COMM_WORLD_RANK"])
    except (OSError, KeyError, ValueError):
        return None
    ours = command[1:2] == [str(NODE)]
    words = command[2:4] if ours else [os.path.basename(word) for word in command[:2] if word]  # noqa: PTH119
    return {
        "job": job,
        "rank": rank,
        "program": "R session" if session else " ".join(words),
        "session": environment["PPE_RUN"] if session else "",
    }


def _fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(_fields(pid)[1])
    return 0


def _ticks(pid: int) -> int:
    with contextlib.suppress(OSError):
        return sum(map(int, _fields(pid)[11:13]))
    return 0


def _memory(pid: int, *, shared: bool = True) -> int:
    """Its resident bytes, with those that others share or without."""
    resident, common = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident if shared else resident - common) * os.sysconf("SC_PAGE_SIZE")


def _age(pid: int) -> float:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return round(max(0.0, uptime - int(_fields(pid)[19]) / os.sysconf("SC_CLK_TCK")), 1)


# --- On the master


async def everywhere() -> Row:
    """All nodes' ranks, R's workers by the ranks that R knows them by; those that are gone too."""
    return joined(await answers("census here"))


async def answers(what: str, *, seconds: float = ANSWER_SECONDS) -> dict[str, Row | None]:
    """What each node says to that, by name, the master first; None of one that does not answer."""
    names = [name for name, _ in hosts()]
    told = await asyncio.gather(*(_ask(name, what, seconds) for name in names))
    return dict(zip(names, told))  # Python 3.9 on nodes


def joined(told: Mapping[str, Row | None]) -> Row:
    """The ranks of the nodes' answers, and the nodes that gave none."""
    rows = [row for answer in told.values() if answer for row in answer["ranks"]]
    workers = list(_workers())
    known = {(worker["node"], worker["pid"]): worker for worker in workers}
    for row in rows:
        if run := row.pop("session"):
            row.update(job=_session_job(Path(run)), rank=0)
        elif worker := known.pop((row["node"], row["pid"]), None):
            row.update(job=worker["job"], rank=worker["rank"], program="R worker")
    for worker in known.values():
        answer = told.get(worker["node"])
        memory = answer["killed"].get(str(worker["pid"])) if answer else None
        gone = f"was killed: {memory_words(*memory)}" if memory else "is gone"
        call = gone if answer else "its node does not answer"
        rows.append(
            {**worker, "program": "R worker", "cpu": None, "memory": None, "seconds": None, "call": call}
        )
    rows.sort(key=lambda row: (row["job"] != "R", row["job"], row["rank"]))
    return {"ranks": rows, "silent": [name for name, answer in told.items() if not answer]}


def memory_words(used: int, total: int) -> str:
    """``15.6 of 15.8 GB``."""
    return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"


def _session_job(run: Path) -> str:
    """What the R of that folder (~/.ppe/run, of a session beside main, or of a run) and its workers are called."""
    name = run.parent.name
    return "R" if name == ".ppe" else f"R of {run.name}" if name == "runs" else f"R {name}"


def _workers() -> Iterator[Row]:
    """R's workers, of all sessions, as slaves.json lists them."""
    folder = Path.home() / ".ppe"
    others = (*sorted(folder.glob("sessions/*/run/slaves.json")), *sorted(folder.glob("runs/*/slaves.json")))
    for path in (folder / "run" / "slaves.json", *others):
        with contextlib.suppress(OSError, ValueError, KeyError):
            for each in json.loads(path.read_text()):
                yield {
                    "job": _session_job(path.parent),
                    "rank": each["rank"],
                    "node": each["host"],
                    "pid": each["pid"],
                }


async def _ask(name: str, what: str, seconds: float = ANSWER_SECONDS) -> Row | None:
    where = ["sh", "-c"] if name == socket.gethostname() else ["ssh", "-o", "ConnectTimeout=5", name]
    process = await asyncio.create_subprocess_exec(
        *where,
        f"{HERE}{what}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds)
        return dict(json.loads(out))
    except (asyncio.TimeoutError, ValueError):
        if process.returncode is None:
            process.kill()
            await process.wait()
        return None


async def kill(job: str, rank: int) -> Row:
    """End the rank; its row, or {"error"}."""
    found = await everywhere()
    alive = (row for row in found["ranks"] if row["cpu"] is not None)
    row: Row | None = next((row for row in alive if (row["job"], row["rank"]) == (job, rank)), None)
    if row is None:
        return {"error": f"there is no rank {rank} of {job}"}
    if row["program"] == "R session":
        return {"error": "rank 0 is R itself: %remote_restart ends it"}
    await _ask(row["node"], f"census end {row['pid']}")
    return row


def end(pid: int) -> Row:
    """SIGTERM, and SIGKILL if that is not enough."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(50):
            time.sleep(0.02)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    return {}


def main(arguments: list[str]) -> None:
    """Do what they say; JSON to standard output."""
    command, *rest = arguments or ["everywhere"]
    if command == "everywhere":
        answer = asyncio.run(everywhere())
    elif command == "kill":
        answer = asyncio.run(kill(rest[0], int(rest[1])))
    elif command == "why":
        memory = killed(_kernel_log()).get(rest[0])
        sys.stdout.write(memory_words(*memory) if memory else "")
        return
    else:
        answer = end(int(rest[0])) if command == "end" else here()
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
