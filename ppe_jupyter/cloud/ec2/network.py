"""Subnets, and their ways out."""

from __future__ import annotations

from .. import shapes
from ..facts import Subnet
from .session import Session, translated


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
            )
            for page in pages
            for each in page["Subnets"]
        ]
