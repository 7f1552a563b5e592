"""Files from the browser into RStudio, past the proxy: it takes a request whole, into memory, 512 MB of it at most.

(Jupyter's ``max_body_size``.) The address that RStudio uploads to is answered here instead: the body goes to the tunnel
as it comes, however large. All else of RStudio's stays with the proxy, which has started the tunnel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from http import HTTPStatus

from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from tornado.iostream import StreamClosedError

from ...node.wire.relay import CHUNK, Pair
from .downloads import last_of_its_line

ADDRESS = "ppe-rstudio(/[a-z][a-z0-9-]*/upload)"
MOST_BYTES = 2**50
# They are of this connection only (RFC 9110, section 7.6.1), or answered by this server.
OWN = {
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "proxy-connection",
}


@web.stream_request_body
class Upload(JupyterHandler):
    """One upload; what RStudio answers to it is passed on as it is."""

    auth_resource = "ppe_jupyter"
    _tunnel: Pair | None = None
    _refusal: web.HTTPError | None = None

    def check_xsrf_cookie(self) -> None:
        """RStudio has a token of its own; the origin is checked here."""

    async def prepare(self) -> None:  # type: ignore[override]
        """Send RStudio the head. A refusal waits for the body: an answer before its end may never be seen."""
        try:
            await self._admit()
        except web.HTTPError as refusal:
            self._refusal = refusal

    async def _admit(self) -> None:
        await super().prepare()
        user = self.current_user
        if not user or not self.authorizer.is_authorized(self, user, "write", self.auth_resource):
            raise web.HTTPError(HTTPStatus.FORBIDDEN)
        if not self.check_origin():
            raise web.HTTPError(HTTPStatus.FORBIDDEN)
        if "Content-Length" not in self.request.headers:
            raise web.HTTPError(HTTPStatus.LENGTH_REQUIRED)
        try:
            self._tunnel = await _connect()
        except OSError:
            raise web.HTTPError(HTTPStatus.GONE, "RStudio's connection has ended; open it again") from None
        self.request.connection.set_max_body_size(MOST_BYTES)  # type: ignore[union-attr]
        self._tunnel[1].write(self._head())

    async def data_received(self, chunk: bytes) -> None:
        """Pass it on, no faster than it goes; what an RStudio that has hung up does not want is dropped."""
        if self._tunnel is not None:
            with contextlib.suppress(OSError):
                self._tunnel[1].write(chunk)
                await self._tunnel[1].drain()

    @web.authenticated
    async def post(self, path: str) -> None:
        """RStudio's answer."""
        if self._refusal is not None:
            raise self._refusal
        assert self._tunnel is not None
        reader, _ = self._tunnel
        stream = self.detach()
        stream.set_close_callback(self._hang_up)  # the browser may go before RStudio answers
        try:
            with contextlib.closing(stream), contextlib.suppress(StreamClosedError, OSError):
                data = last_of_its_line(await _head(reader))
                while data:
                    await stream.write(data)
                    data = await reader.read(CHUNK)
        finally:
            self._hang_up()

    def on_finish(self) -> None:
        """It was refused."""
        self._hang_up()

    def on_connection_close(self) -> None:
        """The browser has gone."""
        self._hang_up()

    def _hang_up(self) -> None:
        if self._tunnel is not None:
            self._tunnel[1].close()

    def _head(self) -> bytes:
        """As the proxy would have it: who asks, and behind which address."""
        given = [(name, value) for name, value in self.request.headers.get_all() if name.lower() not in OWN]
        context = self.request.path.removesuffix(self.path_args[0])
        lines = [f"{name}: {value}" for name, value in [*given, ("X-Forwarded-Context", context)]]
        target = "?".join(filter(None, [self.path_args[0], self.request.query]))
        return "\r\n".join([f"POST {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The answer's; all of one that has none, or one longer than the reader's limit."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as short:
        return short.partial
    except asyncio.LimitOverrunError:
        return await reader.read(CHUNK)


async def _connect() -> Pair:
    """To the tunnel that this server's proxy has started. Raises OSError."""
    from ... import settings
    from ..rstudio.links import tunnels_folder

    for note in tunnels_folder(settings.load().state_dir).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(note.read_text(encoding="utf-8"))
            if told["server"] == os.getpid():
                return await asyncio.open_unix_connection(told["socket"])
    raise FileNotFoundError
