"""The MPI ranks of a cluster, from all nodes in one round trip to the master (node/ranks/census.py)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import RemoteError, UsageError
from ...ssh import Connection

CENSUS = "exec python3 ~/.ppe/node census"
ASK_SECONDS = 40.0
SESSION = "R"


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One rank: of ``job`` ("R": the session and its workers; "R NAME"; else Open MPI's number of an mpirun).

    ``cpu_percent`` of one core; ``memory_bytes`` resident; ``seconds`` since its start; all None of one that is gone.
    ``call`` says what it does: "waits in MPI_Bcast", "computes", "sleeps", "was killed: 15.6 of 15.8 GB"; "?" if
    that could not be read in time.
    """

    job: str
    rank: int
    node: str
    pid: int
    program: str
    cpu_percent: float | None
    memory_bytes: int | None
    seconds: float | None
    call: str


class Ranks(list[Rank]):
    """All of a cluster's, R's first; ``silent`` are the nodes that did not answer, whose ranks are not among them."""

    silent: tuple[str, ...] = ()


def ranks(connection: Connection) -> Ranks:
    """All of them. Raises RemoteError that names the nodes that do not answer, if there are no ranks."""
    told = _asked(connection, CENSUS)
    if told["silent"] and not told["ranks"]:
        raise RemoteError(f"no answer from {', '.join(told['silent'])}; see: %ppe_status")
    return ranks_of(told)


def ranks_of(told: Mapping[str, Any]) -> Ranks:
    """What the master said of them."""
    found = Ranks(_rank(row) for row in told["ranks"])
    found.silent = tuple(told["silent"])
    return found


def kill(connection: Connection, rank: int, job: str = SESSION) -> Rank:
    """End a rank; what it was. Raises UsageError."""
    told = _asked(connection, f"{CENSUS} kill {shlex.quote(job)} {rank}")
    if "error" in told:
        raise UsageError(f"{told['error']}; see: %remote_ranks")
    return _rank(told)


def _asked(connection: Connection, command: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(connection.run(command, timeout=ASK_SECONDS).stdout)
    return answer


def _rank(row: Mapping[str, Any]) -> Rank:
    return Rank(
        job=row["job"],
        rank=row["rank"],
        node=row["node"],
        pid=row["pid"],
        program=row["program"],
        cpu_percent=row["cpu"],
        memory_bytes=row["memory"],
        seconds=row["seconds"],
        call=row["call"],
    )
