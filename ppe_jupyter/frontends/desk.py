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
    from ..cluster import Cluster
    from ..manager import Manager
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
    _connected_by: Manager | None = None
    _managers: dict[Settings, Manager] = field(default_factory=dict)
    _clusters: dict[tuple[Settings, str], Cluster] = field(default_factory=dict)

    def manager(self, arguments: argparse.Namespace | None = None) -> Manager:
        """The manager named by --cloud, --profile and --region; else the connected cluster's; else the
        configured one."""
        from .. import settings
        from ..manager import Manager

        typed = {key: getattr(arguments, key, None) for key in ("cloud", "profile", "region")}
        given = {key: value for key, value in typed.items() if value}
        if self._connected_by is not None and not given:
            return self._connected_by
        wanted = replace(settings.load(), **given)
        if wanted not in self._managers:
            self._managers[wanted] = Manager(wanted, report=self.say)
        return self._managers[wanted]

    def cluster(self, name: str | None, arguments: argparse.Namespace | None = None) -> Cluster:
        """The cluster of that name; without a name the connected one, else the only one that runs.

        The same object each time, because it holds the SSH connection and the R session.
        """
        manager = self.manager(arguments)
        if name is None and self.connected is not None and manager is self._connected_by:
            return self.connected
        known = self._clusters.get((manager.settings, name or ""))
        return known or self._kept(manager, manager.cluster(name))

    def connect(self, cluster: Cluster, arguments: argparse.Namespace | None = None) -> None:
        """Remote cells, and verbs without a name, use this cluster from now on."""
        manager = self.manager(arguments)
        self.connected, self._connected_by = self._kept(manager, cluster), manager

    def forget(self, name: str, arguments: argparse.Namespace | None = None) -> None:
        """Hang up on the cluster, if there is a connection."""
        cluster = self._clusters.pop((self.manager(arguments).settings, name), None)
        if cluster is not None:
            cluster.close()
        if cluster is self.connected:
            self.connected = self._connected_by = None

    def known_clusters(self) -> list[str]:
        """Names for Tab completion; none before a verb has talked to a cloud."""
        try:
            return sorted({each.name for manager in self._managers.values() for each in manager.clusters()})
        except PpeError:
            return []

    def progress(self, title: str) -> AbstractContextManager[Callable[[Progress], None]]:
        """Show what is reported within the block."""
        return progress.shown(title, self.display)

    def _kept(self, manager: Manager, cluster: Cluster) -> Cluster:
        return self._clusters.setdefault((manager.settings, cluster.name), cluster)
