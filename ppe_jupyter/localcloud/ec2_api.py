"""The EC2 actions that moto lacks or answers too kindly, as AWS documents them.

Cluster placement groups, CpuOptions, ClientToken, InsufficientInstanceCapacity, console output, "in use" of
a security group. The class takes the place of moto's response class; what it does not define is moto's.
Knows moto's request parsing and records, no containers.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import DependencyViolationError, EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.responses import EC2Response
from moto.ec2.utils import generic_filter, random_id

from .ec2_instances import ContainerInstance
from .reconciler import Action, Reconciler

CAPACITY = "InsufficientInstanceCapacity"
ENDED = ("shutting-down", "terminated")


class PlacementGroup(TaggedEC2Resource):
    """A placement group; attributes are named so that moto serializes them."""

    def __init__(self, backend: Any, name: str, strategy: str, tags: dict[str, str]) -> None:
        self.ec2_backend = backend
        self.id = self.group_id = random_id(prefix="pg")
        self.group_name = name
        self.strategy = strategy
        self.state = "available"
        self.group_arn = f"arn:aws:ec2:{backend.region_name}:{backend.account_id}:placement-group/{name}"
        self.add_tags(tags)


class LocalCloudResponse(EC2Response):
    """One request to EC2. The class attributes are the local cloud's state beyond moto's."""

    reconciler: ClassVar[Reconciler]
    placement_groups: ClassVar[dict[str, PlacementGroup]] = {}
    launches: ClassVar[dict[str, tuple[str, Any]]] = {}  # ClientToken: parameters, reservation
    exhausted: ClassVar[dict[str, bool]] = {}  # zone ("" is any): no capacity there

    def call_action(self) -> Any:
        """Answer an action that neither moto nor this class knows in EC2's own form."""
        try:
            status, headers, body = super().call_action()
        except NotImplementedError:
            error = EC2ClientError("InvalidAction", f"The local cloud does not have {self._get_action()}")
            status, headers, body = self.serialized(ActionResult(error))
        if f"<Code>{CAPACITY}</Code>" in str(body):
            status, headers["status"] = 500, "500"
        if not self._get_action().startswith(("Describe", "Get")):
            self.reconciler.submit(Action.REFRESH)
        return status, headers, body

    def run_instances(self) -> ActionResult:
        """Launch, once for each ClientToken, in a placement group, where there is capacity."""
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
        group, options = self._get_param("Placement.GroupName"), self._get_param("CpuOptions")
        instance_type = self._instance_type()
        self._check_placement_group(group, instance_type)
        cpu_options = _cpu_options(instance_type, options)
        self._check_capacity()
        result = super().run_instances()
        launched: Any = result.result
        for instance in launched.instances:
            instance.placement.group_name = group or ""
            instance.cpu_options = cpu_options
            self.reconciler.submit(Action.START, instance)
        if token:
            self.launches[token] = (parameters, launched)
        return result

    def _instance_type(self) -> dict[str, Any]:
        name = self._get_param("InstanceType", "m1.small")
        return dict(self.ec2_backend.describe_instance_types([name])[0])

    def _check_placement_group(self, name: str | None, instance_type: dict[str, Any]) -> None:
        if not name:
            return
        group = self._placement_group(name)
        supported = instance_type.get("PlacementGroupInfo", {}).get("SupportedStrategies", [])
        if group.strategy not in supported:
            message = (
                f"The instance type {instance_type['InstanceType']} has no {group.strategy} placement groups"
            )
            raise EC2ClientError("InvalidParameterCombination", message)

    def _check_capacity(self) -> None:
        subnet_id = self._get_param("SubnetId") or next(
            (nic["SubnetId"] for nic in self._get_param("NetworkInterfaces", []) if "SubnetId" in nic), None
        )
        zone = self._get_param("Placement.AvailabilityZone")
        if subnet_id:
            zone = self.ec2_backend.get_subnet(subnet_id).availability_zone
        zone = zone or f"{self.region}a"
        if self.exhausted.get(zone, self.exhausted.get("", False)):
            message = (
                f"We currently do not have sufficient {self._get_param('InstanceType')} capacity in the"
                f" Availability Zone you requested ({zone}). Our system will be working on provisioning"
                " additional capacity."
            )
            raise EC2ClientError(CAPACITY, message)

    def _parse_block_device_mapping(self) -> Any:
        """A root volume ends with its instance unless the request says otherwise; moto keeps it."""
        mappings = super()._parse_block_device_mapping()
        images = self.ec2_backend.describe_images(ami_ids=[self._get_param("ImageId")])
        for mapping, asked in zip(mappings, self._get_param("BlockDeviceMappings", []), strict=True):
            root = images and mapping["DeviceName"] == images[0].root_device_name
            if root and "DeleteOnTermination" not in asked.get("Ebs", {}):
                mapping["Ebs"]["DeleteOnTermination"] = True
        return mappings

    def get_console_output(self) -> ActionResult:
        """What the container has printed."""
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        output = self.reconciler.console(instance.id) or instance.console
        text = Base64EncodedString.from_raw_string(output.decode(errors="replace"))
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": text})

    def create_placement_group(self) -> ActionResult:
        """Make one; only the strategy matters here, the machine is one anyway."""
        name, strategy = self._get_param("GroupName"), self._get_param("Strategy", "cluster")
        if not name:
            raise EC2ClientError("MissingParameter", "The request must contain the parameter GroupName")
        if strategy not in ("cluster", "spread", "partition"):
            raise EC2ClientError(
                "InvalidParameterValue", f"Value ({strategy}) for parameter strategy is invalid"
            )
        if name in self.placement_groups:
            raise EC2ClientError(
                "InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists."
            )
        tags = self._parse_tag_specification("placement-group").get("placement-group", {})
        self.error_on_dryrun()
        self.placement_groups[name] = PlacementGroup(self.ec2_backend, name, strategy, tags)
        return ActionResult({"PlacementGroup": self.placement_groups[name]})

    def describe_placement_groups(self) -> ActionResult:
        """List them, all or by name, id or filter."""
        names, ids = self._get_param("GroupNames", []), self._get_param("GroupIds", [])
        groups = [self._placement_group(name) for name in names] or list(self.placement_groups.values())
        groups = [group for group in groups if not ids or group.id in ids]
        return ActionResult({"PlacementGroups": generic_filter(self._filters_from_querystring(), groups)})

    def delete_placement_group(self) -> EmptyResult:
        """Delete one that no instance is in."""
        group = self._placement_group(self._get_param("GroupName"))
        if any(
            i.placement.group_name == group.group_name and i.state not in ENDED for i in self._instances()
        ):
            message = f"The placement group '{group.group_name}' is in use and may not be deleted."
            raise EC2ClientError("InvalidPlacementGroup.InUse", message)
        self.error_on_dryrun()
        del self.placement_groups[group.group_name]
        return EmptyResult()

    def _placement_group(self, name: str) -> PlacementGroup:
        if name not in self.placement_groups:
            raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
        return self.placement_groups[name]

    def delete_security_group(self) -> ActionResult:
        """Delete one that no interface has and no other group names."""
        wanted = self._get_param("GroupId") or self._get_param("GroupName")
        group = self.ec2_backend.get_security_group_by_name_or_id(wanted)
        if group is not None:
            if group.is_default or group.name == "default":
                raise EC2ClientError(
                    "CannotDelete", "the specified group is a default group and cannot be deleted"
                )
            others = [g for vpc in self.ec2_backend.groups.values() for g in vpc.values() if g is not group]
            named = any(r.source_group.get("GroupId") == group.id for g in others for r in g.ingress_rules)
            if named or any(
                group in i.nics[0].group_set for i in self._instances() if i.state != "terminated"
            ):
                raise DependencyViolationError(f"resource {group.id} has a dependent object")
        return super().delete_security_group()

    def _instances(self) -> list[ContainerInstance]:
        return list(self.ec2_backend.all_instances())


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
