"""Clusters: launch, find, connect to. What ``manager`` uses of this package, beside ``survey`` and ``change``.

Remembers nothing that matters: whatever another client needs to know is in EC2's tags.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from ... import ssh
from ...errors import CloudError, LaunchFailed, NoSuchCluster, SshError, Unreachable
from .. import access, tagged
from ..context import Context
from ..pace import Pace, Report, Undertaking
from ..plan import Plan
from ..records import ClusterRecord, ClusterState, Progress, besides
from .launch import Launch

OnFailure = Callable[[ClusterRecord], None]
NO_REPORT: Report = lambda progress: None  # noqa: E731


class Clusters:
    """The clusters of one account and region."""

    def __init__(self, context: Context, *, on_failure: OnFailure = lambda record: None) -> None:
        """``on_failure`` gets what a launch that failed had bought, as EC2 lists it afterwards."""
        self._context = context
        self._on_failure = on_failure
        self._kept: dict[str, tuple[str, ssh.Connection]] = {}
        self._failures: dict[str, str] = {}

    def launch(
        self,
        plan: Plan,
        *,
        report: Report = NO_REPORT,
        wait: bool = True,
        stop: threading.Event | None = None,
    ) -> ClusterRecord:
        """Launch the plan's cluster, or return the one that runs already.

        Without ``wait`` return as soon as its instances exist; a thread goes on to configure them. The cluster is
        degraded if nodes did not come up: its ``troubles`` say which, why and what was checked. Raises SpecError for a
        plan with errors, CapacityError, LaunchFailed; then nothing is left, or LaunchFailed names it.
        KeyboardInterrupt meanwhile ends the launch in the same way; setting ``stop`` does too.
        """
        plan.check()
        if plan.existing is not None:
            nodes = len(plan.existing.nodes)
            report(Progress("running", nodes, nodes, 0.0, f"{plan.name} is running already"))
            return plan.existing
        pace = self._context.pace()
        work = Undertaking(lambda send: self._launch(plan, pace, send), pace)
        if not work.wait(report, until=lambda progress: not wait and progress.phase == "booting", stop=stop):
            return self.get(plan.name)
        record = work.result
        up = sum(node.up for node in record.nodes)
        report(Progress(str(record.state), up, record.wanted, pace.elapsed, plan.name))
        return record

    def find(self) -> list[ClusterRecord]:
        """Every cluster that EC2 still lists, whoever launched it, the newest first."""
        return tagged.clusters(self._context.ec2.instances(), now=self._context.now())

    def get(self, name: str) -> ClusterRecord:
        """The cluster of that name. Raises NoSuchCluster if there is none, or none any more."""
        for record in tagged.clusters(self._context.ec2.instances(cluster=name), now=self._context.now()):
            if record.state is not ClusterState.TERMINATED:
                return record
        if name in self._failures:
            raise NoSuchCluster(self._failures[name])
        names = [record.name for record in self.find() if record.state is not ClusterState.TERMINATED]
        if self._context.ec2.security_groups(cluster=name):
            raise NoSuchCluster(
                f"of {name!r} there is only what a launch that died has left, without instances; remove it with: "
                f"%ppe_terminate {name}, then launch again"
            )
        raise NoSuchCluster(f"there is no cluster {name!r}{besides(names)}")

    def connect(self, record: ClusterRecord) -> ssh.Connection:
        """A connection to the master, its host key verified by the tags.

        The rule for port 22 follows this machine's address. Raises SshError, SettingsError.
        """
        master = record.master
        instance_id, kept = self._kept.pop(record.name, ("", None))
        if kept is not None and kept.alive and instance_id == master.instance_id:
            return kept
        if not master.host_key:
            raise SshError(
                f"{record.name!r} has its host key in no tag, so it cannot be verified: terminate it",
                host=master.address,
            )
        try:
            return access.connect(self._context, record)
        except Unreachable:
            # It may have been stopped and started since, and has another address then.
            with contextlib.suppress(NoSuchCluster):
                now = self.get(record.name)
                if now.master.address != master.address:
                    return access.connect(self._context, now)
            raise

    def key_file(self, record: ClusterRecord) -> Path:
        """Where the private key is that opens that cluster for this user."""
        return self._context.keys.usable(record.key_name)

    def _launch(self, plan: Plan, pace: Pace, send: Report) -> ClusterRecord:
        launch = Launch(self._context, plan, pace=pace, report=send)
        try:
            record, connection = launch.run()
        except CloudError as exc:  # a refusal for want of capacity, or LaunchFailed for all else
            if isinstance(exc, LaunchFailed):
                self._failures[plan.name] = str(exc)
            with contextlib.suppress(CloudError):
                bought = self._context.ec2.instances(cluster=plan.name, launch=launch.id)
                for each in tagged.clusters(bought, now=self._context.now()):
                    self._on_failure(each)
            raise
        # The first to connect gets the connection that the launch made: one handshake, not two.
        self._kept[record.name] = (record.master.instance_id, connection)
        return record
