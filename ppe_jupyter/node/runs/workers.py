"""The MPI workers of a script's R, which nobody else looks after: one that is lost would let R wait for ever.

What watch.py is for the sessions' R. Must not know of runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from ..r import workers
from ..r.watch import Watch

WORKERS = "slaves.json"
# The script's R writes its own number there before it begins.
PID = "pid"


class ScriptWorkers:
    """``folder`` is what R knows as PPE_RUN."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._over = False

    def look_after(self) -> None:
        """From now on, beside whatever else this process does."""
        threading.Thread(target=lambda: asyncio.run(self._watch()), daemon=True).start()

    def forget(self) -> None:
        """R has ended: look no more, and list its workers no longer."""
        self._over = True
        for name in (WORKERS, "lost", "lost-ranks"):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    async def _watch(self) -> None:
        Watch(self, self._folder / WORKERS).begin()
        await asyncio.Event().wait()

    # --- What the watch asks and tells

    def evaluating(self) -> int:
        """All that R does is one evaluation."""
        return 0 if self._over else 1

    def look_for_question(self) -> None:
        """It has no standard input."""

    async def waits_in_mpi(self) -> bool:
        """Whether R is in an MPI call that waits."""
        pid = self._pid()
        return pid is not None and await workers.waits(pid)

    def name_lost(self, lost: list[workers.Worker], fate: str) -> Path | None:
        """Have R's MPI calls end with an error that names them; None: the disk does not take it."""
        with contextlib.suppress(OSError):
            return workers.name_lost(self._folder, lost, fate)
        return None

    async def rescue(self, lost: workers.Worker, fate: str) -> None:
        """End R, whose call can never end."""
        pid = self._pid()
        if pid is not None:
            line = f"{lost} was {fate} during an MPI call, which can never end: R is ended\n"
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), line.encode())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / PID).read_text(encoding="ascii"))
        return None
