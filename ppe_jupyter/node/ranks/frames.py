"""What the ranks of a team, their nodes' relays and its keeper say to each other: heads of three doubles, and bytes.

Doubles, because R reads and writes them too. Sans-IO.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEAD = struct.Struct("<3d")
ALL = -1


class Kind(enum.IntEnum):
    """What a frame is. To a rank: VALUE, then RUN. About a rank, to its node's relay: INTERRUPT. Others: from there."""

    # Of the master's R session, or for it: its name, a NUL, and R's serialization of it, or columns if Python's.
    VALUE = 1
    RUN = 2  # a cell with its inputs, in the form of the rank's language
    INTERRUPT = 3
    HERE = 10  # a rank has started: its node's name
    STDOUT = 11
    STDERR = 12
    STOPPED = 13  # the interrupt has reached the cell
    DONE = 14  # the cell has ended: its outputs
    FAILED = 15  # the cell has failed: why
    GONE = 16  # the rank itself has ended: how
    PART = 18  # of a map's chunk that takes long: results so far
    DEAF = 17  # the interrupt does not reach the cell: it is in C code


class Frame(NamedTuple):
    """``rank`` is ALL for every rank of a node."""

    rank: int
    kind: Kind
    body: bytes = b""


class Frames:
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes."""
        self._data += data
        while len(self._data) >= HEAD.size:
            rank, kind, size = HEAD.unpack_from(self._data)
            end = HEAD.size + int(size)
            if len(self._data) < end:
                return
            body = bytes(memoryview(self._data)[HEAD.size : end])
            del self._data[:end]
            yield Frame(int(rank), Kind(int(kind)), body)


def pack(rank: int, kind: Kind, body: bytes = b"") -> bytes:
    """A frame."""
    return HEAD.pack(rank, kind, len(body)) + body
