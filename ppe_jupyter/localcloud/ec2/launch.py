"""RunInstances with EC2's rules: idempotency, capacity, quotas, spot, CPU options, placement, images.

moto makes the records; what it does not check is checked here, in the words that EC2 uses, since clients read
them (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html). Containers are asked for,
never touched.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.iam.models import iam_backends

from ..controls import Market
from ..machines.reconciler import Action
from .instances import ContainerInstance
from .spot import SpotActions

CAPACITY = "InsufficientInstanceCapacity"
# The families that share a vCPU quota, https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
STANDARD = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)\d")
MESSAGES = {
    "InsufficientHostCapacity": "There is no available capacity on your Dedicated Hosts for this launch.",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
    "SpotMaxPriceTooLow": (
        "Your Spot request price is lower than the minimum required Spot request fulfillment price."
    ),
    "VcpuLimitExceeded": (
        "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance"
        " bucket that the specified instance type belongs to. Please visit"
        " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
    ),
}
NO_SPOT_CAPACITY = "There is no Spot capacity available that matches your request."
NOT_FREE = (
    "The specified instance type is not eligible for Free Tier. For a list of Free Tier instance types, run"
    " 'describe-instance-types' with the filter 'free-tier-eligible=true'."
)


class LaunchActions(SpotActions):
    """Launching."""

    launches: ClassVar[dict[str, tuple[str, Any]]] = {}  # ClientToken: parameters, reservation

    def run_instances(self) -> ActionResult:
        """Launch, once for each ClientToken, where there is capacity."""
        token = self._get_param("ClientToken")
        parameters = json.dumps(
            {k: v for k, v in self.data.items() if k != "DryRun"}, default=str, sort_keys=True
        )
        if token in self.launches:
            earlier, reservation = self.launches[token]
            if earlier != parameters:
                message = f"The client token {token} was used before with other parameters"
                raise EC2ClientError("IdempotentParameterMismatch", message)
            return ActionResult(reservation)
        cpu_options = self._checked()
        result = super().run_instances()
        launched: Any = result.result
        for instance in launched.instances:
            self._give_profile(instance)
            instance.security_groups = list(
                instance.nics[0].group_set
            )  # the default one where none is asked for
            instance.placement.group_name = self._get_param("Placement.GroupName", "")
            instance.cpu_options = cpu_options
            if instance.lifecycle == "spot":
                self._note_spot(instance)
            if self.controls.unseen_calls:
                self.controls.unseen[instance.id] = self.controls.unseen_calls
            self.reconciler.submit(Action.START, instance)
        if token:
            self.launches[token] = (parameters, launched)
        return result

    def _checked(self) -> dict[str, int]:
        """The launch's CPU options. Raises what EC2 would, except for what a dry run does not ask."""
        name = self._get_param("InstanceType", "m1.small")
        market = self._get_param("InstanceMarketOptions.MarketType", "on-demand")
        zone = self._zone(name, market)
        facts = dict(self.ec2_backend.describe_instance_types([name])[0])
        self._check_placement_group(self._get_param("Placement.GroupName"), facts)
        cpu_options = _cpu_options(facts, self._get_param("CpuOptions"))
        self._check_image()
        self._check_profile()
        self._check_offered(name, zone)
        if self.controls.free_plan and not facts.get("FreeTierEligible"):
            raise EC2ClientError("InvalidParameterCombination", NOT_FREE)
        if market == "spot":
            self._check_spot(name, zone)
        if not self._dry():
            self._check_quota(name, market)
            self._check_capacity(name, zone, market)
        return cpu_options

    def _zone(self, name: str, market: Market) -> str:
        """The zone that the launch names, itself or by its subnet; else one is chosen that has capacity."""
        interfaces = self._get_param("NetworkInterfaces", [])
        subnet_id = self._get_param("SubnetId") or next(
            (each["SubnetId"] for each in interfaces if "SubnetId" in each), None
        )
        if subnet_id:
            return str(self.ec2_backend.get_subnet(subnet_id).availability_zone)
        if not (zone := self._get_param("Placement.AvailabilityZone")):
            offered = _zones_offering(name, self.region) or [f"{self.region}a"]
            zone = next((each for each in offered if not self.controls.lacks(each, market)), offered[0])
            self.params["Placement"] = {**self._get_param("Placement", {}), "AvailabilityZone": zone}
        return str(zone)

    def _check_placement_group(self, name: str | None, facts: dict[str, Any]) -> None:
        if not name:
            return
        group = self._placement_group(name)
        if group.strategy not in facts.get("PlacementGroupInfo", {}).get("SupportedStrategies", []):
            message = f"The instance type {facts['InstanceType']} has no {group.strategy} placement groups"
            raise EC2ClientError("InvalidParameterCombination", message)

    def _check_image(self) -> None:
        image = self.ec2_backend.amis.get(self._get_param("ImageId"))
        if image is not None and image.state != "available":
            raise EC2ClientError("InvalidAMIID.Unavailable", f"The image '{image.id}' is {image.state}")
        if image is not None and image.id not in ContainerInstance.machine_images:
            message = (
                f"the local cloud has no {image.description} image ({image.id}) that it can launch: its nodes are "
                "Debian 12, of this machine's architecture"
            )
            raise EC2ClientError("InvalidAMIID.Unavailable", message)

    def _check_profile(self) -> None:
        profile = self._get_param("IamInstanceProfile", {})
        known = iam_backends[self.current_account][self.partition].instance_profiles.values()
        for key, names in (("Name", [each.name for each in known]), ("Arn", [each.arn for each in known])):
            if key in profile and profile[key] not in names:
                message = f"Value ({profile[key]}) for parameter iamInstanceProfile.{key.lower()} is invalid."
                raise EC2ClientError("InvalidParameterValue", message)

    def _give_profile(self, instance: ContainerInstance) -> None:
        """The launch's instance profile, which moto gives to the first instance only."""
        profile = self._get_param("IamInstanceProfile")
        if profile and not instance.iam_instance_profile:
            self.ec2_backend.associate_iam_instance_profile(
                instance.id, profile.get("Name"), profile.get("Arn")
            )

    def _check_offered(self, name: str, zone: str) -> None:
        offered = _zones_offering(name, self.region)
        if offered and zone not in offered:
            message = (
                f"Your requested instance type ({name}) is not supported in your requested Availability Zone"
                f" ({zone}). Please retry your request by not specifying an Availability Zone or choosing"
                f" {', '.join(offered)}."
            )
            raise EC2ClientError("Unsupported", message)

    def _check_quota(self, name: str, market: Market) -> None:
        """Running vCPUs of the standard types; stopped instances do not count."""
        if not STANDARD.match(name):
            return
        running = [
            each.instance_type
            for each in self._instances()
            if each.state in ("pending", "running")
            and (each.lifecycle == "spot") == (market == "spot")
            and STANDARD.match(each.instance_type)
        ]
        wanted = [*running, *[name] * int(self._get_param("MaxCount", 1))]
        kinds = {each["InstanceType"]: each for each in self.ec2_backend.describe_instance_types(set(wanted))}
        limit = self.controls.vcpus[market]
        if sum(kinds[each]["VCpuInfo"]["DefaultVCpus"] for each in wanted) > limit:
            code = "MaxSpotInstanceCountExceeded" if market == "spot" else "VcpuLimitExceeded"
            raise EC2ClientError(code, MESSAGES[code].format(limit=limit))

    def _check_capacity(self, name: str, zone: str, market: Market) -> None:
        code = self.controls.lacks(zone, market)
        if code is None:
            return
        others = [
            other for other in _zones_offering(name, self.region) if not self.controls.lacks(other, market)
        ]
        instead = (
            f" You can currently get {name} capacity by not specifying an Availability Zone in your request or"
            f" choosing {', '.join(others)}."
        )
        message = (
            f"We currently do not have sufficient {name} capacity in the Availability Zone you requested"
            f" ({zone}). Our system will be working on provisioning additional capacity."
            + (instead if others else "")
        )
        if code == CAPACITY and market == "spot":
            message = NO_SPOT_CAPACITY
        raise EC2ClientError(code, MESSAGES.get(code, message).format(limit=self.controls.vcpus[market]))

    def _parse_block_device_mapping(self) -> Any:
        """A root volume ends with its instance unless the request says otherwise; moto keeps it."""
        mappings = super()._parse_block_device_mapping()
        images = self.ec2_backend.describe_images(ami_ids=[self._get_param("ImageId")])
        for mapping, asked in zip(mappings, self._get_param("BlockDeviceMappings", []), strict=True):
            root = images and mapping["DeviceName"] == images[0].root_device_name
            if root and "DeleteOnTermination" not in asked.get("Ebs", {}):
                mapping["Ebs"]["DeleteOnTermination"] = True
        return mappings


def _zones_offering(instance_type: str, region: str) -> list[str]:
    offers = INSTANCE_TYPE_OFFERINGS["availability-zone"][region]
    return sorted(each["Location"] for each in offers if each["InstanceType"] == instance_type)


def _cpu_options(instance_type: dict[str, Any], asked: dict[str, Any] | None) -> dict[str, int]:
    """The cores and threads of an instance, checked against its type as EC2 does."""
    info = instance_type["VCpuInfo"]
    default = {
        "CoreCount": info.get("DefaultCores", info["DefaultVCpus"]),
        "ThreadsPerCore": info.get("DefaultThreadsPerCore", 1),
    }
    if not asked:
        return default
    if not {"CoreCount", "ThreadsPerCore"} <= set(asked):
        raise EC2ClientError(
            "InvalidParameterCombination", "CpuOptions needs both CoreCount and ThreadsPerCore"
        )
    chosen = {name: int(asked[name]) for name in default}
    allowed = {
        "CoreCount": info.get("ValidCores", [default["CoreCount"]]),
        "ThreadsPerCore": info.get("ValidThreadsPerCore", [default["ThreadsPerCore"]]),
    }
    for name, value in chosen.items():
        if value not in allowed[name]:
            message = f"{name} {value} is not valid for {instance_type['InstanceType']}: {allowed[name]}"
            raise EC2ClientError("InvalidParameterValue", message)
    return chosen
