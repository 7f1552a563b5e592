"""Instances: list, run, end, tag, and what their consoles say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import shapes
from ..facts import Instance
from .session import Session, tags_filter, translated


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
    def console_output(self, instance_id: str) -> str:
        """What the instance's boot printed, as far as EC2 has it."""
        return self._ec2.get_console_output(InstanceId=instance_id).get("Output", "")

    @translated
    def run_instances(self, request: shapes.InstanceRequest) -> list[Instance]:
        """Run all the instances or none. Raises CapacityError when the zone has not enough of them."""
        answer = self._ec2.run_instances(**shapes.run_arguments(request))
        return [shapes.instance(each) for each in answer["Instances"]]

    @translated
    def tag(self, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set the same tags on all the resources (at most 1000 of them)."""
        self._ec2.create_tags(Resources=resource_ids, Tags=shapes.tag_list(tags))

    @translated
    def terminate_instances(self, instance_ids: Sequence[str]) -> None:
        """Ask for the instances' end; that some are gone already is no error."""
        self._ec2.terminate_instances(InstanceIds=instance_ids)
