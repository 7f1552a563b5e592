"""A client on the agent's side: frames from two descriptors of an SSH channel to the session, and back.

``attach`` hands its standard input and output over, so no process copies the bytes. A client that does not read
is dropped when too much waits for it; it can ask the log for what it missed. Must not know of R.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any, Protocol

from ..wire.outgoing import Outgoing
from ..wire.packing import MODES, Packer
from ..wire.pipes import Inlet
from ..wire.protocol import (
    MAIN,
    VERSION,
    Body,
    FrameReader,
    Header,
    Kind,
    ProtocolError,
    asked,
    json_frame,
    parse_json,
)
from .asking import Request
from .ladder import Rung

# Requests up to this size are read at once, whoever's turn it is, so that an interrupt behind them is seen.
WHOLE_REQUEST = 2**20


class Session(Protocol):
    """What a client needs of the session."""

    def joined(self, client: Client) -> None:
        """The client has said hello."""

    def welcome(self) -> dict[str, object]:
        """What a new client is told."""

    def submit(self, request: Request) -> None:
        """Queue an evaluation."""

    def label(self, client: Client, id: int, code: str) -> None:
        """The first line of an evaluation's code."""

    def expect(self, client: Client, id: int, sequel: dict[str, Any]) -> None:
        """What is to follow an evaluation that comes next."""

    def resume(self, client: Client, id: int, seen: int) -> None:
        """Go on with an evaluation that was asked for over a line that was cut."""

    def feed(self, request: Request, data: memoryview, left: int) -> bool:
        """More of a large request's body; False: wait for ``resume``."""

    def interrupt(self, client: Client, id: int, rung: Rung) -> None:
        """Interrupt or unqueue an evaluation; 0: whichever runs."""

    def restart(self, client: Client, id: int, restore: str | None) -> None:
        """End R and start it anew."""

    def follow(self, client: Client, id: int, since: int, wish: dict[str, Any]) -> None:
        """Send a job's events, or the log's."""

    def command(self, client: Client, id: int, wish: dict[str, Any]) -> None:
        """Do what else there is to do."""

    def answer(self, line: str) -> None:
        """A line for R's standard input."""

    def gone(self, client: Client) -> None:
        """The client is gone."""

    def drained(self, client: Client) -> None:
        """The client can take more."""


class Sessions(Protocol):
    """The sessions by name, and who is attached to them by token."""

    attached: dict[str, Client]

    def get(self, name: str) -> Session:
        """The session of that name, which starts if there is none. Raises ProtocolError for an impossible one."""


class Client:
    """One attached client. ``token`` names it over all its lines; "" for one that will not come back."""

    def __init__(self, sessions: Sessions, control: socket.socket, descriptors: tuple[int, int]) -> None:
        self.name = "a client"
        self.token = ""
        self._sessions = sessions
        self.session: Session | None = None
        self._control = control
        self._descriptors = descriptors
        self._reader = FrameReader()
        self._inlet = Inlet(descriptors[0], self._readable)
        self._outgoing = Outgoing(descriptors[1], on_drain=self._drained, on_lost=self.close)
        self.promise, self.send, self.tell = self._outgoing.promise, self._outgoing.send, self._outgoing.tell
        self._request: Request | None = None
        self._small: tuple[Header, bytearray] | None = None
        self._paused = False
        self._closed = False
        asyncio.get_running_loop().add_reader(control, self._control_ended)

    @property
    def waiting(self) -> int:
        """Bytes that it has not fetched."""
        return self._outgoing.waiting

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
        self._outgoing.close()
        asyncio.get_running_loop().remove_reader(self._control)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._control.close()
        if self._sessions.attached.get(self.token) is self:
            del self._sessions.attached[self.token]
        if self.session is not None:
            self.session.gone(self)

    def _drained(self) -> None:
        if self.session is not None:
            self.session.drained(self)

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
        except Exception as exc:  # our fault; who waits must hear, and the agent's log has the rest
            self.fail(0, "protocol", f"the agent failed at what this client wished: {exc!r}")
            self.close()
            raise

    def _begin(self, header: Header) -> None:
        if header.kind is not Kind.EVALUATE:
            if header.size > WHOLE_REQUEST:
                raise ProtocolError(f"a body of {header.size} bytes where a short one belongs")
            self._small = (header, bytearray())
            if not header.size:
                self._act(header, b"")
            return
        self._request = Request(self, header.id, header.size, token=self.token, wish=header.seq)
        if header.size > WHOLE_REQUEST:
            self._pause()
            self._the_session.submit(self._request)
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
                self._the_session.submit(request)
            return
        if not piece.left:
            self._request = None
        if not self._the_session.feed(request, piece.data, piece.left):
            self._pause()

    @property
    def _the_session(self) -> Session:
        if self.session is None:
            raise ProtocolError("a client says hello first")
        return self.session

    def _act(self, header: Header, body: bytes) -> None:
        self._small = None
        kind, id = header.kind, header.id
        if kind is Kind.LABEL:
            self._the_session.label(self, id, body.decode(errors="replace"))
        elif kind is Kind.SEQUEL:
            self._the_session.expect(self, id, parse_json(body))
        elif kind is Kind.HELLO:
            self._hello(parse_json(body))
        elif kind is Kind.INTERRUPT:
            self._the_session.interrupt(self, id, Rung(min(header.seq, Rung.LET_GO)))
        elif kind is Kind.RESTART:
            restore = parse_json(body).get("restore") if body else None
            self._the_session.restart(self, id, None if restore is None else str(restore))
        elif kind is Kind.RESUME:
            self._the_session.resume(self, id, header.seq)
        elif kind is Kind.FOLLOW:
            self._the_session.follow(self, id, header.seq, parse_json(body))
        elif kind is Kind.PACE:
            rate = parse_json(body).get("rate")
            if self._outgoing.packer and isinstance(rate, (int, float)) and rate > 0:
                self._outgoing.packer.tell(rate)
        elif kind is Kind.COMMAND:
            self._the_session.command(self, id, parse_json(body))
        elif kind is Kind.ASK and asked(body) is not None:
            self._the_session.submit(Request(self, id, len(body), bytearray(body), True, Kind.ASK))
        elif kind is Kind.ANSWER:
            self._the_session.answer(body.decode(errors="replace"))
        else:
            raise ProtocolError(f"a client does not send {kind.name}")

    def _hello(self, hello: dict[str, Any]) -> None:
        if hello.get("version") != VERSION:
            raise ProtocolError(
                f"it speaks version {hello.get('version')}, the agent version {VERSION}. A cluster is to be launched"
                " anew; on another host %ppe_disconnect --end ends the old agent, and R with it"
            )
        if self.session is not None:
            raise ProtocolError("it says hello twice")
        self.name = str(hello.get("client", self.name))
        self.token = str(hello.get("token", ""))
        self.session = self._sessions.get(str(hello.get("session") or MAIN))
        if self.token:
            before = self._sessions.attached.get(self.token)
            if before is not None:  # over a line that is cut, though nobody has told us yet
                before.close()
            self._sessions.attached[self.token] = self
        mode = hello.get("packing")
        self._outgoing.packer = Packer(mode) if mode in ("auto", "on") else None
        self.tell(json_frame(Kind.WELCOME, {**self.session.welcome(), "packing": mode in MODES}))
        self.session.joined(self)
