"""Looks at an evaluation that takes long: whether R waits for input, whether a worker that it waits for is lost.

Short evaluations are never looked at. Must not know of clients.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

from . import workers

# Seconds between looks.
QUESTION_PAUSE = 0.2
RANKS_PAUSE = 2.0
# How soon an MPI call of Rmpi's takes up the word that a worker is lost.
WORD_SECONDS = 0.5


class Watched(Protocol):
    """What is looked at, and told."""

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""

    def look_for_question(self) -> None:
        """Ask the client, if R waits for a line of input."""

    async def waits_in_mpi(self) -> bool:
        """Whether R is in an MPI call that waits."""

    def name_lost(self, lost: list[workers.Worker], fate: str) -> Path | None:
        """Have R's MPI calls end with an error that names them; the file that is there until one has.

        None: the disk does not take it, which was said.
        """

    async def rescue(self, lost: workers.Worker, fate: str) -> None:
        """End an evaluation that can never end."""


class Watch:
    """Looks while R evaluates; ``workers`` is the file that lists R's MPI workers."""

    def __init__(self, watched: Watched, workers: Path) -> None:
        self._watched = watched
        self._workers = workers
        self._ticking = False
        self._checking: asyncio.Task[None] | None = None
        self._named = 0
        self._lost: set[tuple[str, int]] = set()
        self._word = Path()
        self._fate = ""

    def begin(self) -> None:
        """An evaluation begins."""
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(QUESTION_PAUSE, self._tick, 1)

    def _tick(self, count: int) -> None:
        number = self._watched.evaluating()
        if not number:
            self._ticking = False
            return
        self._watched.look_for_question()
        idle = self._checking is None or self._checking.done()
        if count % round(RANKS_PAUSE / QUESTION_PAUSE) == 0 and idle and self._workers.exists():
            self._checking = asyncio.ensure_future(self._check_ranks(number))
        asyncio.get_running_loop().call_later(QUESTION_PAUSE, self._tick, count + 1)

    async def _check_ranks(self, number: int) -> None:
        """A worker is gone: a call that waits for it can never end."""
        lost = await workers.lost(self._workers)
        if not lost or self._watched.evaluating() != number:
            return
        names = {(worker.host, worker.pid) for worker in lost}
        known = number == self._named and names <= self._lost
        # Whoever has taken up the word may go on without these (lapply.R): again only where a call waits.
        if known and not self._word.exists() and not await self._watched.waits_in_mpi():
            return
        if self._watched.evaluating() == number and not (known and self._word.exists()):
            self._fate = await workers.fate(lost[0])
            word = self._watched.name_lost(lost, self._fate)
            if word is None:
                return  # once more at the next look
            self._named, self._lost, self._word = number, names, word
            await asyncio.sleep(WORD_SECONDS)
        # Where waits.c is not, or the call is none of Rmpi's, R hangs.
        hangs = self._word.exists() and await self._watched.waits_in_mpi()
        if hangs and self._word.exists() and self._watched.evaluating() == number:
            await self._watched.rescue(lost[0], self._fate)
