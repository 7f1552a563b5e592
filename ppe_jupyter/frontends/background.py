"""A cell of R that nobody waits for: which options go with it, and what is to follow it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import runs

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..host import Host
    from ..remote.jobs import Job
    from .desk import Desk

Arguments = argparse.Namespace


def wanted(arguments: Arguments) -> bool:
    """Whether the cell is to be. Raises UsageError for options that only it has, and for those that it cannot have."""
    if not arguments.background:
        if typed := _sequel(arguments):
            raise UsageError(f"{' and '.join(typed)}: only with --background")
        return False
    waiting = {
        "--timeout": arguments.timeout,
        "--converter": arguments.converter,
        "--display": arguments.display,
    }
    if typed := [option for option, value in waiting.items() if value is not None]:
        raise UsageError(f"{' and '.join(typed)}: not with --background, where nobody waits for the end")
    return True


def check(desk: Desk, cluster: Cluster | Host, arguments: Arguments) -> None:
    """Before it begins: whether what was typed may follow it. Raises UsageError, NothingToDo."""
    if _sequel(arguments):
        runs.check_sequel(desk, cluster, arguments)


def follow_up(desk: Desk, cluster: Cluster | Host, job: Job, arguments: Arguments) -> None:
    """Have what was typed follow it."""
    if _sequel(arguments):
        runs.follow_up(desk, cluster, job, arguments)


def _sequel(arguments: Arguments) -> list[str]:
    """The options that say what is to follow, as typed."""
    words = {"then": arguments.end, "discard": arguments.discard, "notify": arguments.notify}
    return [f"--{word}" for word, value in words.items() if value]
