"""The exchange of files over a line: one end sends, the other receives; used by client and nodes alike.

The sender offers its entries (MANIFEST); the receiver says what it has already (PLAN); then the files' blocks come
(DATA, then END with the file's SHA-256, or LOST), and both say DONE. A node says PROGRESS every few seconds, so that
a silent line is a cut one. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from ..wire.protocol import Body, FrameReader, Header, Kind, ProtocolError, frame, header, parse_json
from .arrivals import Arrivals
from .listing import Entry

Bytes = Union[bytes, bytearray, memoryview]  # Python 3.9 on nodes
BLOCK = 2**18
# Small frames are sent together: each packet costs as much as 10 kB.
JOINED = 2**16


class LineLost(Exception):
    """The other end is gone."""


class Refused(Exception):
    """The other end says why it does not go on."""


@dataclass
class Tally:
    """How far a transfer is. ``kept``: bytes that the receiver had already; ``phase``: words, or "" for the files."""

    files: int = 0
    bytes: int = 0
    done: int = 0
    kept: int = 0
    phase: str = ""


OnProgress = Callable[[Tally], None]


class Line:
    """Frames over a function that receives bytes (b"" at the end) and one that sends all of some."""

    def __init__(self, recv: Callable[[], bytes], send: Callable[[Bytes], object]) -> None:
        self._recv = recv
        self._send = send
        self._reader = FrameReader(preamble=True)
        self._waiting = bytearray()
        self._lock = threading.Lock()

    def put(self, kind: Kind, body: Bytes = b"", *, id: int = 0, seq: int = 0) -> None:
        """Send a frame, perhaps together with the next ones; ``body`` may be changed afterwards."""
        with self._lock:
            self._waiting += header(kind, len(body), id=id, seq=seq)
            if len(body) >= JOINED:
                self._flush()
                self._send(body)
                return
            self._waiting += body
            if len(self._waiting) >= JOINED:
                self._flush()

    def tell(self, kind: Kind, body: Mapping[str, Any] | None = None) -> None:
        """Send a frame of JSON now."""
        with self._lock:
            self._waiting += frame(kind, json.dumps(body or {}).encode())  # ASCII: names need not be UTF-8
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._send(waiting)

    def next(self) -> Header | Body:
        """The next event. Raises LineLost, ProtocolError."""
        while (event := self._reader.next()) is None:
            data = self._recv()
            if not data:
                raise LineLost(self._reader.skipped.decode(errors="replace"))
            self._reader.feed(data)
        return event

    def body(self, head: Header) -> bytes:
        """The whole body of the frame that ``next`` has just begun."""
        data = bytearray()
        while len(data) < head.size:
            piece = self.next()
            assert isinstance(piece, Body)
            data += piece.data
        return bytes(data)

    def wait(self, *kinds: Kind, on_progress: Callable[[dict[str, Any]], None] = lambda told: None) -> Any:
        """The JSON of the next frame of these kinds. Raises Refused, LineLost."""
        while True:
            head = self.next()
            assert isinstance(head, Header)
            body = self.body(head)
            if head.kind is Kind.FAILED:
                raise Refused(parse_json(body)["message"])
            if head.kind in kinds:
                return {"kind": head.kind, **parse_json(body)}
            if head.kind is Kind.PROGRESS:
                on_progress(parse_json(body))


def send(
    line: Line,
    offered: Sequence[Entry],
    told: Mapping[str, Any],
    on_progress: OnProgress = lambda tally: None,
) -> dict[str, Any]:
    """Offer the entries, send those that the other end lacks, and return its report. Raises Refused, LineLost."""
    line.tell(Kind.MANIFEST, {**told, "entries": [entry.row() for entry in offered]})
    plan = line.wait(Kind.PLAN)
    tally = Tally(sum(entry.kind == "file" for entry in offered), sum(entry.size for entry in offered))
    have, failed = set(plan["have"]), plan["failures"]
    tally.done = tally.kept = sum(offered[index].size for index in have)
    answer = _Answer(line, lambda told: _tell(on_progress, tally, **told))
    try:
        for index, entry in enumerate(offered):
            if answer.is_there:
                break
            if entry.kind == "file" and index not in have and entry.path not in failed:
                begun, digest = plan["begun"].get(str(index), (0, ""))
                _send_file(line, index, entry, begun, digest, tally, on_progress, answer)
        line.tell(Kind.DONE)
    except (OSError, LineLost):
        answer.get()  # it may say why it has gone
        raise
    return answer.get()


def _tell(on_progress: OnProgress, tally: Tally, phase: str | None = None) -> None:
    tally.phase = tally.phase if phase is None else phase
    on_progress(tally)


class _Answer:
    """What the receiver says while it is being sent to; read in a thread."""

    def __init__(self, line: Line, on_progress: Callable[[dict[str, Any]], None]) -> None:
        self._line = line
        self._on_progress = on_progress
        self._report: dict[str, Any] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="ppe files")
        self._thread.start()

    def _read(self) -> None:
        try:
            self._report = self._line.wait(Kind.DONE, on_progress=self._on_progress)
        except Exception as exc:  # raised where the report is wanted
            self._error = exc

    @property
    def is_there(self) -> bool:
        return not self._thread.is_alive()

    def get(self) -> dict[str, Any]:
        while self._thread.is_alive():
            self._thread.join(0.2)  # not for ever: the stop button is heard between
        if self._error is not None:
            raise self._error
        return self._report


def _send_file(
    line: Line,
    index: int,
    entry: Entry,
    begun: int,
    known: str,
    tally: Tally,
    on_progress: OnProgress,
    answer: _Answer,
) -> None:
    """One file, after its first ``begun`` bytes if their SHA-256 is ``known``."""
    try:
        with Path(entry.source).open("rb", buffering=0) as file:
            digest, at = _digest_of(file, begun), begun
            if begun and digest.hexdigest() != known:
                file.seek(0)
                digest, at = hashlib.sha256(), 0
            tally.done += at
            tally.kept += at
            room = memoryview(
                bytearray(min(BLOCK, entry.size))
            )  # a new one each time would cost more than the hash
            while not answer.is_there and (size := file.readinto(room[: min(BLOCK, entry.size - at)])):
                block = room[:size]
                digest.update(block)
                line.put(Kind.DATA, block, id=index, seq=at)
                at += size
                tally.done += size
                on_progress(tally)
            about = os.fstat(file.fileno())
            if (about.st_size, about.st_mtime_ns) != (entry.size, entry.mtime):
                line.put(Kind.LOST, b"it was changed while it was sent", id=index)
            elif at == entry.size:
                line.put(Kind.END, digest.digest(), id=index)
    except PermissionError as exc:
        line.put(Kind.LOST, str(exc.strerror).encode(), id=index)
    except FileNotFoundError:
        line.put(Kind.LOST, b"it was removed before it was sent", id=index)


def _digest_of(file: Any, size: int) -> Any:
    digest = hashlib.sha256()
    while size and (block := file.read(min(2**20, size))):
        digest.update(block)
        size -= len(block)
    return digest


def receive(line: Line, arrivals: Arrivals, on_progress: OnProgress = lambda tally: None) -> dict[str, Any]:
    """Take what is offered, and return the report. Raises Unreceivable, LineLost; parts stay to be gone on with."""
    plan = arrivals.plan()
    offered = arrivals.entries
    tally = Tally(sum(entry.kind == "file" for entry in offered), sum(entry.size for entry in offered))
    tally.done = tally.kept = sum(offered[index].size for index in plan["have"])
    line.tell(Kind.PLAN, plan)
    begun: set[int] = set()
    try:
        while True:
            head = line.next()
            assert isinstance(head, Header)
            if head.kind in (Kind.DATA, Kind.END, Kind.LOST) and head.id >= len(offered):
                raise ProtocolError(f"a file of number {head.id}, of {len(offered)}")
            if head.kind is Kind.DATA:
                if head.id not in begun:
                    begun.add(head.id)
                    tally.done += head.seq
                    tally.kept += head.seq
                _take(line, head, arrivals)
                tally.done += head.size
                on_progress(tally)
            else:
                body = line.body(head)
                if head.kind is Kind.END:
                    arrivals.end(head.id, body)
                elif head.kind is Kind.LOST:
                    arrivals.fail(head.id, body.decode(errors="replace"))
                elif head.kind is Kind.FAILED:
                    raise Refused(parse_json(body)["message"])
                elif head.kind is Kind.DONE:
                    return {**arrivals.finish(), "bytes": tally.done - tally.kept}
    finally:
        arrivals.leave()


def _take(line: Line, head: Header, arrivals: Arrivals) -> None:
    at, left = head.seq, head.size
    while left:
        piece = line.next()
        assert isinstance(piece, Body)
        arrivals.write(head.id, at, piece.data)
        at, left = at + len(piece.data), piece.left


def parsed(rows: Sequence[Sequence[Any]]) -> list[Entry]:
    """The entries of a MANIFEST. Raises ProtocolError."""
    for row in rows:
        if [type(field) for field in row] != [str, str, int, int, int, str]:
            raise ProtocolError(f"no entry of a folder: {row}")
    return [Entry(*row) for row in rows]
