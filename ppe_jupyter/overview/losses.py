"""What would be lost if a cluster ended: asked of its master, and said in rows. Pure but for ``asked``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..cloud.records import ClusterState
from ..errors import PpeError
from ..node.files.arrivals import size_text
from ..node.wire.protocol import MAIN
from .pictures import UP

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..remote.sessions.watchdog import Losses

NAMED = 5  # so many things are named one by one


def asked(cluster: Cluster) -> tuple[Losses | None, list[tuple[str, str]]]:
    """What would be lost, and the rows that say so."""
    if cluster.state not in UP:
        used = any(
            each.role == "master" and each.state.alive and each.was_configured for each in cluster.nodes
        )
        the = "the parked" if cluster.state is ClusterState.PARKED else "the"
        return None, [("lost", f"{the} master's disk, with home and workspace")] * used
    try:
        lost = cluster.losses()
    except (PpeError, TimeoutError) as error:
        return None, [("lost", f"it cannot be asked what it holds: {error}")]
    return lost, rows(lost)


def rows(lost: Losses) -> list[tuple[str, str]]:
    """What ends with a cluster, as rows of a sheet."""
    said = [("at work", text) for text in lost.jobs]
    said += [("lost", f"{_r(name)} is busy, and cannot say what it holds") for name in lost.busy]
    said += [("lost", f"in {_r(name)}, never pulled: {_named(left)}") for name, left in lost.unpulled.items()]
    if lost.unfetched:
        results = "job whose result was" if lost.unfetched == 1 else "jobs whose results were"
        said.append(("lost", f"{lost.unfetched} {results} never fetched"))
    said += [("lost", f"{words} that nobody has: last_map()") for words in lost.results]
    for size, since in lost.rstudio:
        session = f"R session of {size_text(size)}, since {since.astimezone():%a %H:%M}"
        said.append(("lost", f"in RStudio: an {session}; what it holds is seen there only"))
    if lost.suspended_bytes:
        said.append(("lost", f"in RStudio: suspended R sessions, {size_text(lost.suspended_bytes)}"))
    if lost.files:
        more = (lost.more_files, lost.more_bytes)
        said.append(("lost", f"files: {_named(sorted(lost.files, key=_by_size), *more)}"))
    if lost.silent:
        said.append(("lost", f"{', '.join(lost.silent)}: cannot be asked for files"))
    return said


def _r(session: str) -> str:
    return "R" if session == MAIN else f"R session {session}"


def _named(things: Sequence[tuple[str, int]], more: int = 0, more_bytes: int = 0) -> str:
    """The biggest by name, and how many there are besides, with so many more that are not among them."""
    named = ", ".join(f"{name} ({size_text(count)})" for name, count in things[:NAMED])
    more += max(0, len(things) - NAMED)
    rest = more_bytes + sum(count for _, count in things[NAMED:])
    return f"{named} and {more} more ({size_text(rest)})" if more else named


def _by_size(thing: tuple[str, int]) -> int:
    return -thing[1]
