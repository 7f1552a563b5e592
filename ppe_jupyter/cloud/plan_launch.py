"""plan_launch: a spec and the account's facts become the plan of a launch.

Pure: the same spec and facts always make the same plan, nothing is asked and nothing is changed.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator
from dataclasses import replace

from .. import catalog
from ..catalog import InstanceType
from .facts import Facts, Subnet
from .plan import Grade, Plan, Problem
from .records import ClusterRecord, ClusterState
from .spec import MAX_TAG_VALUE, ClusterSpec
from .steps import Configure, CreatePlacementGroup, CreateSecurityGroup, ImportKeyPair, RunInstances, Step
from .tags import MAX_SPEC_TAGS


def plan_launch(spec: ClusterSpec, facts: Facts) -> Plan:
    """The plan for ``spec`` under ``facts``. Never raises: what is wrong is among its problems."""
    spec = replace(spec, name=facts.name)
    if facts.existing is not None:
        return _plan_for_existing(spec, facts, facts.existing)
    subnets = tuple(_usable_subnets(spec, facts))
    slots = spec.slots or (facts.instance_type.cores if facts.instance_type else 1)
    usd_per_hour = _usd_per_hour(spec, subnets)
    problems = [
        *_caps_problems(spec, facts, usd_per_hour),
        *_type_problems(spec, facts, slots),
        *_image_problems(spec, facts, subnets),
        *_network_problems(spec, facts, subnets),
        *_key_problems(facts),
    ]
    errors = any(problem.grade is Grade.ERROR for problem in problems)
    return Plan(
        spec=spec,
        name=facts.name,
        owner=facts.owner,
        steps=() if errors else tuple(_steps(spec, facts, subnets, slots)),
        usd_per_hour=usd_per_hour,
        problems=tuple(problems),
        slots=slots,
        key_name=facts.user_key.name if facts.user_key else "",
    )


def _plan_for_existing(spec: ClusterSpec, facts: Facts, existing: ClusterRecord) -> Plan:
    remove = f"remove it with: %ppe_terminate {facts.name}"
    differences = existing.spec.differences(spec) if existing.spec else []
    if differences:
        said = f"{facts.name!r} exists with another specification ({', '.join(differences)}); "
        text = f"{said}choose another name, or {remove}"
    elif existing.state in (ClusterState.PENDING, ClusterState.CONFIGURING):
        text = f"{facts.name!r} is being launched already, by {existing.owner}; wait, or {remove}"
    elif existing.state is ClusterState.SHUTTING_DOWN:
        text = f"a cluster {facts.name!r} is still shutting down; wait, or choose another name"
    elif existing.state is not ClusterState.RUNNING:
        text = f"{facts.name!r} is {existing.state}: a launch ended half-way or a node is lost; {remove}"
    else:
        text = ""
    return Plan(
        spec=spec,
        name=facts.name,
        owner=facts.owner,
        steps=(),
        usd_per_hour=existing.usd_per_hour,
        problems=(Problem(Grade.ERROR, text),) if text else (),
        existing=existing,
        slots=existing.master.slots if existing.state is ClusterState.RUNNING else 0,
        key_name=existing.key_name,
    )


def _usable_subnets(spec: ClusterSpec, facts: Facts) -> Iterator[Subnet]:
    """The subnets to try, in order: where the type is offered and the user allows."""
    for subnet in sorted(facts.subnets, key=lambda each: each.zone):
        if subnet.zone in facts.zones and spec.zone in (None, subnet.zone):
            yield subnet


def _usd_per_hour(spec: ClusterSpec, subnets: tuple[Subnet, ...]) -> float | None:
    public = any(subnet.public for subnet in subnets)
    one = catalog.usd_per_hour(spec.instance_type, root_gb=spec.root_gb, public_address=public)
    return None if one is None else one * spec.nodes


def _steps(spec: ClusterSpec, facts: Facts, subnets: tuple[Subnet, ...], slots: int) -> Iterator[Step]:
    assert facts.instance_type and facts.image and facts.user_key and facts.caller_cidr
    group = f"ppe-{facts.name}"
    if not facts.user_key.in_ec2:
        yield ImportKeyPair(name=facts.user_key.name, public=facts.user_key.public)
    yield CreateSecurityGroup(name=group, vpc_id=subnets[0].vpc_id, caller_cidr=facts.caller_cidr)
    if _placed(spec, facts.instance_type):
        yield CreatePlacementGroup(name=group)
    yield RunInstances(
        count=spec.nodes,
        instance_type=spec.instance_type,
        image=facts.image,
        subnets=subnets,
        root_gb=spec.root_gb,
        cores=facts.instance_type.cores if facts.instance_type.one_thread_per_core else None,
    )
    yield Configure(nodes=spec.nodes, slots=slots)


def _placed(spec: ClusterSpec, kind: InstanceType) -> bool:
    return kind.cluster and spec.nodes > 1


def _caps_problems(spec: ClusterSpec, facts: Facts, usd_per_hour: float | None) -> Iterator[Problem]:
    most_nodes, most_usd = facts.caps.max_nodes, facts.caps.max_usd_per_hour
    if most_nodes is not None and spec.nodes > most_nodes:
        yield Problem(Grade.ERROR, f"{spec.nodes} nodes are more than max_nodes = {most_nodes} allows")
    if usd_per_hour is None:
        capped = "; so it cannot be held against max_usd_per_hour" if most_usd is not None else ""
        grade = Grade.WARNING if most_usd is None else Grade.ERROR
        yield Problem(grade, f"the price of {spec.instance_type} is unknown{capped}")
    elif most_usd is not None and usd_per_hour > most_usd:
        yield Problem(
            Grade.ERROR, f"${usd_per_hour:.3f} an hour is more than max_usd_per_hour = {most_usd:g} allows"
        )
    if len(spec.to_tag()) > MAX_TAG_VALUE * MAX_SPEC_TAGS:
        yield Problem(Grade.ERROR, "the specification does not fit the tags of an instance: fewer packages")


def _type_problems(spec: ClusterSpec, facts: Facts, slots: int) -> Iterator[Problem]:
    kind = facts.instance_type
    if kind is None:
        near = difflib.get_close_matches(spec.instance_type, catalog.instance_types(), n=3)
        hint = f"; like it: {', '.join(near)}" if near else ""
        yield Problem(Grade.ERROR, f"there is no instance type {spec.instance_type!r} in this region{hint}")
        return
    if slots > kind.cores:
        yield Problem(
            Grade.WARNING, f"{slots} slots on {kind.cores} physical cores: ranks will wait for each other"
        )
    if kind.threads_per_core > 1 and not kind.one_thread_per_core:
        yield Problem(Grade.INFO, f"{kind.name} cannot be told to run one thread on each core")
    if spec.nodes > 1 and not kind.cluster:
        yield Problem(Grade.INFO, f"{kind.name} cannot be in a placement group: slower between nodes")


def _image_problems(spec: ClusterSpec, facts: Facts, subnets: tuple[Subnet, ...]) -> Iterator[Problem]:
    image, kind = facts.image, facts.instance_type
    if image is None:
        wanted = f"image {spec.image}" if spec.image else "an image for this type"
        yield Problem(Grade.ERROR, f"{wanted} cannot be found in this region")
        return
    if kind and not kind.fits(image.architecture):
        yield Problem(
            Grade.ERROR,
            f"{image.image_id} is for {image.architecture}, {kind.name} is {'/'.join(kind.architectures)}",
        )
    if spec.root_gb < image.root_gb:
        yield Problem(Grade.ERROR, f"image {image.image_id} needs a root disk of {image.root_gb} GB at least")
    if not image.node:
        yield Problem(Grade.INFO, f"{image.name} is not a node yet: installing R and Open MPI takes minutes")
        if not all(subnet.public for subnet in subnets):
            yield Problem(
                Grade.WARNING,
                "without a public address or a NAT gateway the nodes cannot reach the package archive",
            )


def _network_problems(spec: ClusterSpec, facts: Facts, subnets: tuple[Subnet, ...]) -> Iterator[Problem]:
    if not facts.subnets:
        text = (
            f"there is no subnet {spec.subnet}" if spec.subnet else "there is no default VPC: name a subnet"
        )
        yield Problem(Grade.ERROR, text)
    elif facts.instance_type and not subnets:
        where = spec.zone or ", ".join(sorted({subnet.zone for subnet in facts.subnets}))
        offered = ", ".join(sorted(facts.zones)) or "no zone of this region"
        yield Problem(
            Grade.ERROR, f"{spec.instance_type} is not to be had in {where}; it is offered in {offered}"
        )
    if facts.caller_cidr is None:
        yield Problem(
            Grade.ERROR,
            f"your address, which alone may reach port 22, is unknown: {facts.caller_problem}",
        )
    elif ipaddress.IPv4Network(facts.caller_cidr).prefixlen < 16:
        yield Problem(
            Grade.WARNING, f"port 22 will be open to {facts.caller_cidr}, more than 65,536 addresses"
        )


def _key_problems(facts: Facts) -> Iterator[Problem]:
    key = facts.user_key
    if key is None:
        return
    if not key.private_here:
        yield Problem(Grade.ERROR, f"the private half of key pair {key.name!r} is not here: set key_file")
    elif not key.in_ec2 and not key.public:
        yield Problem(Grade.ERROR, f"EC2 has no key pair {key.name!r} in this region")
