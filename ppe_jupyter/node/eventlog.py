"""What R printed and displayed, numbered and bounded, for clients that were away. Must not know of clients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from .protocol import Kind


@dataclass(frozen=True)
class Event:
    """One event; ``seq`` grows by one from event to event."""

    seq: int
    kind: Kind
    body: bytes


class EventLog:
    """The newest events, up to ``limit`` bytes of them."""

    def __init__(self, *, limit: int) -> None:
        self.last = 0
        self._limit = limit
        self._bytes = 0
        self._events: deque[Event] = deque()

    @property
    def first(self) -> int:
        """The number of the oldest event that is still here."""
        return self._events[0].seq if self._events else self.last + 1

    def append(self, kind: Kind, body: bytes) -> int:
        """Add an event and return its number; the oldest go when there is no room."""
        self.last += 1
        self._events.append(Event(self.last, kind, body))
        self._bytes += len(body)
        while self._bytes > self._limit and len(self._events) > 1:
            self._bytes -= len(self._events.popleft().body)
        return self.last

    def since(self, seq: int) -> Iterator[Event]:
        """The events after ``seq`` that are still here, the oldest first."""
        return (event for event in list(self._events) if event.seq > seq)
