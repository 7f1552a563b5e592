"""Clusters: plan, launch, find, connect to and terminate them. What ``manager`` uses of this package.

Remembers nothing that matters: whatever another client needs to know is in EC2's tags.
"""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

from .. import ssh
from ..errors import CloudError, LaunchFailed, NoSuchCluster, PpeError, SshError
from . import tags
from .context import Context
from .facts import Caps, Facts, Image, UserKey
from .keys import host, os_user
from .launch import Launch
from .pace import Pace, Report, Undertaking
from .plan import Plan
from .plan_launch import plan_launch
from .records import ClusterRecord, ClusterState, Progress
from .removal import remove
from .spec import ClusterSpec, generate_name

NO_REPORT: Report = lambda progress: None  # noqa: E731


class Clusters:
    """The clusters of one account and region."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ec2 = context.ec2
        self._settings = context.settings
        self._keys = context.keys
        self._caller_address = context.caller_address
        self._connect = context.connect
        self._now = context.now
        self._pace = context.pace
        self._rng = context.rng
        self._kept: dict[str, tuple[str, ssh.Connection]] = {}
        self._failures: dict[str, str] = {}

    def plan(self, spec: ClusterSpec) -> Plan:
        """What launching ``spec`` would do: asks, decides, changes nothing in the cloud."""
        records = self.find()
        name = spec.name or generate_name({record.name for record in records}, rng=self._rng)
        found = (each for each in records if each.name == name and each.state is not ClusterState.TERMINATED)
        existing = next(found, None)
        return plan_launch(
            spec, self._facts(spec, name) if existing is None else self._short_facts(name, existing)
        )

    def launch(self, plan: Plan, *, report: Report = NO_REPORT, wait: bool = True) -> ClusterRecord:
        """Launch the plan's cluster, or return the one that runs already.

        Without ``wait`` return as soon as its instances exist; a thread goes on to configure them. Raises
        SpecError for a plan with errors, CapacityError, LaunchFailed; then nothing is left, or LaunchFailed
        names it. KeyboardInterrupt meanwhile ends the launch in the same way.
        """
        plan.check()
        if plan.existing is not None:
            nodes = len(plan.existing.nodes)
            report(Progress("running", nodes, nodes, 0.0, f"{plan.name} is running already"))
            return plan.existing
        pace = self._pace()
        work = Undertaking(lambda send: self._launch(plan, pace, send), pace)
        if not work.wait(report, until=lambda progress: not wait and progress.phase == "booting"):
            return self.get(plan.name)
        record = work.result
        report(Progress("running", len(record.nodes), len(record.nodes), pace.elapsed, plan.name))
        return record

    def find(self) -> list[ClusterRecord]:
        """Every cluster that EC2 still lists, whoever launched it, the newest first."""
        return tags.clusters(self._ec2.instances(), now=self._now())

    def get(self, name: str) -> ClusterRecord:
        """The cluster of that name. Raises NoSuchCluster if there is none, or none any more."""
        for record in tags.clusters(self._ec2.instances(cluster=name), now=self._now()):
            if record.state is not ClusterState.TERMINATED:
                return record
        if name in self._failures:
            raise NoSuchCluster(self._failures[name])
        names = [record.name for record in self.find() if record.state is not ClusterState.TERMINATED]
        others = f"there are: {', '.join(names)}" if names else "there is none; launch one with: %ppe_launch"
        raise NoSuchCluster(f"there is no cluster {name!r}; {others}")

    def terminate(self, name: str, *, report: Report = NO_REPORT) -> bool:
        """Remove everything that was made for the cluster, and wait until it is gone. Safe to repeat.

        Returns whether there was anything. Raises CloudError naming what could not be removed.
        """
        pace = self._pace()
        _, kept = self._kept.pop(name, ("", None))
        if kept is not None:
            kept.close()
        removed = remove(self._ec2, pace=pace, report=report, cluster=name)
        if removed.leftovers:
            raise CloudError(
                f"not all of cluster {name!r} could be removed: {removed.leftovers_text()}. "
                f"Try again in a minute: %ppe_terminate {name}"
            )
        return removed.found > 0

    def connect(self, record: ClusterRecord) -> ssh.Connection:
        """A connection to the master, its host key verified by the tags. Raises SshError, SettingsError."""
        master = record.master
        instance_id, kept = self._kept.pop(record.name, ("", None))
        if kept is not None and kept.alive and instance_id == master.instance_id:
            return kept
        if not master.host_key:
            raise SshError(
                f"{record.name!r} has its host key in no tag, so it cannot be verified: terminate it",
                host=master.address,
            )
        target = ssh.Target(
            host=master.address,
            user=record.login_user,
            key=self._keys.private(record.key_name),
            host_keys=(master.host_key,),
        )
        return self._connect(target, timeout=self._settings.connect_timeout)

    def key_file(self, record: ClusterRecord) -> Path:
        """Where the private half of the user's key pair for that cluster is."""
        return self._keys.path(record.key_name)

    def _launch(self, plan: Plan, pace: Pace, send: Report) -> ClusterRecord:
        launch = Launch(
            plan,
            self._ec2,
            self._settings,
            user_key=self._keys.private(plan.key_name),
            pace=pace,
            report=send,
            connect=self._connect,
            now=self._now,
        )
        try:
            record, connection = launch.run()
        except LaunchFailed as exc:
            self._failures[plan.name] = str(exc)
            raise
        # The first to connect gets the connection that the launch made: one handshake, not two.
        self._kept[record.name] = (record.master.instance_id, connection)
        return record

    def _short_facts(self, name: str, existing: ClusterRecord) -> Facts:
        return Facts(name=name, owner=existing.owner, existing=existing)

    def _facts(self, spec: ClusterSpec, name: str) -> Facts:
        kind = self._ec2.instance_type(spec.instance_type)
        key_name, public = self._keys.chosen(spec.key_name)
        cidr, problem = self._caller(spec)
        return Facts(
            name=name,
            owner=self._owner(),
            caps=Caps(max_usd_per_hour=self._settings.max_usd_per_hour, max_nodes=self._settings.max_nodes),
            instance_type=kind,
            zones=self._ec2.zones_offering(spec.instance_type) if kind else frozenset(),
            subnets=tuple(self._ec2.subnets(spec.subnet)),
            image=self._image(spec, kind.architectures if kind else ()),
            user_key=UserKey(
                name=key_name,
                in_ec2=self._ec2.has_key_pair(key_name),
                private_here=self._keys.path(key_name).exists(),
                public=public,
            ),
            caller_cidr=cidr,
            caller_problem=problem,
        )

    def _image(self, spec: ClusterSpec, architectures: tuple[str, ...]) -> Image | None:
        if spec.image:
            return self._ec2.image(spec.image)
        if not architectures:
            return None
        return self._ec2.own_node_image(architectures) or self._ec2.debian_image(architectures)

    def _caller(self, spec: ClusterSpec) -> tuple[str | None, str]:
        """The range that may reach port 22, or None and why it is unknown."""
        if given := spec.caller_cidr or self._settings.caller_cidr:
            return given, ""
        try:
            return f"{ipaddress.IPv4Address(self._caller_address())}/32", ""
        except (PpeError, ValueError) as exc:
            return None, str(exc)

    def _owner(self) -> str:
        """OS user and STS identity; that STS cannot be asked forbids nothing."""
        arn = "unknown"
        with contextlib.suppress(CloudError):
            arn = self._ec2.identity().arn
        return f"{os_user()}@{host()} {arn}"
