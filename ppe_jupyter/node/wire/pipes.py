"""Descriptors that are read and written without ever waiting. Must not know what goes through them."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Union

# A read of 1 MB costs 24 us more than one of 64 kB, for the buffer alone; it pays when much is there.
SHORT_READ = 2**16
LONG_READ = 2**20
# Beyond this, who produces must wait.
ENOUGH_WAITING = 4 * 2**20

Bytes = Union[bytes, bytearray, memoryview]  # Python 3.9 on nodes


class Inlet:
    """A descriptor that calls back when it can be read; ``pause`` and ``resume`` may be repeated."""

    def __init__(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_readable = on_readable
        self._size = SHORT_READ
        self._watched = False
        self.resume()

    def read(self) -> bytes | None:
        """What is there; None if nothing, b"" at the end."""
        try:
            data = os.read(self._descriptor, self._size)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self._size = LONG_READ if len(data) == self._size else SHORT_READ
        return data

    def pause(self) -> None:
        """Call back no more."""
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def resume(self) -> None:
        """Call back again."""
        if not self._watched:
            self._watched = True
            asyncio.get_running_loop().add_reader(self._descriptor, self._on_readable)


class Outlet:
    """A descriptor that takes any amount, and writes it as there is room; ``taken`` bytes so far."""

    def __init__(
        self, descriptor: int, *, on_drain: Callable[[], None], on_broken: Callable[[], None]
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_drain = on_drain
        self._on_broken = on_broken
        self._queue: deque[memoryview] = deque()
        self.waiting = 0
        self.taken = 0

    def write(self, data: Bytes) -> None:
        """Write now what fits, and the rest as room comes."""
        view = memoryview(data)
        if not self._queue:
            view = view[self._try(view) :]
            if not view:
                return
            asyncio.get_running_loop().add_writer(self._descriptor, self._resume)
        # What a reader lent us is its own again when we return.
        self._queue.append(memoryview(bytes(view)))
        self.waiting += len(view)

    def close(self) -> None:
        """Forget what waits; the descriptor stays its owner's."""
        if self._queue:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        self._queue.clear()
        self.waiting = 0

    def _try(self, view: memoryview) -> int:
        try:
            done = os.write(self._descriptor, view)
        except BlockingIOError:
            return 0
        except OSError:
            self._on_broken()
            return len(view)
        self.taken += done
        return done

    def _resume(self) -> None:
        while self._queue:
            view = self._queue[0]
            done = self._try(view)
            if not self._queue:  # broken, and closed meanwhile
                return
            self.waiting -= done
            if done < len(view):
                self._queue[0] = view[done:]
                break
            self._queue.popleft()
        if not self._queue:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        if self.waiting < ENOUGH_WAITING:
            self._on_drain()
