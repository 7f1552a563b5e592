"""One map on the ranks: who gets which tasks is tasks.py's, what they answer goes into the file (log.py).

Standard library only; must not know clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import time
import traceback
from collections.abc import Mapping
from typing import Any

from ..ranks.frames import ALL, Frame, Kind
from .log import Kind as Is
from .log import Log, pack
from .tasks import Tasks
from .workers import Workers

# What is at work after a stop may send what it has finished.
CANCEL_SECONDS = 1.2
# Ranks that are all lost are started again so often.
MOST_STARTS = 10


class MapRun:
    """The run that ``request`` asks for (keeper.py)."""

    def __init__(
        self, log: Log, request: Mapping[str, Any], function: bytes, items: list[bytes], workers: Workers
    ) -> None:
        self.log = log
        self.over = False
        self._request = request
        self._function = function
        self._items = items
        self._workers = workers
        self._tasks = Tasks(len(items), done=log.done, retries=request["retries"])
        self._stopped = asyncio.Event()
        self._loading: set[int] = set()
        self._error: str | None = None
        self._lost = self._slots = 0

    def stop(self) -> None:
        """End it; what is finished is kept."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether it was, by the button or by a failure."""
        return self._stopped.is_set()

    @property
    def count(self) -> int:
        """How many tasks it has."""
        return self._tasks.count

    def progress(self) -> dict[str, int]:
        """How far it is."""
        tasks = self._tasks
        return {
            "done": tasks.done,
            "failed": tasks.failed,
            "busy": len(tasks.busy),
            "slots": len(tasks.ranks),
        }

    async def perform(self) -> str | None:
        """Run it to its end; why it could not be, beside failed tasks."""
        begun = time.monotonic()
        try:
            try:
                await self._rounds()
            finally:
                await self._cancel()
        except OSError as exc:
            self._error = str(exc)
        except Exception as exc:  # whatever it is: clients and later maps wait for the end
            traceback.print_exc()
            self._error = f"the map failed on the master: {exc!r}"
        finally:
            seconds = time.monotonic() - begun
            end = {"seconds": seconds, "slots": self._slots, "lost": self._lost, "error": self._error}
            self.over = True
            with contextlib.suppress(OSError):  # a full disk: that is the error
                self.log.append(pack(Is.END, -1, json.dumps(end).encode()))
        return self._error

    async def _rounds(self) -> None:
        for _ in range(MOST_STARTS):
            if not self._tasks.unfinished or self._stopped.is_set():
                return
            if await self._started():
                self._slots = max(self._slots, self._begin())
                await self._work()
        if self._tasks.unfinished and not self._stopped.is_set():
            self._error = self._error or "its ranks were lost again and again"

    async def _started(self) -> bool:
        """Whether there are ranks; not if it was stopped before."""
        starting = asyncio.ensure_future(self._workers.have())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if starting.done():
            if silent := starting.result():
                words = f"{', '.join(silent)}: no answer, so without the slots there; see %ppe_retry"
                self.log.append(pack(Is.NOTE, -1, words.encode()))
            return True
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await self._workers.end()
        return False

    def _begin(self) -> int:
        """Send the function; to how many ranks."""
        self._workers.jobs += 1
        job = {"job": self._workers.jobs, "function": self._function, "entropy": self.log.entropy}
        self._loading = set(sorted(self._workers.living)[: self._request["slots"]])
        for rank in self._loading:
            self._workers.send(rank, Kind.RUN, pickle.dumps(job, 5))
        return len(self._loading)

    async def _work(self) -> None:
        """Till all is done, or no rank is left, or it is stopped."""
        while self._tasks.unfinished and not self._stopped.is_set():
            if not self._loading and not self._tasks.ranks:
                return
            for rank in self._tasks.ranks:
                while (chunk := self._tasks.chunk(rank)) is not None:
                    items = self._items[chunk.start : chunk.stop]
                    part = {"job": self._workers.jobs, "first": chunk.start, "items": items}
                    self._workers.send(rank, Kind.RUN, pickle.dumps(part, 5))
            getting = asyncio.ensure_future(self._workers.inbox.get())
            stopped = asyncio.ensure_future(self._stopped.wait())
            await asyncio.wait({getting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if getting.done():
                self._take(getting.result())
            else:
                getting.cancel()

    async def _cancel(self) -> None:
        """Interrupt who is at work; new ranks for the next map if one does not hear that."""
        if not self._at_work():
            return
        for rank in self._at_work():
            self._workers.send(rank, Kind.INTERRUPT)
        deadline = time.monotonic() + CANCEL_SECONDS
        while self._at_work() and (left := deadline - time.monotonic()) > 0:
            try:
                self._take(await asyncio.wait_for(self._workers.inbox.get(), left))
            except asyncio.TimeoutError:
                break
            except OSError as exc:  # what the others have finished may find room
                self._error = self._error or str(exc)
        if self._at_work():
            await self._workers.end()

    def _at_work(self) -> set[int]:
        return self._loading | set(self._tasks.busy)

    def _take(self, frame: Frame) -> None:
        """What a rank says. Raises OSError if it cannot be written."""
        self._workers.note(frame)
        if frame.kind is Kind.GONE:
            for rank in (
                sorted(self._at_work() | set(self._tasks.ranks)) if frame.rank == ALL else [frame.rank]
            ):
                self._lose(rank, frame.body.decode(errors="replace"))
        elif frame.kind is Kind.FAILED:
            self._loading.discard(frame.rank)
            self._error = (
                f"the function cannot be read on {self._workers.where(frame.rank)}: " + frame.body.decode()
            )
            self.stop()
        elif frame.kind in (Kind.DONE, Kind.PART):
            part = pickle.loads(frame.body)  # noqa: S301  # from a rank of ours
            if part["job"] != self._workers.jobs:
                return
            if frame.rank in self._loading:
                self._loading.discard(frame.rank)
                self._tasks.joins(frame.rank)
            elif frame.rank in self._tasks.ranks:
                self._keep(frame.rank, part, last=frame.kind is Kind.DONE)

    def _keep(self, rank: int, part: Mapping[str, Any], *, last: bool) -> None:
        values, failed = part["values"], set(part["failed"])
        first = self._tasks.first(rank)
        again = self._tasks.answered(rank, len(values), failed, seconds=part["seconds"], last=last)
        records = [pack(Is.SAID, index, json.dumps(said).encode()) for index, *said in part["said"]]
        records += [
            pack(Is.ERROR if index in failed else Is.RESULT, index, value)
            for index, value in enumerate(values, first)
            if index not in again
        ]
        if records:
            self.log.append(b"".join(records))
        if failed - again and self._request["stop"]:
            self.stop()

    def _lose(self, rank: int, why: str) -> None:
        if rank not in self._loading and rank not in self._tasks.ranks:
            return
        self._loading.discard(rank)
        self._lost += 1
        given_up = self._tasks.lost(rank)
        name = f"rank {rank} on {self._workers.where(rank)}"
        records = pack(Is.NOTE, -1, f"{name} was lost: {why}; its tasks go to others".encode())
        if given_up is not None:
            words = f"the ranks that ran it were lost, the last with: {why}"
            records += pack(
                Is.ERROR, given_up, pickle.dumps({"error": words, "traceback": "", "exception": None})
            )
            if self._request["stop"]:
                self.stop()
        self.log.append(records)
