"""Many connections to one address over one pair of byte streams; both ends of it.

    relay.py unix:/PATH | tcp:127.0.0.1:PORT    the far end, on standard input and output

sshd allows ten sessions a connection and a browser opens more, so all share one. A frame is a head (kind, stream, size)
and its bytes. Each direction of a stream has a window: who sends waits until the receiver has passed on what it got, so
a slow reader holds up nobody else and no end keeps more than a window for it. An end of file is one direction's only.
Must not know what is carried (HTTP, WebSocket, anything). Standard library only: a node runs it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import os
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

WINDOW = 2**20
CHUNK = 2**15
HEAD = struct.Struct(">BII")


class Kind(enum.IntEnum):
    """What a frame says of its stream."""

    HELLO = 0  # of the whole: JSON, the first frame of the far end
    OPEN = 1
    DATA = 2
    END = 3  # no more bytes in this direction
    RESET = 4  # broken off, with the reason
    CREDIT = 5  # the size says how many bytes more may come; the frame has none


class Garbled(Exception):
    """What came is not of this protocol."""


class Refused(Exception):
    """The address does not take the connection; says why."""


Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Pair]]


def frame(kind: Kind, stream: int = 0, data: bytes = b"") -> bytes:
    """A frame as bytes."""
    return HEAD.pack(kind, stream, len(data)) + data


class Frames:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, int, int, bytes]]:
        """The frames that are complete now: kind, stream, size, bytes. Raises Garbled."""
        self._buffer += data
        found, at = [], 0
        while len(self._buffer) >= at + HEAD.size:
            number, stream, size = HEAD.unpack_from(self._buffer, at)
            if number > max(Kind) or size > (WINDOW if number == Kind.CREDIT else CHUNK):
                raise Garbled(f"a frame of kind {number} and size {size}")
            kind, begin = Kind(number), at + HEAD.size
            end = begin + (0 if kind is Kind.CREDIT else size)
            if len(self._buffer) < end:
                break
            found.append((kind, stream, size, bytes(self._buffer[begin:end])))
            at = end
        del self._buffer[:at]
        return found


class _Stream:
    """One connection: what came for it and was not passed on yet, and how much may be sent."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()  # b"" is the end
        self.expected = WINDOW
        self.credit = WINDOW
        self.more_credit = asyncio.Event()
        self.answered = False
        self.reset: str | None = None


class Relay:
    """One end. ``send`` passes bytes to the other end, in turn; ``dial`` makes the far end's connections."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], dial: Dial | None = None) -> None:
        self._send_bytes = send
        self._dial = dial
        self._turn = asyncio.Lock()
        self._frames = Frames()
        self._streams: dict[int, _Stream] = {}
        self._last = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.hello.add_done_callback(lambda hello: hello.cancelled() or hello.exception())

    async def greet(self, words: dict[str, Any]) -> None:
        """Tell the other end who this is."""
        await self._send(Kind.HELLO, 0, json.dumps(words).encode()[:CHUNK])

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes) -> None:
        """Carry one connection to its end, ``first`` before what comes from it. Raises Refused if nothing answers."""
        self._last += 1
        stream = self._streams[self._last] = _Stream()
        number = self._last
        try:
            await self._send(Kind.OPEN, number)
            await self._pump(number, stream, reader, writer, first)
        finally:
            self._streams.pop(number, None)
        if not stream.answered:
            raise Refused(stream.reset or "it hung up without an answer")
        _hang_up(writer, at_once=stream.reset is not None)

    def receive(self, data: bytes) -> None:
        """Take in what came from the other end. Raises Garbled."""
        for kind, number, size, body in self._frames.feed(data):
            if kind is Kind.HELLO:
                if not self.hello.done():
                    self.hello.set_result(json.loads(body))
            elif kind is Kind.OPEN:
                self._opened(number)
            elif stream := self._streams.get(number):
                self._received(kind, stream, size, body)

    def cut(self, reason: str) -> None:
        """The other end is gone: break off everything."""
        for stream in self._streams.values():
            self._broken(stream, reason)
        if not self.hello.done():
            self.hello.set_exception(Refused(reason))

    def _opened(self, number: int) -> None:
        if self._dial is None or number in self._streams:
            raise Garbled(f"stream {number} is opened")
        stream = self._streams[number] = _Stream()
        task = asyncio.get_running_loop().create_task(self._serve(number, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _received(self, kind: Kind, stream: _Stream, size: int, body: bytes) -> None:
        if kind is Kind.DATA:
            stream.expected -= size
            if stream.expected < 0:
                raise Garbled("more than the window")
            if body:
                stream.incoming.put_nowait(body)
        elif kind is Kind.END:
            stream.incoming.put_nowait(b"")
        elif kind is Kind.CREDIT:
            stream.credit += size
            stream.more_credit.set()
        elif kind is Kind.RESET:
            self._broken(stream, body.decode(errors="replace"))

    @staticmethod
    def _broken(stream: _Stream, reason: str) -> None:
        stream.reset = reason
        stream.incoming.put_nowait(b"")
        stream.more_credit.set()

    async def _serve(self, number: int, stream: _Stream) -> None:
        assert self._dial is not None
        try:
            reader, writer = await self._dial()
        except (OSError, Refused) as exc:
            await self._send(Kind.RESET, number, str(exc).encode()[:CHUNK])
        else:
            await self._pump(number, stream, reader, writer)
            _hang_up(writer, at_once=stream.reset is not None)
        finally:
            self._streams.pop(number, None)

    async def _pump(
        self,
        number: int,
        stream: _Stream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        first: bytes = b"",
    ) -> None:
        """Both directions until both have ended, or one breaks off: then the stream has its ``reset``."""
        away = asyncio.ensure_future(self._outwards(number, stream, reader, first))
        back = asyncio.ensure_future(self._inwards(number, stream, writer))
        try:
            await asyncio.gather(away, back)
        except OSError as exc:
            if stream.reset is None:
                stream.reset = str(exc)
                await self._send(Kind.RESET, number, str(exc).encode()[:CHUNK])
        finally:
            away.cancel()
            back.cancel()
            await asyncio.gather(away, back, return_exceptions=True)

    async def _outwards(
        self, number: int, stream: _Stream, reader: asyncio.StreamReader, data: bytes
    ) -> None:
        while data or (data := await reader.read(CHUNK)):
            while stream.credit == 0 and stream.reset is None:
                stream.more_credit.clear()
                await stream.more_credit.wait()
            if stream.reset is not None:
                return  # what came before it is passed on yet
            size = min(stream.credit, CHUNK)
            part, data = data[:size], data[size:]
            stream.credit -= len(part)
            await self._send(Kind.DATA, number, part)
        await self._send(Kind.END, number)

    async def _inwards(self, number: int, stream: _Stream, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await stream.incoming.get():
            stream.answered = True
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if passed >= WINDOW // 4:
                stream.expected += passed
                await self._send_bytes_in_turn(HEAD.pack(Kind.CREDIT, number, passed))
                passed = 0
        _check(stream)
        if writer.can_write_eof():
            writer.write_eof()

    async def _send(self, kind: Kind, number: int, data: bytes = b"") -> None:
        await self._send_bytes_in_turn(frame(kind, number, data))

    async def _send_bytes_in_turn(self, data: bytes) -> None:
        async with self._turn:
            await self._send_bytes(data)


def _check(stream: _Stream) -> None:
    if stream.reset is not None:
        raise ConnectionResetError(stream.reset)


def _hang_up(writer: asyncio.StreamWriter, *, at_once: bool) -> None:
    if at_once:
        writer.transport.abort()
    else:
        writer.close()


def dial(address: str) -> Dial:
    """What connects to ``unix:/PATH`` or ``tcp:HOST:PORT``."""
    way, _, where = address.partition(":")
    if way == "unix":
        return lambda: asyncio.open_unix_connection(where)
    host, _, port = where.rpartition(":")
    return lambda: asyncio.open_connection(host, int(port))


async def serve(to: Dial, words: dict[str, Any]) -> None:
    """The far end, on standard input and output, until they end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=WINDOW)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(1, "wb", 0)
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    relay = Relay(send, to)
    with contextlib.suppress(OSError):
        await relay.greet(words)
        while data := await reader.read(WINDOW):
            relay.receive(data)
    relay.cut("the line was cut")


if __name__ == "__main__":
    asyncio.run(serve(dial(sys.argv[1]), {}))
