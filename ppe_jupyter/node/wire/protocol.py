"""Frames between client, agent and R: a protocol without I/O, used at both ends.

A frame is a header of 40 bytes and a body. All of the header's numbers are little-endian doubles, because R has no
64-bit integer and reads five doubles in one call. The magic has PNG's trick: a byte that is not ASCII and a line end,
so that a channel that rewrites text is noticed at the first frame. Bodies are JSON for what the agent itself
answers, else what the two ends of the session agree on (remote/values/wire.py and columns.R); the agent passes
those on unread. Must not know what a body means.

``FrameReader`` takes bytes in any split and gives ``Header``, then ``Body`` pieces; a huge body is never held here.
"""

from __future__ import annotations

import contextlib
import enum
import json
import struct
from typing import Any, NamedTuple, Union

from .packing import BLOCK_BYTES, MAGIC_PACKED, PACKED, WORD, BadBlock, unpacked

VERSION = 3
MAIN = "main"  # the session of those who name none
MAGIC = b"\x89ppeR\r\n@"
HEADER = struct.Struct("<8s4d")
MAX_JSON = 2**20
# What a login shell may print before the agent speaks.
MAX_PREAMBLE = 2**16
# The largest integer up to which every integer is a double.
MAX_EXACT = 2**53


class ProtocolError(Exception):
    """The bytes are no frames: the other end speaks another language."""


class Kind(enum.IntEnum):
    """What a frame is. Who sends it, and what its body is."""

    HELLO = 1  # client: {"version", "client", "token", "session"}: (token, id) names an evaluation for ever
    # Client (``seq``: its Wish), and agent to R (1: its body is sure to come whole; 2: an interrupt of the one before
    # may come late): a request in columns.
    EVALUATE = 2
    # Client: id of the evaluation, 0: whichever runs; ``seq``: which Rung. Agent: R has taken one in ``id``.
    INTERRUPT = 3
    RESTART = 4  # client: {"restore": path}, or nothing
    FOLLOW = 5  # client: {"job", "live", "quiet"}: its events after ``seq`` (0: all jobs'); ends in DONE, or as it did
    ANSWER = 6  # client: a line for R's standard input
    ASK = 7  # client, and agent to R: which Question, as a double, and what it is about; ends in RESULT
    LABEL = 8  # client: the first line of the code that it sent under the same id
    RESUME = 9  # client: the line was cut; evaluation ``id`` goes on here, with its events after ``seq``
    COMMAND = 10  # client: {"do": "jobs" | "sessions" | …}; ends in DONE
    PACE = 11  # client: {"rate"}: so many bytes per second have come of a large frame
    SEQUEL = (
        12  # client: {"notify", "end", "discard"}: what follows the evaluation that comes next under that id
    )

    WELCOME = 16  # agent: {"version", "first", "last", "pid", ...}
    QUEUED = 17  # agent: {"client", "since"} of the evaluation that runs now
    STDOUT = 18  # agent: UTF-8, never cut within a character
    STDERR = 19
    DISPLAY = 20  # R: a plot or table in columns
    RESULT = 21  # R: the value and outputs of an evaluation, in columns
    FAILED = 22  # agent: {"reason", "message", ...}, the end of an evaluation that R did not end
    DONE = 23  # agent: JSON, the end of what is no evaluation; ``seq`` is the last event's
    QUESTION = 24  # agent: R waits for a line of standard input
    FAILURE = 25  # R: an error ended the evaluation: message, call, traceback, line, text
    INTERRUPTED = 26  # R: an interrupt ended it
    NOTICE = 27  # agent: {"level", "text", "time"}, of the cluster itself
    GAP = 28  # agent: {"first", "last"}: events that the log has no more

    READY = 32  # R: {"pid", "version", "restored"}

    # Of exchange.py, whose line has no agent. JSON but for the three in the middle; ``id`` is the entry's number.
    FETCH = 40  # client: {"sources"}
    MANIFEST = 41  # sender: {"entries", ...}
    PLAN = 42  # receiver: {"have", "begun", "failures"}
    DATA = 43  # sender: a block at ``seq``
    END = 44  # sender: the SHA-256 of a whole file
    LOST = 45  # sender: why a file cannot be sent
    PROGRESS = 46  # node: that it is there; perhaps {"phase"}


class Wish(enum.IntFlag):
    """How an evaluation is to be done."""

    BACKGROUND = 1  # no one waits: DONE comes at once, with {"job"}
    WATCH = 2  # while it waits: the output of the one that runs
    TAKE_OVER = 4  # interrupt the one that runs, and go first


class Question(enum.IntEnum):
    """What can be asked of an R that does not evaluate; workspace.R and assistance.R answer."""

    OBJECTS = 1  # columns: names, bytes, whether a client has them
    SUMMARY = 2  # JSON: objects, bytes, unpulled; or null
    SAVE = 3  # JSON: objects, bytes
    COMPLETE = 4  # columns: what is being typed, what it could become; about code up to the cursor
    HELP = 5  # columns: text, HTML, or NULL; about a name
    WORKERS = 6  # text: what was done about workers that were left in the middle of a call
    STATE = 7  # columns: kinds of random numbers, ppe.lapply's last seed, packages attached, only loaded, .Random.seed


def ask(question: Question, about: str = "") -> bytes:
    """The body of a frame of the kind ASK. A question ``about`` something is for now: a busy R is not asked."""
    return struct.pack("<d", question) + about.encode()


def asked(body: bytes) -> Question | None:
    """Which question that is; None if it is none."""
    with contextlib.suppress(struct.error, ValueError):
        return Question(struct.unpack_from("<d", body)[0])
    return None


class Header(NamedTuple):
    """The head of a frame; ``size`` bytes of body follow. ``seq`` numbers the events of the log, else 0."""

    kind: Kind
    id: int
    seq: int
    size: int


class Body(NamedTuple):
    """A piece of the present frame's body, never empty; ``left`` bytes of it are still to come."""

    data: memoryview
    left: int


Event = Union[Header, Body]  # Python 3.9 on nodes


def header(kind: Kind, size: int, *, id: int = 0, seq: int = 0) -> bytes:
    """The head of a frame with a body of ``size`` bytes."""
    return HEADER.pack(MAGIC, kind, id, seq, size)


def frame(kind: Kind, body: bytes = b"", *, id: int = 0, seq: int = 0) -> bytes:
    """A whole frame."""
    return HEADER.pack(MAGIC, kind, id, seq, len(body)) + body


def json_frame(kind: Kind, body: dict[str, Any], *, id: int = 0, seq: int = 0) -> bytes:
    """A whole frame with a JSON body."""
    # JSON may have halves of characters in strings; whoever sent them must not harm others.
    return frame(kind, json.dumps(body, ensure_ascii=False).encode(errors="replace"), id=id, seq=seq)


def parse_json(body: bytes) -> dict[str, Any]:
    """The object in a JSON body. Raises ProtocolError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"a body is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise ProtocolError("a body is not a JSON object")
    return value


class FrameReader:
    """Bytes in, events out.

    ``preamble`` lets text come before the first frame (``skipped`` has it afterwards). After a ProtocolError the
    reader raises it for ever: there is no way back into step.
    """

    def __init__(self, *, preamble: bool = False) -> None:
        self.skipped = b""
        self._preamble = preamble
        self._data = memoryview(b"")
        self._left = 0
        self._in_blocks = False
        self._block = (0, False)  # what is left of a block, and whether it is compressed
        self._error: ProtocolError | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes; ``next`` gives what is in them."""
        self._data = memoryview(bytes(self._data) + data if self._data else data)

    def next(self) -> Event | None:
        """The next event, or None until more bytes are fed. Raises ProtocolError."""
        if self._error:
            raise self._error
        if self._left:
            return self._next_body()
        if self._preamble and not self._skip_preamble():
            return None
        if len(self._data) >= HEADER.size:
            return self._next_header()
        begun = self._data[: len(MAGIC)].tobytes()
        if begun and not any(magic.startswith(begun) for magic in (MAGIC, MAGIC_PACKED)):
            raise self._fail("bytes that start no frame")
        return None

    def _next_body(self) -> Body | None:
        size, packed = (self._left, False) if not self._in_blocks else self._in_block()
        if len(self._data) < (size if packed else 1):
            return None
        piece = self._data[:size]
        self._data = self._data[len(piece) :]
        if self._in_blocks:
            self._block = (size - len(piece), False)
        if packed:
            try:
                piece = memoryview(unpacked(piece, self._left))
            except BadBlock as exc:
                raise self._fail(str(exc)) from exc
        self._left -= len(piece)
        return Body(piece, self._left)

    def _in_block(self) -> tuple[int, bool]:
        """What is left of the present block; of the next one when its size is here."""
        if not self._block[0] and len(self._data) >= WORD.size:
            word = WORD.unpack_from(self._data)[0]
            size, packed = word & ~PACKED, bool(word & PACKED)
            if not 0 < size <= (BLOCK_BYTES if packed else min(BLOCK_BYTES, self._left)):
                raise self._fail(f"a block of {size} bytes")
            self._data, self._block = self._data[WORD.size :], (size, packed)
        return self._block if self._block[0] else (len(self._data) + 1, True)

    def _next_header(self) -> Header:
        magic, kind, *numbers = HEADER.unpack_from(self._data)
        if magic not in (MAGIC, MAGIC_PACKED):
            raise self._fail("bytes that start no frame")
        if kind not in KINDS:
            raise self._fail(f"an unknown kind of frame: {kind}")
        for number in numbers:
            # This way round NaN fails too.
            if not (0 <= number <= MAX_EXACT and number.is_integer()):
                raise self._fail(f"a header with an impossible number: {number}")
        id, seq, size = map(int, numbers)
        self._data = self._data[HEADER.size :]
        self._left, self._in_blocks = size, magic == MAGIC_PACKED
        return Header(KINDS[kind], id, seq, size)

    def _skip_preamble(self) -> bool:
        """Drop what comes before the first frame; False while it is not there yet."""
        data = self._data.tobytes()
        at = data.find(MAGIC)
        if at < 0:
            # The magic's beginning may be there already.
            keep = next(n for n in range(len(MAGIC) - 1, -1, -1) if data.endswith(MAGIC[:n]))
            at = len(data) - keep
        else:
            self._preamble = False
        self.skipped += data[:at]
        self._data = self._data[at:]
        if len(self.skipped) > MAX_PREAMBLE:
            raise self._fail("text where the agent should answer")
        return not self._preamble

    def _fail(self, what: str) -> ProtocolError:
        self._error = ProtocolError(what)
        return self._error


# Looked up for every frame; Kind(number) takes ten times as long.
KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}

# The frames that end an evaluation.
ENDS = {Kind.RESULT, Kind.FAILED, Kind.FAILURE, Kind.INTERRUPTED}
