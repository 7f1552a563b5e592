"""Manager and Cluster: the composition root, and the only API that front ends use.

Joins ``cloud`` (where R is) with ``remote`` (how to talk to it), starts the local cloud when it is the chosen
one, and hands its endpoint to ``cloud``. Holds no truth of its own: a record is EC2's answer at one moment.
Knows nothing of magics, widgets or terminals.
"""

from __future__ import annotations

import shlex
import threading
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import localcloud, settings, ssh
from .cloud.clusters import Clusters
from .cloud.ec2 import EC2
from .cloud.records import ClusterRecord, ClusterState, Node, Progress
from .cloud.spec import ClusterSpec
from .errors import CloudError, NoSuchCluster
from .remote import cells
from .remote.session import Output, RemoteR

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
        return Clusters(self._ec2, self.settings, caller_address=self._caller_address)

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


class Cluster:
    """One cluster: its record, one SSH connection to its master, and its R session."""

    def __init__(self, manager: Manager, record: ClusterRecord) -> None:
        self._manager = manager
        self.record = record
        self._lock = threading.Lock()
        self._connection: ssh.Connection | None = None
        self._session: RemoteR | None = None

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {self.state}, {len(self.nodes)} nodes, {self.record.slots} slots>"

    @property
    def name(self) -> str:
        """Its name, unique in the account and region."""
        return self.record.name

    @property
    def state(self) -> ClusterState:
        """Its state when it was last asked for (``refresh``)."""
        return self.record.state

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes, the master first."""
        return self.record.nodes

    @property
    def master(self) -> Node:
        """The node that R runs on."""
        return self.record.master

    @property
    def is_free(self) -> bool:
        """Whether it is the local cloud's: then the costs are what EC2 would charge."""
        return self._manager.settings.cloud == "local"

    @property
    def cost_so_far(self) -> float | None:
        """USD since launch at on-demand prices; None if a price is unknown."""
        return self.record.cost_so_far(datetime.now(timezone.utc))

    def refresh(self) -> Cluster:
        """Ask EC2 for its present state."""
        self.record = self._manager.refresh(self.name)
        return self

    def ssh(self) -> ssh.Connection:
        """The SSH connection to the master, made anew if it was cut."""
        with self._lock:
            if self._connection is None or not self._connection.alive:
                self._connection = self._manager.connect(self.record)
            return self._connection

    def r(self) -> RemoteR:
        """The master's R session, attached; the same object while its connection stands."""
        connection = self.ssh()
        with self._lock:
            if self._session is None or not self._session.alive:
                self._session = RemoteR(connection)
            return self._session

    def run_python(
        self, code: str, *, ranks: int | None = None, on_output: Callable[[Output], None], **options: Any
    ) -> None:
        """Run Python on the master, or on ``ranks`` MPI ranks over the nodes (-1: every slot)."""
        cells.run_python(self.ssh(), code, ranks=ranks, on_output=on_output, **options)

    def run_shell(
        self, code: str, *, all_nodes: bool = False, on_output: Callable[[Output], None], **options: Any
    ) -> None:
        """Run shell commands on the master, or on every node."""
        cells.run_shell(self.ssh(), code, all_nodes=all_nodes, on_output=on_output, **options)

    def ssh_command(self, node: Node | None = None) -> str:
        """The command line that opens a shell on the node (default: the master), its host key verified."""
        target = node or self.master
        known = f'UserKnownHostsFile="{self._manager.known_hosts(self.record)}"'
        key = str(self._manager.key_file(self.record))
        return shlex.join(["ssh", "-i", key, "-o", known, f"{self.record.login_user}@{target.address}"])

    def close(self) -> None:
        """Hang up; what runs on the cluster goes on."""
        with self._lock:
            if self._session is not None:
                self._session.close()
            if self._connection is not None:
                self._connection.close()
            self._session = self._connection = None

    def terminate(self, *, report: Report = lambda progress: None) -> None:
        """End the cluster and remove all that was made for it. Safe to repeat."""
        self.close()
        self._manager.terminate(self.name, report=report)
