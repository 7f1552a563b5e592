"""Details: what only a cluster's master knows; asked over SSH in one question, and only while somebody looks.

What is younger than ``SHARED_SECONDS`` is shared by all who look. The volumes are EC2's to tell, and change rarely.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypedDict

from ..cloud.records import ClusterRecord
from ..errors import PpeError
from ..node.wire.protocol import MAIN
from ..remote.sessions.answers import in_local_time
from . import pictures
from .pictures import UP, OperationPicture, Problem, instant

if TYPE_CHECKING:
    from ..cloud.facts import Volume
    from ..cluster import Cluster
    from ..remote.glance import Glance, Load
    from ..remote.ranks.census import Rank
    from ..remote.sessions.watchdog import Watchdog
    from .poller import Poller

SHARED_SECONDS = 2.0
VOLUMES_SECONDS = 30.0
SESSION = "R session"  # what the census calls rank 0
# The agent's words for what R does; being on the way to or from an evaluation is work.
STATES = {"idle": "idle", "starting": "starting", "down": "dead"}


class WatchdogPicture(TypedDict):
    """When the cluster ends by itself and how (None: no end is in sight); ``lines`` are for people."""

    acts_at: str | None
    action: str | None
    lines: list[str]


class SessionPicture(TypedDict):
    """The main R session: idle, busy, starting or dead, ``since`` when; who holds it, or used it last; its code.

    ``unsaved``: it holds what was never pulled; None, as ``objects``, while it cannot say.
    """

    state: str
    since: str | None
    holder: str
    code: str
    memory_mb: float | None
    unsaved: bool | None
    objects: int | None


class JobPicture(TypedDict):
    """An evaluation that took long, or that nobody waits for; ``percent`` as it prints it, None if it does not."""

    id: int
    session: str
    state: str
    title: str
    since: str
    percent: float | None


class LoadPicture(TypedDict):
    """Of a node, by its index: ``cpu`` from 0 to 1."""

    index: int
    cpu: float
    memory_used_gb: float
    memory_gb: float


class RankPicture(TypedDict):
    """An MPI rank; ``cpu`` in per cent of a core."""

    job: str
    rank: int
    node: int | None
    pid: int
    cpu: float | None
    memory_mb: float | None
    call: str


class VolumePicture(TypedDict):
    """An EBS volume on one of the nodes; ``mounted`` is where."""

    id: str
    gb: int
    state: str
    node: int | None
    mounted: str | None


class EventPicture(TypedDict):
    """Something that the cluster said, or that was done with it."""

    at: str
    level: str
    text: str


class Details(TypedDict):
    """All of it; with a ``problem`` the master could not be asked, and the rest is empty."""

    at: str
    watchdog: WatchdogPicture
    session: SessionPicture | None
    jobs: list[JobPicture]
    loads: list[LoadPicture]
    slots_busy: int
    ranks: list[RankPicture]
    volumes: list[VolumePicture]
    events: list[EventPicture]
    problem: Problem | None


class Watching:
    """The details of one poller's clusters."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._known: dict[str, tuple[float, Details]] = {}
        self._volumes: tuple[float, int, Sequence[Volume]] = (float("-inf"), 0, ())

    def details(self, name: str) -> Details:
        """What the cluster's master says. Raises NoSuchCluster."""
        cluster = self._poller.cluster(name)
        with self._locks[name]:
            asked, known = self._known.get(name, (float("-inf"), None))
            if known is None or time.monotonic() - asked > SHARED_SECONDS:
                done = [each.picture() for each in self._poller.operations.all() if each.cluster == name]
                known = self._asked(cluster, done)
                self._known[name] = (time.monotonic(), known)
            return known

    def _asked(self, cluster: Cluster, done: Sequence[OperationPicture]) -> Details:
        glance, problem = None, None
        volumes: Sequence[Volume] = ()
        try:
            volumes = self._all_volumes()
            if cluster.state in UP:
                glance = cluster.glance()
        except (PpeError, TimeoutError) as exc:
            problem = pictures.problem(exc)
        return details(cluster.record, glance, volumes=volumes, done=done, problem=problem)

    def _all_volumes(self) -> Sequence[Volume]:
        """EC2's, asked for anew after each operation: it may have been with them."""
        done = sum(not each.running for each in self._poller.operations.all())
        asked, then, known = self._volumes
        if then != done or time.monotonic() - asked > VOLUMES_SECONDS:
            known = self._poller.manager.volumes()
            self._volumes = (time.monotonic(), done, known)
        return known


def details(
    record: ClusterRecord,
    glance: Glance | None,
    *,
    volumes: Sequence[Volume] = (),
    done: Sequence[OperationPicture] = (),
    problem: Problem | None = None,
) -> Details:
    """What was seen, as JSON; ``done`` are this process's operations on the cluster. Pure but for the time."""
    index = {node.private_dns.partition(".")[0]: node.index for node in record.nodes}
    # The session itself takes no slot.
    working = [
        rank
        for rank in (glance.ranks if glance else ())
        if rank.call == "computes" and rank.program != SESSION
    ]
    return {
        "at": instant(datetime.now(timezone.utc)),
        "watchdog": _watchdog(glance.watchdog if glance else None),
        "session": _session(glance) if glance else None,
        "jobs": [_job(row, glance.busy) for row in glance.jobs] if glance else [],
        "loads": [
            _load(load, index[name])
            for name, load in (glance.loads if glance else {}).items()
            if name in index
        ],
        "slots_busy": len(working),
        "ranks": [_rank(rank, index.get(rank.node)) for rank in (glance.ranks if glance else ())],
        "volumes": _volumes(record, glance, volumes),
        "events": _events(glance, done),
        "problem": problem,
    }


def _watchdog(watch: Watchdog | None) -> WatchdogPicture:
    if watch is None:
        return {"acts_at": None, "action": None, "lines": []}
    lines = [*(f"at work: {text}" for text in watch.working), watch.why, *watch.spot]
    return {
        "acts_at": instant(watch.acts_at) if watch.acts_at else None,
        "action": watch.then if watch.acts_at else None,
        "lines": [line for line in lines if line],
    }


def _session(glance: Glance) -> SessionPicture | None:
    row = next((each for each in glance.sessions if each["name"] == MAIN), None)
    if row is None:
        return None
    running = (job for job in glance.jobs if (job["session"], job["state"]) == (MAIN, "running"))
    job = next(running, None) if glance.busy else None
    since = glance.busy.get("since") or row.get("used") or row.get("since")
    held = glance.workspace
    return {
        "state": STATES.get(row["state"], "busy"),
        "since": _epoch(since) if since else None,
        "holder": str(glance.busy.get("client") or row.get("client") or ""),
        "code": str(job["code"]) if job else "",
        "memory_mb": _mb(row.get("memory")),
        "unsaved": None if held is None else held["unpulled"] > 0,
        "objects": None if held is None else held["objects"],
    }


def _load(load: Load, index: int) -> LoadPicture:
    return {
        "index": index,
        "cpu": load.cpu,
        "memory_used_gb": round(load.memory_bytes / 1e9, 2),
        "memory_gb": round(load.total_bytes / 1e9, 2),
    }


def _rank(rank: Rank, node: int | None) -> RankPicture:
    return {
        "job": rank.job,
        "rank": rank.rank,
        "node": node,
        "pid": rank.pid,
        "cpu": rank.cpu_percent,
        "memory_mb": _mb(rank.memory_bytes),
        "call": rank.call,
    }


def _job(row: Mapping[str, Any], busy: Mapping[str, Any]) -> JobPicture:
    runs = (row["session"], row["state"]) == (MAIN, "running")
    return {
        "id": row["number"],
        "session": row["session"],
        "state": row["state"],
        "title": row["code"],
        "since": _epoch(row["ended"] or row["began"] or row["submitted"]),
        "percent": busy.get("percent") if runs else None,
    }


def _volumes(record: ClusterRecord, glance: Glance | None, volumes: Sequence[Volume]) -> list[VolumePicture]:
    nodes = {node.instance_id: node.index for node in record.nodes}
    places = {
        volume: place
        for load in (glance.loads if glance else {}).values()
        for volume, place in load.mounts.items()
    }
    return [
        {
            "id": each.volume_id,
            "gb": each.gb,
            "state": each.attachment or each.state,
            "node": nodes[each.instance_id],
            "mounted": places.get(each.volume_id),
        }
        for each in volumes
        if each.instance_id in nodes
    ]


def _events(glance: Glance | None, done: Sequence[OperationPicture]) -> list[EventPicture]:
    """The newest first."""
    said: list[EventPicture] = [
        {"at": _epoch(each["time"]), "level": str(each["level"]), "text": in_local_time(str(each["text"]))}
        for each in (glance.notices if glance else ())
    ]
    for each in done:
        problem = f": {each['problem']['detail']}" if each["problem"] else ""
        level = "error" if each["problem"] else "info"
        text = f"{each['verb'].replace('_', ' ')}: {each['state']}{problem}"
        said.append({"at": each["started"], "level": level, "text": text})
    return sorted(said, key=lambda event: event["at"], reverse=True)


def _epoch(seconds: float) -> str:
    return instant(datetime.fromtimestamp(seconds, timezone.utc))


def _mb(count: int | None) -> float | None:
    return None if count is None else round(count / 1e6, 1)
