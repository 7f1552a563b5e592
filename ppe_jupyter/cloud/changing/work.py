"""Work: what the change of a cluster works with: its plan and nodes, its keys, the master, and what it says.

Decides nothing of what is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ... import ssh
from ...errors import CloudError
from .. import tags
from ..context import Context
from ..facts import Image, Instance
from ..launching.boot import Boot
from ..launching.bring_up import BroughtUp, bring_up
from ..pace import Pace, Report
from ..plan import Plan
from ..planning.choices import boot_installs, install_seconds
from ..records import ClusterRecord, Cost, Progress
from ..spec import ClusterSpec
from ..steps import Configure, TerminateInstances
from .fleet import Fleet
from .rekey import ClusterKey

Connect = Callable[[ClusterRecord], ssh.Connection]


class Work:
    """Of one change of one cluster; ``connect`` connects to a cluster's master."""

    def __init__(self, context: Context, plan: Plan, *, connect: Connect, pace: Pace, report: Report) -> None:
        assert plan.existing is not None
        self._context = context
        self._ec2 = context.ec2
        self._plan = plan
        self._record = plan.existing
        self._connect = connect
        self._pace = pace
        self._send = report
        self._fleet = Fleet(context, plan.name, plan.existing.launch, pace=pace, report=self._report)
        self._images: Sequence[Image | None] = ()  # of the nodes that are to be configured
        if any(isinstance(step, Configure) for step in plan.steps):
            ids = {each.image_id for each in self._fleet.before}
            self._images = self._ec2.images(sorted(ids)) or [None]  # it may have been deregistered since
        self._until = tags.busy_until(
            context.now(),
            boot_timeout=context.settings.boot_timeout,
            install_seconds=max((install_seconds(image, plan.spec) for image in self._images), default=0.0),
        )
        self._host_key = ssh.generate_key_pair()
        self._key = ClusterKey(context, plan.name)
        self._asked = False  # whether new instances were asked for,
        self._unlisted = False  # and there may be some that EC2 did not tell of
        self._set_up = False  # whether the master may know of nodes that there will not be
        self._rebooting = False
        self._done: BroughtUp | None = None
        self._late: dict[str, str] = {}
        self._begun: Cost | None = None  # since it began to be started
        steps = [step for step in plan.steps if isinstance(step, TerminateInstances)]
        self._leaving = {instance_id for step in steps for instance_id in step.instance_ids}

    def _bring_up(self, spec: ClusterSpec, instances: Sequence[Instance]) -> BroughtUp:
        """Have the master configure these nodes, and write the tags that say so."""
        if self._done is not None:
            self._done.connection.close()
        (subnet,) = self._ec2.subnets(instances[0].subnet_id)
        self._done = bring_up(
            self._context,
            instances,
            spec,
            subnet_cidr=subnet.cidr,
            installs=any(boot_installs(image, spec) for image in self._images),
            cluster_key=self._cluster_key,
            pace=self._pace,
            report=self._report,
            watch=self._watch,
        )
        return self._done

    def _open_master(self) -> ssh.Connection | None:
        """A connection to the master, which may only be coming up; None if it is lost."""
        if not self._fleet.instances:
            return None
        record = self._fleet.record(self._fleet.instances)
        master = next((each for each in record.nodes if each.role == "master" and each.state.alive), None)
        if master is None:
            return None
        mine = [each for each in self._fleet.instances if each.instance_id == master.instance_id]
        boot = Boot(self._context, mine, pace=self._pace, report=self._report)
        boot.wait_until_running()
        return boot.open_master(key=self._context.keys.opening(record.key_name))

    def _cluster_key(self, master: ssh.Connection, record: ClusterRecord) -> str | None:
        """The private half for the master's disk once all workers let it in; None if it is there."""
        new = self._launched()
        workers = [
            node
            for node in record.nodes
            if node.role != "master" and node.state.alive and node.instance_id not in new
        ]
        private, refused = self._key.private(master, record, workers, pace=self._pace)
        for instance_id, why in refused.items():
            self._report("rekeying", 0, f"{instance_id} did not get the new cluster key: {why}")
        return private

    def _launched(self) -> list[str]:
        """The ids of the instances that this change has launched."""
        return self._fleet.launched(self._host_key.public, unlisted=self._unlisted) if self._asked else []

    def _watch(self, listed: Sequence[Instance]) -> None:
        """That the cluster is terminated meanwhile ends the change."""
        left = {each.instance_id for each in listed if each.state.alive}
        if not left & {each.instance_id for each in self._fleet.before}:
            raise CloudError(f"{self._plan.name!r} was terminated meanwhile")

    def _ids(self) -> set[str]:
        return {each.instance_id for each in self._fleet.instances}

    def _cost(self) -> Cost:
        """What it has cost till now, and what it will when the plan is carried out."""
        now = self._context.now()
        spent = self._record.cost_so_far(now)
        known = spent is not None or self._record.cost is None
        return Cost(
            spent_usd=spent or 0.0, usd_per_hour=self._plan.usd_per_hour if known else None, since=now
        )

    def _report(self, phase: str, ready: int, message: str = "") -> None:
        self._send(Progress(phase, ready, self._plan.spec.nodes, self._pace.elapsed, message))
