"""Checks of the network: whether there is a place for the nodes, a way in for us, and a way out for them.

Pure: each check yields problems, graded by what would come of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ... import catalog
from ..facts import SecurityGroup
from ..plan import Grade, Problem
from .choices import PACKAGES, Choices, gets_out

ERROR, WARNING, INFO = Grade.ERROR, Grade.WARNING, Grade.INFO
SSH = 22
# Open MPI talks on ports of the ephemeral range; a rule for members has to let all of them in.
MPI_PORTS = (1024, 65535)
WIDE = 24  # bits of prefix: what is shorter is more than an office


def network_problems(choices: Choices) -> Iterator[Problem]:
    """What is to be said of the network."""
    yield from _place(choices)
    yield from _way_in(choices)
    yield from _way_out(choices)
    yield from _group(choices)
    yield from _shared(choices)


def _place(choices: Choices) -> Iterator[Problem]:
    spec, facts = choices.spec, choices.facts
    if not facts.subnets:
        text = (
            f"there is no subnet {spec.subnet}" if spec.subnet else "there is no default VPC: name a --subnet"
        )
        yield Problem(ERROR, text)
        return
    if choices.subnets or facts.instance_type is None:
        return
    if facts.group is not None and all(each.vpc_id != facts.group.vpc_id for each in facts.subnets):
        vpc = facts.group.vpc_id
        yield Problem(
            ERROR,
            f"security group {facts.group.group_id} is of {vpc}, the subnets are not: name a --subnet of it",
        )
        return
    offered = [each for each in facts.subnets if each.zone in facts.zones]
    full = [each for each in offered if (each.free_addresses or spec.nodes) < spec.nodes]
    if offered and len(full) == len(offered):
        free = max(each.free_addresses or 0 for each in full)
        yield Problem(ERROR, f"no subnet has {spec.nodes} free addresses: {free} at most")
        return
    where = spec.zone or ", ".join(sorted({each.zone for each in facts.subnets}))
    zones = ", ".join(sorted(facts.zones)) or "no zone of this region"
    text = f"{spec.instance_type} is not to be had in {where}; it is offered in {zones}"
    if choices.volumes:
        text += f"; {choices.volumes[0].volume_id} is in {choices.volumes[0].zone}"
    if facts.placement_group is not None and facts.placement_group.zones:
        text += f"; placement group {spec.placement} is in {', '.join(sorted(facts.placement_group.zones))}"
    yield Problem(ERROR, text)


def _way_in(choices: Choices) -> Iterator[Problem]:
    spec, facts = choices.spec, choices.facts
    if facts.caller_cidr is None:
        yield Problem(
            ERROR, f"your address, which alone may reach port 22, is unknown: {facts.caller_problem}"
        )
        return
    caller = ipaddress.IPv4Network(facts.caller_cidr)
    if not spec.security_group and caller.prefixlen < 32:
        yield Problem(
            WARNING if caller.prefixlen < WIDE else INFO,
            f"port 22 will be open to {caller}, {caller.num_addresses:,} addresses; your own is enough",
        )
    if not choices.subnets:
        return
    if not (choices.public or facts.proxy) and spec.public_addresses != "none":
        yield Problem(INFO, "the subnet leads to no internet gateway, so the nodes get no public addresses")
    if facts.proxy and not (facts.caller_given or spec.security_group):
        yield _by_proxy(facts.proxy, caller)
    elif not (choices.public or facts.proxy or caller.is_private):
        yield Problem(
            WARNING if facts.caller_given or spec.security_group else ERROR,
            f"the master will have a private address only, where nobody comes from {caller}: name the range that you "
            "come from within the VPC or by VPN, --from CIDR, or a jump host (%ppe_config proxy_jump)",
        )


def _by_proxy(proxy: str, caller: ipaddress.IPv4Network) -> Problem:
    """The master sees the address of what leads to it, which only its user knows."""
    if proxy == "proxy_jump":
        return Problem(
            ERROR,
            f"port 22 would be open to {caller}, but SSH comes from the jump host: name the address that it has in the "
            "VPC, --from ADDRESS/32 (for good: %ppe_config caller_cidr)",
        )
    return Problem(
        WARNING,
        f"port 22 will be open to {caller}; if your proxy_command comes from another address, name that: --from CIDR "
        "(AWS Session Manager comes from the node itself: --from 127.0.0.1/32)",
    )


def _way_out(choices: Choices) -> Iterator[Problem]:
    if not (needed := choices.needs_way_out):
        return
    stuck = [each for each in choices.subnets if not choices.gets_out(each)]
    led = [each for each in stuck if needed == PACKAGES and gets_out(each, public=choices.public > 0)]
    if led:
        yield Problem(
            INFO,
            "the workers have no way out: apt, CRAN and PyPI they reach through a proxy on the master, nothing else",
        )
    if stuck := [each for each in stuck if each not in led]:
        every = len(stuck) == len(choices.subnets)
        where = "" if every else f" in {', '.join(each.subnet_id for each in stuck)}"
        yield Problem(
            ERROR if every and all(choices.gets_out(each) is False for each in stuck) else WARNING,
            f"the nodes{where} have no way out to fetch {needed}: give all of them public addresses, or the subnet a "
            "NAT gateway, or launch from a baked image",
        )
    if any(each.way_out == "nat" for each in choices.subnets):
        yield Problem(
            INFO,
            f"what the nodes fetch comes through your NAT gateway, at ${catalog.USD_PER_GB_NAT:.3f} a GB beside its "
            "own price by the hour",
        )


def _group(choices: Choices) -> Iterator[Problem]:
    spec, facts = choices.spec, choices.facts
    if not spec.security_group:
        return
    group = facts.group
    if group is None:
        yield Problem(ERROR, f"there is no security group {spec.security_group} in this region")
        return
    ssh = [source for rule in group.rules if rule.allows("tcp", SSH) for source in rule.sources]
    if facts.caller_cidr and not any(_covers(source, facts.caller_cidr) for source in ssh):
        others = [source for source in ssh if source != group.group_id and not _is_range(source)]
        yield Problem(
            WARNING if others or facts.proxy else ERROR,
            f"{group.group_id} does not let {facts.caller_cidr} reach port 22; add that rule, or name the "
            "range that you come from (--from), or leave out --security-group for one of the cluster's own",
        )
    if "0.0.0.0/0" in ssh:
        yield Problem(WARNING, f"{group.group_id} opens port 22 to the whole internet")
    if spec.nodes > 1 and not all(_members_reach(group, port) for port in (SSH, *MPI_PORTS)):
        yield Problem(
            ERROR,
            f"{group.group_id} does not let its members reach each other on all ports, without which MPI hangs; add "
            f"a rule for all traffic from {group.group_id} itself",
        )


def _shared(choices: Choices) -> Iterator[Problem]:
    efs = choices.spec.efs
    if efs and choices.facts.local:
        yield Problem(
            ERROR, "the local cloud has no EFS: leave out --efs; ~/shared is on all nodes without it"
        )
    elif efs:
        yield Problem(
            INFO,
            f"{efs} has to have a mount target in the nodes' zone, which lets them reach its port 2049: all of the "
            "VPC, or a --security-group of yours",
        )


def _members_reach(group: SecurityGroup, port: int) -> bool:
    return any(group.group_id in rule.sources for rule in group.rules if rule.allows("tcp", port))


def _is_range(source: str) -> bool:
    return "/" in source


def _covers(source: str, cidr: str) -> bool:
    """Whether all of ``cidr`` is within the range ``source``."""
    if not _is_range(source):
        return False
    return ipaddress.IPv4Network(cidr).subnet_of(ipaddress.IPv4Network(source))
