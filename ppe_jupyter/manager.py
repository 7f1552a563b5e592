"""Manager: the composition root; with Cluster the only API that front ends use.

Notes in the ledger what was done. Holds no truth of its own. Knows nothing of magics, widgets or terminals.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from .cloud.facts import Snapshot, Volume
from .cloud.launching.removal import terminate
from .cloud.lock import Lock
from .cloud.pace import IGNORE, Report
from .cloud.plan import Plan
from .cloud.records import ClusterRecord, ClusterState
from .cloud.spec import ClusterSpec
from .cluster import Cluster
from .errors import CloudError, NoSuchCluster
from .keeping import Keeping

if TYPE_CHECKING:
    from . import localcloud


class Manager(Keeping):
    """Clusters of one account and region, or of the local cloud.

    Creating a Manager contacts nothing.
    """

    # -- clusters ---------------------------------------------------------------------------------------

    def plan(self, spec: ClusterSpec, *, dry_run: bool = False, lock: Lock | None = None) -> Plan:
        """What launching ``spec`` would create, its price and its problems; nothing is created in the cloud.

        ``dry_run`` asks EC2 besides whether the credentials allow it all. With a ``lock`` it is from an image that has
        its software; once the cluster runs, ``Cluster.satisfy`` makes sure of that.
        """
        if self.is_free:
            self._local.prepare(self.settings, report=self._report)
        existing = self._account.clusters.find()
        return self._account.survey.plan(spec, existing=existing, dry_run=dry_run, lock=lock)

    def launch(
        self,
        spec: ClusterSpec | Plan,
        *,
        report: Report = IGNORE,
        wait: bool = True,
        stop: threading.Event | None = None,
    ) -> Cluster:
        """Launch a cluster; one that runs already under the same name and specification is returned as it is.

        A node that does not come up leaves the cluster degraded: ``record.troubles`` say why. Raises SpecError for
        what cannot be launched, CapacityError, LaunchFailed; then nothing is left, or the error names it. Setting
        ``stop`` undoes the launch as a Ctrl-C does, and LaunchFailed says so. RStudio Server comes last, and not
        without ``wait``; a Ctrl-C then leaves the cluster without it.
        """
        began = time.monotonic()
        plan = self.plan(spec) if isinstance(spec, ClusterSpec) else spec
        record = self._account.clusters.launch(plan, report=report, wait=wait, stop=stop)
        if plan.existing is None:
            self._account.note("launch", record)
        cluster = Cluster(self._account, record)
        if plan.spec.rstudio and wait:
            cluster.add_rstudio(report=report, began=began)
        return cluster

    def clusters(self) -> list[Cluster]:
        """Every cluster that has not been terminated, whoever launched it; the newest first."""
        found = self._account.clusters.find()
        self._account.note_ends(found)
        return [
            Cluster(self._account, self._account.settled(record))
            for record in found
            if record.state is not ClusterState.TERMINATED
        ]

    def cluster(self, name: str | None = None) -> Cluster:
        """The cluster of that name; without a name the sole running one. Raises NoSuchCluster."""
        if name is not None:
            return Cluster(self._account, self._account.settled(self._account.clusters.get(name)))
        found = self.clusters()
        running = [each for each in found if each.state in (ClusterState.RUNNING, ClusterState.DEGRADED)]
        if len(running) == 1:
            return running[0]
        names = ", ".join(f"{cluster.name} ({cluster.state})" for cluster in found)
        if running:
            raise NoSuchCluster(f"several clusters run; name one (in a cell with --cluster NAME) of: {names}")
        raise NoSuchCluster(
            f"no cluster is running; there are: {names}"
            if found
            else "there is no cluster; launch one with: %ppe_launch"
        )

    def terminate(self, name: str, *, report: Report = IGNORE) -> None:
        """End the cluster and remove all that was made for it. Safe to repeat.

        Raises NoSuchCluster when nothing has or had that name, NothingToDo when it is gone already, CloudError naming
        what could not be removed.
        """
        record = next((each for each in self._account.clusters.find() if each.name == name), None)
        terminate(self._account.context, name, report=report)
        if record is not None:
            self._account.note("terminate", record)

    def mine(self, record: ClusterRecord) -> bool:
        """Whether this user launched it."""
        return self._account.mine(record)

    def foreign_remains(self, name: str) -> str:
        """Who launched what is left of a cluster without instances, if that was somebody else; else ""."""
        return self._account.foreign_remains(name)

    # -- the local cloud --------------------------------------------------------------------------------

    def local_up(self) -> localcloud.Status:
        """Start the local cloud, building its image if there is none."""
        self._local.prepare(self.settings, report=self._report)
        self._local.ensure(self.settings, report=self._report)
        return self.local_status()

    @property
    def prepared(self) -> bool:
        """Whether a launch need not wait until the local cloud's image is built."""
        return not self.is_free or self._local.prepared(self.settings)

    def local_status(self) -> localcloud.Status:
        """Whether the local cloud runs, where, and with how many nodes."""
        status: localcloud.Status = self._local.status(self.settings)
        return status

    def local_down(self) -> None:
        """End the local cloud with every cluster and volume in it."""
        if self.local_status().running:
            with contextlib.suppress(CloudError):
                for record in self._account.clusters.find():
                    if record.state is not ClusterState.TERMINATED:
                        self._account.note("terminate", record)
                stored: list[Volume | Snapshot] = [*self._account.volumes.list(), *self._ec2.snapshots()]
                for each in stored:
                    self._account.note_deleted(each)
        self._local.down(self.settings)
