"""Deeds: what a click does at once, or as an operation, without a plan. They may wait."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Forgotten, NotYours, UsageError
from ..node.sessions.ladder import Rung
from ..node.wire.protocol import MAIN
from . import lists

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..remote.sessions.session import RemoteR
    from .operations import Operation
    from .poller import Poller

STEPS = {None: Rung.NEXT, "workers": Rung.WORKERS, "restart": Rung.RESTART}


def interrupt(
    poller: Poller,
    name: str,
    *,
    session: str | None = None,
    step: str | None = None,
    agreed: bool = False,
) -> None:
    """The stop button, from wherever.

    Raises UsageError, NoSuchCluster, Forgotten, SshError, and NotYours unless ``agreed``.
    """
    if step not in STEPS:
        raise UsageError(f"{step!r} is none of workers and restart")
    with _session(_agreed(poller, name, agreed), session) as r:
        r.interrupt(STEPS[step])


def restart(poller: Poller, name: str, *, session: str | None = None, agreed: bool = False) -> None:
    """R ends and starts anew, without its variables.

    Raises NoSuchCluster, Forgotten, SshError, and NotYours unless ``agreed``.
    """
    with _session(_agreed(poller, name, agreed), session) as r:
        r.restart()


def volumes(poller: Poller) -> list[dict[str, Any]]:
    """Every EBS volume of the region but root disks."""
    return lists.volumes(poller.manager)


def attach(
    poller: Poller,
    name: str,
    volume: str,
    *,
    node: int | None = None,
    mount: str | None = None,
    format: str | None = None,
    agreed: bool = False,
) -> Operation:
    """A volume onto a node. Raises NoSuchCluster, Occupied, and NotYours unless ``agreed``."""
    held = _agreed(poller, name, agreed)
    where: dict[str, Any] = {
        "node": None if node is None else str(node),
        "mount": mount or "",
        "format": format,
    }

    def work(report: Any, stop: threading.Event) -> None:
        held.refresh().attach_volume(volume, **where, report=report)

    return poller.operations.start("attach_volume", name, work)


def detach(poller: Poller, name: str, volume: str, *, force: bool = False, agreed: bool = False) -> Operation:
    """A volume off its node. Raises NoSuchCluster, Occupied, and NotYours unless ``agreed``."""
    held = _agreed(poller, name, agreed)

    def work(report: Any, stop: threading.Event) -> None:
        held.refresh().detach_volume(volume, force=force, report=report)

    return poller.operations.start("detach_volume", name, work)


def clean_up(poller: Poller, ids: Sequence[str], **flags: bool) -> Operation:
    """Remove those orphans."""
    manager = poller.manager

    def work(report: Any, stop: threading.Event) -> None:
        lists.clean_up(manager, ids, report=report, **flags)

    return poller.operations.start("cleanup", "", work)


def _agreed(poller: Poller, name: str, agreed: bool) -> Cluster:
    """The cluster; somebody else's only if the user has agreed to that."""
    held = poller.cluster(name)
    if not agreed and not poller.manager.mine(held.record):
        raise NotYours(
            f"{name} is not yours: {held.record.owner} launched it, and you were not asked; "
            "in a request the yes to that is: agreed = true"
        )
    return held


@contextlib.contextmanager
def _session(held: Cluster, session: str | None) -> Iterator[RemoteR]:
    """An R session that is there, attached for so long: nobody waits here for what R says."""
    if session not in (None, MAIN) and session not in [each["name"] for each in held.sessions()]:
        raise Forgotten(f"{held.name} has no R session {session!r}")
    r = held.r(session or MAIN)
    try:
        yield r
    finally:
        r.rest()
