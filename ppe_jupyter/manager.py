"""Manager: the composition root; with Cluster the only API that front ends use.

Starts the local cloud when it is the chosen one, and hands its endpoint to ``cloud``. Holds no truth of its own.
Knows nothing of magics, widgets or terminals.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from . import localcloud, settings, ssh
from .cloud.clusters import Clusters
from .cloud.context import Context
from .cloud.ec2 import EC2
from .cloud.records import ClusterRecord, ClusterState, Progress
from .cloud.spec import ClusterSpec
from .cluster import Cluster
from .errors import CloudError, NoSuchCluster

if TYPE_CHECKING:
    import pandas as pd

    from .cloud.plan import Plan

Report = Callable[[Progress], None]


class Manager:
    """Clusters of one account and region, or of the local cloud.

    ``report`` receives a line of text while the local cloud is prepared (its image is built once).
    Creating a Manager contacts nothing.
    """

    def __init__(
        self, chosen: settings.Settings | None = None, *, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self.settings = chosen or settings.load()
        self._report = report

    def whose(self) -> str:
        """Whose money a launch spends: the first line of every review and status."""
        if self.settings.cloud == "local":
            return "local cloud: free"
        identity = self._ec2.identity()
        profile = self.settings.profile or "default"
        return f"AWS account {identity.account}, region {identity.region}, profile {profile}"

    def plan(self, spec: ClusterSpec) -> Plan:
        """What launching ``spec`` would create, its price and its problems; nothing is created in the cloud."""
        if self.settings.cloud == "local":
            localcloud.prepare(self.settings, report=self._report)
        return self._clusters.plan(spec)

    def launch(
        self, spec: ClusterSpec | Plan, *, report: Report = lambda progress: None, wait: bool = True
    ) -> Cluster:
        """Launch a cluster; one that runs already under the same name and specification is returned as it is.

        Raises SpecError for what cannot be launched, LaunchFailed when it ended early.
        """
        plan = self.plan(spec) if isinstance(spec, ClusterSpec) else spec
        return Cluster(self, self._clusters.launch(plan, report=report, wait=wait))

    def clusters(self) -> list[Cluster]:
        """Every cluster that has not been terminated, whoever launched it; the newest first."""
        return [
            Cluster(self, record)
            for record in self._clusters.find()
            if record.state is not ClusterState.TERMINATED
        ]

    def cluster(self, name: str | None = None) -> Cluster:
        """The cluster of that name; without a name the sole running one. Raises NoSuchCluster."""
        if name is not None:
            return Cluster(self, self._clusters.get(name))
        found = self.clusters()
        running = [cluster for cluster in found if cluster.state is ClusterState.RUNNING]
        if len(running) == 1:
            return running[0]
        names = ", ".join(f"{cluster.name} ({cluster.state})" for cluster in found)
        if running:
            raise NoSuchCluster(f"several clusters run; name one of: {names}")
        raise NoSuchCluster(
            f"no cluster is running; there are: {names}"
            if found
            else "there is no cluster; launch one with: %ppe_launch"
        )

    def terminate(self, name: str, *, report: Report = lambda progress: None) -> bool:
        """End the cluster and remove all that was made for it; whether there was anything. Safe to repeat."""
        return self._clusters.terminate(name, report=report)

    def types(self) -> pd.DataFrame:
        """The instance types of the shipped catalog: a row each, prices in USD per hour, memory in GB."""
        from . import catalog

        return catalog.table()

    def local_up(self) -> localcloud.Status:
        """Start the local cloud, building its image if there is none."""
        localcloud.prepare(self.settings, report=self._report)
        localcloud.ensure(self.settings, report=self._report)
        return self.local_status()

    def local_status(self) -> localcloud.Status:
        """Whether the local cloud runs, where, and with how many nodes."""
        return localcloud.status(self.settings)

    def local_down(self) -> None:
        """End the local cloud with every cluster in it."""
        localcloud.down(self.settings)

    def connect(self, record: ClusterRecord) -> ssh.Connection:
        """An SSH connection to the cluster's master, its host key verified."""
        return self._clusters.connect(record)

    def refresh(self, name: str) -> ClusterRecord:
        """The cluster as it is now."""
        return self._clusters.get(name)

    def key_file(self, record: ClusterRecord) -> Path:
        """The private half of the key pair that opens the cluster."""
        return self._clusters.key_file(record)

    def known_hosts(self, record: ClusterRecord) -> Path:
        """A file of the cluster's host keys, for OpenSSH; written anew each time."""
        path = self.settings.state_dir / "known_hosts" / record.name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{node.address} {node.host_key}\n" for node in record.nodes if node.host_key]
        path.write_text("".join(lines), encoding="ascii")
        return path

    @cached_property
    def _endpoint(self) -> localcloud.Endpoint | None:
        if self.settings.cloud == "aws":
            return None
        return localcloud.ensure(self.settings, report=self._report)

    @cached_property
    def _ec2(self) -> EC2:
        endpoint = self._endpoint
        if endpoint is None:
            return EC2(self.settings)
        return EC2(
            self.settings,
            endpoint_url=endpoint.url,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            region=endpoint.region,
        )

    @cached_property
    def _clusters(self) -> Clusters:
        return Clusters(self._context)

    @cached_property
    def _context(self) -> Context:
        return Context(ec2=self._ec2, settings=self.settings, caller_address=self._caller_address)

    def _caller_address(self) -> str:
        """This machine's address as the nodes see it."""
        if self._endpoint is not None:
            return self._endpoint.caller_address
        url = self.settings.caller_url
        try:
            with urllib.request.urlopen(url, timeout=self.settings.connect_timeout) as answer:  # noqa: S310
                return str(answer.read(64).decode("ascii").strip())
        except (OSError, ValueError) as exc:
            raise CloudError(
                f"cannot find out this machine's public address from {url} ({exc}); give it with --from CIDR"
            ) from exc
