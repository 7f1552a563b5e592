"""The limits of a cluster: how long it may be idle or run, what it may cost, and when that ends it. Pure.

All times are in seconds since 1970. setup.py writes the limits to ``~/.ppe/limits.json`` before R starts; ``agent.py
limits`` replaces them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

# The second warning comes so long before the end.
LAST_WARNING_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """What ends the cluster; None: never.

    ``deadline``: at that time. ``budget_usd``: when ``spent_usd``, spent until ``since``, and ``usd_per_hour`` since
    then come to it. ``then``: "park" or "terminate". ``warn_seconds``: how long before clients are warned.
    """

    idle_seconds: float | None = None
    deadline: float | None = None
    budget_usd: float | None = None
    usd_per_hour: float | None = None
    spent_usd: float = 0.0
    since: float = 0.0
    then: str = "park"
    warn_seconds: float = 300.0

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Limits:
        """Limits from JSON; what is not named there is not limited. Raises ValueError."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ValueError(f"unknown limits: {', '.join(unknown)}")
        found = cls(**given)
        for name in known - {"then"}:
            value = getattr(found, name)
            missing_is_right = getattr(cls, name) is None
            if not (value is None and missing_is_right) and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0
            ):
                raise ValueError(f"{name} is {value!r}, not a number from 0")
        if found.then not in ("park", "terminate"):
            raise ValueError(f'then is {found.then!r}, not "park" or "terminate"')
        return found

    def dump(self) -> str:
        """JSON that ``parse`` takes."""
        return json.dumps(asdict(self))

    def spent(self, now: float) -> float | None:
        """USD spent so far; None if the price is not known."""
        if self.usd_per_hour is None:
            return None
        return self.spent_usd + self.usd_per_hour * max(0.0, now - self.since) / 3600


def load(path: Path) -> Limits:
    """The limits in a file; none if there is no file. Raises ValueError."""
    try:
        return Limits.parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Limits()


@dataclass(frozen=True)
class Verdict:
    """When the cluster ends if nothing changes (None: never), why, and how many seconds before to warn."""

    at: float | None
    why: str = ""
    warn_seconds: float = 0.0

    @property
    def _warnings(self) -> list[float]:
        """When to warn, in seconds before."""
        return [self.warn_seconds, min(LAST_WARNING_SECONDS, self.warn_seconds / 2)]

    def warnings_due(self, now: float) -> int:
        """How many of the two warnings should have been given by ``now``."""
        return 0 if self.at is None else sum(self.at - now <= seconds for seconds in self._warnings)

    def next_event(self, now: float) -> float:
        """Seconds until the next warning or the end."""
        if self.at is None:
            return math.inf
        return min(
            (left for before in (*self._warnings, 0.0) if (left := self.at - before - now) > 0), default=0.0
        )


def judge(limits: Limits, *, idle_since: float | None, armed: float) -> Verdict:
    """What the limits come to. ``idle_since`` None: something works.

    ``armed`` is when the watch began: what was over by then was over in an earlier life (parked, and started again),
    and the client gets ``warn_seconds`` to set other limits.
    """
    earliest, warn = armed + limits.warn_seconds, limits.warn_seconds
    ends = []
    if limits.deadline is not None:
        why = "the time that it was launched for is over"
        ends.append(Verdict(max(limits.deadline, earliest), why, warn))
    if limits.budget_usd is not None and limits.usd_per_hour:
        seconds = (limits.budget_usd - limits.spent_usd) / limits.usd_per_hour * 3600
        why = f"its budget of {limits.budget_usd:g} USD is spent"
        ends.append(Verdict(max(limits.since + seconds, earliest), why, warn))
    if limits.idle_seconds is not None and idle_since is not None:
        why = f"nothing has run for {in_words(limits.idle_seconds)}"
        ends.append(Verdict(idle_since + limits.idle_seconds, why, min(warn, limits.idle_seconds / 2)))
    return min(ends, key=lambda end: end.at or 0.0, default=Verdict(None))


def in_words(seconds: float) -> str:
    """A span of time as one says it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds:.0f} s"
