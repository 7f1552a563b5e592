"""What instances are launched into and already exists: subnets with their ways out, groups and their rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..facts import PlacementGroup, Rule, SecurityGroup, Subnet
from . import shapes
from .session import Session, translated

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import IpPermissionOutputTypeDef, RouteTableTypeDef, RouteTypeDef


class Network(Session):
    """Verbs on VPCs."""

    @translated
    def subnets(self, subnet_id: str | None = None) -> list[Subnet]:
        """The default VPC's subnets, or the one of that id; none if there is none."""
        wanted = shapes.where("subnet-id", subnet_id) if subnet_id else shapes.where("default-for-az", "true")
        pages = self._ec2.get_paginator("describe_subnets").paginate(Filters=[wanted])
        return [
            Subnet(
                subnet_id=each["SubnetId"],
                vpc_id=each["VpcId"],
                zone=each["AvailabilityZone"],
                cidr=each["CidrBlock"],
                public=each.get("MapPublicIpOnLaunch", False),
                free_addresses=each.get("AvailableIpAddressCount"),
            )
            for page in pages
            for each in page["Subnets"]
        ]

    @translated
    def ways_out(self, vpc_id: str) -> dict[str, str]:
        """Where each subnet of the VPC sends what is for the internet (facts.WAYS_OUT); "" has the main table's."""
        pages = self._ec2.get_paginator("describe_route_tables").paginate(
            Filters=[shapes.where("vpc-id", vpc_id)]
        )
        return {
            subnet: way_out(table.get("Routes", ()))
            for page in pages
            for table in page["RouteTables"]
            for subnet in _subnets_of(table)
        }

    @translated
    def security_group(self, group_id: str) -> SecurityGroup | None:
        """The security group of that id, with what it lets in."""
        answer = self._ec2.describe_security_groups(Filters=[shapes.where("group-id", group_id)])
        return next(
            (
                SecurityGroup(
                    group_id=each["GroupId"],
                    name=each["GroupName"],
                    vpc_id=each.get("VpcId", ""),
                    rules=tuple(map(_rule, each.get("IpPermissions", ()))),
                )
                for each in answer["SecurityGroups"]
            ),
            None,
        )

    @translated
    def placement_group(self, name: str) -> PlacementGroup | None:
        """The placement group of that name, and the zones where it has instances."""
        groups = self._ec2.describe_placement_groups(Filters=[shapes.where("group-name", name)])
        found = next((each for each in groups["PlacementGroups"] if each.get("State") == "available"), None)
        if found is None:
            return None
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=[
                shapes.where("placement-group-name", name),
                shapes.where("instance-state-name", "pending", "running", "stopping", "stopped"),
            ]
        )
        zones = frozenset(
            each.get("Placement", {}).get("AvailabilityZone", "")
            for page in pages
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
        )
        return PlacementGroup(name=name, strategy=found.get("Strategy", "cluster"), zones=zones)


def _subnets_of(table: RouteTableTypeDef) -> list[str]:
    """The subnets that use it; "" for all that name none."""
    return [
        "" if each.get("Main") else each["SubnetId"]
        for each in table.get("Associations", ())
        if each.get("Main") or each.get("SubnetId")
    ]


def way_out(routes: Iterable[RouteTypeDef]) -> str:
    """Where the default route leads (VPC user guide, VPC_Route_Tables)."""
    for route in routes:
        if route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole":
            if route.get("NatGatewayId"):
                return "nat"
            return "internet" if route.get("GatewayId", "").startswith("igw-") else "other"
    return "none"


def _rule(rule: IpPermissionOutputTypeDef) -> Rule:
    sources = [each.get("CidrIp", "") for each in rule.get("IpRanges", ())]
    sources += [each.get("GroupId", "") for each in rule.get("UserIdGroupPairs", ())]
    sources += [each.get("PrefixListId", "") for each in rule.get("PrefixListIds", ())]
    return Rule(
        protocol=rule.get("IpProtocol", "-1"),
        first_port=rule.get("FromPort", 0),
        last_port=rule.get("ToPort", 65535),
        sources=tuple(filter(None, sources)),
    )
