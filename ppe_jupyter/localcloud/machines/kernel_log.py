"""What the kernel says when it kills a process for memory, passed on to the container that the process was in.

All containers share the host's kernel log, which they may not read and which has the host's process numbers. So each
has a file of its own (inside: /var/log/kern.log) with what concerns it, and the numbers that it knows. Such a number
can be read as long as the process is there: when the kernel has chosen it, which is before its end.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

DEVICE = Path("/dev/kmsg")
RECORD_BYTES = 8192  # no record is longer
CHOSEN = re.compile(r"^oom-kill:.*task_memcg=/lxc\.payload\.([^/,]+).*[,]pid=(\d+),")
KILLED = re.compile(r"(?<=Killed process )\d+\b")
LIMIT = "memory: usage "  # of a control group, and its limit


class Kills:
    """Takes the kernel's lines one after the other; ``inside`` is the number of a process in its container."""

    def __init__(self, inside: Callable[[str], str]) -> None:
        self._inside = inside
        self._limit = self._name = self._pid = self._number = ""

    def feed(self, line: str) -> tuple[str, str] | None:
        """The container's name and what it is told, when a process of one was killed."""
        if "invoked oom-killer" in line:
            self._limit = self._name = ""
        elif line.startswith(LIMIT):
            self._limit = f"{line}\n"
        elif chosen := CHOSEN.search(line):
            self._name, self._pid = chosen.groups()
            self._number = self._inside(self._pid)
        elif (killed := KILLED.search(line)) and self._name and self._number and killed[0] == self._pid:
            return self._name, f"{self._limit}{KILLED.sub(self._number, line)}\n"
        return None


def follow(instances: Path) -> None:
    """Tell the containers below ``instances`` from now on, for ever; returns where there is no kernel log to read."""
    kills = Kills(_number_inside)
    try:
        log = os.open(DEVICE, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(log, 0, os.SEEK_END)
    except OSError:
        return
    while True:
        try:
            record = os.read(log, RECORD_BYTES).decode(errors="replace")
        except BrokenPipeError:  # some were overwritten before they were read
            continue
        if told := kills.feed(record.partition(";")[2].partition("\n")[0]):
            name, lines = told
            with contextlib.suppress(FileNotFoundError), (instances / name / "kern.log").open("r+") as file:
                file.seek(0, os.SEEK_END)
                file.write(lines)


def _number_inside(pid: str) -> str:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))
    return ""
