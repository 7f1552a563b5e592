"""What a cluster's results depend on: shown, noted in a lock, had again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...cloud import lock_file
from ...errors import UsageError
from ..tables import Table, framed

if TYPE_CHECKING:
    from ...cloud.lock import Lock
    from ...cluster import Cluster
    from ..desk import Desk

Arguments = argparse.Namespace


def session_info(desk: Desk, arguments: Arguments) -> Table | None:
    """As a table, or as text; into a lock only if that is asked for."""
    cluster = desk.cluster(arguments.cluster, arguments).refresh()
    if arguments.lock:
        save(desk, cluster, Path(arguments.lock).expanduser())
        return None
    found = cluster.session_info()
    if arguments.text:
        desk.say(found.text())
        return None
    return framed(found.frame())


def wanted(arguments: Arguments) -> Lock | None:
    """The lock that --locked means. Raises UsageError, SpecError."""
    if not arguments.locked:
        return None
    if not arguments.spec:
        raise UsageError("--locked: only with --spec FILE, beside which the lock is")
    if arguments.no_wait:
        raise UsageError("--no-wait: not with --locked, which looks at the nodes once they run")
    return lock_file.load(lock_file.beside(Path(arguments.spec).expanduser()))


def save(desk: Desk, cluster: Cluster, path: Path) -> None:
    """Write what the cluster has."""
    lock_file.save(cluster.lock(), path)
    desk.say(f"the software of {cluster.name}'s nodes is in {path}")


def satisfy(desk: Desk, cluster: Cluster, lock: Lock) -> None:
    """Have the lock's software. Raises NotAsLocked."""
    with desk.progress(f"comparing {cluster.name} with its lock") as report:
        cluster.satisfy(lock, report=report)
    desk.say(f"{cluster.name} has the software of its lock, of {lock.written[:10]}")
