"""The shipped catalog: EC2's instance types and what they cost, for when EC2 itself is not asked.

Prices are on-demand Linux in us-east-1 in USD per hour, of the date that ``prices_as_of()`` gives; the table
beside it is built by ppe_jupyter/data/build_catalog.py. Pure but for reading that table once. Must not know boto3.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PRICE_REGION = "us-east-1"
HOURS_PER_MONTH = 730
# https://aws.amazon.com/ebs/pricing (gp3) and https://aws.amazon.com/vpc/pricing (public IPv4), us-east-1.
USD_PER_GB_MONTH_GP3 = 0.08
USD_PER_HOUR_PUBLIC_IPV4 = 0.005


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """What one instance type is. ``cores`` are physical, ``usd_per_hour`` None when the price is unknown.

    ``valid_threads`` is EC2's ValidThreadsPerCore, empty when CPU options cannot be set; ``cluster`` whether
    it can be in a cluster placement group; ``network_mbps`` the baseline bandwidth, None when unknown.
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


def disk_usd_per_hour(gb: float) -> float:
    """What a gp3 disk of that size costs, used or not."""
    return gb * USD_PER_GB_MONTH_GP3 / HOURS_PER_MONTH


def table() -> pd.DataFrame:
    """The catalog as a table, cheapest core first: physical cores, GiB, Gbit/s, USD per hour."""
    import pandas as pd

    def cheapness(each: InstanceType) -> tuple[float, int]:
        return math.inf if each.usd_per_core_hour is None else each.usd_per_core_hour, each.cores

    rows = [
        {
            "type": each.name,
            "cores": each.cores,
            "GB": each.memory_gb,
            "Gbit/s": None if each.network_mbps is None else each.network_mbps / 1000,
            "arch": each.architectures[-1],
            "cluster": each.cluster,
            "USD/h": each.usd_per_hour,
            "USD/core-h": each.usd_per_core_hour,
        }
        for each in sorted(instance_types().values(), key=cheapness)
    ]
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("type")
    return frame


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
