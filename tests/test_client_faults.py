"""Faults that last, as this package's own client meets them: no answer, credentials that expire, a wrong region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cloud_client import Cloud

from ppe_jupyter.cloud.ec2 import EC2, session
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import CloudError, CredentialsError, LaunchFailed
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.localcloud.hooks import Fault
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

SPEC = ClusterSpec(nodes=1, instance_type="m5.xlarge")
EXPIRED = (
    "DescribeInstances TerminateInstances DescribeSecurityGroups DescribePlacementGroups GetCallerIdentity"
)


@pytest.fixture
def cloud(local_cloud: Endpoint, settings: Settings) -> Iterator[Cloud]:
    """Instances are records only, and everything that is made goes."""
    cloud = Cloud(local_cloud, settings)
    with cloud.unchanged():
        hooks.set_containerless(local_cloud, True)
        yield cloud


def test_an_answer_that_does_not_come_is_asked_for_again_and_buys_nothing_twice(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "READ_TIMEOUT", 2)
    clusters, plan = cloud.clusters(), cloud.plan(replace(SPEC, name="late"))
    hooks.reset(cloud.endpoint)
    hooks.set_containerless(cloud.endpoint, True)
    hooks.inject(cloud.endpoint, Fault("RunInstances", hang=20.0, after=True))
    clusters.launch(plan, wait=False)
    try:
        assert hooks.calls(cloud.endpoint).count("RunInstances") >= 2
        assert len(cloud.ec2().instances(cluster="late")) == 1
    finally:
        cloud.terminate("late")


def test_an_endpoint_that_never_answers_is_an_error_that_says_so(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "READ_TIMEOUT", 0.3)
    cloud.settings = replace(cloud.settings, retries=2)
    hooks.inject(cloud.endpoint, Fault("DescribeRegions", hang=20.0, times=2))
    with pytest.raises(CloudError, match="the cloud cannot be asked: Read timeout on endpoint"):
        cloud.ec2().regions()


def test_credentials_that_expire_during_a_launch_leave_what_can_be_removed_with_new_ones(
    cloud: Cloud,
) -> None:
    plan = cloud.plan(replace(SPEC, name="expired"))
    expired = [
        Fault(action, code="ExpiredToken", message="expired", times=10**6) for action in EXPIRED.split()
    ]
    seen: list[str] = []

    def expire(phase: str) -> None:
        if phase == "booting" and not seen:
            seen.append(phase)
            hooks.inject(cloud.endpoint, *expired)

    with pytest.raises(
        LaunchFailed, match=r"expired \(ExpiredToken\); see: %ppe_config.*%ppe_terminate expired"
    ) as caught:
        cloud.clusters().launch(plan, report=lambda progress: expire(progress.phase))
    hooks.clear_faults(cloud.endpoint)
    (instance,) = cloud.ec2().instances(cluster="expired")
    assert instance.state.alive
    assert instance.instance_id in caught.value.leftovers
    assert cloud.terminate("expired")


def test_a_region_that_is_not_ones_own_is_told(cloud: Cloud) -> None:
    """EC2 knows no such credentials there if the account has not opted in."""
    endpoint = cloud.endpoint
    elsewhere = EC2(
        cloud.settings,
        endpoint_url=endpoint.url,
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        region="eu-south-2",
    )
    with pytest.raises(CredentialsError, match="eu-south-2"):
        elsewhere.instances()
