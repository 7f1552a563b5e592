"""A cluster at a glance, for whoever watches it: sessions, jobs, ranks, each node's load and volumes; in one question.

    glance.py          on the master: asks its agent and all nodes at once; one JSON object
    glance.py here     one node's: its ranks, load and mounted volumes

Asked every few seconds while somebody watches, so it disturbs nothing: the ranks' stacks are not read (census.py does
that). A container sees its host's totals, but its own processes only: its load is theirs. Run in ~/.ppe; standard
library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from .agent import ask
from .ranks import census

FOLDER = Path.home() / ".ppe"
FSTAB = Path("/etc/fstab")
KEPT_VOLUME = re.compile(r"^\S+\s+(\S+)\s.*x-ppe\.volume=(vol-[0-9a-f]+)", re.MULTILINE)
# Of the list of jobs only its end is read.
JOBS_BYTES = 64 * 1024
JOBS = 20

Row = dict[str, Any]


def here() -> Row:
    """This node: its ranks, what of its processors and memory (bytes) is in use, which volumes are mounted where."""
    begun, before = time.monotonic(), _cpu_seconds()
    ranks = census.here(deep=False)
    cores = os.cpu_count() or 1
    share = (_cpu_seconds() - before) / (time.monotonic() - begun) / cores
    used, total = _memory()
    load = {"cpu": round(min(1.0, max(0.0, share)), 3), "cores": cores, "memory": used, "total": total}
    return {**ranks, "load": load, "mounts": _mounts()}


def _contained() -> bool:
    """Whether this is a container: process 2 is the kernel's own on any machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/2/comm").read_text() != "kthreadd\n"
    return True


def _cpu_seconds() -> float:
    """Of all processors, used by anybody."""
    hertz = os.sysconf("SC_CLK_TCK")
    if _contained():
        return sum(map(census._ticks, _pids())) / hertz
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / hertz


def _memory() -> tuple[int, int]:
    """What is used, and what there is."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    total = int(found["MemTotal"]) * 1024
    if not _contained():
        return total - int(found["MemAvailable"]) * 1024, total
    used = 0
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError):
            used += census._memory(pid, shared=False)
    return used, total


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _mounts() -> dict[str, str]:
    """Where the volumes are that this package has mounted."""
    with contextlib.suppress(OSError):
        found = KEPT_VOLUME.findall(FSTAB.read_text())
        return {volume: place for place, volume in found if os.path.ismount(place)}
    return {}


# --- On the master


async def everything() -> Row:
    """What the agent and all nodes say."""
    loop = asyncio.get_running_loop()
    status, told = await asyncio.gather(
        loop.run_in_executor(None, ask, "status"), census.answers("glance here")
    )
    for session in status.get("sessions", ()):
        with contextlib.suppress(OSError, IndexError, TypeError):
            session["memory"] = census._memory(session["pid"])
    nodes = {
        name: {"load": answer["load"], "mounts": answer["mounts"]} for name, answer in told.items() if answer
    }
    return {**census.joined(told), "agent": status, "jobs": list(_jobs()), "nodes": nodes}


def _jobs() -> list[Row]:
    """The last jobs of all sessions, the newest first."""
    found: dict[tuple[str, int], Row] = {}
    for path in FOLDER.glob("log/*/jobs.jsonl"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - JOBS_BYTES))
            for line in file.read().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    found[path.parent.name, row["number"]] = {**row, "session": path.parent.name}
    return sorted(found.values(), key=lambda row: -float(row["submitted"]))[:JOBS]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(here() if sys.argv[1:] == ["here"] else asyncio.run(everything())))
