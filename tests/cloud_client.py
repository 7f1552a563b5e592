"""A client of the local cloud's endpoint, without the manager: for tests of what is below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ppe_jupyter.cloud.context import Context
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.launching.clusters import Clusters
from ppe_jupyter.cloud.launching.removal import remove
from ppe_jupyter.cloud.pace import Pace, Report
from ppe_jupyter.cloud.plan import Plan
from ppe_jupyter.cloud.planning.survey import Survey
from ppe_jupyter.cloud.records import ClusterRecord, Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

Snapshot = tuple[set[str], set[str], set[str]]


def ignore(progress: Progress) -> None:
    """Report nothing."""


class Cloud:
    """The local cloud's endpoint with what a test needs of it."""

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self.settings = settings

    def ec2(self) -> EC2:
        return EC2(
            self.settings,
            endpoint_url=self.endpoint.url,
            access_key=self.endpoint.access_key,
            secret_key=self.endpoint.secret_key,
            region=self.endpoint.region,
        )

    def context(self, **options: Any) -> Context:
        defaults: dict[str, Any] = {
            "ec2": self.ec2(),
            "settings": self.settings,
            "caller_address": lambda: self.endpoint.caller_address,
        }
        return Context(**{**defaults, **options})

    def clusters(self, **options: Any) -> Clusters:
        return Clusters(self.context(**options))

    def plan(self, spec: ClusterSpec, **options: Any) -> Plan:
        context = self.context(**options)
        return Survey(context).plan(spec, existing=Clusters(context).find())

    def launch(self, spec: ClusterSpec, *, report: Report = ignore, **options: Any) -> ClusterRecord:
        return self.clusters(**options).launch(self.plan(spec, **options), report=report)

    def terminate(self, name: str) -> bool:
        """Remove the cluster; whether there was anything."""
        removed = remove(self.ec2(), pace=Pace(), report=ignore, cluster=name)
        assert removed.leftovers == {}
        return removed.found > 0

    def snapshot(self) -> Snapshot:
        """Ids of everything that exists: instances, security groups, placement groups."""
        client = self.ec2()._ec2
        instances = {
            each["InstanceId"]
            for page in client.get_paginator("describe_instances").paginate()
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
            if each["State"]["Name"] != "terminated"
        }
        groups = {each["GroupId"] for each in client.describe_security_groups()["SecurityGroups"]}
        placements = {each["GroupName"] for each in client.describe_placement_groups()["PlacementGroups"]}
        return instances, groups, placements

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Everything that exists afterwards existed before; no fault remains."""
        before = self.snapshot()
        try:
            yield
        finally:
            hooks.reset(self.endpoint)
        assert self.snapshot() == before
