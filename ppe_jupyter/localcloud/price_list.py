"""What instance types cost, for the answers of an AWS that bills nobody.

The table is the shipped catalog's, read here anew: the local cloud must not share code with the client that
it answers. Spot prices are made up from it, the same at every call.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Mapping
from importlib import resources

SPOT_SHARE = 0.35  # of the on-demand price, in the first zone
SPOT_STEP = 0.01  # more in each zone after it


@functools.cache
def types() -> Mapping[str, Mapping[str, str]]:
    """The rows of the table with a price, by instance type."""
    rows = csv.DictReader(line for line in _text().splitlines() if not line.startswith("#"))
    return {row["instance_type"]: row for row in rows if row["usd_per_hour"]}


@functools.cache
def as_of() -> str:
    """The ISO date of the prices."""
    date = re.search(r"as of (\d{4}-\d\d-\d\d)", _text())
    assert date is not None
    return date[1]


def spot(instance_type: str, zone: str) -> float | None:
    """USD per hour in the zone now, None for a type without a price."""
    row = types().get(instance_type)
    if row is None:
        return None
    return round(float(row["usd_per_hour"]) * (SPOT_SHARE + SPOT_STEP * (ord(zone[-1]) - ord("a"))), 4)


@functools.cache
def _text() -> str:
    return (resources.files("ppe_jupyter") / "data" / "instance_types.csv").read_text("utf-8")
