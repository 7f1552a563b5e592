"""A host as if it were far away: a TCP proxy on this machine that holds every byte back for half a round trip.

And as if the line were slow: it takes so many bytes per second, each way.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def far_away(host: str, port: int, *, seconds: float = 0.0, rate: float = math.inf) -> Iterator[int]:
    """The port on this machine that leads to ``host:port`` with a round trip that is ``seconds`` longer.

    At ``rate`` bytes per second.
    """
    ready: queue.SimpleQueue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.SimpleQueue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        with (
            contextlib.suppress(asyncio.CancelledError, OSError),
            contextlib.closing(writer),
            contextlib.closing(far_writer),
        ):
            await asyncio.gather(
                _later(reader, far_writer, seconds / 2, rate), _later(far_reader, writer, seconds / 2, rate)
            )

    async def serve() -> None:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        stopped = asyncio.Event()
        ready.put((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stopped))
        await stopped.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    here, loop, stopped = ready.get(timeout=10)
    try:
        yield here
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()


async def _later(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float, rate: float
) -> None:
    """Pass on what comes, as fast as it comes or at ``rate``, but so much later."""
    loop = asyncio.get_running_loop()
    most = 2**20 if math.isinf(rate) else 2**14
    free = loop.time()  # when the line takes more
    while data := await reader.read(most):
        loop.call_later(seconds, writer.write, data)
        free = max(free, loop.time()) + len(data) / rate
        if free - loop.time() > 0.005:
            await asyncio.sleep(free - loop.time())
    loop.call_later(seconds, writer.close)
