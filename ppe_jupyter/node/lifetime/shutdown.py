"""How the master ends: its shutdown, what EC2 makes of that, and the line on the console that tells when it was.

Must not know when, nor why.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHUTDOWN = ("sudo", "-n", "shutdown", "-h", "now")
# EC2 shows the console's end of a stopped instance too: so any client learns when this one stopped.
CONSOLE = ("sudo", "-n", "tee", "-a", "/dev/console")
CONSOLE_SECONDS = 10
# It may have boto3 to install, and all nodes to ask for files.
TERMINATION, TERMINATION_SECONDS = "termination", 600.0
TOO_SLOW = f"that took more than {TERMINATION_SECONDS:.0f} s"


def in_doubt(why: str) -> bool:
    """Whether EC2 may have been told to terminate nevertheless."""
    return why == TOO_SLOW


async def terminates(folder: Path, jobs: Sequence[str]) -> str:
    """Have a shutdown terminate after these jobs, whose results are stored; why it does not, or "".

    Without jobs it stops, as ever. ``folder`` is ~/.ppe.
    """
    command = [sys.executable, str(folder / "node"), TERMINATION, *jobs]
    try:
        status, out, error = await _run(command, timeout=TERMINATION_SECONDS)
    except subprocess.TimeoutExpired:
        return TOO_SLOW
    except OSError as exc:
        return str(exc)
    return out or (error.splitlines() or ["it failed"])[-1] * bool(status)


async def shut_down() -> str:
    """Begin; why that was refused, or ""."""
    status, _, error = await _run(SHUTDOWN)
    return f"`{' '.join(SHUTDOWN)}` was refused: {error}" if status else ""


def say_on_console(*, spent_usd: float) -> None:
    """When this was, and what was spent by then."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = f"ppe-watchdog: parking at {at}, spent {spent_usd:.6f}\n"
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        how: dict[str, Any] = {"text": True, "capture_output": True, "timeout": CONSOLE_SECONDS}
        subprocess.run(CONSOLE, input=line, check=False, **how)


async def _run(command: Sequence[str], *, timeout: float | None = None) -> tuple[int, str, str]:
    """Its status, and what it prints."""
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": timeout}
    done = await asyncio.to_thread(lambda: subprocess.run(command, check=False, **how))
    out, error = (text.decode(errors="replace").strip() for text in (done.stdout, done.stderr))
    return done.returncode, out, error
