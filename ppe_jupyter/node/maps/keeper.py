"""Maps on the master: gives tasks to Python ranks on all slots, and keeps what they answer; outlives clients.

    python3 ~/.ppe/node map_keeper

ranks/cell.py starts it and speaks to it over ~/.ppe/run/team-map-0.sock. Ranks (map_rank.py) start with the first map
and stay. One map at a time; the others wait. Results go to a file (log.py), and from there to whoever asked, so
that a slow or lost client keeps nothing waiting. A rank or node that is lost has its tasks done by the others; the next
map starts new ranks. Standard library only.

A client sends a line of JSON: {"end": true}, or {"do": "last", "wait": …}, or {"do": "map", "count", "entropy",
"mark", "retries", "stop" (at the first failure), "checkpoint" (or null), "slots" (or null)}; then frames: RUN with the
function, VALUE with pickled lists of pickled items till all are there, and INTERRUPT. It gets lines of JSON: ``note``;
``python``, the version, before anything is sent; ``old``, how many bytes of records are of runs before; ``running``;
``bytes`` with so many bytes of records behind the line; ``progress``: done, failed, busy, slots; ``done``, ``error``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..cells.cell import BLOCK_BYTES
from ..ranks.client import Client, listening
from ..ranks.frames import ALL, Frame, Frames, Kind
from ..ranks.processes import RUN, at_work
from .log import MAGIC, Log, Refused
from .run import MapRun
from .workers import Workers

NAME = "team-map-0"
LAST = RUN / "map.last"  # the path of the last map's file
OWN = RUN / "map.log"  # without a checkpoint
# How many results it has, in words (belongings.py), until a client has all.
UNFETCHED = RUN / "map.unfetched"
PROGRESS_SECONDS = 0.25
_GONE = Frame(ALL, Kind.INTERRUPT)
# A client that takes nothing is told no progress either.
BEHIND_BYTES = 2**20


class Keeper:
    """Serves clients."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()
        self._run: MapRun | None = None
        self._workers = Workers(NAME)

    async def serve(self) -> None:
        """Until it is told to end."""
        async with listening(RUN / f"{NAME}.sock", self._client, over=self._over):
            await self._over.wait()
        await self._workers.end()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        with contextlib.closing(writer):
            try:
                request = json.loads(await reader.readline())
            except (ConnectionError, ValueError):  # it has hung up
                return
            if request.get("end"):
                self._over.set()
                return
            reading = asyncio.ensure_future(_read(client))
            try:
                error = await (self._last if request["do"] == "last" else self._map)(client, request)
            except Refused as exc:
                error = str(exc)
            except OSError as exc:
                error = f"the master's disk: {exc}"
            except Exception as exc:  # whatever it is: the client waits for words
                traceback.print_exc()
                error = f"the maps' keeper failed: {exc!r}"
            finally:
                reading.cancel()
            client.emit(error=error, done=True)  # in this order, as ranks/cell.py has it
            await client.taken()

    async def _map(self, client: Client, request: dict[str, Any]) -> str | None:
        client.emit(python=sys.version_info[:2])
        function = b""
        items: list[bytes] = []
        while len(items) < request["count"] or not function:
            frame = await client.requests.get()
            if frame.kind is Kind.INTERRUPT:
                return "it was stopped before it began"
            if frame.kind is Kind.RUN:
                function = frame.body
            else:
                items += pickle.loads(frame.body)  # noqa: S301  # the cluster is the user's own
        if self._turn.locked():
            client.emit(note="waits for the end of another map")
        stopped = asyncio.ensure_future(client.requests.get())
        turn = asyncio.ensure_future(self._turn.acquire())
        try:
            await asyncio.wait({turn, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not turn.done() and _is_press(stopped):
                return "it was stopped before it began"
            await turn
            try:
                return await self._perform(client, request, function, items, stopped)
            finally:
                self._turn.release()
        finally:
            stopped.cancel()
            turn.cancel()

    async def _perform(
        self,
        client: Client,
        request: dict[str, Any],
        function: bytes,
        items: list[bytes],
        stopped: asyncio.Future[Frame],
    ) -> str | None:
        path = OWN
        if request["checkpoint"]:
            path = Path.home() / Path(request["checkpoint"]).expanduser()
        else:
            path.unlink(missing_ok=True)
        header = {name: request[name] for name in ("count", "entropy", "mark")}
        with at_work(), contextlib.closing(Log(path, header)) as log:
            LAST.write_text(str(path), encoding="utf-8")
            client.emit(old=log.end - len(MAGIC))
            self._run = run = MapRun(log, request, function, items, self._workers)
            stopped.add_done_callback(lambda pressed: run.stop() if _is_press(pressed) else None)
            work = asyncio.ensure_future(run.perform())
            _note_unfetched("results of a map")
            try:
                await self._follow(client, run)
            finally:
                error = await work  # the file is its till then
                self._run = None
                done = run.progress()["done"]
                _note_unfetched(f"{done} of {run.count} results of a map" if done else "")
            if error is None and not run.stopped:  # else the client raises an error instead
                await _given(client)
            return error

    async def _last(self, client: Client, request: dict[str, Any]) -> str | None:
        if (run := self._run) is not None:
            client.emit(running=True)
            over, end = run.over, run.log.end  # what comes while it is sent is not given
            if request["wait"]:
                await self._follow(client, run)
            else:
                with _opened(run) as file:
                    await _send(client, file, len(MAGIC), end)
            if over or (request["wait"] and run.over):
                await _given(client)
            return None
        if not LAST.exists():
            return "no map has run yet on this cluster"
        path = Path(LAST.read_text(encoding="utf-8"))
        with path.open("rb") as whole:
            await _send(client, whole.fileno(), len(MAGIC), path.stat().st_size)
        await _given(client)
        return None

    async def _follow(self, client: Client, run: MapRun) -> None:
        """Tell the client of the run till its end."""
        at, told = len(MAGIC), 0.0
        loop = asyncio.get_running_loop()
        with _opened(run) as file:
            while not client.gone:
                over, grown = run.over, run.log.grown()
                at = await _send(client, file, at, run.log.end)
                if over or (loop.time() > told + PROGRESS_SECONDS and client.behind < BEHIND_BYTES):
                    told = loop.time()
                    client.emit(progress=run.progress())
                if over:
                    return
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(grown.wait(), PROGRESS_SECONDS)


def _note_unfetched(words: str) -> None:
    with contextlib.suppress(OSError):
        if words:
            UNFETCHED.write_text(words, encoding="utf-8")
        else:
            UNFETCHED.unlink(missing_ok=True)


async def _given(client: Client) -> None:
    """The client has all of the last map."""
    await client.taken()
    if not client.gone:
        UNFETCHED.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(run: MapRun) -> Iterator[int]:
    file = run.log.opened()
    try:
        yield file
    finally:
        os.close(file)


async def _send(client: Client, file: int, start: int, end: int) -> int:
    """The records of a file from ``start`` to ``end``; where it came to."""
    while not client.gone and start < end and (data := os.pread(file, min(BLOCK_BYTES, end - start), start)):
        start += len(data)
        client.emit(data, bytes=len(data))
        await client.taken()
    return start


async def _read(client: Client) -> None:
    frames = Frames()
    try:
        while data := await client.reader.read(BLOCK_BYTES):
            for frame in frames.feed(data):
                client.requests.put_nowait(frame)
    finally:
        client.gone = True
        client.requests.put_nowait(_GONE)


def _is_press(pressed: asyncio.Future[Frame]) -> bool:
    """Whether it is the stop button; a client that is lost takes nothing with it."""
    return not pressed.cancelled() and pressed.result() is not _GONE


async def _keep() -> None:
    await Keeper().serve()


if __name__ == "__main__":
    os.chdir(Path.home())
    # asyncio.Event of Python 3.9 belongs to the loop in which it is made.
    asyncio.run(_keep())
