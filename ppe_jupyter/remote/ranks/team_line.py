"""A line to a team's keeper on the master: a request out, then events, each perhaps with bytes behind it.

Must not know what is asked for; the far side is node/ranks/cell.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...errors import RemoteError
from ...ssh import Channel

TEAM_CELL = "exec python3 ~/.ppe/node team_cell"
TICK_SECONDS = 0.5

Event = dict[str, Any]


class TeamLine:
    """Events from ``channel``, which runs TEAM_CELL."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._data = bytearray()
        channel.settimeout(TICK_SECONDS)

    def ask(self, request: Mapping[str, Any]) -> None:
        """The first thing to be sent."""
        self.channel.send_all(json.dumps(request).encode() + b"\n")

    def send(self, data: bytes) -> None:
        """Send much, however long that takes."""
        self.channel.settimeout(None)  # a full line is not a lost one
        self.channel.send_all(data)
        self.channel.settimeout(TICK_SECONDS)

    def event(self) -> Event | None:
        """The next, or None if there is none for a moment; its bytes as ``body``. Raises RemoteError."""
        while (end := self._data.find(b"\n")) < 0:
            if not self._receive():
                return None
        event: Event = json.loads(self._data[:end])
        size = event.get("bytes", 0)
        while len(self._data) < end + 1 + size:
            self._receive()
        event["body"] = bytes(self._data[end + 1 : end + 1 + size])
        del self._data[: end + 1 + size]
        return event

    def _receive(self) -> bool:
        try:
            block = self.channel.recv()
        except TimeoutError:
            return False
        if not block:
            status = self.channel.exit_status()
            said = b"".join(iter(self.channel.recv_stderr, b"")).decode(errors="replace").split("\n")
            words = [line for line in said if line.strip()]
            last = words[-1] if words else "it printed no error"
            raise RemoteError(f"the master cannot run cells on ranks (status {status}): {last}")
        self._data += block
        return True
