"""Launch: carry out a plan's steps, and leave either a running cluster or nothing.

Whatever ends a launch early, a refusal, a time-out, a stop, removes what it had made by ``removal``; what
then still remains is named in LaunchFailed. Runs in a thread of its own (``pace``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from .. import catalog, ssh
from ..errors import CapacityError, CloudError, LaunchFailed, PpeError
from ..settings import Settings
from . import tags
from .boot import Boot
from .configure import Setup, bootstrap_script, configure
from .context import Connect, utc_now
from .ec2 import EC2
from .facts import Instance, Subnet
from .pace import Pace, Report, Stopped
from .plan import Plan
from .records import ClusterRecord, Cost, Progress
from .removal import Removed, remove
from .shapes import InstanceRequest
from .steps import Configure, CreatePlacementGroup, CreateSecurityGroup, ImportKeyPair, RunInstances
from .userdata import user_data

T = TypeVar("T")

# What was made a moment ago may not be known everywhere yet (API reference, "Eventual consistency").
NOT_YET_CODES = (
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidPlacementGroup.Unknown",
    "InvalidInstanceID.NotFound",
)
NOT_YET_SECONDS = 20.0
SERVER_FAULTS = ("InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable")


@dataclass
class Made:
    """What the launch has made so far; it grows step by step."""

    group_id: str = ""
    placement_group: str | None = None
    asked_for_instances: bool = False
    instances: list[Instance] = field(default_factory=list)
    subnet: Subnet | None = None


class Launch:
    """One launch of one plan."""

    def __init__(
        self,
        plan: Plan,
        ec2: EC2,
        settings: Settings,
        *,
        user_key: str,
        pace: Pace,
        report: Report,
        connect: Connect = ssh.connect,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """``user_key`` is the private half of the user's key pair."""
        self._plan = plan
        self._ec2 = ec2
        self._settings = settings
        self._user_key = user_key
        self._pace = pace
        self._send = report
        self._connect = connect
        self._now = now
        self._launch = uuid.uuid4().hex
        self._host_key = ssh.generate_key_pair()
        self._cluster_key = ssh.generate_key_pair(f"ppe-{plan.name}")
        self._made = Made()
        self._check: Callable[[], None] = lambda: None  # raises when an instance has ended
        self._tags = tags.for_everything(
            plan.spec,
            name=plan.name,
            owner=plan.owner,
            launch=self._launch,
            busy_until=tags.busy_until(now(), boot_timeout=settings.boot_timeout),
        )

    def run(self) -> tuple[ClusterRecord, ssh.Connection]:
        """Carry the plan out; return the running cluster and the connection to its master.

        Raises LaunchFailed, or CapacityError when all zones were tried and everything was removed.
        """
        connection: ssh.Connection | None = None
        try:
            for step in self._plan.steps:
                self._pace.check()
                match step:
                    case ImportKeyPair():
                        self._ec2.import_key_pair(step.name, step.public, tags=_permanent(self._tags))
                    case CreateSecurityGroup():
                        self._create_security_group(step)
                    case CreatePlacementGroup():
                        self._create_placement_group(step)
                    case RunInstances():
                        self._run_instances(step)
                        connection = self._boot(step)
                    case Configure():
                        assert connection is not None
                        self._configure(connection)
            assert connection is not None
            return self._record(), connection
        except BaseException as exc:
            if connection is not None:
                connection.close()
            error = self._ended(exc)
            if error is exc:
                raise
            raise error from exc

    # -- steps ------------------------------------------------------------------------------------------

    def _create_security_group(self, step: CreateSecurityGroup) -> None:
        """Create the group; it is also the lock: of two clients that launch the same name, one gets it."""
        self._report("creating", 0, step.name)
        try:
            group_id = self._ec2.create_security_group(step.name, vpc_id=step.vpc_id, tags=self._tags)
        except CloudError as exc:
            mine = self._mine(exc, "InvalidGroup.Duplicate", self._ec2.security_groups, step.name)
            group_id = mine[0]
        self._made.group_id = group_id
        self._insist(lambda: self._ec2.open_security_group(group_id, ssh_from=step.caller_cidr))

    def _create_placement_group(self, step: CreatePlacementGroup) -> None:
        self._report("creating", 0, step.name)
        try:
            self._ec2.create_placement_group(step.name, tags=self._tags)
        except CloudError as exc:
            self._mine(exc, "InvalidPlacementGroup.Duplicate", self._ec2.placement_groups, step.name)
        self._made.placement_group = step.name

    def _mine(self, exc: CloudError, code: str, find: Callable[..., list[str]], name: str) -> list[str]:
        """The group that exists already, if it is of this launch: a call repeated after a lost answer."""
        if exc.code != code:
            raise exc
        mine = find(cluster=self._plan.name, launch=self._launch)
        if not mine:
            raise CloudError(
                f"{name} exists: {self._plan.name!r} is being launched elsewhere, or a launch of it died; "
                f"%ppe_terminate {self._plan.name} removes what is left of that",
                code=code,
            ) from exc
        return mine

    def _run_instances(self, step: RunInstances) -> None:
        """Ask for all the instances in one zone after the other until one has them."""
        data = user_data(
            host_key=self._host_key,
            cluster_key=self._cluster_key.public,
            login_user=step.image.login_user,
            bootstrap=None if step.image.node else bootstrap_script(),
        )
        refused: list[str] = []
        for subnet in step.subnets:
            self._report("starting", 0, f"{step.count} × {step.instance_type} in {subnet.zone}")
            self._pace.check()
            self._made.subnet = subnet
            self._made.asked_for_instances = True
            request = self._request(step, subnet, data)
            try:
                self._made.instances = self._insist(partial(self._ec2.run_instances, request))
                return
            except CapacityError as exc:
                self._made.asked_for_instances = False
                refused.append(f"{subnet.zone}: {exc}")
        raise CapacityError(
            f"no zone has {step.count} × {step.instance_type} for {self._plan.name!r} now. Tried "
            f"{'; '.join(refused)}. Try another type or zone, fewer nodes, or later",
            code="InsufficientInstanceCapacity",
            operation="RunInstances",
        )

    def _request(self, step: RunInstances, subnet: Subnet, data: bytes) -> InstanceRequest:
        return InstanceRequest(
            count=step.count,
            instance_type=step.instance_type,
            image=step.image,
            subnet_id=subnet.subnet_id,
            group_id=self._made.group_id,
            placement_group=self._made.placement_group,
            key_name=self._plan.key_name,
            user_data=data,
            root_gb=step.root_gb,
            cores=step.cores,
            # The same token with other parameters is refused (API reference, "Ensuring idempotency").
            client_token=f"{self._launch}-{subnet.subnet_id[-16:]}",
            instance_tags=tags.for_instances(
                self._tags,
                slots=self._plan.slots,
                login_user=step.image.login_user,
                launch_host_key=self._host_key.public,
                cost=Cost(spent_usd=0.0, usd_per_hour=self._plan.usd_per_hour, since=self._now()),
                price=catalog.usd_per_hour(step.instance_type, root_gb=0, public_address=False),
            ),
            volume_tags=self._tags,
        )

    def _boot(self, step: RunInstances) -> ssh.Connection:
        """Wait until all instances run, and connect to the master with the host key that we gave it."""
        assert self._made.subnet is not None
        boot = Boot(
            self._ec2,
            self._made.instances,
            pace=self._pace,
            report=self._report,
            boot_timeout=self._settings.boot_timeout,
        )
        ours = {"cluster": self._plan.name, "launch": self._launch}
        self._check = lambda: boot.describe(**ours)
        boot.wait_until_running(**ours, public=self._made.subnet.public)
        self._made.instances = boot.instances
        master = self._record().master
        target = ssh.Target(
            host=master.address,
            user=step.image.login_user,
            key=self._user_key,
            host_keys=(self._host_key.public,),
        )
        return boot.open_master(
            target,
            connect=self._connect,
            timeout=self._settings.connect_timeout,
            check=self._check,
        )

    def _configure(self, connection: ssh.Connection) -> None:
        assert self._made.subnet is not None
        record = self._record()
        self._report("uploading", 0)
        setup = Setup(
            cluster=self._plan.name,
            login_user=record.login_user,
            subnet_cidr=self._made.subnet.cidr,
            launch_host_key=self._host_key.public,
            cluster_private_key=self._cluster_key.private,
            nodes=record.nodes,
        )
        keys = configure(connection, setup, report=self._report, pace=self._pace, check=self._check)
        self._pace.check()
        running = tags.when_running({node.index: keys[node.private_ip] for node in record.nodes})
        self._ec2.tag([node.instance_id for node in record.nodes], running)
        self._made.instances = [replace(each, tags={**each.tags, **running}) for each in self._made.instances]

    # -- ends -------------------------------------------------------------------------------------------

    def _record(self) -> ClusterRecord:
        return tags.clusters(self._made.instances, now=self._now())[0]

    def _ended(self, exc: BaseException) -> PpeError:
        """Remove everything; the error to raise."""
        why = "it was stopped" if isinstance(exc, Stopped) else str(exc) or repr(exc)
        removed = self._remove(unlisted=_may_have_run(exc) and not self._made.instances)
        if removed.leftovers:
            return LaunchFailed(
                f"cluster {self._plan.name!r} was not launched: {why}. Still there: "
                f"{removed.leftovers_text()}. Remove it with: %ppe_terminate {self._plan.name}",
                leftovers=list(removed.leftovers),
            )
        if isinstance(exc, CapacityError):
            return exc
        rest = "Everything it had made was removed" if removed.found else "Nothing had been made"
        return LaunchFailed(f"cluster {self._plan.name!r} was not launched: {why}. {rest}")

    def _remove(self, *, unlisted: bool) -> Removed:
        self._report("removing", 0)
        ids = [each.instance_id for each in self._made.instances]
        try:
            return remove(
                self._ec2,
                pace=self._pace.to_the_end(),
                report=self._send,
                cluster=self._plan.name,
                launch=self._launch,
                instance_ids=ids,
                unlisted=unlisted and self._made.asked_for_instances,
            )
        except PpeError as exc:
            names = [*ids, *filter(None, [self._made.group_id, self._made.placement_group])]
            return Removed(len(names), {name: str(exc) for name in names})

    def _report(self, phase: str, ready: int, message: str = "") -> None:
        self._send(Progress(phase, ready, self._plan.spec.nodes, self._pace.elapsed, message))

    def _insist(self, call: Callable[[], T]) -> T:
        return self._pace.insist(call, codes=NOT_YET_CODES, seconds=NOT_YET_SECONDS)


def _may_have_run(exc: BaseException) -> bool:
    """Whether instances may exist although RunInstances ended so: no answer, or a fault of the server's."""
    return not isinstance(exc, CloudError) or exc.code in ("", *SERVER_FAULTS)


def _permanent(common: Mapping[str, str]) -> dict[str, str]:
    """The tags of what stays when the cluster goes: none that a cluster is found by."""
    return {tags.OWNER: common[tags.OWNER]}
