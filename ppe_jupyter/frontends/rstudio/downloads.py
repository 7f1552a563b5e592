"""Files that RStudio sends, past the proxy: it keeps an answer in memory, 100 MB of it at most and for five minutes.

(jupyter-server-proxy issue 281.) An answer that is a file is held back at its head, and the proxy gets a redirect to an
address of the server extension's (``server.downloads``), which comes for it here and passes it on as it arrives. Must
not know where the answers come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator

from . import pages

ADDRESS = "ppe-jupyter/api/downloads"
# A browser follows a redirect at once.
HELD_SECONDS = 60.0
HEAD_BYTES = 2**16
# More than the proxy takes well, file or not; the rest is better off with it, which mends cookies and redirects.
LARGE_BYTES = 5 * 10**7
FOUND = re.compile(rb"HTTP/1\.1 20[06] ")
ATTACHED = re.compile(rb"\r\ncontent-disposition:[ \t]*attachment", re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})", re.IGNORECASE)


class Downloads:
    """The files that are held back; ``base_url`` is the Jupyter server's."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._held: dict[str, Held] = {}

    @contextlib.contextmanager
    def held(self, writer: asyncio.StreamWriter) -> Iterator[Held]:
        """What to write an answer to within the block."""
        ticket = secrets.token_urlsafe(16)
        held = self._held[ticket] = Held(writer, f"{self._base_url}/{ADDRESS}/{os.getpid()}-{ticket}")
        try:
            yield held
        finally:
            del self._held[ticket]
            held.ended.set()

    async def hand_over(self, ticket: str, writer: asyncio.StreamWriter) -> bool:
        """Send that file there, to its end; False if there is none any more."""
        held = self._held.get(ticket)
        if held is None or not held.is_file or held.taker.done():
            return False
        held.taker.set_result(writer)
        await held.ended.wait()
        return True


class Held:
    """What an answer is written to, as to a StreamWriter: the proxy or, of a file, whoever comes for it."""

    def __init__(self, proxy: asyncio.StreamWriter, address: str) -> None:
        self._proxy, self._address = proxy, address
        self._to: asyncio.StreamWriter | None = None
        self._head = b""
        self.is_file = False
        self.taker: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.at_end: Callable[[], None] = lambda: None

    @property
    def transport(self) -> asyncio.WriteTransport:
        """Of whoever gets it."""
        return (self._to or self._proxy).transport

    def write(self, data: bytes) -> None:
        """Look at the head, then let it pass."""
        if self._to is not None:
            self._to.write(data)
            return
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        self.is_file = bool(end) and _is_file(head)
        if not self.is_file and (end or len(self._head) > HEAD_BYTES):
            self._pass_on(self._proxy)

    async def drain(self) -> None:
        """Wait until it is passed on; of a file until somebody comes. Raises ConnectionResetError if nobody does."""
        if self.is_file and self._to is None:
            self._proxy.write(pages.redirect(self._address))
            await self._proxy.drain()
            self._proxy.close()
            try:
                self._pass_on(await asyncio.wait_for(self.taker, HELD_SECONDS))
            except asyncio.TimeoutError:
                raise ConnectionResetError("nobody came for the file") from None
        if self._to is not None:
            await self._to.drain()

    def can_write_eof(self) -> bool:
        """As of any socket."""
        return True

    def write_eof(self) -> None:
        """The end; also of what has no head."""
        if self._to is None:
            self._pass_on(self._proxy)
        assert self._to is not None
        self._to.write_eof()
        self.at_end()

    def close(self) -> None:
        """Hang up."""
        (self._to or self._proxy).close()

    def _pass_on(self, writer: asyncio.StreamWriter) -> None:
        self._to = writer
        writer.write(self._head)
        self._head = b""


def _is_file(head: bytes) -> bool:
    length = LENGTH.search(head)
    large = length is not None and int(length[1]) > LARGE_BYTES
    return FOUND.match(head) is not None and (large or ATTACHED.search(head) is not None)
