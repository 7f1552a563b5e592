"""Faults that tests inject into the endpoint, and the log of the actions that it was asked for.

A Fault takes the place of an answer, or of the way to it: an error code, a connection closed without a word,
a delay. Faults are matched in the order in which they were injected, and each is used up by the calls that
it meets. Pure but for its lock; knows neither HTTP nor EC2, and is shared by both ends.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace

KEPT_CALLS = 100_000


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the next calls of ``action`` ("RunInstances", "GetParameter" …).

    The first ``skip`` calls are spared, the next ``times`` are met. ``code`` is answered with HTTP ``status``;
    ``drop`` closes the connection without an answer; ``hang`` waits so many seconds first, alone it only
    delays. With ``after`` the action is carried out before. ``zone`` narrows to calls for that zone.
    """

    action: str
    code: str = ""
    message: str = ""
    status: int = 400
    skip: int = 0
    times: int = 1
    drop: bool = False
    hang: float = 0.0
    after: bool = False
    zone: str | None = None


@dataclass
class Faults:
    """The faults that wait for their calls, and the calls so far."""

    _waiting: list[Fault] = field(default_factory=list)
    _calls: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_CALLS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def inject(self, *faults: Fault) -> None:
        """Let these wait behind those that wait already."""
        with self._lock:
            self._waiting += faults

    def clear(self) -> None:
        """Forget the faults that were not met."""
        with self._lock:
            self._waiting.clear()

    def calls(self) -> list[str]:
        """The actions in the order in which they came, the answered and the failed."""
        with self._lock:
            return list(self._calls)

    def forget_calls(self) -> None:
        """Begin a new log."""
        with self._lock:
            self._calls.clear()

    def meet(self, action: str, *, zone: str | None = None) -> Fault | None:
        """Log a call and give the fault that it meets, if any."""
        with self._lock:
            self._calls.append(action)
            for index, fault in enumerate(self._waiting):
                if fault.action != action or fault.zone not in (None, zone):
                    continue
                if fault.skip:
                    self._waiting[index] = replace(fault, skip=fault.skip - 1)
                    continue
                if fault.times > 1:
                    self._waiting[index] = replace(fault, times=fault.times - 1)
                else:
                    del self._waiting[index]
                return fault
        return None
