"""What goes out to one client: whole frames, and large ones in pieces and perhaps packed, which nothing may interrupt.

Must not know what the frames are for.
"""

from __future__ import annotations

from collections.abc import Callable

from .packing import MAGIC_PACKED, PACKED_FROM, Packer
from .pipes import Bytes, Outlet
from .protocol import HEADER

# Output that a client does not fetch.
TOO_MUCH_WAITING = 64 * 2**20
TOO_MANY_HELD = 1000


class Outgoing:
    """Frames to a descriptor; ``packer`` makes blocks of large ones. ``on_lost``: nobody takes what is sent."""

    def __init__(self, descriptor: int, *, on_drain: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self.packer: Packer | None = None
        self._outlet = Outlet(descriptor, on_drain=on_drain, on_broken=on_lost)
        self._on_lost = on_lost
        self._promised = 0
        self._in_blocks = False
        self._head_left = 0
        self._held: list[Bytes] = []
        self._closed = False

    @property
    def waiting(self) -> int:
        """Bytes that the client has not fetched."""
        return self._outlet.waiting

    def promise(self, size: int) -> None:
        """The next ``size`` bytes sent are one frame: what is told meanwhile waits."""
        self._promised = size
        self._head_left = HEADER.size if self.packer and size >= HEADER.size + PACKED_FROM else 0
        self._in_blocks = self._head_left > 0

    def send(self, data: Bytes) -> None:
        """Send bytes of a result: who produces looks at ``waiting``."""
        if self._closed:
            return
        if self._in_blocks and self._promised:
            self._send_packed(memoryview(data))
        else:
            self._outlet.write(data)
        if self._promised:
            self._promised -= len(data)
            while self._held and not self._promised:
                self._outlet.write(self._held.pop(0))

    def _send_packed(self, data: memoryview) -> None:
        """A piece of a large frame: its head, which is one piece, then its body in blocks."""
        if self._head_left:
            self._head_left = 0
            self._outlet.write(MAGIC_PACKED + bytes(data[len(MAGIC_PACKED) :]))
            return
        assert self.packer is not None
        self.packer.measure(self._outlet.taken, behind=self._outlet.waiting > 0)
        for block in self.packer.blocks(data):
            self._outlet.write(block)

    def tell(self, data: Bytes) -> None:
        """Send a whole frame; a client that does not fetch what it is told is lost."""
        if self._promised and not self._closed:
            self._held.append(data)
        else:
            self.send(data)
        if self.waiting > TOO_MUCH_WAITING or len(self._held) > TOO_MANY_HELD:
            self._on_lost()

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._outlet.close()
