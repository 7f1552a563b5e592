"""What the cluster's own agent says of it: when its watchdog will act, who works, what an end would lose.

Asks over SSH without attaching to the R session, so that asking is no work and waits for nobody. Knows nothing
of EC2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..ssh import Connection
from .session import AGENT, RemoteR

ASK_SECONDS = 20.0
MOST_FILES = 1000
# What a login shell and this package put there is hidden, or the host file; other disks outlive the node.
FILES = (
    r"find ~ -xdev -type f -not -path '*/.*' -not -name ompi-hostfile -printf '%s\t%P\n' 2>/dev/null "
    f"| head -n {MOST_FILES}"
)


@dataclass(frozen=True, kw_only=True)
class Watchdog:
    """When and why the watchdog will act (None: never, as things are), and what it has seen.

    ``then`` is park or terminate, ``idle_since`` the end of the last work (None: there is work now), ``working`` what
    counts as work at present, ``notices`` its last messages, ``spot`` interruptions that EC2 has announced.
    """

    acts_at: datetime | None
    why: str
    then: str
    idle_since: datetime | None
    working: tuple[str, ...]
    spent_usd: float | None
    notices: tuple[str, ...]
    spot: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What ends with the cluster: R's objects (name, bytes, whether it was pulled), files (path under the home,
    bytes), work that runs. ``objects`` is None when R is busy and cannot be asked."""

    objects: tuple[tuple[str, int, bool], ...] | None
    files: tuple[tuple[str, int], ...]
    jobs: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether there is anything that exists nowhere else."""
        return (
            self.objects is None
            or not all(pulled for _, _, pulled in self.objects)
            or bool(self.files or self.jobs)
        )


def agent_status(connection: Connection) -> Mapping[str, Any]:
    """The agent's own account of itself; empty if it does not run."""
    done = connection.run(f"{AGENT} status", timeout=ASK_SECONDS, check=False)
    answer: Mapping[str, Any] = json.loads(done.stdout or b"{}")
    return answer


def watchdog(connection: Connection) -> Watchdog | None:
    """What the watchdog is about to do; None when the agent does not run."""
    told = agent_status(connection).get("watchdog")
    if not told:
        return None
    return Watchdog(
        acts_at=_time(told.get("acts_at")),
        why=told.get("why") or "",
        then=told.get("then") or "park",
        idle_since=_time(told.get("idle_since")),
        working=tuple(told.get("working") or ()),
        spent_usd=told.get("spent_usd"),
        notices=tuple(map(_text, told.get("notices") or ())),
        spot=tuple(map(_text, told.get("spot") or ())),
    )


def losses(connection: Connection, session: RemoteR) -> Losses:
    """What would be lost if the cluster ended now."""
    told = agent_status(connection)
    idle = told.get("r", {}).get("state") == "idle"
    listed = connection.run(FILES, timeout=ASK_SECONDS, check=False).stdout.decode(errors="replace")
    files = [line.split("\t", 1) for line in listed.splitlines()]
    return Losses(
        objects=tuple(session.objects()) if idle else None if told else (),
        files=tuple((path, int(size)) for size, path in files),
        jobs=tuple((told.get("watchdog") or {}).get("working") or ()),
    )


def _time(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc)


def _text(notice: str | Mapping[str, Any]) -> str:
    return notice if isinstance(notice, str) else str(notice.get("text", notice))
