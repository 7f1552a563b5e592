"""The stream of R's terminal: text, with markers of the evaluator's in between; sans-IO.

A marker is an escape sequence with a random word that only this R process knows: ``ESC ] ppe;WORD;LETTER NUMBER BEL``.
Because it comes in the stream itself, the order of text, messages, plots and ends is exact. Text is given out
with whole UTF-8 characters, and every text event lies on one side of each marker. Must not know what markers mean
for the session, but for stream changes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass


class Mark(enum.Enum):
    """The evaluator's markers, and the prompt of R's own top level; QUIT when R ends by itself."""

    STDERR = "m"
    STDOUT = "o"
    DISPLAY = "d"
    END = "e"
    PROMPT = "p"
    QUIT = "q"


@dataclass(frozen=True)
class Printed:
    """Text; ``stderr`` tells messages, warnings and errors from the rest."""

    data: bytes
    stderr: bool


@dataclass(frozen=True)
class Marker:
    """A place in the stream; ``number`` is the evaluation's or the display's."""

    mark: Mark
    number: int


def marker_text(word: str, mark: Mark) -> str:
    """How R writes a marker, up to the number."""
    return f"\x1b]ppe;{word};{mark.value}"


class TerminalReader:
    """Bytes of the terminal in, text and markers out, whatever the split."""

    def __init__(self, word: str) -> None:
        letters = "".join(mark.value for mark in Mark)
        self._prefix = f"\x1b]ppe;{word};".encode()
        self._marker = re.compile(re.escape(self._prefix) + b"([%s])([0-9]{0,15})\x07" % letters.encode())
        self._beginning = re.compile(re.escape(self._prefix) + b"[%s]?[0-9]{0,15}" % letters.encode())
        self._rest = b""
        self._stderr = False

    def feed(self, data: bytes) -> Iterator[Printed | Marker]:
        """What ``data`` completes; the beginning of a marker or character is kept for the next call."""
        data = self._rest + data
        self._rest = b""
        at = 0
        for match in self._marker.finditer(data):
            yield from self._text(data[at : match.start()])
            at = match.end()
            mark = MARKS[match.group(1)]
            if mark in (Mark.STDERR, Mark.STDOUT):
                self._stderr = mark is Mark.STDERR
            else:
                yield Marker(mark, int(match.group(2) or 0))
        cut = self._complete(data, at)
        self._rest = data[cut:]
        yield from self._text(data[at:cut])

    def flush(self) -> Iterator[Printed]:
        """What was kept back, when nothing more will come."""
        rest, self._rest = self._rest, b""
        yield from self._text(rest)

    def _text(self, data: bytes) -> Iterator[Printed]:
        if data:
            yield Printed(data, self._stderr)

    def _complete(self, data: bytes, at: int) -> int:
        """Up to where ``data`` surely is text of whole characters."""
        end = len(data)
        escape = data.rfind(b"\x1b", at)
        if escape >= 0 and (
            self._prefix.startswith(data[escape:]) or self._beginning.fullmatch(data, escape)
        ):
            return escape
        # At most three bytes of an unfinished UTF-8 character.
        for back in range(1, min(4, end - at + 1)):
            byte = data[end - back]
            if byte >= 0xC0:
                length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                return end - back if length > back else end
            if byte < 0x80:
                break
        return end


MARKS = {mark.value.encode(): mark for mark in Mark}
