"""A host as if it were far away: a TCP proxy on this machine that holds every byte back for half a round trip."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def far_away(host: str, port: int, *, seconds: float) -> Iterator[int]:
    """The port on this machine that leads to ``host:port`` with a round trip that is ``seconds`` longer."""
    ready: queue.SimpleQueue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(
                _later(reader, far_writer, seconds / 2), _later(far_reader, writer, seconds / 2)
            )

    async def serve() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        stopped = asyncio.Event()
        ready.put((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stopped))
        await stopped.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    here, loop, stopped = ready.get(timeout=10)
    try:
        yield here
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()


async def _later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what comes, as fast as it comes, but so much later."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(2**20):
        loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)
