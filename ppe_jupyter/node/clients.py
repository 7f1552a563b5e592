"""A client on the agent's side: frames from two descriptors of an SSH channel to the session, and back.

``attach`` hands its standard input and output over, so no process copies the bytes. A client that does not read
is dropped when too much waits for it; it can ask the log for what it missed. Must not know of R.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, Union

from .protocol import VERSION, Body, FrameReader, Header, Kind, ProtocolError, json_frame, parse_json

READ_BYTES = 2**20
# Requests up to this size are read at once, whoever's turn it is, so that an interrupt behind them is seen.
WHOLE_REQUEST = 2**20
# Beyond this, who produces must wait.
ENOUGH_WAITING = 4 * 2**20
# Output that a client does not fetch.
TOO_MUCH_WAITING = 64 * 2**20

Bytes = Union[bytes, memoryview]


class Outlet:
    """A descriptor that is written to without ever waiting."""

    def __init__(
        self, descriptor: int, *, on_drain: Callable[[], None], on_broken: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._on_drain = on_drain
        self._on_broken = on_broken
        self._queue: deque[memoryview] = deque()
        self.waiting = 0
        os.set_blocking(descriptor, False)

    def write(self, data: Bytes) -> None:
        """Write now what fits, and the rest as room comes."""
        view = memoryview(data)
        if not self._queue:
            view = view[self._try(view) :]
            if not view:
                return
            asyncio.get_running_loop().add_writer(self._descriptor, self._resume)
        # What a reader lent us is its own again when we return.
        self._queue.append(memoryview(bytes(view)))
        self.waiting += len(view)

    def close(self) -> None:
        """Forget what waits; the descriptor stays its owner's."""
        if self._queue:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        self._queue.clear()
        self.waiting = 0

    def _try(self, view: memoryview) -> int:
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:
            return 0
        except OSError:
            self._on_broken()
            return len(view)

    def _resume(self) -> None:
        while self._queue:
            view = self._queue[0]
            done = self._try(view)
            if not self._queue:  # broken and closed meanwhile
                return
            self.waiting -= done
            if done < len(view):
                self._queue[0] = view[done:]
                break
            self._queue.popleft()
        if not self._queue:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        if self.waiting < ENOUGH_WAITING:
            self._on_drain()


@dataclass
class Request:
    """An evaluation that a client asked for. ``whole``: its body has come; a larger one comes when R takes it."""

    client: Client | None
    id: int
    size: int
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False


class Session(Protocol):
    """What a client needs of the session."""

    def welcome(self) -> dict[str, object]:
        """What a new client is told."""

    def submit(self, request: Request) -> None:
        """Queue an evaluation."""

    def feed(self, data: memoryview, left: int) -> bool:
        """More of the running request's large body; False: wait for ``resume``."""

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
        self._input, self._output = descriptors
        self._reader = FrameReader()
        self._outlet = Outlet(self._output, on_drain=self._drained, on_broken=self.close)
        self._request: Request | None = None
        self._small: tuple[Header, bytearray] | None = None
        self._paused = False
        self._closed = False
        os.set_blocking(self._input, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._input, self._readable)
        loop.add_reader(control, self._control_ended)

    @property
    def waiting(self) -> int:
        """Bytes that it has not fetched."""
        return self._outlet.waiting

    def send(self, data: Bytes) -> None:
        """Send bytes of a result: who produces looks at ``waiting``."""
        if not self._closed:
            self._outlet.write(data)

    def tell(self, data: bytes) -> None:
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
            asyncio.get_running_loop().add_reader(self._input, self._readable)
            self._pump()

    def close(self) -> None:
        """Drop the client. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._input)
        loop.remove_reader(self._control)
        self._outlet.close()
        for descriptor in (self._input, self._output):
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
        try:
            data = os.read(self._input, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._reader.feed(data)
        self._pump()

    def _pause(self) -> None:
        self._paused = True
        asyncio.get_running_loop().remove_reader(self._input)

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
        if not self._session.feed(piece.data, piece.left):
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
        elif header.kind is Kind.INTERRUPT:
            self._session.interrupt(self, header.id)
        elif header.kind is Kind.RESTART:
            self._session.restart(self, header.id)
        elif header.kind is Kind.REPLAY:
            self._session.replay(self, header.id, header.seq)
        elif header.kind is Kind.ANSWER:
            self._session.answer(body.decode(errors="replace"))
        else:
            raise ProtocolError(f"a client does not send {header.kind.name}")
