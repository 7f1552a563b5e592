"""One evaluation over a line that may be cut: its request goes out once, its frames come in until the one that ends it.

The stop button (SIGINT) raises nothing while a call runs; its handler has an interrupt sent. After a cut the
evaluation is asked for again by its number: it goes on where it was, or is begun if it never came whole. Must not know
what requests and results mean.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from _signal import signal as set_handler  # type: ignore[import-not-found]
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import ConnectionLost, RemoteError, RemoteInterrupted
from ...node.wire.protocol import ENDS, Header, Kind, Wish, frame, header, json_frame, parse_json
from .line import Line
from .link import Buffer, Link
from .pulse import SILENT_SECONDS, Pulse

# Seconds that R is given to end after an interrupt for being late.
GRACE = 15.0
# So often does the stop button go to the agent, which has a ladder for it; then to the line.
MOST_STOPS = 6
# A request that has not gone out so long after the stop button (seconds) is held up: nobody takes it.
HELD_UP_SECONDS, LOOK_SECONDS = 1.0, 0.02
ENDINGS = ENDS | {Kind.DONE}


class Call:
    """One evaluation, or another question that ends in an answer.

    Whatever goes wrong in ``on_frame``, R is interrupted and its frames are read to the end; then it is raised.
    ``label`` is the code's first line, ``wish`` how it is to be done, ``sequel`` what follows it; ``say`` tells that
    the line was cut, and is back. One that is not ``patient`` waits neither for a line nor for R: after a cut, or its
    time, it is given up.
    """

    def __init__(
        self,
        line: Line,
        id: int,
        on_frame: Callable[[Header, bytearray], None],
        *,
        kind: Kind = Kind.EVALUATE,
        label: str = "",
        wish: Wish = Wish(0),  # noqa: B008  # a number
        sequel: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda text: None,
        patient: bool = True,
    ) -> None:
        self._line = line
        self._link: Link = line.link()
        self._id = id
        self._kind = kind
        self._on_frame = on_frame
        self._label = label.encode()[:200]
        self._wish = wish
        self._sequel = sequel
        self._say = say
        self._patient = patient
        self._pulse = Pulse(self._link.host, say)
        self._queued = False
        self._seen = 0
        self._failure: BaseException | None = None
        self._stops = self._stops_before = 0
        self._dropped = self._heard = self._sending = False
        self._asking = False
        self.open = True
        self.late = False

    def answer(self, buffers: Sequence[Buffer], timeout: float | None) -> tuple[Kind, bytearray]:
        """The frame that ends the evaluation."""
        before = self._take_stop_button()
        try:
            kind, body = self._whole(buffers, timeout)
        finally:
            if before is not None:
                set_handler(signal.SIGINT, before)
        self.open = False
        # R's code may handle the interrupt and return; of a stop that R did not hear, the caller is to hear.
        handled = self._heard and kind is Kind.RESULT
        stopped = isinstance(self._failure, KeyboardInterrupt) or (self._stops and not handled)
        if kind is not Kind.FAILED and stopped:
            raise RemoteInterrupted("interrupted; the R session and its variables are still there")
        if self._failure is not None:
            raise self._failure
        return kind, body

    def _whole(self, buffers: Sequence[Buffer], timeout: float | None) -> tuple[Kind, bytearray]:
        deadline = None if timeout is None else time.monotonic() + timeout
        size = sum(map(len, buffers))
        request: Sequence[Buffer] = [header(self._kind, size, id=self._id, seq=self._wish), *buffers]
        if self._label:  # behind it: R begins meanwhile
            request = [*request, frame(Kind.LABEL, self._label, id=self._id)]
        if self._sequel:  # before it: it is never without
            request = [json_frame(Kind.SEQUEL, dict(self._sequel), id=self._id), *request]
        resume = [frame(Kind.RESUME, id=self._id)]
        sent: Sequence[Buffer] = request
        while True:
            try:
                self._sending = sent is request
                whole = self._link.send(*sent, stop=self._stopped if self._sending else _never)
                self._sending = False
                if not whole:
                    raise RemoteInterrupted("the transfer was interrupted; nothing was assigned in R")
                if sent is not request and (self._stops or self._failure is not None):
                    self._interrupt()
                kind, body = self._wait(deadline)
                if (
                    sent is request
                    or kind is not Kind.FAILED
                    or parse_json(bytes(body))["reason"] != "unknown"
                ):
                    return kind, body
                sent = request
            except ConnectionLost as lost:
                self._sending = False
                if not self._patient:
                    raise
                self._check_stops()
                self._stops_before = self._stops
                self._link = self._line.again(lost, say=self._say, stopped=self._stopped_since)
                resume[0] = frame(Kind.RESUME, id=self._id, seq=self._seen)
                sent = resume if self._kind is Kind.EVALUATE else request

    def _stopped(self) -> bool:
        return self._stops > 0

    def _stopped_since(self) -> bool:
        return self._stops > self._stops_before

    def _check_stops(self) -> None:
        """The stop button has cut the line itself."""
        if self._dropped:
            raise RemoteInterrupted("the transfer was stopped; R and its variables are still there") from None
        if self._stops and self._pulse.lost:
            raise RemoteInterrupted(self._pulse.words()) from None
        if self._stops > 1:
            raise RemoteInterrupted(
                "R did not react to the interrupt; it still runs (%remote_jobs)"
            ) from None

    def _wait(self, deadline: float | None) -> tuple[Kind, bytearray]:
        while True:
            try:
                left = SILENT_SECONDS if deadline is None else max(0.001, deadline - time.monotonic())
                head, body = self._link.next_frame(min(left, SILENT_SECONDS))
                self._pulse.heard()
                self._queued = head.kind is Kind.QUEUED
                if head.id != self._id and head.id:
                    continue
                if head.id and head.kind in ENDINGS:
                    return head.kind, body
                if head.kind is Kind.INTERRUPT:
                    self._heard = True
                    continue
                if head.id and head.seq:
                    self._seen = head.seq
                if self._failure is None:
                    self._on_frame(head, body)
            except TimeoutError:
                if deadline is None or time.monotonic() < deadline:
                    if (
                        self._patient and not self._queued
                    ):  # of who waits with a large request nothing is read
                        self._pulse.silent(self._link)
                    continue
                if not self._patient:
                    self._interrupt()
                    self.open = False  # an answer that comes all the same belongs to nobody
                    raise RemoteInterrupted("R does not answer at once") from None
                if self.late:
                    why = "R does not react to the interrupt; it still runs"
                    raise RemoteInterrupted(self._pulse.words() if self._pulse.lost else why) from None
                self.late = True
                deadline = time.monotonic() + GRACE
                self._interrupt()
            except RemoteError:
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

    def reply(self, line: str) -> None:
        """Answer R's question."""
        self._link.send(frame(Kind.ANSWER, line.encode()))

    def _interrupt(self) -> None:
        self._link.send(frame(Kind.INTERRUPT, id=self._id))

    def _take_stop_button(self) -> Any:
        """Have SIGINT go to R; the handler before. Only the main thread gets signals, and only it may say so."""
        if threading.current_thread() is not threading.main_thread():
            return None
        # Not signal.signal(), which looks for enumerations in what it is given, for 4 us a call.
        before = set_handler(signal.SIGINT, self._pressed)
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
            if self._link.receiving_result or self._held_up():
                self._dropped = True
                self._link.close()
            else:
                if self._stops <= MOST_STOPS:
                    self._interrupt()
                if self._stops > MOST_STOPS or self._pulse.lost:
                    self._link.close()

    def _held_up(self) -> bool:
        """Whether the request still goes out; else whoever sends it has looked for the press."""
        deadline = time.monotonic() + HELD_UP_SECONDS
        while self._sending and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return self._sending


def _never() -> bool:
    return False
