"""The master's end of the beacon: tells all nodes that they are wanted, hears what happens to them.

Whom, and the secret, setup.py writes to ``~/.ppe/beacon.json``; a change of it is seen. Must not know why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import beacon

BEAT_SECONDS = 15.0
# A datagram may be lost; these are sent for good.
END_REPEATS = 3


class Pulse:
    """Sends and receives once ``path`` is there; ``on_notice`` gets the nodes' messages."""

    def __init__(self, path: Path, *, on_notice: Callable[[dict[str, Any]], None]) -> None:
        self.pause = BEAT_SECONDS
        self._path = path
        self._on_notice = on_notice
        self._known: tuple[int, int] = (0, 0)
        self._addresses: list[str] = []
        self._ears: socket.socket | None = None

    def beat(self, deadline: float | None) -> None:
        """Tell all nodes that they are wanted, until ``deadline`` (seconds since 1970) at most."""
        if self._look():
            beacon.send(self._signer.sign("heartbeat", deadline=deadline), self._addresses, beacon.NODES_PORT)

    def end(self, why: str) -> None:
        """Tell all nodes to shut down."""
        if self._look():
            for _ in range(END_REPEATS):
                beacon.send(self._signer.sign("end", why=why), self._addresses, beacon.NODES_PORT)

    def close(self) -> None:
        """Hear nothing more."""
        if self._ears is not None:
            asyncio.get_running_loop().remove_reader(self._ears)
            self._ears.close()
            self._ears = None

    def _look(self) -> bool:
        """Whether there are nodes to tell."""
        try:
            stat = self._path.stat()
        except OSError:
            return False
        if (stat.st_mtime_ns, stat.st_ino) != self._known:
            self._known = (stat.st_mtime_ns, stat.st_ino)
            told = json.loads(self._path.read_text(encoding="utf-8"))
            self._addresses = told["addresses"]
            self.pause = min(BEAT_SECONDS, told["silence_seconds"] / 4)
            self._signer = beacon.Signer(told["secret"], told["name"])
            self._verifier = beacon.Verifier(told["secret"])
        if self._ears is None:
            with contextlib.suppress(OSError):  # an agent of another user's has it
                self._ears = beacon.listen(beacon.MASTER_PORT)
                asyncio.get_running_loop().add_reader(self._ears, self._hear, self._ears)
        return True

    def _hear(self, ears: socket.socket) -> None:
        try:
            message = self._verifier.open(ears.recv(beacon.MAX_BYTES))
        except BlockingIOError:
            return
        if message is not None and message["kind"] == "notice":
            self._on_notice(message)
