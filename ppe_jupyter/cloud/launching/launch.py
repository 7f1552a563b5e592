"""Launch: carry out a plan's steps, and leave either a usable cluster or nothing.

Everything is tagged by the call that creates it. What ends a launch early, a refusal, a stop, no node that could
be the master, removes what it had made by ``removal``; what then still remains is named in LaunchFailed. Nodes
that are lost on the way end no launch: the cluster is then degraded. Runs in a thread of its own (``pace``).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ... import ssh
from ...errors import CapacityError, CloudError, LaunchFailed, PpeError
from .. import tags
from ..access import rule_description
from ..context import Context
from ..facts import Instance
from ..pace import Pace, Report, Stopped
from ..plan import Plan
from ..planning.choices import boot_installs
from ..records import ClusterRecord, ClusterState, Progress
from ..steps import (
    AttachVolume,
    Configure,
    CreatePlacementGroup,
    CreateSecurityGroup,
    ImportKeyPair,
    RunInstances,
)
from .bring_up import BroughtUp, attach, bring_up
from .order import install_seconds, offers
from .purchase import PASSING_CODES, Purchased, patiently, purchase
from .removal import Removed, remove

T = TypeVar("T")

# A deleted placement group's name is free again after some seconds (its state is then "deleting").
DELETING_SECONDS = 15.0


class Launch:
    """One launch of one plan."""

    def __init__(self, context: Context, plan: Plan, *, pace: Pace, report: Report) -> None:
        self._context = context
        self._ec2 = context.ec2
        self._plan = plan
        self._pace = pace
        self._send = report
        self._launch = uuid.uuid4().hex
        self._host_key = ssh.generate_key_pair()
        self._cluster_key = ssh.generate_key_pair(f"ppe-{plan.name}")
        self._group_id = plan.spec.security_group or ""
        self._placement_groups: list[str] = []
        self._asked = False  # whether there may be instances that EC2 did not tell of
        self._purchased: Purchased | None = None
        self._done: BroughtUp | None = None
        self._tags = tags.for_everything(
            plan.spec,
            name=plan.name,
            owner=plan.owner,
            launch=self._launch,
            busy_until=tags.busy_until(
                context.now(),
                boot_timeout=context.settings.boot_timeout,
                install_seconds=install_seconds(plan),
            ),
        )

    @property
    def id(self) -> str:
        """What the tags of all that it makes call it."""
        return self._launch

    def run(self) -> tuple[ClusterRecord, ssh.Connection]:
        """Carry the plan out; return the cluster, running or degraded, and the connection to its master.

        Raises LaunchFailed, or CapacityError when all zones were tried and everything was removed.
        """
        try:
            self._context.keys.private(self._plan.key_name)  # without it nothing of the rest is of use
            for step in self._plan.steps:
                self._pace.check()
                match step:
                    case ImportKeyPair():
                        self._do(
                            partial(
                                self._ec2.import_key_pair, step.name, step.public, tags=self._lasting_tags
                            )
                        )
                    case CreateSecurityGroup():
                        self._create_security_group(step)
                    case CreatePlacementGroup():
                        self._create_placement_group(step.name)
                    case RunInstances() if self._purchased is None:
                        self._run_instances(step)
                    case Configure():
                        self._bring_up()
                    case AttachVolume():
                        assert self._done is not None
                        self._done = attach(
                            self._context, self._done, step, pace=self._pace, report=self._send
                        )
            assert self._done is not None
            return self._done.record, self._done.connection
        except BaseException as exc:
            if self._done is not None:
                self._done.connection.close()
            error = self._ended(exc)
            if error is exc:
                raise
            raise error from exc

    # -- steps ------------------------------------------------------------------------------------------

    def _create_security_group(self, step: CreateSecurityGroup) -> None:
        """Create the group; it is also the lock: of two clients that launch the same name, one gets it."""
        self._report("creating", 0, step.name)
        try:
            create = partial(self._ec2.create_security_group, step.name, vpc_id=step.vpc_id, tags=self._tags)
            self._group_id = self._do(create)
        except CloudError as exc:
            if exc.code != "InvalidGroup.Duplicate":
                raise
            mine = self._ec2.security_groups(cluster=self._plan.name, launch=self._launch)
            if not mine:
                raise self._taken(step.name, exc) from exc
            self._group_id = mine[0]
        settings = self._context.settings
        given = self._plan.spec.caller_cidr is not None or settings.caller_cidr is not None
        self._do(
            partial(
                self._ec2.open_security_group,
                self._group_id,
                ssh_from=step.caller_cidr,
                description=rule_description(given),
            )
        )

    def _create_placement_group(self, name: str) -> str:
        """Create the group; its name may be taken by a call that was repeated, or by one that is being deleted."""
        self._report("creating", 0, name)
        for last in self._pace.tries(seconds=DELETING_SECONDS):
            try:
                self._do(partial(self._ec2.create_placement_group, name, tags=self._tags))
            except CloudError as exc:
                if exc.code != "InvalidPlacementGroup.Duplicate":
                    raise
                if name not in self._ec2.placement_groups(cluster=self._plan.name, launch=self._launch):
                    if last:
                        raise self._taken(name, exc) from exc
                    continue
            break
        self._placement_groups.append(name)
        return name

    def _taken(self, what: str, exc: CloudError) -> CloudError:
        return CloudError(
            f"{what} exists: {self._plan.name!r} is being launched elsewhere, or a launch of it died; "
            f"%ppe_terminate {self._plan.name} removes what is left of that",
            code=exc.code,
        )

    def _run_instances(self, step: RunInstances) -> None:
        """Buy all nodes in one zone, on demand instead of spot only if there is no other way and it was asked for."""
        wanted = offers(
            self._plan,
            self._context,
            common=self._tags,
            group_id=self._group_id,
            placement_group=self._placement_groups[-1] if self._placement_groups else None,
            host_key=self._host_key,
            cluster_key=self._cluster_key.public,
        )
        self._asked = True
        try:
            self._purchased = purchase(
                self._context,
                wanted,
                step.subnets,
                token=self._launch,
                pace=self._pace,
                say=lambda line: self._report("starting", 0, line),
                regroup=self._regroup if self._placement_groups else None,
            )
        except CloudError as exc:
            # A definite refusal: there is nothing that is not listed yet.
            self._asked = exc.code in PASSING_CODES
            raise
        self._asked = False
        if self._purchased.offer:
            self._report("starting", 0, "there is no spot capacity: the workers are on demand")

    def _regroup(self) -> str:
        first = self._placement_groups[0]
        return self._create_placement_group(f"{first}-{len(self._placement_groups) + 1}")

    def _bring_up(self) -> None:
        assert self._purchased is not None
        self._done = done = bring_up(
            self._context,
            self._purchased.instances,
            self._plan.spec,
            subnet_cidr=self._purchased.subnet.cidr,
            installs=any(
                boot_installs(step.image, self._plan.spec)
                for step in self._plan.steps
                if isinstance(step, RunInstances)
            ),
            cluster_key=lambda connection, record: self._cluster_key.private,
            pace=self._pace,
            report=self._report,
            watch=self._give_way,
        )
        if done.lost:
            name, ready = self._plan.name, sum(node.up for node in done.record.nodes)
            said = (
                f"{ready} of {self._plan.spec.nodes} nodes of {name!r} can be used. {'; '.join(done.record.troubles)}. "
                f"Wait on, or replace or drop what is lost: %ppe_retry {name} --wait, --replace or --drop"
            )
            self._report("degraded", ready, said)

    def _give_way(self, listed: Sequence[Instance]) -> None:
        """Of two clients that launched one name into different networks or an existing group, one gives up.

        The one that runs already, else the one with the lower launch id stays; each sees the other by its tags
        before it says of itself that it runs. Raises CloudError.
        """
        for each in listed:
            launch = each.tags.get(tags.LAUNCH, "")
            runs = each.tags.get(tags.STATE) != ClusterState.PENDING.value
            if launch != self._launch and each.state.alive and (runs or launch < self._launch):
                owner = each.tags.get(tags.OWNER, "somebody")
                raise CloudError(f"{self._plan.name!r} is being launched elsewhere, by {owner}")

    # -- ends -------------------------------------------------------------------------------------------

    def _ended(self, exc: BaseException) -> PpeError:
        """Remove everything; the error to raise."""
        why = "it was stopped" if isinstance(exc, Stopped) else str(exc) or repr(exc)
        removed = self._remove()
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

    def _remove(self) -> Removed:
        self._report("removing", 0)
        ids = [each.instance_id for each in self._purchased.instances] if self._purchased else []
        try:
            return remove(
                self._ec2,
                pace=self._pace.to_the_end(),
                report=self._send,
                cluster=self._plan.name,
                launch=self._launch,
                instance_ids=ids,
                unlisted=self._asked,
            )
        except PpeError as exc:
            own_group = "" if self._plan.spec.security_group else self._group_id
            names = [*ids, *filter(None, [own_group, *self._placement_groups])]
            return Removed(len(names), {name: str(exc) for name in names})

    @property
    def _lasting_tags(self) -> Mapping[str, str]:
        """The tags of what stays when the cluster goes: none that a cluster is found by."""
        return {tags.OWNER: self._tags[tags.OWNER]}

    def _report(self, phase: str, ready: int, message: str = "") -> None:
        self._send(Progress(phase, ready, self._plan.spec.nodes, self._pace.elapsed, message))

    def _do(self, call: Callable[[], T]) -> T:
        return patiently(self._pace, call)
