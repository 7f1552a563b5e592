"""Who asks a keeper (team.py, maps/keeper.py), and where; the cell at work: what ranks say as the client's events.

Standard library only. Must not know how ranks are reached.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from .frames import Frame, Kind

# What is ready to be shown, in frames; more waits in the ranks' pipes.
AHEAD = 64


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(path: Path, serve: Serve, *, over: asyncio.Event) -> AsyncIterator[None]:
    """Clients are served there; signals set ``over``. The socket stays after a failure: a sign of lost ranks."""
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path, limit=2**20)
    path.chmod(0o600)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    yield
    path.unlink(missing_ok=True)
    server.close()


class Client:
    """Who asked for a cell: its line, and what ranks say for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.inbox: asyncio.Queue[Frame] = asyncio.Queue(AHEAD)
        self.requests: asyncio.Queue[Frame] = asyncio.Queue()
        self.reader = reader
        self._writer = writer
        self.gone = False
        self.presses = 0

    def emit(self, data: bytes = b"", **fields: Any) -> None:
        """An event, and bytes behind it."""
        if not self.gone:
            self._writer.write(json.dumps(fields).encode() + b"\n" + data)

    async def taken(self) -> None:
        """When the client has taken most of what was emitted."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    @property
    def behind(self) -> int:
        """How many bytes it has not taken."""
        return self._writer.transport.get_write_buffer_size()

    def let_go(self) -> None:
        """Take what was said after the cell's end, so that nobody waits for a place."""
        while not self.inbox.empty():
            self.inbox.get_nowait()


class Cell:
    """A cell at work: who has not ended, who failed first."""

    def __init__(self, client: Client, count: int, where: dict[int, str], values: Path) -> None:
        self.client = client
        self._values = values
        self.unfinished = set(range(count))
        self.failed = False
        self._unkept: dict[int, str] = {}
        self._where = where
        self._decoders: dict[tuple[int, Kind], Any] = {}

    def show(self, frame: Frame) -> None:
        """Events for what a rank said. What it has started may go on printing after it has ended."""
        if frame.rank not in self.unfinished:
            return
        about: dict[str, Any] = {"source": frame.rank, "host": self._where.get(frame.rank)}
        if frame.kind in (Kind.STDOUT, Kind.STDERR):
            key = (frame.rank, frame.kind)
            if key not in self._decoders:
                self._decoders[key] = codecs.getincrementaldecoder("utf-8")("replace")
            text = self._decoders[key].decode(frame.body)
            self.client.emit(**about, stream=frame.kind.name.lower(), text=text)
        elif frame.kind is Kind.VALUE:
            name, _, data = frame.body.partition(b"\0")
            try:
                (self._values / f"to-{name.decode()}.{frame.rank}").write_bytes(data)
            except OSError as exc:
                self._unkept[frame.rank] = f"its value for R could not be kept: {exc}"
        elif frame.kind is Kind.DONE:
            self.client.emit(frame.body, **about, bytes=len(frame.body))
            self.end(frame.rank, self._unkept.get(frame.rank))
        elif frame.kind is Kind.FAILED:
            self.end(frame.rank, frame.body.decode(errors="replace"))

    def end(self, rank: int, error: str | None) -> None:
        """The rank has ended. After the first failure others, which are often its consequence, do not count."""
        if rank in self.unfinished:
            self.unfinished.discard(rank)
            counts = error is not None and not self.failed
            self.failed = self.failed or counts
            self.client.emit(
                source=rank, host=self._where.get(rank), status=int(counts), error=error if counts else None
            )
