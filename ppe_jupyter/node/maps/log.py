"""What a map has brought so far: a file of records that is only ever appended to, which is its checkpoint too.

A reader may be anywhere in it while it grows. What a crash has cut or has left as zeros is not there. Standard library
only; must not know how values are pickled.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

MAGIC = b"ppe.map 1\n"
HEAD = struct.Struct("<BqQ")
BLOCK_BYTES = 2**20


class Kind(enum.IntEnum):
    """What a record is."""

    HEADER = 1  # JSON: count, entropy, mark; at the beginning of each run
    RESULT = 2  # a task's result, pickled
    ERROR = 3  # a task's error, pickled
    SAID = 4  # JSON: [stream, text] that a task has printed
    NOTE = 5  # a line for the user
    END = 6  # JSON: how the run ended; a resumed one has several


_KINDS = frozenset(Kind)


class Record(NamedTuple):
    """``task`` is its index, -1 if it is of none."""

    kind: Kind
    task: int
    body: bytes


def pack(kind: Kind, task: int, body: bytes) -> bytes:
    """A record."""
    return HEAD.pack(kind, task, len(body)) + body


class Records:
    """Bytes in, records out, till one is not whole. Sans-IO."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.whole = 0  # bytes of the records that came out

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that ``data`` completes."""
        self._data += data
        while len(self._data) >= HEAD.size:
            kind, task, size = HEAD.unpack_from(self._data)
            end = HEAD.size + size
            if len(self._data) < end:
                return
            body = bytes(memoryview(self._data)[HEAD.size : end])
            # File systems leave zeros where a power cut came before the data. No record ends so: neither JSON nor
            # pickles do.
            if kind not in _KINDS or body.endswith(b"\0"):
                return
            del self._data[:end]
            self.whole += end
            yield Record(Kind(kind), task, body)


class Refused(Exception):
    """The file cannot be this map's checkpoint; the message says why."""


class Log:
    """The file, open for appending; ``done`` are the tasks whose results it has, ``end`` is its length."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or begin it. Raises OSError; Refused if it is of another map than ``header`` says."""
        self.path = path
        self.entropy = int(header["entropy"])
        self.done: set[int] = set()
        self._grown = asyncio.Event()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.end = self._resume(header) if os.fstat(self._file).st_size else 0
            os.ftruncate(self._file, self.end)
            header = {**header, "entropy": self.entropy}
            self._write(MAGIC * (not self.end) + pack(Kind.HEADER, -1, json.dumps(header).encode()))
        except BaseException:
            self.close()
            raise

    def _resume(self, header: Mapping[str, Any]) -> int:
        records = Records()
        for record in records.feed(b"".join(_blocks(self._file, self.path))):
            if record.kind is Kind.HEADER:
                found = json.loads(record.body)
                mark, theirs = header["mark"], found["mark"]
                if differ := [name for name in mark if mark[name] != theirs.get(name)]:
                    raise Refused(
                        f"{self.path} is of another map (its {' and '.join(differ)} differ): give that one again,"
                        " name another file, or remove it"
                    )
                self.entropy = int(found["entropy"])
            elif record.kind is Kind.RESULT:
                self.done.add(record.task)
        return len(MAGIC) + records.whole if records.whole else 0

    def append(self, records: bytes) -> None:
        """Write whole records. Raises OSError; what is there stays whole."""
        try:
            self._write(records)
        finally:
            self._grown.set()
            self._grown = asyncio.Event()

    def _write(self, data: bytes) -> None:
        at, view = self.end, memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file, view, at)
                at, view = at + written, view[written:]
        except OSError:
            os.ftruncate(self._file, self.end)
            raise
        self.end = at

    def opened(self) -> int:
        """Another descriptor of the file, which is the caller's: another map may take its name."""
        return os.dup(self._file)

    def grown(self) -> asyncio.Event:
        """Is set when more has been appended, or no more will be."""
        return self._grown

    def close(self) -> None:
        """No more is written."""
        self._grown.set()
        os.close(self._file)


def _blocks(file: int, path: Path) -> Iterator[bytes]:
    at = 0
    while block := os.pread(file, BLOCK_BYTES, at):
        if at == 0:
            if not block.startswith(MAGIC):
                raise Refused(f"{path} is no checkpoint of a map: name another file")
            yield block[len(MAGIC) :]
        else:
            yield block
        at += len(block)
