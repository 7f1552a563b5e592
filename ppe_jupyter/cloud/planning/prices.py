"""Prices: what instances cost, as AWS's price list says, kept for a week; else as the shipped catalog says.

The file that keeps them is a copy only: when it is gone, damaged or old, AWS is asked again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from ... import catalog
from ...errors import CloudError
from ..context import Context

KEPT = timedelta(days=7)
ALL = "*"


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """On-demand Linux prices, USD per hour by instance type, and in words where they are from."""

    usd_per_hour: Mapping[str, float]
    source: str


class Prices:
    """The prices of one region."""

    def __init__(self, context: Context) -> None:
        self._ec2 = context.ec2
        self._today = context.now().date
        cloud = context.settings.cloud
        self._file = context.settings.state_dir / "prices" / f"{cloud}-{context.ec2.region}.json"

    def on_demand(self, instance_type: str | None = None) -> PriceList:
        """The price of that type, or of all; never raises: the catalog's when AWS cannot be asked."""
        wanted = instance_type or ALL
        kept = self._kept()
        if wanted not in kept and ALL not in kept:
            try:
                found = self._ec2.on_demand_prices(instance_type)
            except CloudError:
                return shipped(self._ec2.region)
            today = self._today().isoformat()
            kept = {
                **kept,
                **{name: (today, usd) for name, usd in found.items()},
                wanted: (today, found.get(wanted)),
            }
            self._keep(kept)
        day = kept.get(wanted, kept.get(ALL, ("", None)))[0]
        return PriceList(
            usd_per_hour={name: usd for name, (_, usd) in kept.items() if usd is not None},
            source=f"{self._ec2.region}, AWS price list as of {day}",
        )

    def _kept(self) -> dict[str, tuple[str, float | None]]:
        """Day and price by type; ALL has the day when all were asked for."""
        oldest = (self._today() - KEPT).isoformat()
        try:
            read = json.loads(self._file.read_text(encoding="ascii"))
            kept = {str(name): (str(day), usd) for name, (day, usd) in read.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return {name: entry for name, entry in kept.items() if entry[0] > oldest}

    def _keep(self, prices: Mapping[str, tuple[str, float | None]]) -> None:
        """Whole or not at all: other clients write it too."""
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(prices), encoding="ascii")
            new.replace(self._file)


def shipped(region: str) -> PriceList:
    """The shipped catalog's."""
    known = {each.name: each.usd_per_hour for each in catalog.instance_types().values()}
    return PriceList(
        usd_per_hour={name: usd for name, usd in known.items() if usd is not None},
        source=catalog.shipped(region),
    )


def cheapest(by_zone: Mapping[str, Mapping[str, float]], names: Iterable[str]) -> dict[str, float]:
    """The spot price of each type in its cheapest zone."""
    return {name: min(by_zone[name].values()) for name in names if by_zone.get(name)}
