"""The line to the agent: frames over one SSH channel, and one evaluation over it.

A frame is sent and received whole, or the link is closed: nothing may stop in the middle of one. The stop button
(SIGINT) therefore raises nothing while a ``Call`` runs; its handler has an interrupt sent. Notices may come at any
time and belong to no evaluation: whoever reads passes them on. Must not know what requests and results mean.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import ConnectionLost, RemoteError, RemoteInterrupted
from ..node.protocol import (
    ENDS,
    VERSION,
    FrameReader,
    Header,
    Kind,
    ProtocolError,
    frame,
    header,
    json_frame,
    parse_json,
)
from ..ssh import Channel, Connection

Buffer = bytes | memoryview
# Small buffers are sent as one; large ones are not copied, and an interrupt is looked for between them.
JOINED = 2**16
PIECE = 2**20
# Of what paramiko holds: to take a part moves the rest, up to the 16 MB of the window.
ALL = 2**25
# Of what comes between evaluations; more stays with the agent.
MOST_KEPT = 2**24
# A time-out (seconds) for what is here already. Not 0: that would hold for a thread that sends meanwhile.
NOW = 0.001
# Seconds that R is given to end after an interrupt for being late.
GRACE = 15.0


class Link:
    """An attached channel. Frames may be sent from any thread, and are read by one.

    ``on_notice`` gets the bodies of notices: those of WELCOME too, which are earlier than the link.
    """

    def __init__(
        self,
        connection: Connection,
        agent: str,
        client: str,
        *,
        on_notice: Callable[[dict[str, Any]], None] = lambda notice: None,
    ) -> None:
        self._connection = connection
        self._on_notice = on_notice
        self._kept: deque[tuple[Header, bytearray]] = deque()
        self._kept_bytes = 0
        self._channel: Channel = connection.popen(f"{agent} attach")
        self._reader = FrameReader(preamble=True)
        self._sending = threading.Lock()
        self._begun: Header | None = None  # a frame of which more is to come, in ``_body``
        self._body = bytearray()
        self.welcome: dict[str, Any] = {}
        self.send(json_frame(Kind.HELLO, {"version": VERSION, "client": client}))

    def send(self, *buffers: Buffer, stop: Callable[[], bool] = lambda: False) -> bool:
        """Send a frame; False, and closed, when ``stop()`` was true in the middle of it."""
        with self._sending:
            for piece in _pieces(buffers):
                if stop():
                    self.close()
                    return False
                self._channel.send_all(piece)
        return True

    def next_frame(self, timeout: float | None = None) -> tuple[Header, bytearray]:
        """The next frame and its body; TimeoutError leaves all in step, so it may be called again."""
        if self._kept:
            head, body = self._kept.popleft()
            self._kept_bytes -= head.size
            return head, body
        return self._next_frame(timeout)

    def look(self) -> None:
        """Pass on the notices that have come; other frames are kept for ``next_frame``."""
        with contextlib.suppress(TimeoutError):
            while self._kept_bytes < MOST_KEPT:
                head, body = self._next_frame(NOW)
                self._kept.append((head, body))
                self._kept_bytes += head.size

    def _next_frame(self, timeout: float | None) -> tuple[Header, bytearray]:
        while True:
            head, body = self._frame(timeout)
            if head.kind is Kind.WELCOME:
                self.welcome = parse_json(bytes(body))
                for notice in self.welcome.get("notices", ()):
                    self._on_notice(notice)
            elif head.kind is Kind.NOTICE and head.id == 0:
                self._on_notice(parse_json(bytes(body)))
            elif head.kind is Kind.FAILED and head.id == 0:
                raise RemoteError(parse_json(bytes(body))["message"])
            else:
                return head, body

    def _frame(self, timeout: float | None) -> tuple[Header, bytearray]:
        self._channel.settimeout(timeout)
        try:
            return self._whole_frame()
        finally:
            if timeout is not None:
                self._channel.settimeout(None)  # it would hold for sending too

    def _whole_frame(self) -> tuple[Header, bytearray]:
        head = self._begun if self._begun is not None else self._event()
        assert isinstance(head, Header)
        if self._begun is None:
            self._begun, self._body = head, bytearray()
        while len(self._body) < head.size:
            piece = self._event()
            assert not isinstance(piece, Header)
            self._body += piece.data
        self._begun = None
        return head, self._body

    def _event(self) -> Any:
        try:
            while (event := self._reader.next()) is None:
                data = self._channel.recv(ALL)
                if not data:
                    raise self._ended()
                self._reader.feed(data)
        except ProtocolError as exc:
            said = self._reader.skipped.decode(errors="replace").strip()
            raise RemoteError(f"the agent does not answer: {exc}. It said: {said[-500:]!r}") from exc
        return event

    def _ended(self) -> RemoteError:
        if not self._connection.alive:
            return self._connection.lost()
        said = (self._reader.skipped + self._channel.recv_stderr()).decode(errors="replace").strip()
        host = self._connection.target.host
        return ConnectionLost(
            f"the agent on {host} let go of the line ({said or 'it said nothing'}); try again", host=host
        )

    def close(self) -> None:
        """Detach. Safe to repeat."""
        self._channel.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _pieces(buffers: Sequence[Buffer]) -> Iterator[Buffer]:
    small: list[Buffer] = []
    size = 0
    for buffer in buffers:
        if len(buffer) >= JOINED:
            if small:
                yield b"".join(small)
            small, size = [], 0
            view = memoryview(buffer)
            yield from (view[at : at + PIECE] for at in range(0, len(view), PIECE))
        else:
            small.append(buffer)
            size += len(buffer)
    if small:
        yield b"".join(small) if len(small) > 1 else small[0]


class Call:
    """One evaluation: its request goes out, its frames come in until the one that ends it.

    Whatever goes wrong in ``on_frame``, R is interrupted and its frames are read to the end; then it is raised.
    """

    def __init__(
        self,
        link: Link,
        id: int,
        on_frame: Callable[[Header, bytearray], None],
        *,
        kind: Kind = Kind.EVALUATE,
    ) -> None:
        self._link = link
        self._id = id
        self._kind = kind
        self._on_frame = on_frame
        self._failure: BaseException | None = None
        self._stops = 0
        self._asking = False
        self.open = True
        self.late = False

    def answer(self, buffers: Sequence[Buffer], timeout: float | None) -> tuple[Kind, bytearray]:
        """The frame that ends the evaluation."""
        size = sum(map(len, buffers))
        before = self._take_stop_button()
        try:
            head = header(self._kind, size, id=self._id)
            if not self._link.send(head, *buffers, stop=lambda: self._stops > 0):
                raise RemoteInterrupted("the transfer was interrupted; nothing was assigned in R")
            kind, body = self._wait(timeout)
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
        self.open = False
        if isinstance(self._failure, KeyboardInterrupt) or self._stops:
            raise RemoteInterrupted("interrupted; the R session and its variables are still there")
        if self._failure is not None:
            raise self._failure
        return kind, body

    def _wait(self, timeout: float | None) -> tuple[Kind, bytearray]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                left = None if deadline is None else max(0.001, deadline - time.monotonic())
                head, body = self._link.next_frame(left)
                if head.id not in (self._id, 0):
                    continue
                if head.kind in ENDS:
                    return head.kind, body
                if self._failure is None:
                    self._on_frame(head, body)
            except TimeoutError:
                if self.late:
                    raise RemoteInterrupted("R does not react to the interrupt; it still runs") from None
                self.late = True
                deadline = time.monotonic() + GRACE
                self._interrupt()
            except RemoteError:
                if self._stops > 1:
                    raise RemoteInterrupted("R did not react to the interrupt; it still runs") from None
                raise
            except BaseException as exc:  # of on_frame; raised when all is read
                self._failure = exc
                self._interrupt()

    def ask(self, question: Callable[[], str]) -> str:
        """What the user types; the stop button ends the typing."""
        self._asking = True
        try:
            return question()
        finally:
            self._asking = False

    def _interrupt(self) -> None:
        self._link.send(frame(Kind.INTERRUPT, id=self._id))

    def _take_stop_button(self) -> Any:
        """Have SIGINT go to R; the handler before. Only the main thread gets signals, and only it may say so."""
        if threading.current_thread() is not threading.main_thread():
            return None
        before = signal.signal(signal.SIGINT, self._pressed)
        if not callable(before):  # ignored, or not Python's
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)
            return None
        return before

    def _pressed(self, *signal_and_frame: object) -> None:
        if self._asking:
            raise KeyboardInterrupt
        self._stops += 1
        # The main thread may hold the sending lock: not here.
        threading.Thread(target=self._stop, daemon=True).start()

    def _stop(self) -> None:
        with contextlib.suppress(RemoteError):
            if self._stops < 3:
                self._interrupt()
            else:
                self._link.close()
