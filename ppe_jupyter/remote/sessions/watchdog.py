"""What the cluster's own agent says of it: when its watchdog will act, who works, what an end would lose.

Asks over SSH without attaching to the R session, so that asking is no work and waits for nobody. Knows nothing
of EC2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ...errors import RemoteCommandFailed
from ...node.wire.protocol import MAIN
from ...ssh import Connection
from .answers import in_local_time
from .session import AGENT, RemoteR

ASK_SECONDS = 20.0
FILES_SECONDS = 60.0
FILES = "exec python3 ~/.ppe/node belongings"

Objects = tuple[tuple[str, int, bool], ...] | None


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
    """What ends with the cluster: R's objects (name, bytes, whether it was pulled), the user's files (a path, under
    the home if it has no root, after ``NODE:`` on a worker; bytes), work that runs.

    ``objects`` is None when R is busy and cannot be asked; ``others`` are those of the sessions beside ``main``, by
    name. ``unfetched`` is how many jobs are done whose results nobody has, ``results`` are other such results, in
    words. ``files`` are the biggest, ``more_files`` how many there are besides, of ``more_bytes``; ``silent`` are the
    nodes that do not say what files they have. ``rstudio`` are the R sessions in RStudio, which cannot be asked: bytes
    of memory, and since when; ``suspended_bytes`` those on its disk.
    """

    objects: Objects
    files: tuple[tuple[str, int], ...]
    jobs: tuple[str, ...]
    more_files: int = 0
    more_bytes: int = 0
    silent: tuple[str, ...] = ()
    rstudio: tuple[tuple[int, datetime], ...] = ()
    suspended_bytes: int = 0
    others: tuple[tuple[str, Objects], ...] = ()
    unfetched: int = 0
    results: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is anything that exists nowhere else."""
        work = self.files or self.jobs or self.silent or self.rstudio or self.suspended_bytes
        return bool(self.busy or self.unpulled or self.unfetched or self.results or work)

    @property
    def busy(self) -> list[str]:
        """The sessions that cannot be asked."""
        return [name for name, objects in self._held if objects is None]

    @property
    def unpulled(self) -> dict[str, list[tuple[str, int]]]:
        """By session what no client has, and its bytes; the biggest first."""
        found = {
            session: [(name, size) for name, size, pulled in objects or () if not pulled]
            for session, objects in self._held
        }
        return {session: sorted(left, key=lambda each: -each[1]) for session, left in found.items() if left}

    @property
    def _held(self) -> list[tuple[str, Objects]]:
        return [(MAIN, self.objects), *self.others]


def agent_status(connection: Connection) -> Mapping[str, Any]:
    """The agent's own account of itself; empty if it does not run."""
    done = connection.run(f"{AGENT} status", timeout=ASK_SECONDS, check=False)
    answer: Mapping[str, Any] = json.loads(done.stdout or b"{}")
    return answer


def watchdog(connection: Connection) -> Watchdog | None:
    """What the watchdog is about to do; None when the agent does not run."""
    return watchdog_of(agent_status(connection))


def watchdog_of(status: Mapping[str, Any]) -> Watchdog | None:
    """What an agent's account of itself says of it."""
    told = status.get("watchdog")
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


def losses(connection: Connection, session: Callable[[str], RemoteR]) -> Losses:
    """What would be lost if the cluster ended now; ``session`` is the R session of a name."""
    told = agent_status(connection)
    sessions = told.get("sessions") or ()
    held: dict[str, Objects] = {
        row["name"]: tuple(session(row["name"]).objects()) if row["state"] == "idle" else None
        for row in sessions
    }
    found = _files(connection)
    return Losses(
        objects=held.pop(MAIN, ()),
        others=tuple(held.items()),
        unfetched=sum(row.get("unfetched", 0) for row in sessions),
        files=tuple((path, size) for path, size in found["files"]),
        jobs=tuple((told.get("watchdog") or {}).get("working") or ()),
        more_files=found["count"] - len(found["files"]),
        more_bytes=found["bytes"] - sum(size for _, size in found["files"]),
        silent=tuple(found["silent"]),
        rstudio=tuple(
            (size, datetime.fromtimestamp(since, timezone.utc)) for size, since in found.get("rstudio", ())
        ),
        suspended_bytes=found.get("suspended", 0),
        results=tuple(found.get("unfetched", ())),
    )


def _files(connection: Connection) -> Mapping[str, Any]:
    """What node/files/belongings.py says; that it says nothing must not keep anybody from ending the cluster."""
    try:
        found: Mapping[str, Any] = json.loads(connection.run(FILES, timeout=FILES_SECONDS).stdout)
    except (RemoteCommandFailed, TimeoutError, ValueError):
        return {"files": [], "count": 0, "bytes": 0, "silent": ["the master"]}
    return found


def _time(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc)


def _text(notice: str | Mapping[str, Any]) -> str:
    return in_local_time(notice if isinstance(notice, str) else str(notice.get("text", notice)))
