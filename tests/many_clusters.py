"""Clusters without containers: EC2's records and tags only, for what looks at many of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cloud_client import Cloud

from ppe_jupyter.cloud import tags
from ppe_jupyter.cloud.records import Cost
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.localcloud import hooks

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings


@contextlib.contextmanager
def many_clusters(
    endpoint: Endpoint, settings: Settings, count: int, *, nodes: int = 2, owner: str = ""
) -> Iterator[dict[str, list[str]]]:
    """So many clusters that seem to run, many-0 and so on: their instances by name. They end with the block.

    ``owner`` is whose they are, if not this user's.
    """
    context = Cloud(endpoint, settings).context()
    ec2, owner, now = context.ec2._ec2, owner or context.owner(), datetime.now(timezone.utc)
    image = ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]

    def launch(name: str) -> list[str]:
        spec = ClusterSpec(name=name, nodes=nodes, instance_type="m5.large")
        common = tags.for_everything(
            spec, name=name, owner=owner, launch=name, busy_until=now - timedelta(hours=1)
        )
        own = tags.for_instances(
            common,
            slots=1,
            login_user="admin",
            launch_host_key="",
            cost=Cost(spent_usd=0.0, usd_per_hour=0.2, since=now),
            price=0.096,
        )
        asked = ec2.run_instances(
            ImageId=image,
            InstanceType="m5.large",
            MinCount=nodes,
            MaxCount=nodes,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [
                        {"Key": key, "Value": value}
                        for key, value in {**own, **tags.when_running({})}.items()
                    ],
                }
            ],
        )
        return [each["InstanceId"] for each in asked["Instances"]]

    hooks.set_containerless(endpoint, True)
    names = [f"many-{number}" for number in range(count)]
    clusters: dict[str, list[str]] = {}
    try:
        with ThreadPoolExecutor(4) as pool:
            clusters |= zip(names, pool.map(launch, names), strict=True)
        yield clusters
    finally:
        hooks.set_containerless(endpoint, False)
        if ids := [each for launched in clusters.values() for each in launched]:
            ec2.terminate_instances(InstanceIds=ids)
