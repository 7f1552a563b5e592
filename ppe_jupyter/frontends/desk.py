"""What a front end lends to the verbs: where to show, whom to ask, which manager and cluster are meant.

One Desk lives as long as its notebook kernel or command. It remembers the connected cluster and the managers
that were made; it makes none before a verb needs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import NoSuchCluster, NothingToDo, PpeError, UsageError
from . import progress

if TYPE_CHECKING:
    from ..cloud.records import Progress
    from ..cluster import Cluster
    from ..host import Host
    from ..manager import Manager
    from ..remote.sessions.session import Notice
    from ..settings import Settings


@dataclass(kw_only=True)
class Desk:
    """``say`` prints a line, ``show`` a table; ``ask`` returns what is typed, or raises UsageError that names
    ``instead``, when there is nobody. ``notice`` shows what a cluster has to say, from any thread. ``keep`` takes
    values pulled from R; None where they would be lost.

    ``line`` returns a line that R asks for, or raises UsageError when there is nobody. ``lines`` is how many lines of
    text a remote cell shows if it does not say (None: all). ``sign`` precedes a verb where the user types one:
    ``%ppe_`` or ``ppe ``.
    """

    say: Callable[[str], None]
    show: Callable[[Any], None]
    ask: Callable[[str, str], str]
    display: Callable[[str], progress.Display]
    notice: Callable[[str, str], None]
    sign: str
    keep: Callable[[dict[str, Any]], None] | None = None
    line: Callable[[], str] = lambda: ""
    lines: int | None = None
    connected: Cluster | Host | None = None
    _connected_by: Manager | None = None
    _managers: dict[Settings, Manager] = field(default_factory=dict)
    _clusters: dict[tuple[Settings, str], Cluster] = field(default_factory=dict)
    _hosts: dict[str, Host] = field(default_factory=dict)

    def manager(self, arguments: argparse.Namespace | None = None) -> Manager:
        """The manager named by --cloud, --profile and --region; else the connected cluster's; else the
        configured one."""
        from .. import settings
        from ..manager import Manager

        typed = {key: getattr(arguments, key, None) for key in ("cloud", "profile", "region")}
        given = {key: value for key, value in typed.items() if value}
        if self._connected_by is not None and self._connected_by.is_stale:
            self._drop(self._connected_by)
        if self._connected_by is not None and not given:
            return self._connected_by
        wanted = replace(settings.load(), **given)
        if wanted in self._managers and self._managers[wanted].is_stale:
            self._drop(self._managers[wanted])
        if wanted not in self._managers:
            self._managers[wanted] = Manager(wanted, report=self.say)
        return self._managers[wanted]

    def target(self, name: str | None, arguments: argparse.Namespace | None = None) -> Cluster | Host:
        """Where remote cells run: the cluster, or ``user@host``, of that name; without one as ``cluster``."""
        host = self._host_meant(name)
        return self.cluster(name, arguments) if host is None else host

    def host(self, name: str, **options: Any) -> Host:
        """The host of that name, the same object each time unless there are ``options`` (``Host``)."""
        from ..host import Host

        if options or name not in self._hosts:
            self._hang_up_on(name)
            self._hosts[name] = Host(name, **options)
            self._hosts[name].on_notice = partial(self._noticed, name)
        return self._hosts[name]

    def cluster(self, name: str | None, arguments: argparse.Namespace | None = None) -> Cluster:
        """The cluster of that name; without a name the connected one, else the only one that runs.

        The same object each time, because it holds the SSH connection and the R session. Raises UsageError for a host.
        """
        self._check_no_host(name)
        manager = self.manager(arguments)
        if name is None and self._connected_cluster is not None and manager is self._connected_by:
            return self._connected_cluster
        known = self._clusters.get((manager.settings, name or ""))
        return known or self._kept(manager, manager.cluster(name))

    def any_cluster(self, name: str | None, arguments: argparse.Namespace | None = None) -> Cluster:
        """As ``cluster``, and as it is now; without a name also the only one there is, in whatever state."""
        self._check_no_host(name)
        manager = self.manager(arguments)
        if name is None and (self._connected_cluster is None or manager is not self._connected_by):
            found = manager.clusters()
            if len(found) == 1:
                return self._kept(manager, found[0]).refresh()
        cluster = self.cluster(name, arguments)
        try:
            return cluster.refresh()
        except NoSuchCluster:
            self.forget(cluster.name, arguments)
            raise

    def connect(self, target: Cluster | Host, arguments: argparse.Namespace | None = None) -> None:
        """Remote cells, and verbs without a name, use this cluster or host from now on."""
        from ..host import Host

        if isinstance(target, Host):
            self.connected, self._connected_by = target, None
            return
        manager = self.manager(arguments)
        self.connected, self._connected_by = self._kept(manager, target), manager

    def forget(self, name: str, arguments: argparse.Namespace | None = None) -> None:
        """Hang up on the cluster or host, if there is a connection."""
        if name in self._hosts:
            self._hang_up_on(name)
            return
        cluster = self._clusters.pop((self.manager(arguments).settings, name), None)
        if cluster is not None:
            cluster.close()
        if cluster is self.connected:
            self.connected = self._connected_by = None

    def _host_meant(self, name: str | None) -> Host | None:
        """The host of that name, or the connected one; None if a cluster is meant, whose names have no @."""
        if name is not None:
            return self.host(name) if "@" in name else None
        return self._hosts.get(self.connected.name) if self.connected is not None else None

    def _check_no_host(self, name: str | None) -> None:
        if host := self._host_meant(name):
            raise UsageError(f"{host.name} is a host behind SSH; this is for clusters: name one")

    @property
    def _connected_cluster(self) -> Cluster | None:
        from ..host import Host

        return None if isinstance(self.connected, Host) else self.connected

    def _hang_up_on(self, name: str) -> None:
        host = self._hosts.pop(name, None)
        if host is not None:
            host.close()
            if host is self.connected:
                self.connected = None

    def _drop(self, manager: Manager) -> None:
        """Its local cloud is gone, and all of its clusters with it."""
        for key in [key for key in self._clusters if key[0] == manager.settings]:
            self._clusters.pop(key).close()
        self._managers.pop(manager.settings, None)
        if manager is self._connected_by:
            self.connected = self._connected_by = None

    def agree(self, question: str, *, unless: object) -> None:
        """Raise NothingToDo unless the user agrees; ``unless`` that was said already."""
        if not unless and self.ask(f"{question} [y/N]", "--yes") not in ("y", "yes"):
            raise NothingToDo("nothing was done")

    def choose(self, question: str, choices: Sequence[str], *, instead: str) -> str:
        """One of the choices, or its first letters; raise NothingToDo for anything else."""
        typed = self.ask(f"{question} [{', '.join(choices)}, or nothing]", instead)
        chosen = [choice for choice in choices if typed and choice.startswith(typed)]
        if len(chosen) != 1:
            raise NothingToDo("nothing was done")
        return chosen[0]

    def progress(self, title: str) -> AbstractContextManager[Callable[[Progress], None]]:
        """Show what is reported within the block."""
        return progress.shown(title, self.display)

    def offers(self) -> dict[str, Callable[[], list[str]]]:
        """What Tab may complete, for each kind of ``Option.values``."""
        from .. import catalog, settings

        offers: dict[str, Callable[[], list[str]]] = {
            "cluster": lambda: self._asked(lambda manager: (each.name for each in manager.clusters())),
            "target": lambda: [*offers["cluster"](), *_hosts_of_the_user()],
            "volume": lambda: self._asked(lambda manager: (each.volume_id for each in manager.volumes())),
            "image": lambda: self._asked(lambda manager: (each.name for each in manager.images())),
            "type": lambda: list(catalog.instance_types()),
            "setting": lambda: [each.name for each in fields(settings.Settings)],
        }
        return offers

    def _asked(self, names: Callable[[Manager], Iterable[str]]) -> list[str]:
        """What the managers answer that were made; none are before a verb has talked to a cloud."""
        try:
            return sorted({name for manager in self._managers.values() for name in names(manager)})
        except PpeError:
            return []

    def _kept(self, manager: Manager, cluster: Cluster) -> Cluster:
        kept = self._clusters.setdefault((manager.settings, cluster.name), cluster)
        kept.on_notice = partial(self._noticed, cluster.name)
        return kept

    def _noticed(self, name: str, notice: Notice) -> None:
        at = datetime.fromtimestamp(notice.time).astimezone()
        self.notice(notice.level, f"{at:%H:%M} {name}: {notice.text}")


def _hosts_of_the_user() -> list[str]:
    from ..ssh import config_hosts

    try:
        return config_hosts()
    except PpeError:  # a configuration that cannot be read is said when it is needed
        return []
