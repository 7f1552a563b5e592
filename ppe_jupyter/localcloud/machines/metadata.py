"""The instance metadata service: what an instance may know of itself, at 169.254.169.254 on the bridge only.

The caller is known by its address. IMDSv2 as
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html has it: a token by PUT, for as
many seconds as a header says, which an instance with HttpTokens = required has to show. Beside it, under
``/ppe/``, the host mounts volumes for a container's root, whom a source port below 1024 proves. Knows no records.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from ..network import Network
from .volumes import Disks

TTL_HEADER, TOKEN_HEADER = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
MAX_TTL = 21_600  # seconds
MAX_TOKENS = 10_000
ROOT_PORTS = 1024  # below it, only root can bind
MAX_BODY = 10_000


@dataclass(frozen=True, kw_only=True)
class Identity:
    """An instance, as the service tells it: texts by their paths below ``latest/``."""

    texts: Mapping[str, bytes]
    token_required: bool = False
    enabled: bool = True


@dataclass(frozen=True)
class Caller:
    """Who has an address: what it is told, and its volumes."""

    identity: Callable[[], Identity]
    disks: Disks


class Service(ThreadingTCPServer):
    """Serves one bridge; ``caller`` finds who has an address."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, network: Network, caller: Callable[[str], Caller | None]) -> None:
        super().__init__((network.gateway, 0), _Handler, bind_and_activate=False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, network.bridge.encode())
        self.server_bind()
        self.server_activate()
        self.caller = caller
        self.tokens = Tokens()

    def start(self) -> None:
        """Serve in a thread of its own until shutdown()."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A node that hangs up is no error."""


@dataclass
class Tokens:
    """Tokens that were given out: whose they are, and until when."""

    clock: Callable[[], float] = time.monotonic
    _valid: dict[str, tuple[str, float]] = field(default_factory=dict)

    def issue(self, address: str, seconds: int) -> str:
        """A new one; the oldest go when there are too many."""
        token = secrets.token_urlsafe(40)
        self._valid[token] = (address, self.clock() + seconds)
        while len(self._valid) > MAX_TOKENS:
            self._valid.pop(next(iter(self._valid)), None)
        return token

    def accepts(self, token: str, address: str) -> bool:
        """Whether it was given to that address and is valid."""
        owner, end = self._valid.get(token, ("", 0.0))
        return owner == address and self.clock() < end


def answer(texts: Mapping[str, bytes], path: str) -> bytes | None:
    """A text, or the list of what is below a path; None if there is neither."""
    path = path.strip("/")
    if path in texts:
        return texts[path]
    below = [
        name.removeprefix(f"{path}/" if path else "")
        for name in texts
        if name.startswith(f"{path}/" if path else "")
    ]
    entries = {name.partition("/")[0] + ("/" if "/" in name else "") for name in below}
    return "\n".join(sorted(entries)).encode() if entries else None


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "EC2ws", ""
    timeout = 30.0

    def do_PUT(self) -> None:
        identity = self._identity()
        seconds = self.headers.get(TTL_HEADER, "")
        if identity is None or not identity.enabled or self.headers.get("X-Forwarded-For"):
            self._send(HTTPStatus.FORBIDDEN)
        elif self.path != "/latest/api/token":
            self._send(HTTPStatus.NOT_FOUND)
        elif not seconds.isdecimal() or not 1 <= int(seconds) <= MAX_TTL:
            self._send(HTTPStatus.BAD_REQUEST)
        else:
            token = self.server.tokens.issue(self.client_address[0], int(seconds))
            self._send(HTTPStatus.OK, token.encode(), {TTL_HEADER: seconds})

    def do_GET(self) -> None:
        identity, token = self._identity(), self.headers.get(TOKEN_HEADER)
        _, version, path = (*self.path.partition("?")[0].split("/", 2), "", "")[:3]
        if identity is None or not identity.enabled:
            self._send(HTTPStatus.FORBIDDEN)
        elif (token is None and identity.token_required) or (
            token is not None and not self.server.tokens.accepts(token, self.client_address[0])
        ):
            self._send(HTTPStatus.UNAUTHORIZED)
        elif version != "latest" or (text := answer(identity.texts, path)) is None:
            self._send(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, text)

    def do_POST(self) -> None:
        address, port = self.client_address[:2]
        caller = self.server.caller(address)
        if caller is None or port >= ROOT_PORTS:
            self._send(HTTPStatus.FORBIDDEN, b'{"error": "only root may do that"}')
            return
        try:
            wish = json.loads(self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY)))
            error = caller.disks.mount(**wish) if self.path == "/ppe/mount" else caller.disks.umount(**wish)
        except (OSError, ValueError, TypeError, AttributeError, subprocess.SubprocessError) as exc:
            error = f"{type(exc).__name__}: {exc}"
        self._send(HTTPStatus.OK, json.dumps({"error": error}).encode())

    def _identity(self) -> Identity | None:
        caller = self.server.caller(self.client_address[0])
        return caller.identity() if caller else None

    def _send(self, status: HTTPStatus, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        kind = {"Content-Type": "text/plain", "Content-Length": str(len(body))}
        for name, value in {**kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Without a line for each request."""
