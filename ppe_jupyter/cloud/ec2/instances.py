"""Instances: list, run, stop, end, tag, and what is known of one that does not come up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ..facts import Instance, Subnet
from . import shapes
from .session import Session, tags_filter, translated

MOST_TAGGED = 1000  # resources a call (API reference, CreateTags)


class Instances(Session):
    """Verbs on instances."""

    @translated
    def instances(self, **tags: str) -> list[Instance]:
        """All instances with our tag; ``cluster`` and ``launch`` narrow to those values of ours.

        By filter, not by id: an instance not yet listed is then missing, not an error.
        """
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=tags_filter(tags) or [shapes.where("tag-key", "ppe:cluster")],
            PaginationConfig={"PageSize": 1000},
        )
        return [
            shapes.instance(each)
            for page in pages
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
        ]

    @translated
    def console_output(self, instance_id: str, *, latest: bool = False) -> str:
        """What the instance's boot printed, as far as EC2 has it; ``latest`` asks a Nitro instance itself."""
        return self._ec2.get_console_output(InstanceId=instance_id, Latest=latest).get("Output", "")

    @translated
    def instance_checks(self, instance_id: str) -> tuple[str, str]:
        """What EC2's status checks say of the machine below and of the instance: ok, impaired, initializing …"""
        answer = self._ec2.describe_instance_status(InstanceIds=[instance_id], IncludeAllInstances=True)
        for status in answer["InstanceStatuses"]:
            return status["SystemStatus"]["Status"], status["InstanceStatus"]["Status"]
        return "unknown", "unknown"

    @translated
    def run_instances(
        self, request: shapes.InstanceRequest, subnet: Subnet, *, client_token: str
    ) -> list[Instance]:
        """Run all the instances or none, once for each token. Raises CapacityError when they are not to be had."""
        answer = self._ec2.run_instances(**shapes.run_arguments(request, subnet, client_token=client_token))
        return [shapes.instance(each) for each in answer["Instances"]]

    @translated
    def tag(self, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set the same tags on all the resources."""
        for start in range(0, len(resource_ids), MOST_TAGGED):
            chunk = resource_ids[start : start + MOST_TAGGED]
            self._ec2.create_tags(Resources=chunk, Tags=shapes.tag_list(tags))

    @translated
    def set_shutdown_behavior(self, instance_id: str, behavior: Literal["stop", "terminate"]) -> None:
        """What a shutdown from inside means for the instance from now on."""
        self._ec2.modify_instance_attribute(
            InstanceId=instance_id, InstanceInitiatedShutdownBehavior={"Value": behavior}
        )

    @translated
    def terminate_instances(self, instance_ids: Sequence[str]) -> None:
        """Ask for the instances' end; that some are gone already is no error."""
        self._ec2.terminate_instances(InstanceIds=instance_ids)
