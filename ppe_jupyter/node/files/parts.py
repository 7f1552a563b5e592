"""A file on its way, under another name, locked against other transfers. Standard library and no neighbours."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import struct
import time
from collections.abc import Callable

try:
    import fcntl

    LOCKS = True
except ModuleNotFoundError:  # Windows
    LOCKS = False

BLOCK = 2**20
# A transfer that has written nothing for so long has lost its sender: one that lives says something every 5 s.
STALE_SECONDS = 20.0
# struct flock of 64-bit Linux.
FLOCK = struct.Struct("hhqqi4x")


class Part:
    """A file that is not whole yet, locked against other transfers."""

    def __init__(self, index: int, path: str, *, end_stale: bool) -> None:
        self.index = index
        self._path = path
        self._digest = hashlib.sha256()
        self._file = self._locked(end_stale)

    def _locked(self, end_stale: bool) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            try:
                _lock(file, end_stale)
                # Another transfer may have just finished it, under the lock that we then got.
                if os.path.exists(self._path) and os.path.samestat(os.stat(self._path), os.fstat(file)):
                    os.utime(self._path)  # not stale: its beginning is read now
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def begin(self, offset: int, idle: Callable[[], None]) -> None:
        """Go on after ``offset``, which the sender knows to be right so far."""
        there = 0
        while there < offset and (block := os.read(self._file, min(BLOCK, offset - there))):
            self._digest.update(block)
            there += len(block)
            idle()
        os.ftruncate(self._file, there)

    def write(self, data: bytes | memoryview) -> None:
        """Add to it. Raises OSError."""
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def digest(self) -> bytes:
        """The SHA-256 of it so far."""
        return self._digest.digest()

    def publish(self, path: str, *, mode: int, mtime: int) -> None:
        """Give it mode, time and name."""
        if hasattr(os, "fchmod"):
            os.fchmod(self._file, mode)
        os.utime(self._path, ns=(mtime, mtime))
        if not LOCKS:
            self.close()  # Windows renames no open file
        os.replace(self._path, path)

    def remove(self) -> None:
        """There is nothing to go on with."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def close(self) -> None:
        """Let go of it, and of the lock. Safe to repeat."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _lock(file: int, end_stale: bool) -> None:
    """Lock it. A holder that has lost its sender is ended if that is allowed. Raises ValueError."""
    if not LOCKS:
        return
    for last in (False, True):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if last or not end_stale or time.time() - os.fstat(file).st_mtime < STALE_SECONDS:
                raise ValueError(
                    "another transfer is writing it; wait for that one, or try again soon"
                ) from None
        if (holder := _holder(file)) is not None:
            os.kill(holder, signal.SIGKILL)
            for _ in range(100):
                if _holder(file) is None:
                    break
                time.sleep(0.02)


def _holder(file: int) -> int | None:
    """The process that has the lock."""
    wanted = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, holder = FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, wanted))
    return holder if kind != fcntl.F_UNLCK and holder > 0 else None
