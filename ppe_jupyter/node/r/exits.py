"""The end of a process that need not be our child: it is waited for, and asked for by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path


def signal_first_thread(pid: int, number: int) -> None:
    """Send a signal whose handler may run on the process's first thread only; nothing if the process is gone.

    The kernel gives a signal that is for the whole process to any thread that does not block it: surely to another
    one (OpenBLAS's, Open MPI's) while the first is in that very signal's handler.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "tgkill"):
        libc.tgkill(pid, pid, number)
    else:  # glibc before 2.30
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def watch_exit(pid: int, on_exit: Callable[[], None]) -> None:
    """Call back in the running event loop when that process ends."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        loop.call_soon(on_exit)
        return
    except (OSError, AttributeError):  # Linux before 5.3
        _poll_exit(pid, on_exit)
        return

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        on_exit()

    loop.add_reader(descriptor, ended)


def _poll_exit(pid: int, on_exit: Callable[[], None]) -> None:
    try:
        alive = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        alive = False
    if alive:
        asyncio.get_running_loop().call_later(0.5, _poll_exit, pid, on_exit)
    else:
        on_exit()
