"""The one account and region: its default VPC on the bridge's network, with a way out; its spot role and alias.

https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc-components.html: an internet gateway, a main route
table that leads there, and subnets that give public addresses. Knows moto's records only.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.core import TaggedEC2Resource
from moto.iam.models import iam_backends

from .. import REGION
from .spot import ROLE, SpotActions

ALIAS = "local-cloud"


def open_account(cidr: IPv4Network) -> EC2Backend:
    """moto's records of the account."""
    create_vpc = EC2Backend.create_vpc

    def create_vpc_on_bridge(self: EC2Backend, cidr_block: str, *args: Any, **kwargs: Any) -> Any:
        block = str(cidr) if kwargs.get("is_default") else cidr_block
        return create_vpc(self, block, *args, **kwargs)

    EC2Backend.create_vpc = create_vpc_on_bridge  # type: ignore[method-assign, assignment]
    TaggedEC2Resource.get_tags = _tags  # type: ignore[method-assign]
    backend = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
    _lead_out(backend)
    _introduce()
    return backend


def forget_terminated(backend: EC2Backend) -> None:
    """Drop the records of launches of which nothing is left, as EC2 does after an hour."""
    for reservation_id, reservation in list(backend.reservations.items()):
        if all(instance.state == "terminated" for instance in reservation.instances):
            del backend.reservations[reservation_id]
    for request_id, request in list(SpotActions.spot_requests.items()):
        if request.instance.state == "terminated":
            del SpotActions.spot_requests[request_id]


def _tags(self: Any) -> list[dict[str, str]]:
    """A resource's tags, looked up; moto's own way goes through all tags of all resources each time."""
    return [{"key": key, "value": value} for key, value in self.ec2_backend.tags.get(self.id, {}).items()]


def _lead_out(backend: EC2Backend) -> None:
    (vpc,) = backend.describe_vpcs(filters={"is-default": ["true"]})
    (table,) = backend.describe_route_tables(filters={"vpc-id": [vpc.id]})
    gateway = backend.create_internet_gateway()
    backend.attach_internet_gateway(gateway.id, vpc.id)
    backend.create_route(table.id, "0.0.0.0/0", gateway_id=gateway.id)


def _introduce() -> None:
    iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    iam.create_account_alias(ALIAS)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "spot.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    iam.create_role(
        role_name=ROLE, assume_role_policy_document=json.dumps({"Statement": [statement]}),
        path="/aws-service-role/spot.amazonaws.com/", permissions_boundary=None, description="", tags=[],
        max_session_duration="3600",
    )  # fmt: skip
