"""A client on the agent's side: frames from two descriptors of an SSH channel to the session, and back.

``attach`` hands its standard input and output over, so no process copies the bytes. A client that does not read
is dropped when too much waits for it; it can ask the log for what it missed. Must not know of R.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
from typing import Protocol

from .pipes import Bytes, Inlet, Outlet
from .protocol import (
    VERSION,
    Body,
    FrameReader,
    Header,
    Kind,
    ProtocolError,
    Question,
    ask,
    json_frame,
    parse_json,
)

# Requests up to this size are read at once, whoever's turn it is, so that an interrupt behind them is seen.
WHOLE_REQUEST = 2**20
# Output that a client does not fetch.
TOO_MUCH_WAITING = 64 * 2**20


@dataclass
class Request:
    """An evaluation that a client asked for, or a question about the workspace (``kind`` ASK).

    ``whole``: its body has come; a larger one comes when R takes it.
    """

    client: Asking | None
    id: int
    size: int
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    kind: Kind = Kind.EVALUATE


class Asking(Protocol):
    """Whoever makes requests."""

    name: str

    @property
    def waiting(self) -> int:
        """Bytes that it has not taken."""

    def tell(self, data: Bytes) -> None:
        """Send it a frame that it may miss."""

    def send(self, data: Bytes) -> None:
        """Send it a piece of a frame."""

    def fail(self, id: int, reason: str, message: str, **more: object) -> None:
        """End its request with an error."""

    def resume(self) -> None:
        """Its large request is taken now."""


class Session(Protocol):
    """What a client needs of the session."""

    def joined(self, client: Client) -> None:
        """The client has said hello."""

    def welcome(self) -> dict[str, object]:
        """What a new client is told."""

    def submit(self, request: Request) -> None:
        """Queue an evaluation."""

    def feed(self, request: Request, data: memoryview, left: int) -> bool:
        """More of a large request's body; False: wait for ``resume``."""

    def interrupt(self, client: Client, id: int) -> None:
        """Interrupt or unqueue an evaluation; 0: whichever runs."""

    def restart(self, client: Client, id: int) -> None:
        """End R and start it anew."""

    def replay(self, client: Client, id: int, since: int) -> None:
        """Send the log's events."""

    def answer(self, line: str) -> None:
        """A line for R's standard input."""

    def gone(self, client: Client) -> None:
        """The client is gone."""

    def drained(self, client: Client) -> None:
        """The client can take more."""


class Client:
    """One attached client."""

    def __init__(self, session: Session, control: socket.socket, descriptors: tuple[int, int]) -> None:
        self.name = "a client"
        self._session = session
        self._control = control
        self._descriptors = descriptors
        self._reader = FrameReader()
        self._inlet = Inlet(descriptors[0], self._readable)
        self._outlet = Outlet(descriptors[1], on_drain=self._drained, on_broken=self.close)
        self._request: Request | None = None
        self._small: tuple[Header, bytearray] | None = None
        self._paused = False
        self._closed = False
        asyncio.get_running_loop().add_reader(control, self._control_ended)

    @property
    def waiting(self) -> int:
        """Bytes that it has not fetched."""
        return self._outlet.waiting

    def send(self, data: Bytes) -> None:
        """Send bytes of a result: who produces looks at ``waiting``."""
        if not self._closed:
            self._outlet.write(data)

    def tell(self, data: Bytes) -> None:
        """Send a frame of output; a client that does not fetch it is dropped."""
        self.send(data)
        if self.waiting > TOO_MUCH_WAITING:
            self.close()

    def fail(self, id: int, reason: str, message: str, **more: object) -> None:
        """End the client's evaluation or other wish with an error."""
        self.tell(json_frame(Kind.FAILED, {"reason": reason, "message": message, **more}, id=id))

    def resume(self) -> None:
        """Go on reading: the session takes the large body now."""
        if self._paused and not self._closed:
            self._paused = False
            self._inlet.resume()
            self._pump()

    def close(self) -> None:
        """Drop the client. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._inlet.pause()
        self._outlet.close()
        asyncio.get_running_loop().remove_reader(self._control)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._control.close()
        self._session.gone(self)

    def _drained(self) -> None:
        self._session.drained(self)

    def _control_ended(self) -> None:
        with contextlib.suppress(OSError):
            if self._control.recv(64):
                return
        self.close()

    def _readable(self) -> None:
        data = self._inlet.read()
        if data == b"":
            self.close()
        elif data is not None:
            self._reader.feed(data)
            self._pump()

    def _pause(self) -> None:
        self._paused = True
        self._inlet.pause()

    def _pump(self) -> None:
        try:
            while not (self._paused or self._closed) and (event := self._reader.next()) is not None:
                if isinstance(event, Header):
                    self._begin(event)
                else:
                    self._continue(event)
        except ProtocolError as exc:
            self.fail(0, "protocol", f"the agent does not understand this client: {exc}")
            self.close()

    def _begin(self, header: Header) -> None:
        if header.kind is not Kind.EVALUATE:
            if header.size > WHOLE_REQUEST:
                raise ProtocolError(f"a body of {header.size} bytes where a short one belongs")
            self._small = (header, bytearray())
            if not header.size:
                self._act(header, b"")
            return
        self._request = Request(self, header.id, header.size)
        if header.size > WHOLE_REQUEST:
            self._pause()
            self._session.submit(self._request)
        elif not header.size:
            raise ProtocolError("an evaluation without a body")

    def _continue(self, piece: Body) -> None:
        if self._request is None:
            assert self._small is not None
            header, body = self._small
            body += piece.data
            if len(body) == header.size:
                self._act(header, bytes(body))
            return
        request = self._request
        if request.size <= WHOLE_REQUEST:
            request.body += piece.data
            if len(request.body) == request.size:
                request.whole = True
                self._request = None
                self._session.submit(request)
            return
        if not piece.left:
            self._request = None
        if not self._session.feed(request, piece.data, piece.left):
            self._pause()

    def _act(self, header: Header, body: bytes) -> None:
        self._small = None
        if header.kind is Kind.HELLO:
            hello = parse_json(body)
            if hello.get("version") != VERSION:
                raise ProtocolError(
                    f"it speaks version {hello.get('version')}, the agent version {VERSION}; launch anew"
                )
            self.name = str(hello.get("client", self.name))
            self.tell(json_frame(Kind.WELCOME, self._session.welcome()))
            self._session.joined(self)
        elif header.kind is Kind.INTERRUPT:
            self._session.interrupt(self, header.id)
        elif header.kind is Kind.RESTART:
            self._session.restart(self, header.id)
        elif header.kind is Kind.REPLAY:
            self._session.replay(self, header.id, header.seq)
        elif header.kind is Kind.ASK and len(body) >= len(ask(Question.OBJECTS)):
            self._session.submit(Request(self, header.id, len(body), bytearray(body), True, Kind.ASK))
        elif header.kind is Kind.ANSWER:
            self._session.answer(body.decode(errors="replace"))
        else:
            raise ProtocolError(f"a client does not send {header.kind.name}")
