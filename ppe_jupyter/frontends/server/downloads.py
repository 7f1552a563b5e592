"""Files from RStudio to the browser: a tunnel holds them (``rstudio.downloads``), here they pass, however large.

A file is taken once, by whoever may use the server and has the ticket that the redirect named.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from http import HTTPStatus

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from tornado.iostream import StreamClosedError

from ...node.wire.relay import Pair

TICKET = "([0-9]+)-([A-Za-z0-9_-]+)"
CHUNK = 2**16


class Download(JupyterHandler):
    """One file, as RStudio sends it: its head too."""

    auth_resource = "ppe_jupyter"

    @web.authenticated
    @authorized
    async def get(self, tunnel: str, ticket: str) -> None:
        """Pass it on as it comes, no faster than it goes."""
        try:
            reader, writer = await _tunnel(tunnel)
        except (OSError, ValueError, KeyError):
            raise web.HTTPError(HTTPStatus.GONE, "RStudio's connection has ended; open it again") from None
        with contextlib.closing(writer):
            writer.write(f"GET /download/{ticket} HTTP/1.1\r\n\r\n".encode())
            try:
                data = await reader.readuntil(b"\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                data = b""
            if not data.startswith(b"HTTP/1.1 20"):
                raise web.HTTPError(HTTPStatus.GONE, "this download has ended; start it again in RStudio")
            data, stream = last_of_its_line(data), self.detach()
            with contextlib.closing(stream), contextlib.suppress(StreamClosedError, OSError):
                while data:
                    await stream.write(data)
                    data = await reader.read(CHUNK)


def last_of_its_line(head: bytes) -> bytes:
    """The head of an answer after which the connection ends, saying so: else the browser's next request on the same
    connection may meet its end."""
    first, *lines = head.split(b"\r\n")
    kept = [line for line in lines if not re.match(rb"(?i)(connection|keep-alive)[ \t]*:", line)]
    return b"\r\n".join([first, b"Connection: close", *kept]) if lines else head


async def _tunnel(pid: str) -> Pair:
    from ... import settings
    from ..rstudio.links import tunnels_folder

    note = tunnels_folder(settings.load().state_dir) / f"{pid}.json"
    return await asyncio.open_unix_connection(json.loads(note.read_text(encoding="utf-8"))["socket"])
