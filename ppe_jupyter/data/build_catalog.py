"""Build ppe_jupyter/data/instance_types.csv, the catalog that is used when EC2 cannot be asked.

    python ppe_jupyter/data/build_catalog.py PRICES.csv 2026-07-20 > ppe_jupyter/data/instance_types.csv

PRICES.csv has the columns region, instance_type, usd_per_hour, network_mbps; the date is its own. What the
types are (cores, memory, architecture) comes from the public EC2 answers that moto carries.
"""

from __future__ import annotations

import csv
import datetime
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

COLUMNS = [
    "instance_type",
    "cores",
    "threads_per_core",
    "valid_threads",
    "memory_mib",
    "architectures",
    "cluster",
    "current",
    "gpus",
    "network_mbps",
    "usd_per_hour",
]
HEADER = """\
# On-demand Linux prices in us-east-1, USD per hour, and network Mbit/s as of {date}
# (generated tables of aws/karpenter-provider-aws, Apache-2.0); other facts: EC2's answers to
# DescribeInstanceTypes as shipped with moto {moto} (Apache-2.0). ppe_jupyter/data/build_catalog.py
"""


def row(facts: dict[str, Any], *, price: str, network_mbps: str) -> dict[str, object]:
    """One line of the catalog from DescribeInstanceTypes' answer and a line of the price list."""
    cpu = facts["VCpuInfo"]
    return {
        "instance_type": facts["InstanceType"],
        "cores": cpu["DefaultCores"],
        "threads_per_core": cpu["DefaultThreadsPerCore"],
        "valid_threads": " ".join(map(str, cpu.get("ValidThreadsPerCore", []))),
        "memory_mib": facts["MemoryInfo"]["SizeInMiB"],
        "architectures": " ".join(facts["ProcessorInfo"]["SupportedArchitectures"]),
        "cluster": int("cluster" in facts["PlacementGroupInfo"]["SupportedStrategies"]),
        "current": int(facts["CurrentGeneration"]),
        "gpus": sum(gpu.get("Count", 1) for gpu in facts.get("GpuInfo", {}).get("Gpus", [])),
        "network_mbps": network_mbps,
        "usd_per_hour": price,
    }


def main(prices: Path, date: str) -> None:
    """Write the catalog to standard output."""
    datetime.date.fromisoformat(date)
    with prices.open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["region"] == "us-east-1"]
    priced = {line["instance_type"]: line for line in lines}
    sys.stdout.write(HEADER.format(date=date, moto=version("moto")))
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name in sorted(INSTANCE_TYPES):
        line = priced.get(name, {"usd_per_hour": "", "network_mbps": ""})
        writer.writerow(
            row(INSTANCE_TYPES[name], price=line["usd_per_hour"], network_mbps=line["network_mbps"])
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
