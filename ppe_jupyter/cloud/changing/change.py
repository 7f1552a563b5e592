"""Change: reboot, park, start, resize, mend and terminate clusters: plan it, then carry the plan out.

Planning asks EC2 and the master what there is, and changes nothing. Remembers nothing that matters.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ...errors import AuthenticationRefused, CloudError, HostKeyMismatch, RemoteError
from .. import tags
from ..context import Context
from ..facts import Caps, Instance
from ..launching import removal
from ..launching.clusters import NO_REPORT, Clusters
from ..launching.diagnosis import diagnose
from ..launching.probe import Seen, has_rstudio, probe
from ..pace import Report, Undertaking
from ..plan import Plan
from ..planning.draft import ChangeFacts
from ..planning.plan_change import plan_change
from ..planning.prices import Prices
from ..planning.survey import leading
from ..records import ClusterRecord, ClusterState, Cost, InstanceState, Progress
from .execution import Change

# What a cluster says on its master's console when its watchdog parks or terminates it.
PARKING = re.compile(r"ppe-watchdog: parking at (\S+),")
GROWING = ("start", "resize", "retry")


class Changes:
    """Changes of the clusters of one account and region."""

    def __init__(self, context: Context, clusters: Clusters) -> None:
        self._context = context
        self._ec2 = context.ec2
        self._clusters = clusters

    def plan(self, record: ClusterRecord, verb: str, **options: Any) -> Plan:
        """What ``verb`` (plan_change.VERBS) would do; the options are plan_change's.

        Raises SettingsError when the user's private key is needed and not here, SshError when the master does not
        answer a question that matters, UsageError.
        """
        return plan_change(record, verb, self._facts(record, verb, **options), **options)

    def carry_out(self, plan: Plan, *, report: Report = NO_REPORT) -> ClusterRecord | None:
        """Do what the plan says; the cluster as it is then, None if it is terminated.

        It is degraded when nodes were lost on the way: ``troubles`` says which. Raises SpecError for a plan with
        errors, CloudError that says what became of the cluster. KeyboardInterrupt ends it in the same order.
        """
        plan.check()
        record = plan.existing
        assert record is not None
        if not plan.steps:
            return record
        if plan.verb == "terminate":
            removal.terminate(self._context, plan.name, report=report)
            return None
        plan = replace(plan, existing=self.settle(record))
        pace = self._context.pace()

        def work(send: Report) -> ClusterRecord:
            return Change(self._context, plan, connect=self._clusters.connect, pace=pace, report=send).run()

        undertaking = Undertaking(work, pace)
        undertaking.wait(report)
        changed = undertaking.result
        up = sum(node.up for node in changed.nodes)
        report(Progress(str(changed.state), up, changed.wanted, pace.elapsed, plan.name))
        return changed

    def settle(self, record: ClusterRecord) -> ClusterRecord:
        """The record with what it has cost, also of a cluster that has parked itself; noted for all clients.

        When it stopped is what EC2 says, else what the master's console says; else the cost is the most that it can be.
        """
        cost, rate = record.cost, record.usd_per_hour
        if record.state is not ClusterState.PARKED or cost is None or rate is None:
            return record
        if cost.usd_per_hour is None or cost.usd_per_hour <= rate + 1e-6:
            return record
        now, master = self._context.now(), record.master
        stopped = master.stopped or self._said_ending(master.instance_id, since=cost.since)
        if stopped is None:
            return record
        spent = cost.at(max(stopped, cost.since))
        assert spent is not None
        parked = Cost(spent_usd=spent, usd_per_hour=rate, since=max(stopped, cost.since))
        settled = Cost(spent_usd=parked.at(now) or spent, usd_per_hour=rate, since=now)
        self._ec2.tag([master.instance_id], tags.of_cost(settled))
        return replace(record, cost=settled)

    def ended(self, record: ClusterRecord) -> datetime:
        """When a cluster ended that EC2 lists as terminated: found out in the same way, or else now."""
        master = next((node for node in record.nodes if node.role == "master"), None)
        since = record.cost.since if record.cost else record.launched
        said = master and (master.stopped or self._said_ending(master.instance_id, since=since))
        return said or self._context.now()

    def _said_ending(self, instance_id: str, *, since: datetime) -> datetime | None:
        """When the watchdog said on the console that it ends the cluster, after that time."""
        try:
            found = PARKING.findall(self._ec2.console_output(instance_id, latest=False))
            said = datetime.fromisoformat(found[-1].replace("Z", "+00:00"))
        except (CloudError, IndexError, ValueError):
            return None
        said = said if said.tzinfo else said.replace(tzinfo=timezone.utc)
        return said if said > since else None

    # -- facts ------------------------------------------------------------------------------------------

    def _facts(self, record: ClusterRecord, verb: str, **options: Any) -> ChangeFacts:
        settings = self._context.settings
        caps = Caps(max_usd_per_hour=settings.max_usd_per_hour, max_nodes=settings.max_nodes)
        facts = ChangeFacts(now=self._context.now(), caps=caps)
        if verb in GROWING:
            facts = self._with_resources(facts, record)
        smaller = verb == "resize" and (options.get("nodes") or 0) < len(record.nodes)
        if record.state in (ClusterState.RUNNING, ClusterState.DEGRADED) and (verb == "retry" or smaller):
            facts = self._with_seen(facts, record, strict=smaller)
        return facts

    def _with_resources(self, facts: ChangeFacts, record: ClusterRecord) -> ChangeFacts:
        """What new nodes are to be made of: what the others are."""
        like = next((each for each in self._instances(record) if each.state.alive), None)
        if like is None:
            return facts
        image = self._ec2.image(like.image_id)
        subnet = next(iter(self._ec2.subnets(like.subnet_id)), None)
        if subnet is not None:
            with contextlib.suppress(CloudError):  # where it leads is not needed
                subnet = leading(subnet, self._ec2.ways_out(subnet.vpc_id))
        prices = Prices(self._context).on_demand(like.instance_type)
        spot: Mapping[str, float] = {}
        if record.spec and record.spec.spot:
            with contextlib.suppress(CloudError):  # it is counted as on demand then
                spot = self._ec2.spot_prices([like.instance_type]).get(like.instance_type, {})
        return replace(
            facts,
            usd_per_hour=prices.usd_per_hour.get(like.instance_type),
            spot_usd=spot.get(subnet.zone) if subnet else None,
            prices=prices.source,
            subnet=subnet,
            image=replace(image, login_user=record.login_user) if image else None,
            instance_type=self._ec2.instance_type(like.instance_type),
        )

    def _with_seen(self, facts: ChangeFacts, record: ClusterRecord, *, strict: bool) -> ChangeFacts:
        """Who does not answer, and who is at work; not being able to ask is an answer too unless ``strict``."""
        nodes = [node for node in record.nodes if node.state is InstanceState.RUNNING]
        master = next((node for node in nodes if node.role == "master"), None)
        if master is None:
            return facts
        seen: dict[str, Seen] = {}
        try:
            with self._clusters.connect(record) as connection:
                seen = probe(connection, nodes)
                if record.spec and record.spec.rstudio:
                    facts = replace(facts, rstudio=has_rstudio(connection))
        except (RemoteError, TimeoutError) as exc:
            # Who refuses this client is there: that is no master to give up, with its disk.
            if strict or isinstance(exc, AuthenticationRefused | HostKeyMismatch):
                raise
            mine = [each for each in self._instances(record) if each.instance_id == master.instance_id]
            checked = [diagnose(self._context, each) for each in mine]
            seen = {master.instance_id: Seen(error="; ".join([str(exc), *checked]))}
        return replace(
            facts,
            silent={instance_id: each.error for instance_id, each in seen.items() if each.error},
            busy={instance_id: each.busy for instance_id, each in seen.items() if each.busy},
        )

    def _instances(self, record: ClusterRecord) -> list[Instance]:
        return self._ec2.instances(cluster=record.name, launch=record.launch)
