"""A cluster at a glance, in one question to its master (node/glance.py). Disturbs nothing that runs there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..ssh import Connection
from .ranks.census import Ranks, ranks_of
from .sessions.watchdog import Watchdog, watchdog_of

GLANCE = "exec python3 ~/.ppe/node glance"
ASK_SECONDS = 40.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """A node's: ``cpu`` is the share of its processors in use, memory is in bytes; ``mounts`` are volumes' places.

    In the local cloud all nodes have this machine's processors and memory.
    """

    cpu: float
    memory_bytes: int
    total_bytes: int
    mounts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What master and nodes say of themselves; ``sessions`` and ``jobs`` are the agent's rows, ``loads`` by host name.

    ``busy`` is for whom the main session works since when, ``workspace`` what all hold (None: R is busy). The ranks'
    ``call`` says only whether they compute.
    """

    watchdog: Watchdog | None
    sessions: tuple[Mapping[str, Any], ...]
    busy: Mapping[str, Any]
    workspace: Mapping[str, int] | None
    notices: tuple[Mapping[str, Any], ...]
    jobs: tuple[Mapping[str, Any], ...]
    ranks: Ranks
    loads: Mapping[str, Load]


def glance(connection: Connection) -> Glance:
    """Ask. Raises SshError, RemoteCommandFailed, TimeoutError."""
    told: Mapping[str, Any] = json.loads(connection.run(GLANCE, timeout=ASK_SECONDS).stdout)
    status = told["agent"]
    return Glance(
        watchdog=watchdog_of(status),
        sessions=tuple(status.get("sessions") or ()),
        busy=status.get("busy") or {},
        workspace=status.get("workspace"),
        notices=tuple(status.get("notices") or ()),
        jobs=tuple(told["jobs"]),
        ranks=ranks_of(told),
        loads={
            name: Load(
                cpu=node["load"]["cpu"],
                memory_bytes=node["load"]["memory"],
                total_bytes=node["load"]["total"],
                mounts=node["mounts"],
            )
            for name, node in told["nodes"].items()
        },
    )
