"""The MPI workers of an R that no session looks after, a script's or RStudio's: a lost one would let it wait for ever.

``lone_r FOLDER`` looks after those of its parent process, as long as that lives. Must not know of runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from . import workers
from .watch import RANKS_PAUSE, Watch

WORKERS = "slaves.json"
# R writes its own number there before it begins.
PID = "pid"


class LoneR:
    """``folder`` is what R knows as PPE_RUN. ``ends``: an R that hangs for ever is ended."""

    def __init__(self, folder: Path, *, ends: bool) -> None:
        self._folder = folder
        self._ends = ends
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
        watch = Watch(self, self._folder / WORKERS)
        while True:
            watch.begin()
            await asyncio.sleep(RANKS_PAUSE)

    # --- What the watch asks and tells

    def evaluating(self) -> int:
        """All that R does while it has workers is one evaluation."""
        return int(not self._over and (self._folder / WORKERS).exists())

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
        pid = self._pid() if self._ends else None
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


def main(folder: str) -> None:
    """Look after the parent's workers."""
    parent = os.getppid()
    lone = LoneR(Path(folder), ends=False)
    lone.look_after()
    while os.getppid() == parent:
        time.sleep(RANKS_PAUSE)


if __name__ == "__main__":
    main(sys.argv[1])
