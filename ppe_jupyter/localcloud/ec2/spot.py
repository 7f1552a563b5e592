"""Spot instances: one-time requests made by RunInstances, their states, prices, and interruption.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html has the codes. A request's
status is read off its instance, so that nothing has to be told when that ends. Persistent requests, fleets
and RequestSpotInstances are refused. Knows moto's request parsing and records, no containers.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.utils import generic_filter, random_id
from moto.iam.models import iam_backends

from .. import price_list
from .instances import ContainerInstance
from .state import ENDED, Ec2Actions

PRODUCT = "Linux/UNIX"
STATUS_MESSAGES = {
    "fulfilled": "Your spot request is fulfilled.",
    "marked-for-termination": "Your Spot Instance is marked for termination.",
    "instance-terminated-by-user": "Your Spot Instance was terminated by the user.",
    "instance-terminated-no-capacity": "Your Spot Instance was terminated because there is no capacity.",
    "request-canceled-and-instance-running": "Your Spot request is canceled, but your instance is running.",
}
ROLE = "AWSServiceRoleForEC2Spot"


class SpotRequest(TaggedEC2Resource):
    """A one-time request and its instance; attributes are named so that moto serializes them."""

    type = "one-time"
    product_description = PRODUCT
    instance_interruption_behavior = "terminate"

    def __init__(self, backend: Any, instance: ContainerInstance, price: str, tags: dict[str, str]) -> None:
        self.ec2_backend = backend
        self.id = self.spot_instance_request_id = random_id(prefix="sir", size=8)
        self.instance = instance
        self.spot_price = price
        self.create_time = self.updated = utcnow()
        self.marked = self.canceled = False
        self.add_tags(tags)

    @property
    def instance_id(self) -> str:
        """The id of its instance."""
        return str(self.instance.id)

    @property
    def launched_availability_zone(self) -> str:
        """Where its instance is."""
        return str(self.instance.availability_zone)

    @property
    def launch_specification(self) -> dict[str, Any]:
        """What was asked for."""
        groups = [{"GroupId": g.id, "GroupName": g.name} for g in self.instance.nics[0].group_set]
        placement = {"AvailabilityZone": self.launched_availability_zone}
        return {
            "ImageId": self.instance.image_id, "InstanceType": self.instance.instance_type,
            "KeyName": self.instance.key_name, "SubnetId": self.instance.subnet_id,
            "SecurityGroups": groups, "Placement": placement,
        }  # fmt: skip

    @property
    def status_code(self) -> str:
        """One of STATUS_MESSAGES."""
        if self.instance.state in ENDED:
            return f"instance-terminated-{'no-capacity' if self.marked else 'by-user'}"
        if self.marked:
            return "marked-for-termination"
        return "request-canceled-and-instance-running" if self.canceled else "fulfilled"

    @property
    def status(self) -> dict[str, Any]:
        """EC2's SpotInstanceStatus."""
        code = self.status_code
        return {"Code": code, "Message": STATUS_MESSAGES[code], "UpdateTime": self.updated}

    @property
    def state(self) -> str:
        """EC2's SpotInstanceState."""
        if self.canceled:
            return "cancelled"
        return "closed" if self.instance.state in ENDED else "active"

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        """What a filter of DescribeSpotInstanceRequests compares."""
        if filter_name == "status-code":
            return self.status_code
        return super().get_filter_value(filter_name, method_name or "DescribeSpotInstanceRequests")


class SpotActions(Ec2Actions):
    """Requests, their cancellation, and prices."""

    def describe_spot_instance_requests(self) -> ActionResult:
        """List them, all or by id or filter."""
        ids = self._get_param("SpotInstanceRequestIds", [])
        requests = [self._spot_request(request_id) for request_id in ids] or list(self.spot_requests.values())
        found = generic_filter(self._filters_from_querystring(), requests)
        return ActionResult({"SpotInstanceRequests": found})

    def cancel_spot_instance_requests(self) -> ActionResult:
        """Cancel them; their instances go on."""
        requests = [self._spot_request(each) for each in self._get_param("SpotInstanceRequestIds", [])]
        for request in requests:
            request.canceled, request.updated = True, utcnow()
        states = [{"SpotInstanceRequestId": each.id, "State": "cancelled"} for each in requests]
        return ActionResult({"CancelledSpotInstanceRequests": states})

    def request_spot_instances(self) -> ActionResult:
        """Not here: RunInstances with InstanceMarketOptions is the way."""
        raise NotImplementedError("use RunInstances with InstanceMarketOptions")

    def describe_spot_price_history(self) -> ActionResult:
        """The price in each zone that offers the type: one point, that of now."""
        zone, names, now = self._get_param("AvailabilityZone"), self._get_param("InstanceTypes", []), utcnow()
        points = [
            {
                "InstanceType": offer["InstanceType"],
                "ProductDescription": PRODUCT,
                "SpotPrice": f"{price:.6f}",
                "AvailabilityZone": offer["Location"],
                "Timestamp": now,
            }
            for offer in INSTANCE_TYPE_OFFERINGS["availability-zone"][self.region]
            if (not names or offer["InstanceType"] in names)
            and zone in (None, offer["Location"])
            and (price := price_list.spot(offer["InstanceType"], offer["Location"])) is not None
        ]
        products = self._get_param("ProductDescriptions", [PRODUCT])
        wanted: dict[str, Any] = {"product-description": products, **self._filters_from_querystring()}
        for name, values in wanted.items():
            key = "".join(part.capitalize() for part in name.split("-"))
            points = [point for point in points if point.get(key) in values]
        return ActionResult({"SpotPriceHistory": points})

    def stop_instances(self) -> ActionResult:
        """Stop, but never one of a one-time request."""
        for instance in self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", [])):
            if instance.lifecycle == "spot":
                message = (
                    f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time"
                    " Spot Instance request. You can only stop Spot Instances associated with persistent Spot"
                    " Instance requests."
                )
                raise EC2ClientError("UnsupportedOperation", message)
        return super().stop_instances()

    def _check_spot(self, instance_type: str, zone: str) -> None:
        """The request's InstanceMarketOptions as EC2 checks them."""
        options = self._get_param("InstanceMarketOptions.SpotOptions", {})
        if options.get("SpotInstanceType", "one-time") != "one-time" or (
            options.get("InstanceInterruptionBehavior", "terminate") != "terminate"
        ):
            message = "the local cloud has one-time Spot requests only, interrupted by termination"
            raise EC2ClientError("InvalidParameterCombination", message)
        if not _has_role(self.current_account, self.partition):
            message = (
                "The provided credentials do not have permission to create the service-linked role for EC2"
                " Spot Instances."
            )
            raise EC2ClientError("AuthFailure.ServiceLinkedRoleCreationNotPermitted", message)
        price, offered = price_list.spot(instance_type, zone), options.get("MaxPrice")
        if price is not None and offered is not None and float(offered) < price:
            message = (
                f"Your Spot request price of {offered} is lower than the minimum required Spot request"
                f" fulfillment price of {price}."
            )
            raise EC2ClientError("SpotMaxPriceTooLow", message)

    def _note_spot(self, instance: Any) -> None:
        """Make the request that stands behind a new instance."""
        row = price_list.types().get(instance.instance_type, {})
        ceiling = self._get_param("InstanceMarketOptions.SpotOptions.MaxPrice", row.get("usd_per_hour", "0"))
        tags = self._parse_tag_specification().get("spot-instances-request", {})
        request = SpotRequest(self.ec2_backend, instance, f"{float(ceiling):.6f}", tags)
        instance.spot_instance_request_id = request.id
        instance.instance_lifecycle = "spot"
        self.spot_requests[request.id] = request

    def _spot_request(self, request_id: str) -> SpotRequest:
        if request_id not in self.spot_requests:
            message = f"The spot instance request ID '{request_id}' does not exist"
            raise EC2ClientError("InvalidSpotInstanceRequestID.NotFound", message)
        request: SpotRequest = self.spot_requests[request_id]
        return request


def mark(instance: ContainerInstance) -> bool:
    """Note that an instance is to be reclaimed; False if it is no spot instance."""
    request = SpotActions.spot_requests.get(getattr(instance, "spot_instance_request_id", ""))
    if request is not None:
        request.marked, request.updated = True, utcnow()
    return request is not None


def _has_role(account: str, partition: str) -> bool:
    """Whether the account has EC2's service-linked role for spot instances."""
    return any(role.name == ROLE for role in iam_backends[account][partition].roles.values())
