"""Shapes: boto3's dictionaries from and to this package's own values.

Pure, and typed by boto3's own model; imports boto3 for types only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..facts import Image, Instance, Subnet
from ..records import InstanceState
from ..tags import IMAGE, LOGIN_USER, SURCHARGE

if TYPE_CHECKING:
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import (
        BlockDeviceMappingTypeDef,
        EbsBlockDeviceTypeDef,
        FilterTypeDef,
        ImageTypeDef,
        InstanceMarketOptionsRequestTypeDef,
        InstanceNetworkInterfaceSpecificationTypeDef,
        InstanceTypeDef,
        RunInstancesRequestTypeDef,
        SpotMarketOptionsTypeDef,
        TagSpecificationTypeDef,
        TagTypeDef,
    )

# The owners of the stock images whose login user we know (wiki.debian.org/Cloud/AmazonEC2Image, Canonical).
LOGIN_USER_OF_OWNER = {"136693071363": "admin", "099720109477": "ubuntu"}


@dataclass(frozen=True, kw_only=True)
class InstanceRequest:
    """What one RunInstances call asks for, wherever it is to be; ``purchase`` chooses the subnet.

    ``cores`` is given when each core is to run one thread. ``public``: whether each gets a public address,
    whatever the subnet's default is. ``spot_max_usd`` is for an hour and instance (None: the on-demand price).
    ``placement_group`` is a group's name, ``instance_profile`` a name or an ARN.
    """

    count: int
    instance_type: str
    image: Image
    group_id: str
    key_name: str
    user_data: bytes
    root_gb: int
    instance_tags: Mapping[str, str]
    other_tags: Mapping[str, str]
    cores: int | None = None
    root_type: str = "gp3"
    encrypted: bool = True
    imdsv2: bool = True
    public: bool = True
    spot: bool = False
    spot_max_usd: float | None = None
    placement_group: str | None = None
    instance_profile: str | None = None

    def __str__(self) -> str:
        return f"{self.count} × {self.instance_type}{' spot' * self.spot}"


def run_arguments(
    request: InstanceRequest, subnet: Subnet, *, client_token: str
) -> RunInstancesRequestTypeDef:
    """RunInstances' arguments; the constraints they keep are listed in tests/test_ec2.py."""
    arguments: RunInstancesRequestTypeDef = {
        "ImageId": request.image.image_id,
        "InstanceType": request.instance_type,  # type: ignore[typeddict-item]  # any string
        "MinCount": request.count,
        "MaxCount": request.count,
        "KeyName": request.key_name,
        "UserData": request.user_data,  # type: ignore[typeddict-item]  # botocore encodes bytes in base64
        "ClientToken": client_token,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required" if request.imdsv2 else "optional",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [_root_disk(request)],
        "TagSpecifications": [
            tagged("instance", request.instance_tags),
            tagged("volume", request.other_tags),
            tagged("network-interface", request.other_tags),
            *([tagged("spot-instances-request", request.other_tags)] if request.spot else ()),
        ],
    }
    if request.public == subnet.public:
        arguments["SubnetId"] = subnet.subnet_id
        arguments["SecurityGroupIds"] = [request.group_id]
    else:
        arguments["NetworkInterfaces"] = [_interface(request, subnet)]
    if request.placement_group:
        arguments["Placement"] = {"GroupName": request.placement_group}
    if request.cores:
        arguments["CpuOptions"] = {"CoreCount": request.cores, "ThreadsPerCore": 1}
    if request.instance_profile:
        kind = "Arn" if request.instance_profile.startswith("arn:") else "Name"
        arguments["IamInstanceProfile"] = {kind: request.instance_profile}  # type: ignore[misc]  # one of the two
    if request.spot:
        arguments["InstanceMarketOptions"] = _spot_options(request)
    return arguments


def _root_disk(request: InstanceRequest) -> BlockDeviceMappingTypeDef:
    """Encrypted or as the account and the image's snapshot have it: an encrypted snapshot's copy cannot be plain."""
    disk: EbsBlockDeviceTypeDef = {
        "VolumeSize": request.root_gb,
        "VolumeType": request.root_type,  # type: ignore[typeddict-item]  # the spec has checked it
        "DeleteOnTermination": True,
    }
    if request.encrypted:
        disk["Encrypted"] = True
    return {"DeviceName": request.image.root_device, "Ebs": disk}


def _interface(request: InstanceRequest, subnet: Subnet) -> InstanceNetworkInterfaceSpecificationTypeDef:
    """The only place where a request can overrule the subnet's default for public addresses."""
    return {
        "DeviceIndex": 0,
        "SubnetId": subnet.subnet_id,
        "Groups": [request.group_id],
        "AssociatePublicIpAddress": request.public,
        "DeleteOnTermination": True,
    }


def _spot_options(request: InstanceRequest) -> InstanceMarketOptionsRequestTypeDef:
    options: SpotMarketOptionsTypeDef = {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
    }
    if request.spot_max_usd is not None:
        options["MaxPrice"] = f"{request.spot_max_usd:.6f}"
    return {"MarketType": "spot", "SpotOptions": options}


def image(image: ImageTypeDef) -> Image:
    """An image of DescribeImages."""
    found = tags(image.get("Tags", ()))
    device = image.get("RootDeviceName", "/dev/xvda")
    sizes = [
        mapping.get("Ebs", {}).get("VolumeSize", 0)
        for mapping in image.get("BlockDeviceMappings", ())
        if mapping.get("DeviceName") == device
    ]
    owner = LOGIN_USER_OF_OWNER.get(image.get("OwnerId", ""), "admin")
    return Image(
        image_id=image["ImageId"],
        name=image.get("Name", image["ImageId"]),
        architecture=image["Architecture"],
        login_user=found.get(LOGIN_USER, owner),
        node=found.get(IMAGE) == "node",
        root_device=device,
        root_gb=max(sizes, default=0),
        created=image.get("CreationDate", ""),
        state=image.get("State", "available"),
        snapshot_ids=tuple(
            mapping["Ebs"]["SnapshotId"]
            for mapping in image.get("BlockDeviceMappings", ())
            if mapping.get("Ebs", {}).get("SnapshotId")
        ),
        tags=found,
        virtualization=image.get("VirtualizationType", "hvm"),
        boot_mode=image.get("BootMode", ""),
        ena=image.get("EnaSupport", True),
        surcharge=_usd(found.get(SURCHARGE, "")),
    )


def _usd(text: str) -> float:
    """A price that was written in a tag, by whomever."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0


def instance(instance: InstanceTypeDef) -> Instance:
    """An instance of DescribeInstances or RunInstances."""
    state = InstanceState(instance["State"]["Name"])
    placement = instance.get("Placement", {})
    return Instance(
        instance_id=instance["InstanceId"],
        launch_index=instance.get("AmiLaunchIndex", 0),
        state=state,
        reason=instance.get("StateReason", {}).get("Message", ""),
        private_ip=instance.get("PrivateIpAddress", ""),
        private_dns=instance.get("PrivateDnsName", ""),
        public_ip=instance.get("PublicIpAddress", ""),
        public_dns=instance.get("PublicDnsName", ""),
        instance_type=instance["InstanceType"],
        zone=placement.get("AvailabilityZone", ""),
        subnet_id=instance.get("SubnetId", ""),
        key_name=instance.get("KeyName", ""),
        launched=instance["LaunchTime"].astimezone(timezone.utc),
        tags=tags(instance.get("Tags", ())),
        spot=instance.get("InstanceLifecycle") == "spot",
        stopped=_stopped(instance) if state in (InstanceState.STOPPED, InstanceState.TERMINATED) else None,
        image_id=instance.get("ImageId", ""),
        group_ids=tuple(group["GroupId"] for group in instance.get("SecurityGroups", ())),
        placement_group=placement.get("GroupName", ""),
        instance_profile=instance.get("IamInstanceProfile", {}).get("Arn", ""),
    )


def _stopped(instance: InstanceTypeDef) -> datetime | None:
    """When it stopped: EC2 says so in words only, "User initiated (2026-01-02 03:04:05 GMT)"."""
    found = re.search(
        r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)", instance.get("StateTransitionReason", "")
    )
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc) if found else None


def tags(tags: Iterable[TagTypeDef]) -> dict[str, str]:
    """Tags as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in tags}


def tag_list(tags: Mapping[str, str]) -> list[TagTypeDef]:
    """Tags as EC2 wants them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tagged(kind: ResourceTypeType, tags: Mapping[str, str]) -> TagSpecificationTypeDef:
    """Tags to be given at creation."""
    return {"ResourceType": kind, "Tags": tag_list(tags)}


def where(name: str, *values: str) -> FilterTypeDef:
    """A filter: the name has one of the values."""
    return {"Name": name, "Values": list(values)}
