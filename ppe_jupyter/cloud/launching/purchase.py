"""Purchase: all the instances of a launch, together in the first zone that has them.

An offer is what would do: one request, or several that must be had in the same zone. The offers are tried in
order, each in every zone that could help, those first that EC2's refusal names. One call a request and zone; a
call whose answer is lost is repeated with its client token, so that nothing is launched twice. What an offer got
in a zone that had not all of it is ended. Must not know what the instances are for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from ...errors import CapacityError, CloudError
from ..context import Context
from ..ec2.shapes import InstanceRequest
from ..facts import Instance, Subnet
from ..pace import Pace

T = TypeVar("T")

# What was made a moment ago may not be known everywhere yet (API reference, "Eventual consistency").
NOT_YET_CODES = (
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidPlacementGroup.Unknown",
    "InvalidInstanceID.NotFound",
)
# Throttling, faults of the server's, no answer at all: the same call may do it a moment later.
PASSING_CODES = (
    "",
    "InternalError",
    "InternalFailure",
    "RequestLimitExceeded",
    "ServerInternal",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "Unavailable",
)
PATIENCE_SECONDS = 30.0
# Another zone may have them (API reference, "Error codes"; the price of spot is each zone's own).
ZONE_CODES = (
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",
)
# Quotas are a region's: another zone cannot help, another market can.
QUOTA_CODES = ("InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "VcpuLimitExceeded")
# "You can currently get m5.large capacity by … or choosing us-east-1b, us-east-1c."
NAMED_ZONES = re.compile(r"choosing ((?:[a-z]{2}(?:-[a-z0-9]+)+[, ]*)+)")

Offer = Sequence[InstanceRequest]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Purchased:
    """The instances, where they are, which offer they are (its number), and what was tried in vain before."""

    instances: tuple[Instance, ...]
    subnet: Subnet
    offer: int
    tried: tuple[tuple[str, str, str], ...]


def purchase(
    context: Context,
    offers: Sequence[Offer],
    subnets: Sequence[Subnet],
    *,
    token: str,
    pace: Pace,
    say: Say,
    regroup: Callable[[], str] | None = None,
) -> Purchased:
    """Buy the first offer that is to be had; ``say`` is told each try, ``token`` is unique to this purchase.

    ``regroup`` makes another placement group and returns its name: one that was used belongs to its zone (user
    guide, placement-groups). Raises CapacityError with what was tried, CloudError; what was got is then ended.
    """
    tried: list[tuple[str, str, str]] = []
    code = ""
    for number, offer in enumerate(offers):
        zones = list(subnets)
        while zones:
            subnet = zones.pop(0)
            got: list[Instance] = []
            try:
                for request, own_token in _scarcest_first(offer, f"{token} {number} {subnet.subnet_id}"):
                    say(f"{request} in {subnet.zone}")
                    got += patiently(
                        pace, partial(context.ec2.run_instances, request, subnet, client_token=own_token)
                    )
                return Purchased(instances=tuple(got), subnet=subnet, offer=number, tried=tuple(tried))
            except BaseException as exc:
                if got:
                    ids = [each.instance_id for each in got]
                    patiently(pace.to_the_end(), partial(context.ec2.terminate_instances, ids))
                if not (isinstance(exc, CloudError) and exc.code in (*ZONE_CODES, *QUOTA_CODES)):
                    raise
                code = exc.code
                tried.append((subnet.zone, str(request), str(exc)))
                say(f"{subnet.zone} has no {request}: {exc}")
                zones = [] if code in QUOTA_CODES else _named_first(zones, str(exc))
            if got and regroup is not None and offer[0].placement_group:
                group = regroup()
                offers = [[replace(each, placement_group=group) for each in other] for other in offers]
                offer = offers[number]
    raise CapacityError(_refusal(offers, tried, code), code=code, operation="RunInstances", tried=tried)


def patiently(pace: Pace, call: Callable[[], T]) -> T:
    """Do a call to EC2 that may have to be repeated: what it names may not be known yet, what ails it may pass."""
    return pace.insist(call, codes=(*NOT_YET_CODES, *PASSING_CODES), seconds=PATIENCE_SECONDS)


def _scarcest_first(offer: Offer, token: str) -> Iterator[tuple[InstanceRequest, str]]:
    """What is likeliest to be refused first, with its client token: 64 ASCII characters, EC2's most."""
    for place, request in sorted(enumerate(offer), key=lambda each: (not each[1].spot, -each[1].count)):
        yield request, hashlib.sha256(f"{token} {place}".encode()).hexdigest()


def _named_first(zones: Sequence[Subnet], refusal: str) -> list[Subnet]:
    """The zones that are left, those first that the refusal names."""
    found = NAMED_ZONES.search(refusal)
    named = re.findall(r"[a-z0-9-]+", found[1]) if found else []
    return sorted(zones, key=lambda each: named.index(each.zone) if each.zone in named else len(named))


def _refusal(offers: Sequence[Offer], tried: Sequence[tuple[str, str, str]], code: str) -> str:
    wanted = " or ".join(" and ".join(map(str, offer)) for offer in offers)
    if code in QUOTA_CODES:
        advice = "Ask for a higher quota (Service Quotas, EC2), or take fewer or smaller nodes"
    else:
        advice = "Try another type or zone, fewer nodes, or later"
    rows = "\n".join(f"  {zone}: {what}: {why}" for zone, what, why in tried)
    return f"no zone has {wanted} now. {advice}. Tried:\n{rows}"
