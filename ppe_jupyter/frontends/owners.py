"""Whose a cluster is: somebody else's is not touched without a question, free or not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cloud.records import ClusterRecord
    from ..manager import Manager
    from .desk import Desk


def foreign_owner(manager: Manager, record: ClusterRecord) -> str:
    """Whose it is, if it is somebody else's, for a question."""
    return "" if manager.mine(record) else f", which {record.owner} launched"


def agree_if_foreign(desk: Desk, arguments: argparse.Namespace, record: ClusterRecord, what: str) -> None:
    """Raise NothingToDo unless it is the user's own, or the user agrees to ``what``."""
    manager = desk.manager(arguments)
    if owner := foreign_owner(manager, record):
        desk.agree(f"{what}{owner} ({manager.whose()})?", unless=arguments.yes)
