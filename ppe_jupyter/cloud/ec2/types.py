"""Instance types, and where they are offered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ... import catalog
from ...catalog import InstanceType
from ...errors import CloudError
from . import shapes
from .session import Session, translated

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeInfoTypeDef, NetworkInfoTypeDef


class Types(Session):
    """Verbs on instance types."""

    def instance_type(self, name: str) -> InstanceType | None:
        """What EC2 says of the type, with the catalog's price; None if the region has no such type."""
        try:
            return next(iter(self.instance_types([name])), None)
        except CloudError as exc:
            if exc.code in ("InvalidInstanceType", "InvalidParameterValue"):
                return None
            raise

    @translated
    def instance_types(self, names: Sequence[str] = ()) -> list[InstanceType]:
        """The types of those names, or all of the region."""
        pages = self._ec2.get_paginator("describe_instance_types").paginate(InstanceTypes=names)  # type: ignore[arg-type]
        return [described(info) for page in pages for info in page["InstanceTypes"]]

    @translated
    def zones_offering(self, instance_type: str) -> frozenset[str]:
        """The availability zones of the region that offer the type."""
        pages = self._ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[shapes.where("instance-type", instance_type)]
        )
        return frozenset(each["Location"] for page in pages for each in page["InstanceTypeOfferings"])


def described(info: InstanceTypeInfoTypeDef) -> InstanceType:
    """A type of DescribeInstanceTypes, with the catalog's price."""
    known = catalog.instance_types().get(info["InstanceType"])
    cpu, network = info["VCpuInfo"], info.get("NetworkInfo", {})
    return InstanceType(
        name=info["InstanceType"],
        cores=cpu.get("DefaultCores", cpu["DefaultVCpus"]),
        threads_per_core=cpu.get("DefaultThreadsPerCore", 1),
        valid_threads=tuple(cpu.get("ValidThreadsPerCore", ())),
        memory_mib=info["MemoryInfo"]["SizeInMiB"],
        architectures=tuple(info["ProcessorInfo"]["SupportedArchitectures"]),
        cluster="cluster" in info.get("PlacementGroupInfo", {}).get("SupportedStrategies", ()),
        current=info.get("CurrentGeneration", True),
        gpus=sum(gpu.get("Count", 1) for gpu in info.get("GpuInfo", {}).get("Gpus", ())),
        network_mbps=_baseline_mbps(network) or (known.network_mbps if known else None),
        usd_per_hour=known.usd_per_hour if known else None,
        virtualizations=tuple(info.get("SupportedVirtualizationTypes", ("hvm",))),
        boot_modes=tuple(info.get("SupportedBootModes", ())),
        ena=network.get("EnaSupport", "supported"),
        burstable=info.get("BurstablePerformanceSupported", False),
        spot="spot" in info.get("SupportedUsageClasses", ("spot",)),
        free_tier=info.get("FreeTierEligible", False),
        encryption=info.get("EbsInfo", {}).get("EncryptionSupport", "supported") == "supported",
        storage_gb=info.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
    )


def _baseline_mbps(network: NetworkInfoTypeDef) -> int | None:
    """Of all its network cards; None when EC2 does not say."""
    cards = [card.get("BaselineBandwidthInGbps") for card in network.get("NetworkCards", ())]
    known = [card for card in cards if card is not None]
    return round(1000 * sum(known)) if known else None
