"""The MPI call that a process is in, read from its stack by a debugger. Must not know whose processes these are."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

STACK_SECONDS = 5.0
# Of a node with many ranks, so that its answer is in time: so many debuggers at once, for so long in all.
DEBUGGERS_AT_ONCE = 8
STACKS_SECONDS = 9.0
# The innermost frames: MPI and what called it.
FRAMES = "32"
DEBUGGERS = (
    ["eu-stack", "-1", "-n", FRAMES, "-p"],
    ["sudo", "-n", "eu-stack", "-1", "-n", FRAMES, "-p"],
    ["gdb", "-nx", "-batch", "-ex", f"bt {FRAMES}", "-p"],
)
CALL = re.compile(r"\bP?(MPI_[A-Z]\w+)")


def mpi_calls(pids: Iterable[int]) -> dict[int, str | None]:
    """The MPI call that each is in, "" if in none; None if its stack was not read in time."""
    pids = list(pids)
    deadline = time.monotonic() + STACKS_SECONDS
    with ThreadPoolExecutor(DEBUGGERS_AT_ONCE) as pool:
        stacks = pool.map(lambda pid: _stack(pid, deadline), pids)
        return {pid: None if stack is None else mpi_call(stack) for pid, stack in zip(pids, stacks)}


def mpi_call(stack: str) -> str:
    """The MPI function that the program has called, "" if it is in none: the outermost in the stack."""
    found = CALL.findall(stack)
    return str(found[-1]) if found else ""


def _stack(pid: int, deadline: float) -> str | None:
    """As a debugger prints it, "" if none can; None after the deadline (by time.monotonic())."""
    for command in DEBUGGERS:
        timeout = min(STACK_SECONDS, deadline - time.monotonic())
        if timeout <= 0:
            break
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            environment = {**os.environ, "DEBUGINFOD_URLS": ""}
            done = subprocess.run(
                [*command, str(pid)], capture_output=True, text=True, timeout=timeout, env=environment
            )
            if "#0 " in done.stdout:
                return done.stdout
    return "" if time.monotonic() < deadline else None
