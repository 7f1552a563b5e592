"""Bill: what a cluster will cost by the hour, part by part, and what its limits let it cost in all.

Frozen and pure. USD; the instances' and the disks' prices are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import catalog
from .spec import ClusterSpec

NO_LIMIT = "no limit is set: it runs, and costs, until you end it; --idle, --max-hours and --budget set one"


@dataclass(frozen=True, kw_only=True)
class Bill:
    """USD per hour, of all nodes; ``disk`` is one node's. ``rise`` is how much more spot instances may come to cost.

    ``prices`` says where the instances' prices are from.
    """

    instances: float
    surcharge: float
    disks: float
    disk: float
    addresses: float
    rise: float = 0.0
    prices: str = ""

    @property
    def total(self) -> float:
        """All of it, now."""
        return self.instances + self.surcharge + self.disks + self.addresses

    @property
    def most(self) -> float:
        """All of it if spot prices rise as far as they may."""
        return self.total + self.rise

    def rows(self) -> Iterator[str]:
        """The price in words, part by part."""
        yield hourly(self.total)
        parts = {
            "instances": self.instances,
            "the image's surcharge": self.surcharge,
            "disks": self.disks,
            "public addresses": self.addresses,
        }
        yield ", ".join(f"{what} ${usd:,.3f}" for what, usd in parts.items() if usd) + " an hour"
        if self.rise:
            yield f"up to ${self.most:,.3f} an hour if the spot price rises"
        yield f"{self.prices}; disks and addresses as of {catalog.OTHER_PRICES_AS_OF}, {catalog.PRICE_REGION}"


def hourly(usd: float) -> str:
    """The rate in words."""
    if not usd:
        return "nothing"
    return f"${usd:,.3f} an hour, ${24 * usd:,.2f} a day on EC2"


def is_limited(spec: ClusterSpec) -> bool:
    """Whether the watchdog will ever end it."""
    return bool(spec.idle_hours or spec.max_hours or spec.budget_usd)


def limits(spec: ClusterSpec, bill: Bill | None) -> Iterator[str]:
    """What the watchdog will do when, and the most that the cluster can cost until then."""
    end = "parked" if spec.then == "park" else "terminated"
    if spec.idle_hours:
        yield f"{end} after {hours(spec.idle_hours)} without work"
    if spec.max_hours:
        yield f"{end} {hours(spec.max_hours)} after its launch or last start"
    if spec.budget_usd:
        yield f"{end} when ${spec.budget_usd:,.2f} are spent"
    if bill is None:
        return
    # The watchdog counts at the prices of the launch.
    bounds = [spec.budget_usd * bill.most / bill.total] if spec.budget_usd else []
    bounds += [spec.max_hours * bill.most] if spec.max_hours else []
    if bounds:
        why = (
            " (if the spot price rises, since it counts at that of the launch)"
            if spec.budget_usd and bill.rise
            else ""
        )
        yield f"costs ${min(bounds):,.2f} at most until it is {end}{why}"
    elif spec.idle_hours:
        yield f"costs ${spec.idle_hours * bill.most:,.2f} at most from its last work until it is {end}"
        yield "while it works there is no limit: --max-hours or --budget set one"
    if spec.then == "park" and (bounds or spec.idle_hours):
        yield f"costs ${bill.disk * catalog.HOURS_PER_MONTH:,.2f} a month while it is parked: its master's disk"


def hours(number: float) -> str:
    """A number of hours in words: 90 min, 2 h, 1.5 h."""
    minutes = round(60 * number)
    return f"{minutes} min" if minutes < 120 and minutes % 60 else f"{minutes / 60:g} h"
