"""Details: what only the master of a cluster knows; asked over SSH, and only while somebody looks at the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ..errors import PpeError
from . import pictures
from .pictures import UP, Problem, instant

if TYPE_CHECKING:
    from ..cluster import Cluster


class WatchdogPicture(TypedDict):
    """When and why the cluster ends by itself; ``lines`` are for people."""

    acts_at: str | None
    action: str | None
    lines: list[str]


class Details(TypedDict):
    """What the master says; with a ``problem`` it could not be asked."""

    watchdog: WatchdogPicture
    problem: Problem | None


def details(cluster: Cluster) -> Details:
    """Ask the master; of a cluster without one nothing is known, and nothing is wrong."""
    nothing: WatchdogPicture = {"acts_at": None, "action": None, "lines": []}
    if cluster.state not in UP:
        return {"watchdog": nothing, "problem": None}
    try:
        watch = cluster.watchdog()
    except (PpeError, TimeoutError) as exc:
        return {"watchdog": nothing, "problem": pictures.problem(exc)}
    if watch is None:
        return {"watchdog": nothing, "problem": None}
    seen: WatchdogPicture = {
        "acts_at": instant(watch.acts_at) if watch.acts_at else None,
        "action": watch.then if watch.acts_at else None,
        "lines": [*watch.working, watch.why, *watch.spot, *watch.notices],
    }
    return {"watchdog": seen, "problem": None}
