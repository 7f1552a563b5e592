"""The end of a process that need not be our child."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path


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
