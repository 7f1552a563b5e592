"""MPI ranks, shown and ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ...errors import NothingToDo
from ...node.files.arrivals import size_text
from ..tables import Table, span, table

if TYPE_CHECKING:
    from ...remote.ranks.census import Rank


def rank_table(ranks: list[Rank]) -> Table:
    """All ranks. Raises NothingToDo if there are none."""
    if not ranks:
        raise NothingToDo("no MPI rank runs on the cluster")
    return table(
        [
            {
                "rank": rank.rank,
                "job": rank.job,
                "node": rank.node,
                "pid": rank.pid,
                "program": rank.program,
                "CPU %": rank.cpu_percent if rank.cpu_percent is not None else "",
                "memory": size_text(rank.memory_bytes) if rank.memory_bytes is not None else "",
                "time": _time(rank.seconds) if rank.seconds is not None else "",
                "does": rank.call,
            }
            for rank in ranks
        ]
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else span(timedelta(seconds=seconds))
