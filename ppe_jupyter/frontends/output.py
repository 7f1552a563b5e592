"""What a remote evaluation prints and draws, shown as it comes and in order; of very much text the head and the tail.

A notebook holds all that a cell prints, in its page and in its file, so a cell shows so many lines only; the session's
log has the others. Plots are always shown. Must not know of clusters and kernels.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..node.files.arrivals import size_text
from ..remote.sessions.session import Display, Output, Text

# A kernel's flush waits for its I/O thread (about 0.3 ms), so not for each of 100,000 lines; left alone, text
# would lie there for 0.2 s.
FLUSH_AFTER = 0.05
# What a line has on average, at most, so that 2,000 lines are 1 MB.
LINE_BYTES = 500
TAIL_LINES = 100
# Between updates of the line that tells how much is not shown (seconds).
TELL_AFTER = 1.0


class Allowance:
    """How much text may be shown: so many lines, of ``LINE_BYTES`` on average. Sans-IO.

    A line that is overwritten (a progress bar) counts once.
    """

    def __init__(self, lines: int) -> None:
        self.lines = lines
        self.bytes = lines * LINE_BYTES
        self._line = 0

    def take(self, text: str) -> str:
        """The part of ``text`` that may be shown."""
        if self.lines <= 0 or self.bytes <= 0:
            return ""
        parts = text.split("\n", self.lines)
        shown = text[: len(text) - len(parts[-1])] if len(parts) > self.lines else text
        if "\r" not in shown:
            shown = shown[: self.bytes]
        whole, newline, last = shown.rpartition("\n")
        self.lines = 0 if len(shown) < len(text) else self.lines - shown.count("\n")
        if newline:
            self.bytes -= len(whole) + 1
            self._line = 0
        _, overwritten, last = last.rpartition("\r")
        if overwritten:
            self.bytes += self._line
            self._line = 0
        self.bytes -= len(last)
        self._line += len(last)
        return shown


class Tail:
    """The last lines of text that is not shown, and how much that is. Sans-IO."""

    def __init__(self) -> None:
        self.lines = self.bytes = 0
        self._texts: deque[Text] = deque()
        self._kept_lines = self._kept_bytes = 0

    def add(self, text: Text) -> None:
        """More text; what is older than enough is forgotten."""
        self._texts.append(text)
        self._count(text.text, 1)
        while self._enough_without(first := self._texts[0].text):
            self._texts.popleft()
            self._count(first, -1)
            self.lines += first.count("\n")
            self.bytes += len(first)

    def end(self) -> list[Text]:
        """The last lines, which are shown after all; the others are counted now."""
        first = self._texts.popleft()
        surplus = max(0, self._kept_lines - TAIL_LINES)
        rest = first.text.split("\n", surplus)[-1] if first.text.count("\n") >= surplus else ""
        rest = rest[max(0, len(rest) - TAIL_LINES * LINE_BYTES) :]
        hidden = first.text[: len(first.text) - len(rest)]
        self.lines += hidden.count("\n")
        self.bytes += len(hidden)
        return [Text(first.stream, rest), *self._texts]

    def _count(self, text: str, sign: int) -> None:
        self._kept_lines += sign * text.count("\n")
        self._kept_bytes += sign * len(text)

    def _enough_without(self, first: str) -> bool:
        lines = self._kept_lines - first.count("\n")
        return lines >= TAIL_LINES or self._kept_bytes - len(first) >= TAIL_LINES * LINE_BYTES


class Console:
    """Shows the outputs of one evaluation, within a ``with`` block; ``clock`` gives seconds.

    ``lines`` is how many lines of text are shown (None: all), then the last ``TAIL_LINES``; ``elsewhere`` says where
    the others are.
    """

    def __init__(
        self,
        lines: int | None = None,
        *,
        elsewhere: str = "%remote_r_log has them, ",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._elsewhere = elsewhere
        self._allowance = None if lines is None else Allowance(lines)
        self._tail: Tail | None = None
        self._clock = clock
        self._last = ""
        self._flushed = 0.0
        self._told = 0.0
        self._handle: Any = None
        self._intervals: list[tuple[Any, float]] = []

    def __enter__(self) -> Console:
        for stream in (sys.stdout, sys.stderr):
            interval = getattr(stream, "flush_interval", None)  # only a kernel's streams have one
            if interval is not None:
                self._intervals.append((stream, interval))
                stream.flush_interval = FLUSH_AFTER  # type: ignore[union-attr]
        return self

    def __exit__(self, *exc: object) -> None:
        if self._tail is not None:
            end = self._tail.end()
            self._tell(self._tail)
            for text in end:
                self._write(text.stream, text.text)
        if self._last:
            self._flush()
        for stream, interval in self._intervals:
            stream.flush_interval = interval

    def __call__(self, output: Output) -> None:
        """Text goes to stdout or stderr; anything richer is displayed."""
        if isinstance(output, Text):
            shown = output.text if self._allowance is None else self._allowance.take(output.text)
            if shown:
                self._write(output.stream, shown)
            if len(shown) < len(output.text):
                self._hold(Text(output.stream, output.text[len(shown) :]))
        elif isinstance(output, Display):
            from IPython.display import display

            self._flush()
            data = {"text/plain": "[plot]", **output.data}
            display(data, raw=True, metadata=dict(output.metadata))

    def _write(self, stream: str, text: str) -> None:
        if stream != self._last:
            self._flush()
        self._last = stream
        (sys.stderr if stream == "stderr" else sys.stdout).write(text)
        # A terminal shows lines only as they end, and nothing flushes it later.
        unseen = not self._intervals and not text.endswith("\n")
        if unseen or self._clock() - self._flushed > FLUSH_AFTER:
            self._flush()

    def _hold(self, text: Text) -> None:
        if self._tail is None:
            self._tail = Tail()
            self._flush()
        self._tail.add(text)
        if self._clock() - self._told > TELL_AFTER:
            self._tell(self._tail)

    def _tell(self, tail: Tail) -> None:
        from IPython.display import display

        from .tables import Line

        self._told = self._clock()
        size = f"{tail.lines:,} lines ({size_text(tail.bytes)})"
        line = Line("notice", f"… {size} are not shown; {self._elsewhere}--lines N shows more")
        if self._handle is None:
            self._handle = display(line, display_id=True)
        else:
            self._handle.update(line)

    def _flush(self) -> None:
        self._flushed = self._clock()
        (sys.stderr if self._last == "stderr" else sys.stdout).flush()
