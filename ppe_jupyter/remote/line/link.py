"""A link to the agent: frames over one SSH channel.

A frame is sent and received whole, or the link is closed: nothing may stop in the middle of one. Notices may come at
any time and belong to no evaluation: whoever reads passes them on. Must not know what requests and results mean.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...errors import ConnectionLost, RemoteError
from ...node.wire.packing import MAGIC_PACKED, PACKED_FROM, Packer
from ...node.wire.protocol import (
    ENDS,
    HEADER,
    VERSION,
    FrameReader,
    Header,
    Kind,
    ProtocolError,
    json_frame,
    parse_json,
)
from ...ssh import Channel, Connection

Buffer = bytes | memoryview
OnProgress = Callable[[bool, int, int], None]
# Small buffers are sent as one; large ones are not copied, and an interrupt is looked for between them.
JOINED = 2**16
PIECE = 2**20
# Of what paramiko holds: to take a part moves the rest, up to the 16 MB of the window.
ALL = 2**25
# Of what comes between evaluations; more stays with the agent.
MOST_KEPT = 2**24
# A time-out (seconds) for what is here already. Not 0: that would hold for a thread that sends meanwhile.
NOW = 0.001
# Of a frame: what comes of the rest, or of a compressed one, is too little to tell how fast the line is.
MOST_OF = 0.7
# A node that boots accepts the line before its agent runs.
GREETING_SECONDS = 60.0
# A transfer's progress is told from this size (bytes) and time (seconds) on, and so often.
LARGE = 2**22
SHOWN_AFTER, SHOWN_EVERY = 1.0, 0.1


class Link:
    """An attached channel. Frames may be sent from any thread, and are read by one.

    ``hello`` says who attaches to which session. ``on_notice`` gets the bodies of notices: those of WELCOME too,
    which are earlier than the link; ``on_welcome`` that itself. ``on_progress`` is told of a large body: whether it
    goes up, and how many bytes of how many have gone.
    """

    def __init__(
        self,
        connection: Connection,
        agent: str,
        hello: dict[str, str],
        *,
        on_notice: Callable[[dict[str, Any]], None] = lambda notice: None,
        on_welcome: Callable[[dict[str, Any]], None] = lambda welcome: None,
    ) -> None:
        self._connection = connection
        self._on_notice = on_notice
        self._on_welcome = on_welcome
        self.on_progress: OnProgress | None = None
        self.closed = False
        self._kept: deque[tuple[Header, bytearray]] = deque()
        self._kept_bytes = 0
        self._channel: Channel = connection.popen(f"{agent} attach")
        self._reader = FrameReader(preamble=True)
        self._sending = threading.Lock()
        self._packer = Packer(hello.get("packing", "auto"))
        self._sent = self._received = 0
        self._begun: Header | None = None  # a frame of which more is to come, in ``_body``
        self._begun_at = (0.0, 0)  # time, and bytes received
        self._body = bytearray()
        self.welcome: dict[str, Any] = {}
        self.send(json_frame(Kind.HELLO, {"version": VERSION, **hello}))

    @property
    def host(self) -> str:
        """Where the agent is."""
        return self._connection.target.host

    @property
    def receiving_result(self) -> bool:
        """Whether a part of a large result has come, and more is to come."""
        begun = self._begun
        return begun is not None and begun.kind in ENDS and len(self._body) < begun.size

    def send(self, *buffers: Buffer, stop: Callable[[], bool] = lambda: False) -> bool:
        """Send a frame; False, and closed, when ``stop()`` was true in the middle of it."""
        size = sum(map(len, buffers))
        with self._sending:
            if size < JOINED and not stop():
                self._channel.send_all(b"".join(buffers))
                self._sent += size
                return True
            meter = Meter(True, size, self.on_progress)
            before, body, after = in_blocks(buffers) if self.welcome.get("packing") else (buffers, (), ())
            self._packer.begin()
            for packing, part in ((False, before), (True, body), (False, after)):
                for piece in _pieces(part):
                    if stop():
                        self.close()
                        return False
                    for block in self._packer.blocks(piece) if packing else (piece,):
                        self._send(block)
                    meter.add(len(piece))
        return True

    def _send(self, data: Buffer | bytearray) -> None:
        """Send it, and measure how the line takes it: while it is waited for, who sends is faster."""
        self._packer.measure(self._sent)
        self._channel.send_all(memoryview(data))
        self._sent += len(data)

    def greet(self) -> None:
        """Wait for the agent's welcome; what comes behind it is kept. Raises ConnectionLost if none comes."""
        deadline = time.monotonic() + GREETING_SECONDS
        while not self.welcome:
            try:
                head, body = self._next_frame(max(NOW, deadline - time.monotonic()), welcome=True)
            except TimeoutError:
                self.close()
                raise ConnectionLost(
                    f"the agent on {self.host} does not answer within {GREETING_SECONDS:.0f} s;"
                    " if it never does: %ppe_reboot",
                    host=self.host,
                ) from None
            if head.kind is not Kind.WELCOME:
                self._keep(head, body)

    def next_frame(self, timeout: float | None = None) -> tuple[Header, bytearray]:
        """The next frame and its body; TimeoutError leaves all in step, so it may be called again."""
        if self._kept:
            head, body = self._kept.popleft()
            self._kept_bytes -= head.size
            return head, body
        return self._next_frame(timeout)

    def frames(self, deadline: float | None) -> Iterator[tuple[Header, bytearray]]:
        """All that come. Raises TimeoutError at the deadline, by time.monotonic()."""
        while True:
            yield self.next_frame(None if deadline is None else max(NOW, deadline - time.monotonic()))

    def look(self) -> None:
        """Pass on the notices that have come; other frames are kept for ``next_frame``."""
        with contextlib.suppress(TimeoutError):
            while self._kept_bytes < MOST_KEPT:
                self._keep(*self._next_frame(NOW))

    def _keep(self, head: Header, body: bytearray) -> None:
        self._kept.append((head, body))
        self._kept_bytes += head.size

    def _next_frame(self, timeout: float | None, *, welcome: bool = False) -> tuple[Header, bytearray]:
        while True:
            head, body = self._frame(timeout)
            if head.kind is Kind.WELCOME:
                self.welcome = parse_json(bytes(body))
                self._on_welcome(self.welcome)
                for notice in self.welcome.get("notices", ()):
                    self._on_notice(notice)
                if welcome:
                    return head, body
            elif head.kind is Kind.NOTICE and head.id == 0:
                self._on_notice(parse_json(bytes(body)))
            elif head.kind is Kind.FAILED and head.id == 0:
                raise RemoteError(parse_json(bytes(body))["message"])
            else:
                return head, body

    def _frame(self, timeout: float | None) -> tuple[Header, bytearray]:
        if timeout is None:
            return self._whole_frame()
        self._channel.settimeout(timeout)
        try:
            return self._whole_frame()
        finally:
            self._channel.settimeout(None)  # it would hold for sending too

    def _whole_frame(self) -> tuple[Header, bytearray]:
        head = self._begun if self._begun is not None else self._event()
        assert isinstance(head, Header)
        if self._begun is None:
            self._begun, self._body = head, bytearray()
            self._meter = Meter(False, head.size, self.on_progress)
            self._begun_at = time.monotonic(), self._received
        while len(self._body) < head.size:
            piece = self._event()
            assert not isinstance(piece, Header)
            self._body += piece.data
            self._meter.add(len(piece.data))
        self._begun = None
        if head.size >= PACKED_FROM:
            self._tell_pace(head.size)
        return head, self._body

    def _tell_pace(self, size: int) -> None:
        """How fast a large frame has come, unless most of it was compressed, or here before."""
        began, before = self._begun_at
        came = self._received - before
        if came > MOST_OF * size and self.welcome.get("packing"):
            with contextlib.suppress(ConnectionLost):  # the frame is here, whatever has become of the line
                self.send(json_frame(Kind.PACE, {"rate": came / max(NOW, time.monotonic() - began)}))

    def _event(self) -> Any:
        try:
            while (event := self._reader.next()) is None:
                data = self._channel.recv(ALL)
                if not data:
                    raise self._ended()
                self._received += len(data)
                self._reader.feed(data)
        except ProtocolError as exc:
            said = self._reader.skipped.decode(errors="replace").strip()
            raise RemoteError(f"the agent does not answer: {exc}. It said: {said[-500:]!r}") from exc
        return event

    def lost(self) -> ConnectionLost:
        """The error to raise when the line was cut."""
        return self._connection.lost()

    def _ended(self) -> RemoteError:
        if not self._connection.alive or self.closed:
            return self.lost()
        said = (self._reader.skipped + self._channel.recv_stderr()).decode(errors="replace").strip()
        return ConnectionLost(
            f"the agent on {self.host} let go of the line ({said or 'it said nothing'}); try again",
            host=self.host,
        )

    def close(self) -> None:
        """Detach. Safe to repeat."""
        self.closed = True
        self._channel.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def in_blocks(buffers: Sequence[Buffer]) -> tuple[Sequence[Buffer], Sequence[Buffer], Sequence[Buffer]]:
    """What is sent as it is, the body of a large frame, which is sent in blocks, if there is one, and what follows."""
    size = HEADER.unpack(buffers[0])[4] if len(buffers[0]) == HEADER.size else 0
    if size < PACKED_FROM:
        return buffers, (), ()
    end = 1
    while size > 0:
        size -= len(buffers[end])
        end += 1
    return [MAGIC_PACKED + bytes(buffers[0][len(MAGIC_PACKED) :])], buffers[1:end], buffers[end:]


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


class Meter:
    """How much of a large body has gone, told now and then."""

    def __init__(self, up: bool, total: int, tell: OnProgress | None) -> None:
        self._up, self._total, self._done = up, total, 0
        self._tell = tell if total >= LARGE else None
        self._next = time.monotonic() + SHOWN_AFTER if self._tell else 0.0
        self._shown = False

    def add(self, size: int) -> None:
        """So many bytes more."""
        if self._tell is None:
            return
        self._done += size
        now = time.monotonic()
        if now >= self._next or (self._shown and self._done == self._total):
            self._next, self._shown = now + SHOWN_EVERY, True
            self._tell(self._up, self._done, self._total)
