"""Order: what a plan's RunInstances steps ask EC2 for: requests with user data and tags, and what would do instead.

Must not know what becomes of it: ``purchase`` finds the zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ... import ssh
from ...delivery import bootstrap_script
from .. import tags
from ..configure import silence_seconds
from ..context import Context
from ..ec2.shapes import InstanceRequest
from ..facts import Image
from ..plan import Plan
from ..planning import choices
from ..records import Cost
from ..spec import ClusterSpec
from ..steps import RunInstances
from ..userdata import NodeLimits, user_data

# The watchdog ends the cluster first, and saves the workspace.
SPARE_HOURS = 1.0


def offers(
    plan: Plan,
    context: Context,
    *,
    common: Mapping[str, str],
    group_id: str,
    placement_group: str | None,
    host_key: ssh.KeyPair,
    cluster_key: str,
) -> list[list[InstanceRequest]]:
    """The requests of a launch, a list for each thing that would do: on demand after spot if the user allows it.

    ``common`` are the launch's tags, ``placement_group`` its own one if it made one.
    """
    spec = plan.spec
    if placement_group is None and spec.placement not in ("auto", "off"):
        placement_group = spec.placement
    planned = [step for step in plan.steps if isinstance(step, RunInstances)]
    chosen = [planned]
    if any(step.spot_fallback for step in planned):
        chosen.append([on_demand(step, planned[0].price) for step in planned])
    data = first_boot(planned[0].image, spec, context, host_key=host_key, cluster_key=cluster_key)

    def request(step: RunInstances, usd_per_hour: float | None) -> InstanceRequest:
        of_instances = tags.for_instances(
            common,
            slots=plan.slots,
            login_user=step.image.login_user,
            launch_host_key=host_key.public,
            cost=Cost(spent_usd=0.0, usd_per_hour=usd_per_hour, since=context.now()),
            price=step.price,
            first_index=step.first_index,
        )
        return instance_request(
            step,
            spec,
            group_id=group_id,
            placement_group=placement_group,
            key_name=plan.key_name,
            user_data=data,
            instance_tags=of_instances,
            other_tags=common,
        )

    return [[request(step, _rate(plan, steps, planned)) for step in steps] for steps in chosen]


def first_boot(
    image: Image, spec: ClusterSpec, context: Context, *, host_key: ssh.KeyPair, cluster_key: str
) -> bytes:
    """The user data of a new node of such a cluster; ``cluster_key`` is the public half of the cluster's own.

    The spec of a cluster that exists has only the digest of its bootstrap script: put the script there.
    """
    return user_data(
        host_key=host_key,
        cluster_key=cluster_key,
        login_user=image.login_user,
        bootstrap=None if image.node else bootstrap_script(),
        extra_bootstrap=spec.bootstrap,
        limits=NodeLimits(
            boot_seconds=choices.boot_seconds(image, spec, boot_timeout=context.settings.boot_timeout),
            hard_hours=None if spec.max_hours is None else spec.max_hours + SPARE_HOURS,
            silence_seconds=silence_seconds(context.settings),
        ),
    )


def install_seconds(plan: Plan) -> float:
    """How long the plan's new nodes may take to install what they lack."""
    images = [step.image for step in plan.steps if isinstance(step, RunInstances)]
    return max((choices.install_seconds(image, plan.spec) for image in images), default=0.0)


def instance_request(
    step: RunInstances,
    spec: ClusterSpec,
    *,
    group_id: str,
    placement_group: str | None,
    key_name: str,
    user_data: bytes,
    instance_tags: Mapping[str, str],
    other_tags: Mapping[str, str],
) -> InstanceRequest:
    """What a step asks EC2 for."""
    return InstanceRequest(
        count=step.count,
        instance_type=step.instance_type,
        image=step.image,
        group_id=group_id,
        key_name=key_name,
        user_data=user_data,
        root_gb=step.root_gb,
        root_type=step.root_type,
        encrypted=step.encrypted,
        cores=step.cores,
        imdsv2=spec.imdsv2,
        public=step.public,
        spot=step.spot,
        spot_max_usd=step.spot_max_usd,
        placement_group=placement_group,
        instance_profile=spec.instance_profile,
        instance_tags=instance_tags,
        other_tags=other_tags,
    )


def on_demand(step: RunInstances, price: float | None) -> RunInstances:
    """The step without spot; ``price`` is the on-demand master's."""
    return replace(step, spot=False, spot_max_usd=None, price=price) if step.spot else step


def _rate(plan: Plan, steps: Sequence[RunInstances], planned: Sequence[RunInstances]) -> float | None:
    """What the cluster costs an hour if these steps are what is bought."""
    if plan.usd_per_hour is None or None in [each.price for each in [*steps, *planned]]:
        return plan.usd_per_hour
    return plan.usd_per_hour + _instances(steps) - _instances(planned)


def _instances(steps: Sequence[RunInstances]) -> float:
    return sum(step.count * (step.price or 0.0) for step in steps)
