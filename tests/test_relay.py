"""Many connections over one pair of streams: both ends of node/wire/relay.py, however the bytes are cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppe_jupyter.node.wire.relay import (
    CHUNK,
    HEAD,
    WINDOW,
    Frames,
    Garbled,
    Kind,
    Pair,
    Refused,
    Relay,
    frame,
)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Wire:
    """Bytes from one end to the other, cut into pieces of these sizes."""

    def __init__(self, cuts: list[int]) -> None:
        self._cuts = itertools.cycle(cuts or [2**16])
        self._bytes: asyncio.Queue[bytes] = asyncio.Queue()
        self.most = 0

    async def send(self, data: bytes) -> None:
        self.most += len(data)
        await self._bytes.put(data)
        await asyncio.sleep(0)

    async def run(self, receiver: Relay) -> None:
        while True:
            data = await self._bytes.get()
            while data:
                size = next(self._cuts)
                receiver.receive(data[:size])
                data = data[size:]
                await asyncio.sleep(0)


class Ends:
    """The two ends with a server behind the far one."""

    def __init__(self, handler: Handler, cuts: list[int]) -> None:
        self.there, self.back = Wire(cuts), Wire(cuts)
        self._handler = handler
        self._tasks: list[asyncio.Task[Any]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.near = Relay(self.there.send)
        self.far = Relay(self.back.send, self._dial)
        self._run(self.there.run(self.far))
        self._run(self.back.run(self.near))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def sockets(self) -> tuple[Pair, Pair]:
        left, right = socket.socketpair()
        pairs = await asyncio.open_connection(sock=left), await asyncio.open_connection(sock=right)
        self._writers += [writer for _, writer in pairs]
        return pairs

    async def _dial(self) -> Pair:
        ours, theirs = await self.sockets()

        async def serve() -> None:
            await self._handler(*theirs)
            theirs[1].close()

        self._run(serve())
        return ours

    async def connect(self, first: bytes = b"") -> Pair:
        ours, theirs = await self.sockets()
        self._run(self.near.carry(*theirs, first))
        return ours

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for task in self.far._tasks:
            task.cancel()
        await asyncio.sleep(0)


def play(handler: Handler, scene: Callable[[Ends], Awaitable[None]], cuts: list[int] | None = None) -> None:
    async def run() -> None:
        ends = Ends(handler, cuts or [])
        await asyncio.wait_for(scene(ends), 30)
        await ends.stop()

    asyncio.run(run())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**14):
        writer.write(data)
        await writer.drain()


async def said(connection: Pair, data: bytes) -> bytes:
    """Send, half-close, and read to the end."""
    reader, writer = connection

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.ensure_future(send())
    received = await reader.read(-1)
    await sending
    writer.close()
    return received


@settings(max_examples=30)
@given(
    texts=st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 40_000)), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 70_000), max_size=5),
)
def test_what_is_sent_comes_back(texts: list[tuple[bytes, int]], cuts: list[int]) -> None:
    """Whole and in order, on streams side by side, after a half-close, however the wire cuts it."""
    sent = [(text * (1 + count // (1 + len(text))))[:40_000] for text, count in texts]

    async def scene(ends: Ends) -> None:
        answers = [said(await ends.connect(data[:10]), data[10:]) for data in sent]
        assert await asyncio.gather(*answers) == sent

    play(echo, scene, [max(cut, 400) for cut in cuts])


def test_frames_survive_any_cut() -> None:
    frames = (
        frame(Kind.OPEN, 1) + frame(Kind.DATA, 1, b"ab") + HEAD.pack(Kind.CREDIT, 1, 5) + frame(Kind.END, 1)
    )
    expected = Frames().feed(frames)
    assert [each[0] for each in expected] == [Kind.OPEN, Kind.DATA, Kind.CREDIT, Kind.END]
    for cut in range(len(frames)):
        one = Frames()
        assert one.feed(frames[:cut]) + one.feed(frames[cut:]) == expected


@given(st.binary(min_size=HEAD.size))
def test_noise_is_garbled_or_waits(data: bytes) -> None:
    """A shell's start-up file that prints something makes no giant buffer."""

    async def feed() -> None:
        sent: list[bytes] = []

        async def send(data: bytes) -> None:
            sent.append(data)

        relay = Relay(send)
        try:
            relay.receive(data)
        except (Garbled, ValueError):
            return
        assert not sent

    asyncio.run(feed())


def test_a_slow_reader_holds_up_nobody_else_and_only_a_window_waits_for_it() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"e":
            await echo(reader, writer)
            return
        for _ in range(8 * WINDOW // CHUNK):
            writer.write(bytes(CHUNK))
            await writer.drain()

    async def scene(ends: Ends) -> None:
        slow = await ends.connect(b"f")
        quick = await ends.connect(b"e")
        assert await said(quick, b"x" * 3 * WINDOW) == b"x" * 3 * WINDOW
        before = ends.back.most
        # Sockets hold some of it; what the relay itself lets through is a window.
        assert before < 3 * WINDOW + WINDOW + 40 * CHUNK
        assert len(await slow[0].read(-1)) == 8 * WINDOW

    play(flood, scene)


def test_an_answer_before_the_end_of_the_request_arrives() -> None:
    """As of a server that refuses an upload, and does not read it."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"too large")
        await writer.drain()

    async def scene(ends: Ends) -> None:
        reader, writer = await ends.connect()
        writer.write(bytes(8 * WINDOW))
        assert await reader.readexactly(9) == b"too large"

    play(refuse, scene)


def test_a_refused_connection_says_why() -> None:
    async def scene(ends: Ends) -> None:
        async def refuse() -> Pair:
            raise Refused("R has a cold")

        ends.far._dial = refuse
        ours, theirs = await ends.sockets()
        with pytest.raises(Refused, match="R has a cold"):
            await ends.near.carry(*theirs, b"GET / HTTP/1.1\r\n\r\n")
        theirs[1].write(b"a page")  # still ours to answer
        theirs[1].close()
        assert await ours[0].read(-1) == b"a page"
        ours[1].close()

    play(echo, scene)


def test_a_browser_that_goes_ends_the_server_s_side() -> None:
    gone = asyncio.Event()

    async def long_poll(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await reader.read(-1)
        gone.set()

    async def scene(ends: Ends) -> None:
        _, writer = await ends.connect(b"?")
        writer.close()
        await gone.wait()

    play(long_poll, scene)


def test_a_cut_line_breaks_every_stream_off() -> None:
    async def scene(ends: Ends) -> None:
        first, second = await ends.connect(b"a"), await ends.connect(b"b")
        assert [await first[0].read(1), await second[0].read(1)] == [b"a", b"b"]
        ends.near.cut("it was cut")
        for reader, writer in (first, second):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(-1) == b""
            writer.close()

    play(echo, scene)
