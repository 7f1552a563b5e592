"""What EC2 says of instances, in EC2's pages: states, status checks, attributes, types.

Pages and their limits are those of the API reference (DescribeInstances takes up to 1000, counted in
instances). Knows moto's request parsing and records, no containers.
"""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.core.utils import get_pagination_model, utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.utils import filter_dict_attribute_mapping

from .instances import ContainerInstance
from .state import Ec2Actions

CHECKS_TAKE = timedelta(seconds=3)  # EC2 takes minutes
PAGE_LIMITS = {"DescribeInstanceTypes": 100, "DescribeRouteTables": 100}
MAX_PAGE, MIN_PAGE = 1000, 5
STATUS_FILTERS = {
    "availability-zone": ("AvailabilityZone",),
    "instance-state-name": ("InstanceState", "Name"),
    "instance-status.status": ("InstanceStatus", "Status"),
    "system-status.status": ("SystemStatus", "Status"),
}
filter_dict_attribute_mapping.update(
    {
        "client-token": "client_token",
        "instance-lifecycle": "instance_lifecycle",
        "placement-group-name": "placement.group_name",
        "spot-instance-request-id": "spot_instance_request_id",
    }
)
BEHAVIOR = "InstanceInitiatedShutdownBehavior"


class DescribeActions(Ec2Actions):
    """Asking for instances and types."""

    def describe_instances(self) -> ActionResult:
        """Reservations, paged by their instances."""
        ids, filters = self._get_param("InstanceIds", []), self._filters_from_querystring()
        if ids and self._get_param("MaxResults"):
            message = "The parameter instancesSet cannot be used with the parameter maxResults"
            raise EC2ClientError("InvalidParameterCombination", message)
        if ids:
            found = self.ec2_backend.get_reservations_by_instance_ids(ids, filters=filters)
        else:
            found = self.ec2_backend.describe_instances(filters=filters)
        pairs = [
            (reservation, instance)
            for reservation in found
            for instance in reservation.instances
            if instance.id not in self.controls.unseen
        ]
        page, token = self._page(pairs)
        reservations: dict[str, Any] = {}
        for reservation, instance in page:
            if reservation.id not in reservations:
                reservations[reservation.id] = copy.copy(reservation)
                reservations[reservation.id].instances = []
            reservations[reservation.id].instances.append(instance)
        return ActionResult({"Reservations": list(reservations.values()), "NextToken": token})

    def describe_instance_status(self) -> ActionResult:
        """Status checks, of running instances unless all are asked for."""
        ids, everything = self._get_param("InstanceIds", []), self._get_param("IncludeAllInstances", False)
        instances = self.ec2_backend.get_multi_instances_by_id(ids) if ids else self._instances()
        statuses = [
            self._status(each)
            for each in instances
            if (everything or each.state == "running") and each.id not in self.controls.unseen
        ]
        for name, values in self._filters_from_querystring().items():
            if name not in STATUS_FILTERS:
                raise EC2ClientError("InvalidParameterValue", f"The filter '{name}' is invalid")
            statuses = [each for each in statuses if _at(each, STATUS_FILTERS[name]) in values]
        return ActionResult({"InstanceStatuses": statuses})

    def get_console_output(self) -> ActionResult:
        """What the container has printed."""
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        output = self.reconciler.console(instance.id) or instance.console
        text = Base64EncodedString.from_raw_string(output.decode(errors="replace"))
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": text})

    def describe_tags(self) -> ActionResult:
        """Tags, without those of resources that are gone, which moto keeps."""
        result: Any = super().describe_tags().result
        backend, groups = self.ec2_backend, self.ec2_backend.groups.values()
        there = {
            "ami": backend.amis,
            "i": {each.id for each in self._instances()},
            "key": {each.id for each in backend.key_pairs.values()},
            "pg": {each.id for each in self.placement_groups.values()},
            "sg": {each.id for vpc in groups for each in vpc.values()},
            "sir": self.spot_requests,
            "snap": backend.snapshots,
            "vol": backend.volumes,
        }
        tags = [
            tag
            for tag in result["Tags"]
            if tag["resource_id"] in there.get(tag["resource_id"].partition("-")[0], (tag["resource_id"],))
        ]
        return ActionResult({"Tags": tags})

    def start_instances(self) -> ActionResult:
        """Start, answering each one's state."""
        return self._with_states(super().start_instances(), "StartingInstances")

    def stop_instances(self) -> ActionResult:
        """Stop, answering each one's state."""
        return self._with_states(super().stop_instances(), "StoppingInstances")

    def terminate_instances(self) -> ActionResult:
        """Terminate, answering each one's state."""
        return self._with_states(super().terminate_instances(), "TerminatingInstances")

    def modify_instance_attribute(self) -> ActionResult:
        """Change an attribute; moto takes the shutdown behavior for a change of groups."""
        behavior = self._get_param(f"{BEHAVIOR}.Value")
        if behavior is None and self._get_param("Attribute") == "instanceInitiatedShutdownBehavior":
            behavior = self._get_param("Value")
        if behavior is None:
            return super().modify_instance_attribute()
        if behavior not in ("stop", "terminate"):
            message = f"Value ({behavior}) for parameter instanceInitiatedShutdownBehavior is invalid."
            raise EC2ClientError("InvalidParameterValue", message)
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        instance.instance_initiated_shutdown_behavior = behavior
        return EmptyResult()

    def _paged(self, result: Any) -> Any:
        """A page of any other list that the API pages, as the request asks for."""
        action = self._get_action()
        model = get_pagination_model("ec2").get(action, {})
        key = model.get("result_key")
        asked = self._get_param("MaxResults") or self._get_param("NextToken")
        if not asked or action == "DescribeInstances" or not isinstance(result, dict) or key not in result:
            return result
        page, token = self._page(result[key])
        return {**result, key: page, "NextToken": token}

    def _page(self, everything: list[Any]) -> tuple[list[Any], str | None]:
        limit = PAGE_LIMITS.get(self._get_action(), MAX_PAGE)
        size, token = int(self._get_param("MaxResults") or limit), self._get_param("NextToken") or "0"
        if not MIN_PAGE <= size <= limit:
            message = (
                f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value between {MIN_PAGE}"
                f" and {limit}."
            )
            raise EC2ClientError("InvalidParameterValue", message)
        if not token.isdecimal():
            raise EC2ClientError("InvalidParameterValue", "Unable to parse pagination token")
        end = int(token) + size
        return everything[int(token) : end], str(end) if end < len(everything) else None

    def _status(self, instance: ContainerInstance) -> dict[str, Any]:
        if instance.state != "running":
            check: dict[str, Any] = {"Status": "not-applicable"}
        elif instance.id in self.controls.impaired:
            details = {"Name": "reachability", "Status": "failed", "ImpairedSince": instance.launch_time}
            check = {"Status": "impaired", "Details": [details]}
        else:
            ready = utcnow() - instance.launch_time.replace(tzinfo=None) > CHECKS_TAKE
            name, detail = ("ok", "passed") if ready else ("initializing", "initializing")
            check = {"Status": name, "Details": [{"Name": "reachability", "Status": detail}]}
        return {
            "InstanceId": instance.id,
            "AvailabilityZone": instance.availability_zone,
            "InstanceState": instance.instance_state,
            "InstanceStatus": check,
            "SystemStatus": {"Status": "ok"} if instance.id in self.controls.impaired else check,
            "Events": [],
        }

    def _with_states(self, answer: ActionResult, key: str) -> ActionResult:
        """Each instance's present state in place of the one that moto takes for granted."""
        result: Any = answer.result
        for change in result[key]:
            state = self.ec2_backend.get_instance(change["InstanceId"]).instance_state
            change["CurrentState"] = copy.copy(state)
        return answer


def _at(status: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = status
    for name in path:
        value = value[name] if isinstance(value, dict) else getattr(value, name.lower())
    return value
