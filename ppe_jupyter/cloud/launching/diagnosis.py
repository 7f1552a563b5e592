"""Diagnosis: why a node may not answer, as far as EC2 can tell; for a message to the user.

Each check is a call that may be refused or fail: then it is left out. Changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ...errors import PpeError
from ..access import lets_in, proxy
from ..context import Context
from ..facts import Instance
from ..records import InstanceState

CONSOLE_LINES = 5
WAYS = {
    "internet": "its subnet's route leads to an internet gateway",
    "nat": "its subnet has a way out (NAT) but none in",
    "none": "its subnet has no route to the internet",
    "other": "its subnet's route leads to something else than the internet",
}


def diagnose(context: Context, instance: Instance) -> str:
    """State, status checks, port 22's rule, route and the console's last lines, in one line."""
    checks: list[Callable[[Context, Instance], Iterator[str]]] = [_state]
    if instance.state is InstanceState.RUNNING:
        checks += [_status, _rule, _route]
    found: list[str] = []
    for check in [*checks, _console]:
        with contextlib.suppress(PpeError):
            found += check(context, instance)
    return "; ".join(found)


def _state(context: Context, instance: Instance) -> Iterator[str]:
    since = (context.now() - instance.launched).total_seconds()
    reason = f" ({instance.reason})" if instance.reason else ""
    yield f"it is {instance.state}{reason}, launched {since:.0f} s ago"


def _status(context: Context, instance: Instance) -> Iterator[str]:
    system, own = context.ec2.instance_checks(instance.instance_id)
    yield f"EC2's status checks say: system {system}, instance {own}"


def _rule(context: Context, instance: Instance) -> Iterator[str]:
    rules = context.ec2.ssh_rules(instance.group_ids)
    groups = ", ".join(instance.group_ids)
    if not rules:
        yield f"security group {groups} lets nobody reach port 22"
        return
    yield f"security group {groups} lets port 22 in from {', '.join(rule.cidr for rule in rules)}"
    if way := proxy(context.settings):
        yield f"whatever your {way} comes from has to be among them"
        return
    address = context.caller_address()
    if not lets_in(rules, f"{address}/32"):
        yield f"your address, {address}, is not among them"


def _route(context: Context, instance: Instance) -> Iterator[str]:
    for subnet in context.ec2.subnets(instance.subnet_id):
        ways = context.ec2.ways_out(subnet.vpc_id)
        yield WAYS[ways.get(subnet.subnet_id, ways.get("", "none"))]
    if not instance.public_ip:
        yield "it has no public address"


def _console(context: Context, instance: Instance) -> Iterator[str]:
    """What the boot printed last; only Nitro instances can be asked for the latest."""
    lines: list[str] = []
    for latest in (True, False):
        with contextlib.suppress(PpeError):
            text = context.ec2.console_output(instance.instance_id, latest=latest)
            lines = lines or [line.strip() for line in text.splitlines() if line.strip()]
    yield (
        f"its console's last lines: {' | '.join(lines[-CONSOLE_LINES:])}"
        if lines
        else ("its console has printed nothing yet")
    )
