"""Cluster: one cluster as its user holds it: its record, one SSH connection to its master, its R session.

Joins ``cloud`` (where R is) with ``remote`` (how to talk to it). Holds no truth of its own: a record is EC2's
answer at one moment. Knows nothing of magics, widgets or terminals.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import ssh
from .cloud.records import ClusterRecord, ClusterState, Node, Progress
from .remote import cells
from .remote.session import Output, RemoteR

if TYPE_CHECKING:
    from .manager import Manager

Report = Callable[[Progress], None]


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
