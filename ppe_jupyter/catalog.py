"""The catalog: what instance types are and cost, and the shipped table of them for when EC2 itself is not asked.

The shipped prices are on-demand Linux in us-east-1 in USD per hour, of the date that ``prices_as_of()`` gives; the
table beside it is built by ppe_jupyter/data/build_catalog.py. Pure but for reading that table once. Must not know
boto3.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

PRICE_REGION = "us-east-1"
HOURS_PER_MONTH = 730
# https://aws.amazon.com/ebs/pricing and https://aws.amazon.com/vpc/pricing, us-east-1; other regions cost up to twice
# as much. NAT gateways cost by the hour and by the GB.
OTHER_PRICES_AS_OF = "2026-05"
USD_PER_GB_MONTH = {"gp3": 0.08, "gp2": 0.10}
USD_PER_HOUR_PUBLIC_IPV4 = 0.005
USD_PER_GB_NAT = 0.045
USD_PER_GB_MONTH_SNAPSHOT = 0.05  # standard tier, for the blocks that were written only


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """What one instance type is. ``cores`` are physical, ``usd_per_hour`` None when the price is unknown.

    ``valid_threads`` is EC2's ValidThreadsPerCore, empty when CPU options cannot be set; ``cluster`` whether
    it can be in a cluster placement group; ``network_mbps`` the baseline bandwidth, None when unknown.
    ``boot_modes`` is empty when unknown; ``ena`` says whether enhanced networking is unsupported, supported or
    required; ``storage_gb`` is of its own disks. The shipped table holds nothing after ``usd_per_hour``.
    """

    name: str
    cores: int
    threads_per_core: int
    valid_threads: tuple[int, ...]
    memory_mib: int
    architectures: tuple[str, ...]
    cluster: bool
    current: bool = True
    gpus: int = 0
    network_mbps: int | None = None
    usd_per_hour: float | None = None
    virtualizations: tuple[str, ...] = ("hvm",)
    boot_modes: tuple[str, ...] = ()
    ena: str = "supported"
    burstable: bool = False
    spot: bool = True
    free_tier: bool = False
    encryption: bool = True
    storage_gb: int = 0

    @property
    def vcpus(self) -> int:
        """As many as it has unless told otherwise; quotas count these."""
        return self.cores * self.threads_per_core

    @property
    def one_thread_per_core(self) -> bool:
        """Whether instances can be told to run one thread on each core."""
        return 1 in self.valid_threads

    @property
    def memory_gb(self) -> float:
        """Memory in GiB."""
        return self.memory_mib / 1024

    @property
    def usd_per_core_hour(self) -> float | None:
        """Price of one physical core for an hour."""
        return None if self.usd_per_hour is None else self.usd_per_hour / self.cores

    def fits(self, architecture: str) -> bool:
        """Whether an image of this architecture (x86_64, arm64) boots on it."""
        return architecture in self.architectures


def instance_types() -> Mapping[str, InstanceType]:
    """All types of the catalog by name."""
    return _table()[1]


def prices_as_of() -> str:
    """The ISO date of the prices."""
    return _table()[0]


def usd_per_hour(instance_type: str, *, root_gb: int, public_address: bool = True) -> float | None:
    """What one node costs: instance, gp3 root disk, public address; None if the price is unknown."""
    found = instance_types().get(instance_type)
    if found is None or found.usd_per_hour is None:
        return None
    disk = disk_usd_per_hour(root_gb)
    return found.usd_per_hour + disk + (USD_PER_HOUR_PUBLIC_IPV4 if public_address else 0.0)


def disk_usd_per_hour(gb: float, kind: str = "gp3") -> float:
    """What a disk of that size costs, used or not."""
    return gb * USD_PER_GB_MONTH[kind] / HOURS_PER_MONTH


def priced_as(kind: str) -> str:
    """The kind of disk whose price stands for that of ``kind``: of the others it depends on IOPS."""
    return kind if kind in USD_PER_GB_MONTH else "gp3"


def snapshot_usd_per_hour(gb: float) -> float:
    """What a snapshot of a disk of that size costs at most."""
    return gb * USD_PER_GB_MONTH_SNAPSHOT / HOURS_PER_MONTH


SORTS: Mapping[str, Callable[[InstanceType, float | None], float | None]] = {
    "price-per-core": lambda each, spot: each.usd_per_core_hour,
    "price": lambda each, spot: each.usd_per_hour,
    "spot": lambda each, spot: spot,
    "cores": lambda each, spot: -each.cores,
    "gb": lambda each, spot: -each.memory_mib,
    "network": lambda each, spot: None if each.network_mbps is None else -each.network_mbps,
}


def table(
    kinds: Iterable[InstanceType] | None = None,
    *,
    spot: Mapping[str, float] | None = None,
    min_cores: int | None = None,
    min_gb: float | None = None,
    cluster: bool | None = None,
    arch: str | None = None,
    max_price: float | None = None,
    sort: str = "price-per-core",
    all: bool = False,
    source: str = "",
) -> pd.DataFrame:
    """The types (those shipped) that fit, the best first: physical cores, GiB, Gbit/s, USD per hour.

    ``spot`` are spot prices, ``max_price`` is of on-demand ones; ``arch`` is x86_64 or arm64. Without ``all`` those
    without a price are left out. ``attrs["source"]`` of the table says where it is from.
    Raises UsageError for a ``sort`` that is none of SORTS.
    """
    import pandas as pd

    by = sort.replace(" ", "-").replace("_", "-")
    if by not in SORTS:
        raise UsageError(f"types cannot be sorted by {sort!r}; there are: {', '.join(SORTS)}")
    spot = spot or {}

    def fits(each: InstanceType) -> bool:
        return (
            (all or each.usd_per_hour is not None)
            and each.cores >= (min_cores or 0)
            and each.memory_gb >= (min_gb or 0)
            and cluster in (None, each.cluster)
            and (arch is None or each.fits(arch))
            and (max_price is None or (each.usd_per_hour or math.inf) <= max_price)
        )

    def rank(each: InstanceType) -> tuple[float, int, str]:
        value = SORTS[by](each, spot.get(each.name))
        return math.inf if value is None else value, each.cores, each.name

    chosen = filter(fits, instance_types().values() if kinds is None else kinds)
    rows = {each.name: _row(each, spot.get(each.name)) for each in sorted(chosen, key=rank)}
    frame: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)
    frame = frame.astype(dict.fromkeys(["Gbit/s", "USD/h", "spot USD/h", "USD/core-h"], float))
    frame.index.name = "type"
    frame.attrs["source"] = source or shipped()
    return frame


COLUMNS = ["cores", "GB", "Gbit/s", "cluster", "arch", "USD/h", "spot USD/h", "USD/core-h"]


def _row(each: InstanceType, spot: float | None) -> list[object]:
    network = None if each.network_mbps is None else each.network_mbps / 1000
    prices = each.usd_per_hour, spot, each.usd_per_core_hour
    return [each.cores, each.memory_gb, network, each.cluster, each.architectures[-1], *prices]


def shipped(region: str = PRICE_REGION) -> str:
    """Where the shipped prices are from, in words."""
    other = "" if region == PRICE_REGION else f", which in {region} differ"
    return f"shipped catalog, {PRICE_REGION} prices of {prices_as_of()}{other}"


@functools.cache
def _table() -> tuple[str, Mapping[str, InstanceType]]:
    text = (resources.files("ppe_jupyter") / "data" / "instance_types.csv").read_text("utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    date = re.search(r"as of (\d{4}-\d\d-\d\d)", comments[0])
    assert date is not None
    return date[1], {each.name: each for each in _rows(text)}


def _rows(text: str) -> Iterator[InstanceType]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        yield InstanceType(
            name=row["instance_type"],
            cores=int(row["cores"]),
            threads_per_core=int(row["threads_per_core"]),
            valid_threads=tuple(int(threads) for threads in row["valid_threads"].split()),
            memory_mib=int(row["memory_mib"]),
            architectures=tuple(row["architectures"].split()),
            cluster=row["cluster"] == "1",
            current=row["current"] == "1",
            gpus=int(row["gpus"]),
            network_mbps=int(row["network_mbps"]) if row["network_mbps"] else None,
            usd_per_hour=float(row["usd_per_hour"]) if row["usd_per_hour"] else None,
        )
