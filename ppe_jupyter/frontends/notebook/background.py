"""A cell of R that nobody waits for: which options go with it, and what is to follow it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...runs import Runs, check_discard
from ..owners import agree_if_foreign

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ...host import Host
    from ..desk import Desk

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
    check_discard(arguments.end, discard=bool(arguments.discard))
    if isinstance(cluster, Runs):
        cluster.check_end(discard=bool(arguments.discard))
        if _ends(arguments):
            what = f"{arguments.end.title()} {cluster.name} after this"
            agree_if_foreign(desk, arguments, cluster.record, what)
    elif _ends(arguments):
        cluster.prepare_end(arguments.end)


@contextmanager
def followed(cluster: Cluster | Host, arguments: Arguments) -> Iterator[dict[str, Any]]:
    """The cluster is ready for what follows the job that begins within; that, for ``RemoteR.submit``."""
    ending: AbstractContextManager[None] = nullcontext()
    if _ends(arguments) and isinstance(cluster, Runs):
        ending = cluster.ending(arguments.end, discard=bool(arguments.discard))
    with ending:
        yield {"notify": arguments.notify, "end": _ends(arguments), "discard": bool(arguments.discard)}


def _ends(arguments: Arguments) -> bool:
    return arguments.end not in (None, "nothing")


def _sequel(arguments: Arguments) -> list[str]:
    """The options that say what is to follow, as typed."""
    words = {"then": arguments.end, "discard": arguments.discard, "notify": arguments.notify}
    return [f"--{word}" for word, value in words.items() if value]
