"""plan_launch: a spec and the account's facts become the plan of a launch.

Pure: the same spec and facts always make the same plan, nothing is asked and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..facts import Facts
from ..plan import Grade, Plan, Problem
from ..records import ClusterRecord, ClusterState
from ..spec import ClusterSpec
from ..steps import (
    AttachVolume,
    Configure,
    CreatePlacementGroup,
    CreateSecurityGroup,
    ImportKeyPair,
    RunInstances,
    Step,
)
from .checks_lock import lock_problems
from .checks_machines import machine_problems
from .checks_money import money_problems
from .checks_network import network_problems
from .choices import Choices, boot_seconds, choose

# Of these None says "choose for me", so whatever holds is what was wanted.
LEFT_OPEN = (
    *("slots", "zone", "subnet", "image", "login_user", "key_name"),
    *("caller_cidr", "security_group", "threads_per_core", "idle_hours"),
)
# These may have grown since the launch.
PACKAGES = ("apt_packages", "r_packages", "python_packages")


def plan_launch(spec: ClusterSpec, facts: Facts) -> Plan:
    """The plan for ``spec`` under ``facts``. Never raises: what is wrong is among its problems."""
    if facts.existing is not None:
        return _plan_for_existing(replace(spec, name=facts.name), facts, facts.existing)
    choices = choose(spec, facts)
    problems = [
        *lock_problems(choices),
        *machine_problems(choices),
        *network_problems(choices),
        *money_problems(choices),
    ]
    errors = any(problem.grade is Grade.ERROR for problem in problems)
    return Plan(
        spec=choices.spec,
        name=facts.name,
        owner=facts.owner,
        steps=() if errors else tuple(_steps(choices)),
        usd_per_hour=choices.bill.total if choices.bill else None,
        problems=tuple(problems),
        slots=choices.slots,
        key_name=facts.user_key.name if facts.user_key else "",
        bill=choices.bill,
        boot_seconds=boot_seconds(choices.image, choices.spec, boot_timeout=facts.boot_timeout),
    )


def _plan_for_existing(spec: ClusterSpec, facts: Facts, existing: ClusterRecord) -> Plan:
    differences = existing.spec.differences(_filled(spec, existing.spec)) if existing.spec else []
    text = _difference(facts.name, differences) if differences else _unusable(facts.name, existing)
    running = existing.state is ClusterState.RUNNING
    return Plan(
        spec=replace(existing.spec or spec, rstudio=spec.rstudio),  # which can be installed at any time
        name=facts.name,
        owner=facts.owner,
        steps=(),
        usd_per_hour=existing.usd_per_hour,
        problems=(Problem(Grade.ERROR, text),) if text else (),
        existing=existing,
        slots=existing.master.slots if running else 0,
        key_name=existing.key_name,
    )


def _filled(spec: ClusterSpec, holds: ClusterSpec) -> ClusterSpec:
    """The spec with what it leaves open as it is: those are no differences."""
    same = {key: getattr(holds, key) for key in LEFT_OPEN if getattr(spec, key) is None}
    for key in PACKAGES:
        if set(getattr(spec, key)) <= set(getattr(holds, key)):
            same[key] = getattr(holds, key)
    return replace(spec, **same, rstudio=holds.rstudio)


def _difference(name: str, differences: list[str]) -> str:
    said = f"{name!r} exists with another specification ({', '.join(differences)})"
    if len(differences) == 1 and differences[0].startswith("nodes: "):
        wanted = differences[0].rpartition(" ")[2]
        return f"{said}; resize it with: %ppe_resize {name} --nodes {wanted}"
    return (
        f"{said}; use it as it is with: %ppe_connect {name} (%ppe_resize and %ppe_limit change it), or choose another "
        f"name, or remove it with: %ppe_terminate {name}"
    )


def _unusable(name: str, existing: ClusterRecord) -> str:
    """Why a cluster that exists is not one to connect to, and what makes it one; "" if it runs."""
    state = existing.state
    if state is ClusterState.RUNNING:
        return ""
    if state in (ClusterState.PENDING, ClusterState.CONFIGURING):
        return (
            f"{name!r} is being launched already, by {existing.owner.split()[0]}; wait, or, if that client is dead, "
            f"finish it with: %ppe_retry {name} --force, or remove it with: %ppe_terminate {name}"
        )
    if state is ClusterState.SHUTTING_DOWN:
        return f"a cluster {name!r} is still shutting down; wait, or choose another name"
    if state is ClusterState.PARKED:
        return f"{name!r} is parked; start it with: %ppe_start {name}"
    if state in (ClusterState.PARKING, ClusterState.REBOOTING):
        return f"{name!r} is {state}; wait, and see: %ppe_status {name}"
    if not any(node.configured for node in existing.nodes):
        return (
            f"the launch of {name!r} by {existing.owner.split()[0]} ended half-way; finish it with: %ppe_retry {name}, "
            f"or remove it with: %ppe_terminate {name}"
        )
    troubles = f" ({'; '.join(existing.troubles)})" if existing.troubles else ""
    return f"{name!r} is {state}{troubles}; mend it with: %ppe_retry {name}"


def _steps(choices: Choices) -> Iterator[Step]:
    spec, facts = choices.spec, choices.facts
    assert facts.user_key and facts.caller_cidr
    if not facts.user_key.in_ec2:
        yield ImportKeyPair(name=facts.user_key.name, public=facts.user_key.public)
    if not spec.security_group:
        yield CreateSecurityGroup(
            name=f"ppe-{facts.name}", vpc_id=choices.subnets[0].vpc_id, caller_cidr=facts.caller_cidr
        )
    if choices.placed:
        yield CreatePlacementGroup(name=f"ppe-{facts.name}")
    yield from _runs(choices)
    yield Configure(nodes=spec.nodes, slots=choices.slots)
    for volume_id, mount in spec.mounts():
        yield AttachVolume(volume_id=volume_id, mount=mount)


def _runs(choices: Choices) -> Iterator[RunInstances]:
    """One request if it can be; the master apart if only it is on demand, or only it has a public address."""
    spec, facts = choices.spec, choices.facts
    assert choices.image
    surcharge = choices.image.surcharge
    on_demand = None if facts.usd_per_hour is None else facts.usd_per_hour + surcharge
    run = partial(
        RunInstances,
        instance_type=spec.instance_type,
        image=choices.image,
        subnets=choices.subnets,
        root_gb=spec.root_gb,
        root_type=spec.root_type,
        encrypted=spec.encrypted,
        cores=choices.cores,
    )
    if not choices.workers or (not spec.spot and choices.public in (0, spec.nodes)):
        yield run(count=spec.nodes, public=choices.public > 0, price=on_demand)
        return
    yield run(count=1, public=choices.public > 0, price=on_demand)
    workers = partial(run, count=choices.workers, first_index=1, public=choices.public > 1)
    if not spec.spot:
        yield workers(price=on_demand)
        return
    yield workers(
        spot=True,
        spot_max_usd=spec.spot_max_usd,
        spot_fallback=spec.spot_fallback,
        price=on_demand if choices.spot_usd is None else choices.spot_usd + surcharge,
    )
