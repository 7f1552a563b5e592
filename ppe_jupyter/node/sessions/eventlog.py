"""What R printed and displayed, numbered and bounded, on the node's disk, for clients that were away.

Segments of frames as they are sent, named by the number of their first event; ``id`` is the job's number, 0 for what
belongs to none. Numbers go on from one agent to the next. The newest events are in memory too, and only there
while the disk takes nothing. What is missing is a Gap. Must not know of clients.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from ..wire.protocol import HEADER, KINDS, MAGIC, MAX_EXACT, Kind, header

LOG_BYTES = 256 * 2**20
SEGMENTS = 64
# What of the newest is read without the disk; and when the disk takes nothing.
MEMORY_BYTES = 4 * 2**20
# An event in memory, beside its body.
EVENT_BYTES = 256
DISKLESS_BYTES = 64 * 2**20
# Of what was printed last, for a progress bar: a wide terminal's line.
BAR_BYTES = 1024
PERCENT = re.compile(rb"(\d{1,3}(?:\.\d+)?) ?%")


@dataclass(frozen=True)
class Event:
    """One event; ``seq`` grows by one from event to event."""

    seq: int
    kind: Kind
    job: int
    body: bytes


@dataclass(frozen=True)
class Gap:
    """Events that are no more: dropped for the newest, or never written."""

    first: int
    last: int


Kept = Union[Event, Gap]  # Python 3.9 on nodes


@dataclass
class Segment:
    """A file of events from ``first`` on."""

    first: int
    path: Path
    size: int


class EventLog:
    """The newest events, up to about ``limit`` bytes of them, in ``folder`` (None: in memory only).

    The limit may be changed. ``on_trouble`` is told, once, when the disk takes no more.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        limit: int = LOG_BYTES,
        on_trouble: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.last = 0
        self.last_job = 0  # of what was written before
        self._folder = folder
        self.limit = limit
        self._on_trouble = on_trouble
        self._written = True
        self._recent: deque[Event] = deque()
        self._recent_bytes = 0
        self._segments: list[Segment] = []
        self._file: int | None = None
        if folder is not None:
            self._open(folder)

    @property
    def first(self) -> int:
        """The number of the oldest event that is still here."""
        oldest = [segment.first for segment in self._segments[:1]] + [
            each.seq for each in list(self._recent)[:1]
        ]
        return min(oldest, default=self.last + 1)

    def append(self, kind: Kind, body: bytes, *, job: int = 0) -> int:
        """Add an event and return its number; the oldest go when there is no room."""
        self.last += 1
        self._recent.append(Event(self.last, kind, job, body))
        self._recent_bytes += len(body) + EVENT_BYTES
        if self._folder is not None:
            self._write(header(kind, len(body), id=job, seq=self.last) + body)
        while self._recent_bytes > self._most_recent and len(self._recent) > 1:
            self._recent_bytes -= len(self._recent.popleft().body) + EVENT_BYTES
        return self.last

    @property
    def _most_recent(self) -> int:
        """Bytes that are in memory: all there is, what need not be read again, or what the disk does not take."""
        if self._folder is None:
            return self.limit
        on_disk = self._file is not None and self._written
        return min(self.limit, MEMORY_BYTES) if on_disk else DISKLESS_BYTES

    def since(self, seq: int) -> Iterator[Kept]:
        """The events after ``seq``, up to now, the oldest first, with gaps where some are missing."""
        for event in self._found(seq):
            if event.seq > seq + 1:
                yield Gap(seq + 1, event.seq - 1)
            seq = event.seq
            yield event

    def percent(self, job: int) -> float | None:
        """How far a job says it is: the last percentage in what it printed last, as progress bars do."""
        text = b""
        for event in reversed(self._recent):
            if event.job != job or len(text) > BAR_BYTES:
                break
            text = event.body + text if event.kind in (Kind.STDOUT, Kind.STDERR) else text
        lines = re.split(rb"[\r\n]+", text[-BAR_BYTES:].strip())
        found = PERCENT.findall(lines[-1])
        return min(100.0, float(found[-1])) if found else None

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _found(self, seq: int) -> Iterator[Event]:
        recent = [event for event in self._recent if event.seq > seq]
        until = recent[0].seq if recent else self.last + 1
        segments = [*self._segments]
        for segment, after in zip(segments, [*segments[1:], None]):  # Python 3.9 on nodes
            if seq + 1 < until and (after is None or after.first > seq + 1):
                yield from (event for event in read(segment.path) if seq < event.seq < until)
        yield from recent

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.events")):
                self._segments.append(Segment(int(path.stem), path, path.stat().st_size))
            if self._segments:
                self._mend(self._segments[-1])
        except (OSError, ValueError) as exc:
            self._trouble(exc)

    def _mend(self, segment: Segment) -> None:
        """Go on behind the last whole event."""
        self.last, segment.size = segment.first - 1, 0
        for event in read(segment.path):
            self.last = event.seq
            self.last_job = max(self.last_job, event.job)
            segment.size += HEADER.size + len(event.body)
        self._file = os.open(segment.path, os.O_WRONLY | os.O_CLOEXEC | os.O_APPEND)
        os.ftruncate(self._file, segment.size)

    def _write(self, data: bytes) -> None:
        try:
            if self._file is None or self._segments[-1].size > self.limit // SEGMENTS:
                self._begin_segment()
            self._write_whole(data)
        except OSError as exc:
            if len(self._segments) > 1:  # there is room when the oldest goes
                self._drop_oldest()
                return self._write(data)
            self._trouble(exc)
            return None
        self._written = True
        while sum(segment.size for segment in self._segments) > self.limit and len(self._segments) > 1:
            self._drop_oldest()
        return None

    def _write_whole(self, data: bytes) -> None:
        assert self._file is not None
        segment = self._segments[-1]
        try:
            done = os.write(self._file, data)
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            os.ftruncate(self._file, segment.size)
            raise
        segment.size += len(data)

    def _begin_segment(self) -> None:
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{self.last:016d}.events"
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.close()
        self._file = new
        self._segments.append(Segment(self.last, path, 0))

    def _drop_oldest(self) -> None:
        self._segments.pop(0).path.unlink(missing_ok=True)

    def _trouble(self, exc: Exception) -> None:
        if self._written:
            self._written = False
            kept = f"its newest {DISKLESS_BYTES // 2**20} MB are kept in memory only"
            self._on_trouble(f"R's output cannot be written to {self._folder}: {exc}; {kept}")


def read(path: Path) -> Iterator[Event]:
    """The whole events of a segment; none if it is gone."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        while len(head := file.read(HEADER.size)) == HEADER.size:
            magic, kind, job, seq, size = HEADER.unpack(head)
            if magic != MAGIC or kind not in KINDS or not 0 <= size <= MAX_EXACT:
                return
            body = file.read(int(size))
            if len(body) < size:
                return
            yield Event(int(seq), KINDS[kind], int(job), body)
