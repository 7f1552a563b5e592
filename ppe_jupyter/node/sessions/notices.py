"""Notices: what the cluster itself has to say to whoever is attached, and to whoever attaches later.

Must not know who the clients are, nor what the notices are about.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable

from ..wire.protocol import Kind

KEPT = 20


class Notices:
    """The newest notices: {"level": "info" | "warning" | "error", "text", "time"}, the oldest first.

    ``broadcast`` puts a frame into the event log and sends it to every client.
    """

    def __init__(self, broadcast: Callable[[Kind, bytes], None]) -> None:
        self._broadcast = broadcast
        self._kept: deque[tuple[str, dict[str, object]]] = deque(maxlen=KEPT)

    def tell(self, level: str, text: str, *, topic: str = "", keep: bool = True) -> None:
        """One notice more; those on the same ``topic`` before it are out of date. ``keep``: for clients to come."""
        notice: dict[str, object] = {"level": level, "text": text, "time": time.time()}
        self._kept = deque((each for each in self._kept if not topic or each[0] != topic), maxlen=KEPT)
        if keep:
            self._kept.append((topic, notice))
        self._broadcast(Kind.NOTICE, json.dumps(notice, ensure_ascii=False).encode(errors="replace"))

    def recent(self) -> list[dict[str, object]]:
        """Those that are kept."""
        return [notice for _, notice in self._kept]
