"""Permissions: the calls by which EC2's dry run tells whether a plan may be carried out, and what it makes
kept, changed and ended.

Pure; ``ec2`` makes the calls. What the launch has yet to create has made-up ids here, since IAM is asked first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..plan import Plan
from ..steps import (
    AttachVolume,
    CreatePlacementGroup,
    CreateSecurityGroup,
    ImportKeyPair,
    RunInstances,
    Step,
)

INSTANCE = "i-00000000000000000"
GROUP = "sg-00000000000000000"
TAGS = [{"Key": "ppe:cluster", "Value": "dry-run"}]

Call = tuple[str, dict[str, Any]]


def calls(plan: Plan) -> Iterator[Call]:
    """(operation, arguments) of every kind of call that the plan's steps need."""
    for step in plan.steps:
        yield from _of_step(plan, step)
    yield "CreateTags", {"Resources": [INSTANCE], "Tags": TAGS}
    yield (
        "ModifyInstanceAttribute",
        {"InstanceId": INSTANCE, "InstanceInitiatedShutdownBehavior": {"Value": "stop"}},
    )
    yield (
        "DescribeInstanceAttribute",
        {"InstanceId": INSTANCE, "Attribute": "instanceInitiatedShutdownBehavior"},
    )
    for operation in ("StopInstances", "StartInstances", "RebootInstances", "TerminateInstances"):
        yield operation, {"InstanceIds": [INSTANCE]}


def _of_step(plan: Plan, step: Step) -> Iterator[Call]:
    match step:
        case ImportKeyPair():
            public = step.public.encode()
            yield (
                "ImportKeyPair",
                {"KeyName": step.name, "PublicKeyMaterial": public, **_tags("key-pair")},
            )
        case CreateSecurityGroup():
            described = {"Description": "dry run", "VpcId": step.vpc_id}
            yield "CreateSecurityGroup", {"GroupName": step.name, **described, **_tags("security-group")}
            rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
            ranges = [{"CidrIp": step.caller_cidr}]
            yield (
                "AuthorizeSecurityGroupIngress",
                {"GroupId": GROUP, "IpPermissions": [{**rule, "IpRanges": ranges}]},
            )
            yield (
                "RevokeSecurityGroupIngress",
                {"GroupId": GROUP, "IpPermissions": [{**rule, "IpRanges": ranges}]},
            )
            yield "DeleteSecurityGroup", {"GroupId": GROUP}
        case CreatePlacementGroup():
            yield (
                "CreatePlacementGroup",
                {"GroupName": step.name, "Strategy": "cluster", **_tags("placement-group")},
            )
            yield "DeletePlacementGroup", {"GroupName": step.name}
        case RunInstances():
            yield "RunInstances", _run(plan, step)
        case AttachVolume():
            yield (
                "AttachVolume",
                {"VolumeId": step.volume_id, "InstanceId": INSTANCE, "Device": "/dev/sdf"},
            )


def _run(plan: Plan, step: RunInstances) -> dict[str, Any]:
    """The request as far as permissions may depend on it; without the groups and the key that do not exist yet."""
    arguments: dict[str, Any] = {
        "ImageId": step.image.image_id,
        "InstanceType": step.instance_type,
        "MinCount": step.count,
        "MaxCount": step.count,
        "SubnetId": step.subnets[0].subnet_id,
        "MetadataOptions": {"HttpTokens": "required" if plan.spec.imdsv2 else "optional"},
        "TagSpecifications": [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume")],
    }
    if step.spot:
        arguments["InstanceMarketOptions"] = {"MarketType": "spot"}
    if profile := plan.spec.instance_profile:
        arguments["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    return arguments


def _tags(kind: str) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": TAGS}]}
