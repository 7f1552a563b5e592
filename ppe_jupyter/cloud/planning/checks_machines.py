"""Checks of the machines: whether type, image, threads, placement, spot, quotas and volumes go together.

Pure: each check yields problems, graded by what would come of them: an error is what EC2 would refuse, or what
could not work.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
from collections.abc import Iterator

from ... import catalog
from ...catalog import InstanceType
from ...delivery import bootstrap_script
from ...errors import SpecError
from ...ssh import KeyPair
from ..facts import Image
from ..plan import Grade, Problem
from ..userdata import user_data
from .choices import Choices

ERROR, WARNING, INFO = Grade.ERROR, Grade.WARNING, Grade.INFO
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/placement-groups.html
SPREAD_MOST = 7
SYSTEMS = ("debian", "ubuntu")


def machine_problems(choices: Choices) -> Iterator[Problem]:
    """What is to be said of the machines."""
    kind = choices.facts.instance_type
    if kind is None:
        wanted = choices.spec.instance_type
        near = difflib.get_close_matches(wanted, catalog.instance_types(), n=3, cutoff=0.5)
        hint = f"; like it: {', '.join(near)}" if near else ""
        yield Problem(ERROR, f"there is no instance type {wanted!r} in this region{hint}; see: %ppe_types")
    else:
        yield from _type(choices, kind)
        yield from _threads(choices, kind)
        yield from _placement(choices, kind)
        yield from _spot(choices, kind)
        yield from _account(choices, kind)
    if choices.image is None and (kind or choices.spec.image):
        if choices.facts.lock and not choices.spec.image:
            return  # checks_lock tells why
        wanted = f"image {choices.spec.image}" if choices.spec.image else "an image for this type"
        yield Problem(ERROR, f"{wanted} cannot be found in this region; see: %ppe_images")
    elif choices.image is not None:
        yield from _image(choices, choices.image, kind)
        yield from _user_data(choices, choices.image)
    yield from _volumes(choices)


def _type(choices: Choices, kind: InstanceType) -> Iterator[Problem]:
    spec = choices.spec
    if spec.encrypted and not kind.encryption:
        yield Problem(ERROR, f"{kind.name} cannot have encrypted disks: --no-encryption, or another type")
    if kind.burstable and spec.nodes > 1:
        yield Problem(
            WARNING,
            f"{kind.name} is burstable: under MPI, whose ranks never rest, its CPU credits run out; then it is slow "
            "or costs more than its price",
        )
    if kind.gpus:
        yield Problem(INFO, f"{kind.name} has GPUs, which are paid for; R and Open MPI here do not use them")
    if kind.storage_gb:
        yield Problem(
            INFO,
            f"{kind.name}'s own disks ({kind.storage_gb} GB) are /scratch on each node, empty after parking",
        )


def _threads(choices: Choices, kind: InstanceType) -> Iterator[Problem]:
    spec = choices.spec
    two = spec.threads_per_core == 2
    if two and kind.threads_per_core < 2:
        yield Problem(ERROR, f"{kind.name} has one thread per core: leave out --threads-per-core")
    elif kind.threads_per_core > 1 and not kind.one_thread_per_core and not two:
        grade = ERROR if spec.threads_per_core else INFO
        yield Problem(grade, f"{kind.name} cannot be told to run one thread on each core")
    if choices.slots > (kind.vcpus if two else kind.cores):
        yield Problem(
            WARNING,
            f"{choices.slots} slots on {kind.cores} physical cores: ranks will wait for each other",
        )


def _placement(choices: Choices, kind: InstanceType) -> Iterator[Problem]:
    spec, group = choices.spec, choices.facts.placement_group
    if spec.placement == "auto" and spec.nodes > 1 and not kind.cluster:
        yield Problem(INFO, f"{kind.name} cannot be in a cluster placement group: slower between nodes")
    if spec.placement in ("auto", "off"):
        return
    if group is None:
        yield Problem(ERROR, f"there is no placement group {spec.placement!r} in this region")
    elif group.strategy == "cluster" and not kind.cluster:
        yield Problem(ERROR, f"{kind.name} cannot be in the cluster placement group {group.name}")
    elif group.strategy == "spread" and spec.nodes > SPREAD_MOST:
        yield Problem(
            ERROR, f"{group.name} spreads its instances: at most {SPREAD_MOST} in a zone, not {spec.nodes}"
        )
    elif group.strategy != "cluster":
        yield Problem(
            WARNING,
            f"{group.name} is a {group.strategy} placement group: it keeps nodes apart, MPI is slower",
        )


def _spot(choices: Choices, kind: InstanceType) -> Iterator[Problem]:
    spec, facts = choices.spec, choices.facts
    if not spec.spot:
        return
    if not kind.spot:
        yield Problem(ERROR, f"{kind.name} is not to be had as a spot instance")
    yield Problem(
        WARNING,
        "EC2 may take spot workers back, two minutes after saying so: that kills the MPI run that uses them. "
        "The master, with R's session, is on demand",
    )
    usd = [price for zone, price in facts.spot_usd.items() if zone in {each.zone for each in choices.subnets}]
    if spec.spot_max_usd is not None and usd and spec.spot_max_usd < min(usd):
        instead = "; so workers will be on demand" if spec.spot_fallback else ""
        yield Problem(
            WARNING if spec.spot_fallback else ERROR,
            f"${spec.spot_max_usd:g} an hour is below the spot price of {kind.name}, ${min(usd):.4f}{instead}",
        )
    if facts.spot_role is False:
        yield Problem(
            WARNING,
            "the account has no service-linked role for spot instances; the launch makes it if you may, else an "
            "administrator does: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com",
        )


def _account(choices: Choices, kind: InstanceType) -> Iterator[Problem]:
    """The account's plan, and its quotas. Whether CPU options lessen what counts is not documented."""
    spec, plan = choices.spec, choices.facts.account_plan
    if plan is not None and plan.free:
        left = "" if plan.credits_usd is None else f" (${plan.credits_usd:.2f} left)"
        if not kind.free_tier:
            yield Problem(
                ERROR,
                f"the account is on AWS's free plan, which does not have {kind.name}: take a type of the free tier "
                "such as t3.small, or upgrade the plan in the Billing console",
            )
        yield Problem(WARNING, f"on the free plan the account is closed when its credits{left} are used up")
    each = choices.cores or kind.vcpus
    wanted = {"on-demand": 1 if spec.spot else spec.nodes, "spot": choices.workers if spec.spot else 0}
    for market, quota in choices.facts.quotas.items():
        count = wanted.get(market, 0)
        if quota.used + count * kind.vcpus > quota.limit:
            yield Problem(
                ERROR if quota.used + count * each > quota.limit else WARNING,
                f"{count * kind.vcpus} vCPUs, {quota.used} in use: more than the {market} quota of {quota.limit:g} "
                f"allows; fewer nodes, or ask for more in Service Quotas: {quota.name}",
            )


def _image(choices: Choices, image: Image, kind: InstanceType | None) -> Iterator[Problem]:
    called = f"image {image.name}" if image.name != image.image_id else f"image {image.image_id}"
    if image.state != "available":
        yield Problem(ERROR, f"{called} is {image.state}: wait, or choose another one of %ppe_images")
    if kind is not None:
        yield from (Problem(ERROR, f"{called} {why}") for why in image.unfit(kind))
    if choices.spec.root_gb < image.root_gb:
        yield Problem(ERROR, f"{called} needs a root disk of {image.root_gb} GB at least: --root-gb")
    if not image.node:
        yield Problem(INFO, f"{called} is not a node yet: installing R and Open MPI takes minutes")
        if not any(system in f"{image.name} {choices.spec.image}".lower() for system in SYSTEMS):
            yield Problem(
                WARNING, f"{called} seems to be neither Debian nor Ubuntu, for which we can do that"
            )


def _user_data(choices: Choices, image: Image) -> Iterator[Problem]:
    """EC2 takes 16 KB of it; keys are random, so these stand for those to come."""
    text = base64.b64encode(hashlib.shake_256().digest(400)).decode()
    try:
        user_data(
            host_key=KeyPair(private=text, public=text[:80]),
            cluster_key=text[80:160],
            login_user=image.login_user,
            bootstrap=None if image.node else bootstrap_script(),
            extra_bootstrap=choices.spec.bootstrap,
        )
    except SpecError as exc:
        yield Problem(ERROR, str(exc))


def _volumes(choices: Choices) -> Iterator[Problem]:
    spec, known = choices.spec, choices.facts.volumes
    for volume_id, _ in spec.mounts():
        volume = known.get(volume_id)
        if volume is None:
            yield Problem(ERROR, f"there is no volume {volume_id} in this region; see: %ppe_volumes")
        elif volume.instance_id:
            yield Problem(
                ERROR,
                f"{volume_id} is attached to {volume.instance_id}; detach it with: %ppe_detach_volume {volume_id}",
            )
        elif volume.state != "available":
            yield Problem(ERROR, f"{volume_id} is {volume.state}, not available")
        elif spec.zone not in (None, volume.zone):
            yield Problem(ERROR, f"{volume_id} is in {volume.zone}, not in {spec.zone}: leave out --zone")
    zones = {volume.zone for volume in choices.volumes}
    if len(zones) > 1:
        where = ", ".join(f"{volume.volume_id} in {volume.zone}" for volume in choices.volumes)
        yield Problem(ERROR, f"the volumes are in different zones, and nodes in one: {where}")
