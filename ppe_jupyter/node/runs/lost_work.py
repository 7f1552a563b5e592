"""What is to follow runs and jobs that ended without a word: by a crash of the node or of what ran them.

Runs in the agent. After a boot it waits for whoever brought the node back: if a client sets the cluster up, somebody is
there, and the cluster does not end for what was lost; else it ends as was asked. Must not know what ran.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from . import runs

# A client that has started or rebooted the node sets the cluster up within that time.
SET_UP_SECONDS = 300.0
LOOK_SECONDS = 30.0


class Jobs(Protocol):
    """The jobs of the agent's R sessions."""

    def follow_lost(self, *, end: bool) -> None:
        """Do what is to follow the jobs that were lost with an earlier agent; ``end``: the cluster's end too."""


class LostWork:
    """``end``: the cluster did not end by itself in its earlier life, where all that ran was given up."""

    def __init__(self, jobs: Jobs, *, end: bool) -> None:
        self._jobs = jobs
        self._end = end
        self._set_up = asyncio.Event()
        self._known: set[str] = set()

    def set_up(self) -> None:
        """A client has set the cluster up."""
        self._set_up.set()

    async def follow(self) -> None:
        """Follow up all that was lost, and what will be, until cancelled."""
        try:
            await asyncio.wait_for(self._set_up.wait(), SET_UP_SECONDS)
            self._end = False
        except asyncio.TimeoutError:
            pass
        self._jobs.follow_lost(end=self._end)
        await self._look(end=self._end)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look(end=True)

    async def _look(self, *, end: bool) -> None:
        for run in await asyncio.to_thread(runs.every):
            if run.abandoned and run.name not in self._known:
                self._known.add(run.name)  # once, though the disk may not take that it was done
                follow_run(run.name, end=end)


def follow_run(name: str, *, end: bool) -> None:
    """Have a process of its own do it, which may take long, and counts as work."""
    program = [sys.executable, str(Path.home() / ".ppe" / "node"), runs.SUPERVISOR]
    command = [*program, "--lost", *(["--end"] if end else []), name]
    # No child of the agent's, which would be no work (activity.py).
    subprocess.run(
        ["setsid", "--fork", *command], cwd=Path.home() / ".ppe", stdin=subprocess.DEVNULL, check=False
    )
