"""A node's end of a team: passes frames between its ranks and the team's keeper, and interrupts ranks.

    python3 ~/.ppe/node team_relay SOCKET

Standard input and output are the keeper's; when they end, so do the ranks. What a rank has printed before it says that
it is done goes out before that. An interrupt is repeated until it has reached the cell, because C code and system()
discard it. One thread; nothing but the keeper's slowness stops the reading of what ranks print. Standard library.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from .frames import ALL, HEAD, Frame, Frames, Kind, pack

BLOCK_BYTES = 2**18
REPEAT_SECONDS = 0.3
# An interrupt that has not reached the cell by then will not.
DEAF_SECONDS = 2.0
# What the keeper may be behind before the ranks' output waits in their pipes.
BEHIND_BYTES = 2**23
# What a rank has printed is at most a pipe full; what it has started may print without end.
PIPE_BYTES = 2**16


class Outlet:
    """What is still to be written to a descriptor that does not block."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.bytes = 0
        self._waiting: deque[memoryview] = deque()
        os.set_blocking(end, False)

    def put(self, data: bytes) -> None:
        """Write it after what waits."""
        if data:
            self._waiting.append(memoryview(data))
        self.bytes += len(data)
        self.flush()

    def flush(self) -> None:
        """Write what can be written. Raises BrokenPipeError."""
        with contextlib.suppress(BlockingIOError):
            while self._waiting:
                written = os.write(self.end, self._waiting[0][:BLOCK_BYTES])
                self.bytes -= written
                rest = self._waiting.popleft()[written:]
                if rest:
                    self._waiting.appendleft(rest)


class Rank:
    """A rank of this node: its pipes, and the interrupt that has not reached it yet."""

    def __init__(self, number: int, pid: int, line: socket.socket, ends: list[int]) -> None:
        self.number = number
        self.pid = pid
        self.line = line
        self.requests = Outlet(ends[0])
        self.answers, out, err = ends[1:]
        self.outputs = {out: Kind.STDOUT, err: Kind.STDERR}
        self.frames = Frames()
        self.running = 0  # what it has been asked for and has not answered
        self.pressed: float | None = None
        self.repeat_at = 0.0
        for end in ends[1:]:
            os.set_blocking(end, False)

    def printed(self, kinds: dict[int, Kind], most: int = PIPE_BYTES) -> Iterator[bytes]:
        """Frames of what is in its pipes now."""
        for end, kind in list(kinds.items()):
            taken = 0
            while taken < most:
                try:
                    data = os.read(end, BLOCK_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    self.outputs.pop(end, None)  # another event of this turn may have seen it
                    break
                taken += len(data)
                yield pack(self.number, kind, data)

    def press(self) -> None:
        """Interrupt the rank and what it has started: Open MPI gives each a process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(os.getpgid(self.pid), signal.SIGINT)


class Relay:
    """The loop."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._ranks: dict[int, Rank] = {}
        self._keeper = Outlet(1)
        self._frames = Frames()
        where.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(where))
        where.chmod(0o600)
        self._listening.listen(256)

    def run(self) -> None:
        """Until the keeper hangs up; then the ranks are ended."""
        os.set_blocking(0, False)
        try:
            while self._turn():
                pass
        except BrokenPipeError:
            pass
        finally:
            self._where.unlink(missing_ok=True)
            for rank in self._ranks.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(os.getpgid(rank.pid), signal.SIGKILL)

    def _turn(self) -> bool:
        acts: dict[int, Callable[[], object]] = {}
        with selectors.DefaultSelector() as waiting:

            def wait(end: int, event: int, act: Callable[[], object]) -> None:
                acts[end] = act
                waiting.register(end, event)

            with contextlib.suppress(PermissionError):  # a file, in tests
                wait(0, selectors.EVENT_READ, self._hear)
            wait(self._listening.fileno(), selectors.EVENT_READ, self._welcome)
            if self._keeper.bytes:
                wait(1, selectors.EVENT_WRITE, self._keeper.flush)
            for rank in list(self._ranks.values()):
                self._wait_for(rank, wait)
            for key, _ in waiting.select(REPEAT_SECONDS / 3 if self._pressing() else None):
                if acts[key.fd]() is False:
                    return False
        return True

    def _wait_for(self, rank: Rank, wait: Callable[[int, int, Callable[[], object]], None]) -> None:
        if rank.requests.bytes:
            wait(rank.requests.end, selectors.EVENT_WRITE, lambda: self._sent(rank))
        if rank.answers >= 0:  # always: one may be that the interrupt has reached it
            wait(rank.answers, selectors.EVENT_READ, lambda: self._answered(rank))
        if self._keeper.bytes < BEHIND_BYTES:
            for end, kind in rank.outputs.items():
                wait(end, selectors.EVENT_READ, lambda end=end, kind=kind: self._print(rank, end, kind))  # type: ignore[misc]
            wait(rank.line.fileno(), selectors.EVENT_READ, lambda: self._gone(rank))

    def _hear(self) -> bool:
        try:
            data = os.read(0, BLOCK_BYTES)
        except BlockingIOError:
            return True
        for frame in self._frames.feed(data):
            for rank in list(self._ranks.values()):
                if frame.rank in (ALL, rank.number):
                    self._pass_to(rank, frame)
        return bool(data)

    def _pass_to(self, rank: Rank, frame: Frame) -> None:
        if frame.kind is Kind.INTERRUPT:
            if rank.running:
                rank.pressed = time.monotonic()
                rank.repeat_at = 0.0
            return
        rank.running += frame.kind is Kind.RUN
        with contextlib.suppress(BrokenPipeError):  # it is gone, as its line says
            rank.requests.put(HEAD.pack(rank.number, frame.kind, len(frame.body)))
            rank.requests.put(frame.body)

    def _sent(self, rank: Rank) -> None:
        with contextlib.suppress(BrokenPipeError):
            rank.requests.flush()

    def _welcome(self) -> None:
        line, _ = self._listening.accept()
        head, ends, _, _ = socket.recv_fds(line, HEAD.size, 4)
        if len(head) < HEAD.size or len(ends) < 4:  # it has hung up
            line.close()
            return
        number, _, pid = map(int, HEAD.unpack(head))
        self._ranks[number] = Rank(number, pid, line, list(ends))
        self._keeper.put(pack(number, Kind.HERE, socket.gethostname().encode()))

    def _print(self, rank: Rank, end: int, kind: Kind) -> None:
        for data in rank.printed({end: kind}, BLOCK_BYTES):
            self._keeper.put(data)

    def _answered(self, rank: Rank) -> None:
        try:
            data = os.read(rank.answers, BLOCK_BYTES)
        except BlockingIOError:
            return
        if not data:
            rank.answers = -1
        for frame in rank.frames.feed(data):
            if frame.kind is Kind.STOPPED:
                rank.pressed = None
            elif frame.kind in (Kind.DONE, Kind.FAILED):
                rank.running -= 1
                if not rank.running:
                    rank.pressed = None
                for words in rank.printed(rank.outputs):
                    self._keeper.put(words)
            self._keeper.put(pack(*frame))

    def _gone(self, rank: Rank) -> None:
        words = rank.line.recv(BLOCK_BYTES) or b"it was ended by SIGKILL"
        for printed in rank.printed(rank.outputs):
            self._keeper.put(printed)
        self._keeper.put(pack(rank.number, Kind.GONE, words))
        del self._ranks[rank.number]
        rank.line.close()

    def _pressing(self) -> bool:
        """Repeat interrupts that have not arrived; whether there are any."""
        now = time.monotonic()
        pressing = False
        for rank in self._ranks.values():
            if rank.pressed is None:
                continue
            if now > rank.pressed + DEAF_SECONDS:
                rank.pressed = None
                self._keeper.put(pack(rank.number, Kind.DEAF))
                continue
            pressing = True
            if now > rank.repeat_at:
                rank.repeat_at = now + REPEAT_SECONDS
                rank.press()
        return pressing


if __name__ == "__main__":
    Relay(Path(sys.argv[1])).run()
