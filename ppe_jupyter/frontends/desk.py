"""What a front end lends to the verbs: where to show, whom to ask, which manager and cluster are meant.

One Desk lives as long as its notebook kernel or command. It remembers the connected cluster and the managers
that were made; it makes none before a verb needs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import PpeError
from . import progress

if TYPE_CHECKING:
    from ..cloud.records import Progress
    from ..manager import Cluster, Manager
    from ..settings import Settings


@dataclass(kw_only=True)
class Desk:
    """``say`` prints a line, ``show`` a table; ``ask`` answers a question or raises UsageError.

    ``sign`` precedes a verb where the user types one: ``%ppe_`` or ``ppe ``.
    """

    say: Callable[[str], None]
    show: Callable[[Any], None]
    ask: Callable[[str], bool]
    display: Callable[[str], progress.Display]
    sign: str
    connected: Cluster | None = None
    _managers: dict[Settings, Manager] = field(default_factory=dict)

    def manager(self, arguments: argparse.Namespace | None = None) -> Manager:
        """The manager of the configured cloud, or of the one named by --cloud, --profile and --region."""
        from .. import settings
        from ..manager import Manager

        typed = {key: getattr(arguments, key, None) for key in ("cloud", "profile", "region")}
        wanted = replace(settings.load(), **{key: value for key, value in typed.items() if value})
        if wanted not in self._managers:
            self._managers[wanted] = Manager(wanted)
        return self._managers[wanted]

    def cluster(self, name: str | None, arguments: argparse.Namespace | None = None) -> Cluster:
        """The cluster of that name; without a name the connected one, else the only one that runs."""
        if self.connected is not None and name in (None, self.connected.name):
            return self.connected
        return self.manager(arguments).cluster(name)

    def known_clusters(self) -> list[str]:
        """Names for Tab completion; none before a verb has talked to a cloud."""
        try:
            return sorted({each.name for manager in self._managers.values() for each in manager.clusters()})
        except PpeError:
            return []

    def progress(self, title: str) -> AbstractContextManager[Callable[[Progress], None]]:
        """Show what is reported within the block."""
        return progress.shown(title, self.display)
