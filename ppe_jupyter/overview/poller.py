"""Poller: what there is, asked for only while somebody watches, and once for all who do.

One describe call per interval, whatever the number of clusters and views. It never starts a local cloud that is down.
When a call fails it asks less often, and keeps the last picture with the problem beside it. Callbacks come from its
threads and must not wait.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial

from .. import settings
from ..cloud.records import Node
from ..cluster import Cluster
from ..errors import CloudError, Forgotten, NoSuchCluster
from ..manager import Manager
from ..settings import Settings
from . import pictures
from .details import Watching
from .operations import Operation, Operations
from .pictures import Overview, Problem
from .plans import Plans

BUSY_SECONDS, CALM_SECONDS, LONGEST_SECONDS = 3.0, 10.0, 60.0
LINGER_SECONDS = 15.0  # between two requests of a view that asks again and again
FRESH_SECONDS = 1.0  # a refresh is answered with what is younger
REFUSED_SECONDS = 5.0  # a local cloud that is down says so sooner; one that is busy does not
KEPT = 4  # pollers of other settings than the last used
IGNORED = {"at": "", "version": ""}

Callback = Callable[[Overview], None]


class Poller:
    """The clusters of one account and region, or the local cloud's, and the operations of this process on them."""

    def __init__(self, chosen: Settings) -> None:
        self.operations = Operations()
        self.operations.subscribe(self._operations_changed)
        self.plans = Plans(self)
        self.watching = Watching(self)
        self.settings = chosen
        self._manager = Manager(chosen, report=self._say)
        self._token, self._number = secrets.token_hex(4), 0
        self._whose = "local cloud: free" if self._manager.is_free else ""
        self._up = not self._manager.is_free
        self._clusters: dict[str, Cluster] = {}
        self._commands: dict[str, tuple[tuple[Node, ...], str | None]] = {}
        self._mine: dict[str, bool] = {}
        self._problem: Problem | None = None
        self._failures = 0
        self._preparing = ""
        self._at = datetime.fromtimestamp(0, timezone.utc)
        self._asked = float("-inf")
        self._running = 0
        self._picture: Overview | None = None
        self._callbacks: dict[object, Callback] = {}
        self._thread: threading.Thread | None = None
        self._reading = threading.Lock()
        self._changed = threading.Condition(threading.RLock())

    @property
    def manager(self) -> Manager:
        """The manager to act with: made anew when its local cloud was taken down."""
        with self._changed:
            if self._manager.is_stale:
                self.close()
                self._clusters = {}
                self._manager = Manager(self.settings, report=self._say)
            return self._manager

    def subscribe(self, callback: Callback) -> Callable[[], object]:
        """Poll, and call it with each picture that differs from the one before; returns what ends that."""
        key = object()
        with self._changed:
            self._callbacks[key] = callback
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="ppe-poller", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return partial(self._callbacks.pop, key, None)

    def picture(self) -> Overview:
        """What is known; asked for if that is older than a watched picture would be."""
        if self._picture is None or time.monotonic() - self._asked > self.interval():
            return self.refresh()
        return self._picture

    @property
    def latest(self) -> Overview | None:
        """What was known last; asks nobody."""
        return self._picture

    def refresh(self) -> Overview:
        """Ask now, unless somebody has just done so."""
        self._read_unless_fresh()
        assert self._picture is not None
        return self._picture

    def cluster(self, name: str) -> Cluster:
        """The cluster of that name, the same object each time: it holds the SSH connection. Raises NoSuchCluster."""
        if name not in self._clusters:
            self.refresh()
        try:
            return self._clusters[name]
        except KeyError:
            raise NoSuchCluster(f"there is no cluster {name!r} (any more)") from None

    def close(self) -> None:
        """Hang up on all masters; what is needed again is connected again."""
        for cluster in list(self._clusters.values()):
            cluster.close()

    def interval(self) -> float:
        """Seconds from one call to the next."""
        if self._failures:
            return float(min(LONGEST_SECONDS, CALM_SECONDS * 2 ** (self._failures - 1)))
        between = any(each.state in pictures.BETWEEN for each in list(self._clusters.values()))
        return BUSY_SECONDS if between or self._running else CALM_SECONDS

    # -- its threads ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._callbacks:
                    self._changed.wait(LINGER_SECONDS)
                if not self._callbacks:
                    self._thread = None
                    return
                left = self._asked + self.interval() - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
            self._read_unless_fresh()

    def _read_unless_fresh(self) -> None:
        wanted = time.monotonic()
        with self._reading:
            if self._picture is None or self._asked < wanted - FRESH_SECONDS:
                self._read()

    def _read(self) -> None:
        self._asked = time.monotonic()
        self._preparing = self._preparing if self._running else ""
        try:
            self._up, found = self._find()
            self._problem, self._failures = None, 0
        except Exception as exc:  # whatever it is, the views say so, and the next call may go well
            self._problem, self._failures = pictures.problem(exc), self._failures + 1
        else:
            self._keep(found)
            self._at = datetime.now(timezone.utc)
        self._compose()

    def _find(self) -> tuple[bool, list[Cluster]]:
        """Whether there is a cloud to ask, and its clusters."""
        manager = self.manager
        begun = time.monotonic()
        if manager.is_free and not manager.local_status().running:
            if time.monotonic() - begun > REFUSED_SECONDS:
                raise CloudError("the local cloud does not answer in time; see: ppe local status")
            return False, []
        self._whose = self._whose or manager.whose()
        found = manager.clusters()
        self._mine = {each.name: manager.mine(each.record) for each in found}
        return True, found

    def _keep(self, found: list[Cluster]) -> None:
        with self._changed:
            before, self._clusters = self._clusters, {}
            for cluster in found:
                known = before.get(cluster.name)
                if known is not None and known.record.launch == cluster.record.launch:
                    known.record = cluster.record
                    del before[cluster.name]
                self._clusters[cluster.name] = known or cluster
                cluster.on_notice = lambda notice: None  # they are among its details
        for gone in before.values():
            gone.close()

    def _compose(self) -> None:
        """A new picture if anything is new, and all who watch get it."""
        with self._changed:
            made = self._composed()
            if self._picture is not None and {**made, **IGNORED} == {**self._picture, **IGNORED}:
                self._picture["at"] = made["at"]
                return
            self._number += 1
            made["version"] = f"{self._token}-{self._number}"
            self._picture = made
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback(made)

    def _composed(self) -> Overview:
        operations = self.operations.all()
        at_work = {
            each.cluster: each.id for each in reversed(operations) if each.running
        }  # the newest counts
        now = datetime.now(timezone.utc)
        clusters = [
            pictures.cluster(
                each.record,
                now=now,
                mine=self._mine.get(each.name, False),
                ssh=self._ssh(each),
                operation=at_work.get(each.name),
            )
            for each in self._clusters.values()
        ]
        return pictures.overview(
            self.settings,
            clusters,
            [each.picture() for each in operations],
            version="",
            whose=self._whose,
            up=self._up,
            at=self._at,
            preparing=self._preparing,
            problem=self._problem,
        )

    def _ssh(self, cluster: Cluster) -> str | None:
        """The command line, which is made anew when a node is another: a file of host keys goes with it."""
        if cluster.state not in pictures.UP:
            return None
        nodes, command = self._commands.get(cluster.name, ((), None))
        if nodes != cluster.nodes:
            with contextlib.suppress(CloudError):  # it has lost its master
                command = cluster.ssh_command()
            self._commands[cluster.name] = cluster.nodes, command
        return command

    def _operations_changed(self) -> None:
        running = sum(each.running for each in self.operations.all())
        with self._changed:
            if running != self._running:
                self._running, self._asked = running, float("-inf")
                self._changed.notify_all()
        self._compose()

    def _say(self, line: str) -> None:
        self._preparing = line
        self._compose()


_shared: dict[Settings, Poller] = {}
_sharing = threading.Lock()


def shared(chosen: Settings | None = None) -> Poller:
    """The poller of those settings (else of the configured ones, as they are now): one for all views of a process.

    Raises SettingsError.
    """
    chosen = chosen or settings.load()
    with _sharing:
        poller = _shared.pop(chosen, None) or Poller(chosen)
        idle = [key for key, each in _shared.items() if not each._callbacks and not each._running]
        for old in idle[: max(0, len(_shared) - KEPT)]:
            _shared.pop(old).close()
        _shared[chosen] = poller
        return poller


def operation(id: str) -> tuple[Poller, Operation]:
    """The operation of that id, under whatever settings it was begun, and its poller. Raises Forgotten."""
    with _sharing:
        pollers = list(_shared.values())
    for poller in pollers:
        with contextlib.suppress(Forgotten):
            return poller, poller.operations.get(id)
    raise Forgotten(f"there is no operation {id!r} (any more); the clusters tell what became of it")
