"""The body of a large frame in blocks, each as it is or compressed, as it pays: sans-IO, used at both ends of a line.

A block is a number of 4 bytes, little-endian, whose highest bit says that it is compressed (zlib), and as many bytes as
the rest of the number. Whether it pays is measured: how fast the line takes what it is given, and how small a sample of
each block becomes, and how fast. A line that keeps up with who sends is left alone, and so are small frames.
"""

from __future__ import annotations

import math
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Union

Bytes = Union[bytes, bytearray, memoryview]  # Python 3.9 on nodes

# Of a frame whose body is in blocks, in place of the frame's own; as long.
MAGIC_PACKED = b"\x89ppeZ\r\n@"
PACKED_FROM = 2**20
BLOCK_BYTES = 2**20
WORD = struct.Struct("<I")
PACKED = 2**31
SAMPLE_BYTES = 2**14
LEVEL = 1
# After one that did not pay, the next ones are not looked at.
LOOK_EVERY = 8
# So much less time must it take.
WORTH = 0.9
# zlib's fastest does not keep up with a faster line (bytes per second): no sample is needed.
TOO_FAST = 150e6
# Over shorter times (seconds) a line's buffers, not the line, would be measured.
WINDOW_SECONDS = 0.1
MODES = ("auto", "on", "off")


class BadBlock(ValueError):
    """What should be a block is none."""


class Packer:
    """Makes blocks. ``mode``: ``auto``, ``on`` or ``off``; ``clock`` gives seconds."""

    def __init__(self, mode: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._mode = mode
        self._clock = clock
        self._rate: float | None = None
        self._told: float | None = None
        self._mark: tuple[float, int] | None = None
        self._spent = 0.0
        self._unlooked = 0

    def begin(self) -> None:
        """What was measured last holds until more is: nothing was sent for a while."""
        self._mark = None

    def measure(self, taken: int, *, behind: bool = True) -> None:
        """The line has taken so many bytes in all, and is ``behind`` who sends, or not."""
        now = self._clock() - self._spent
        if not behind:
            self._rate = self._mark = None
        elif self._mark is None:
            self._mark = (now, taken)
        elif now - self._mark[0] >= WINDOW_SECONDS:
            self._rate, self._mark = (taken - self._mark[1]) / (now - self._mark[0]), (now, taken)

    def tell(self, rate: float) -> None:
        """So many bytes per second came at the other end: what lies between takes some MB at once, which hides it."""
        self._told = rate

    def blocks(self, data: Bytes) -> Iterator[Bytes]:
        """What to send for these bytes of the body."""
        view = memoryview(data)
        for at in range(0, len(view), BLOCK_BYTES):
            piece = view[at : at + BLOCK_BYTES]
            began = self._clock()
            packed = zlib.compress(piece, LEVEL) if self._pays(piece) else piece
            self._spent += self._clock() - began
            if len(packed) < WORTH * len(piece):
                yield WORD.pack(len(packed) | PACKED)
                yield packed
            else:
                yield WORD.pack(len(piece))
                yield piece

    def _pays(self, piece: memoryview) -> bool:
        if self._mode != "auto":
            return self._mode == "on"
        if len(piece) < SAMPLE_BYTES:  # what stands before the values tells nothing of them
            return False
        self._unlooked -= 1
        rate = min(self._rate or math.inf, self._told or math.inf)
        if rate > TOO_FAST or self._unlooked > 0:
            return False
        sample = piece[len(piece) // 2 :][:SAMPLE_BYTES]
        began = self._clock()
        share = len(zlib.compress(sample, LEVEL)) / len(sample)
        seconds = (self._clock() - began) / len(sample)
        pays = max(seconds, share / rate) < WORTH / rate
        self._unlooked = 0 if pays else LOOK_EVERY
        return pays


def unpacked(block: Bytes, most: int) -> bytes:
    """The bytes of a compressed block, ``most`` of them at most. Raises BadBlock."""
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(block, most + 1)
    except zlib.error as exc:
        raise BadBlock(str(exc)) from exc
    if not data or len(data) > most or not inflate.eof or inflate.unused_data:
        raise BadBlock("a compressed block that is cut, too long or empty")
    return data
