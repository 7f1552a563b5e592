"""What R says, in its true order: text and markers of its terminal, frames of its pipe.

Text and displays come before the result of their evaluation: what R has written into its terminal before the pipe is
there to be read (Linux' n_tty flushes its buffers before it says that there is nothing). A display comes at its
marker's place in the text. Must not know of clients, or of what the session does with it all.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

from ..wire.pipes import Inlet
from ..wire.protocol import ENDS, FrameReader, Header, Kind, ProtocolError
from .process import RProcess
from .terminal import Mark, Marker, Printed, TerminalReader

TERMINAL_BYTES = 2**18
# A pty gives at most 4 kB at once; after less there is nothing more, or the loop comes back for it.
TERMINAL_PIECE = 2**11
# While R prints line after line, look this often (seconds), not at every line.
PRINT_PAUSE = 0.003


class Life(Protocol):
    """Who is told how R is."""

    def on_ready(self, body: bytes) -> None:
        """The evaluator runs."""

    def on_prompt(self) -> None:
        """R is at its own top level."""

    def on_quit(self) -> None:
        """R ends by itself."""

    def on_garbage(self) -> None:
        """The pipe has something else than frames."""


class Listener(Protocol):
    """Who is told what an evaluation says."""

    def on_text(self, printed: Printed) -> None:
        """Something was printed."""

    def on_display(self, body: bytes) -> None:
        """A plot or table."""

    def on_end(self) -> None:
        """The present evaluation's text has come; its result follows, unless there is none to be."""

    def on_result(self, head: Header) -> None:
        """The head of the frame that ends the evaluation."""

    def on_result_piece(self, data: memoryview, left: int) -> None:
        """A piece of its body; with ``left`` 0, the last."""


class RStream:
    """The ordered stream of one R process. ``ended``: the present evaluation's text has come."""

    def __init__(self, r: RProcess, life: Life, listener: Listener) -> None:
        self.ended = False
        self._life = life
        self._listener = listener
        self._number = 0
        self._terminal = TerminalReader(r.word)
        self._results = FrameReader()
        self._items: deque[Printed | Marker] = deque()
        self._displays: deque[bytes] = deque()
        self._frame: Header | None = None
        self._body = bytearray()
        self._printed_at = 0.0
        self._closed = False
        self._terminal_in = Inlet(r.terminal, self._terminal_readable)
        self._results_in = Inlet(r.results, self._results_readable)

    def begin(self, number: int) -> None:
        """Expect the text and the result of the evaluation of this number."""
        self._number = number
        self.ended = False

    def pause(self) -> None:
        """Take no more of a large result for now."""
        self._results_in.pause()

    def resume(self) -> None:
        """Go on with it."""
        self._pump_results()
        if not self._closed:
            self._results_in.resume()

    def catch_up(self) -> None:
        """Tell what R has printed by now, without a pause."""
        self._read_terminal()
        self._pump_items()

    def drain(self) -> None:
        """Tell all that a dead R has said."""
        self._read_terminal()
        self._items.extend(self._terminal.flush())
        self._pump_items(final=True)

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        self._terminal_in.pause()
        self._results_in.pause()

    # --- The terminal

    def _terminal_readable(self) -> None:
        if not self.ended and time.monotonic() - self._printed_at < PRINT_PAUSE:
            self._terminal_in.pause()
            asyncio.get_running_loop().call_later(PRINT_PAUSE, self._terminal_again)
            return
        self.catch_up()

    def _terminal_again(self) -> None:
        if not self._closed:
            self._terminal_in.resume()
            self.catch_up()

    def _read_terminal(self, *, least: int = TERMINAL_PIECE) -> None:
        pieces = []
        size = 0
        while size < TERMINAL_BYTES and (piece := self._terminal_in.read()):
            pieces.append(piece)
            size += len(piece)
            if len(piece) < least:
                break
        if pieces:
            self._items.extend(self._terminal.feed(b"".join(pieces)))

    def _pump_items(self, *, final: bool = False) -> None:
        """Tell text and markers in their order; a display waits until the pipe has brought it."""
        while self._items and not self._closed:
            item = self._items[0]
            if isinstance(item, Marker) and item.mark is Mark.DISPLAY and not self._displays and not final:
                return
            self._items.popleft()
            if isinstance(item, Printed):
                self._printed_at = time.monotonic()
                self._listener.on_text(item)
            else:
                self._marker(item)

    def _marker(self, marker: Marker) -> None:
        if marker.mark is Mark.DISPLAY:
            if self._displays:
                self._listener.on_display(self._displays.popleft())
        elif marker.mark is Mark.QUIT:
            self._life.on_quit()
        elif marker.mark is Mark.PROMPT:
            self._life.on_prompt()
        elif marker.mark is Mark.END and marker.number == self._number:
            self.ended = True
            self._listener.on_end()

    # --- The pipe

    def _results_readable(self) -> None:
        data = None if self._closed else self._results_in.read()
        if not data:
            return
        self._results.feed(data)
        self._pump_results()

    def _pump_results(self) -> None:
        try:
            self._take_frames()
        except ProtocolError:
            self._life.on_garbage()

    def _take_frames(self) -> None:
        while not self._closed and (event := self._results.next()) is not None:
            if isinstance(event, Header):
                self._frame = event
                self._body = bytearray()
                if event.kind in ENDS:
                    self._begin_result(event)
                elif event.kind not in (Kind.READY, Kind.DISPLAY) or not event.size:
                    raise ProtocolError(f"R sends no {event.kind.name} of {event.size} bytes")
                continue
            assert self._frame is not None
            if self._frame.kind in ENDS:
                self._listener.on_result_piece(event.data, event.left)
                continue
            self._body += event.data
            if event.left:
                continue
            if self._frame.kind is Kind.READY:
                self._life.on_ready(bytes(self._body))
            elif self._frame.kind is Kind.DISPLAY:
                self._displays.append(bytes(self._body))
                self._pump_items()

    def _begin_result(self, head: Header) -> None:
        self._read_terminal(least=1)  # all that there is
        self._items.extend(self._terminal.flush())
        self._pump_items()
        if self._closed:
            return
        if not self.ended:
            self.ended = True
            self._listener.on_end()
        self._listener.on_result(head)
        if not head.size:  # no piece will come
            self._listener.on_result_piece(memoryview(b""), 0)
