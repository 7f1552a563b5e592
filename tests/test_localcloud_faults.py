"""Faults that tests inject into the local cloud's endpoint, and what a client sees of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from localcloud_nodes import client

from ppe_jupyter.errors import LocalCloudUnavailable
from ppe_jupyter.localcloud import Endpoint, hooks
from ppe_jupyter.localcloud.faults import Fault, Faults

THROTTLED = Fault("DescribeVpcs", "RequestLimitExceeded", status=503)
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=60)
PATIENT = Config(retries={"mode": "standard", "total_max_attempts": 3})


@pytest.fixture
def cloud(local_cloud: Endpoint) -> Iterator[Endpoint]:
    hooks.reset(local_cloud)
    yield local_cloud
    hooks.reset(local_cloud)


def once(cloud: Endpoint, service: str = "ec2") -> Any:
    """A client that does not try again."""
    return client(cloud, service, config=ONCE)


def test_a_fault_is_skipped_met_and_used_up() -> None:
    faults = Faults()
    faults.inject(Fault("A", "first", skip=1, times=2), Fault("A", "second"), Fault("B", zone="z"))
    met = [faults.meet("A") for _ in range(5)]
    assert [fault and fault.code for fault in met] == ["second", "first", "first", None, None]
    assert faults.meet("B") is None
    assert faults.meet("B", zone="y") is None
    assert faults.meet("B", zone="z") is not None
    assert faults.calls() == ["A"] * 5 + ["B"] * 3
    faults.inject(Fault("C"))
    faults.clear()
    faults.forget_calls()
    assert faults.meet("C") is None
    assert faults.calls() == ["C"]


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RequestLimitExceeded", 503),
        ("InternalError", 500),
        ("ExpiredToken", 400),
        ("RequestExpired", 400),
        ("UnauthorizedOperation", 403),
        ("DependencyViolation", 400),
    ],
)
def test_an_error_is_answered_in_the_protocols_form(cloud: Endpoint, code: str, status: int) -> None:
    calls = [("ec2", "describe_vpcs"), ("sts", "get_caller_identity"), ("iam", "list_account_aliases")]
    calls += [("ssm", "describe_parameters"), ("freetier", "get_account_plan_state")]
    for service, call in calls:
        action = "".join(word.capitalize() for word in call.split("_"))
        hooks.inject(cloud, Fault(action, code, "why", status=status))
        with pytest.raises(ClientError, match="why") as caught:
            getattr(once(cloud, service), call)()
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        getattr(once(cloud, service), call)()


def test_throttling_passes_and_every_call_is_counted(cloud: Endpoint) -> None:
    hooks.inject(cloud, THROTTLED, THROTTLED)
    assert client(cloud, config=PATIENT).describe_vpcs()["Vpcs"]
    client(cloud, "sts").get_caller_identity()
    assert hooks.calls(cloud) == [*["DescribeVpcs"] * 3, "GetCallerIdentity"]
    hooks.reset(cloud)
    assert hooks.calls(cloud) == []


def test_a_connection_is_cut_before_or_after_the_action(cloud: Endpoint) -> None:
    ec2 = once(cloud)

    def made() -> bool:
        return "cut" in [each["GroupName"] for each in ec2.describe_placement_groups()["PlacementGroups"]]

    for after in (False, True):
        hooks.inject(cloud, Fault("CreatePlacementGroup", drop=True, after=after))
        with pytest.raises(ConnectionClosedError):
            ec2.create_placement_group(GroupName="cut", Strategy="cluster")
        assert made() == after
    hooks.inject(cloud, Fault("DeletePlacementGroup", "InternalError", status=500, after=True))
    with pytest.raises(ClientError, match="InternalError"):
        ec2.delete_placement_group(GroupName="cut")
    assert not made()


def test_an_answer_that_hangs_times_out_and_holds_up_nobody(cloud: Endpoint) -> None:
    impatient, patient = (client(cloud, config=ONCE.merge(Config(read_timeout=s))) for s in (0.3, 60))
    hooks.inject(cloud, Fault("DescribeVpcs", hang=100.0))
    with pytest.raises(ReadTimeoutError):
        impatient.describe_vpcs()
    assert patient.describe_vpcs()["Vpcs"]
    hooks.inject(cloud, Fault("DescribeVpcs", hang=0.01))
    assert patient.describe_vpcs()["Vpcs"], "a delay alone is no error"


def test_a_fault_can_be_of_one_zone(cloud: Endpoint) -> None:
    ec2 = once(cloud)
    subnets = {each["AvailabilityZone"]: each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]}
    launch = {"ImageId": "ami-00000000", "InstanceType": "m5.xlarge", "MinCount": 1, "MaxCount": 1}
    full = Fault(
        "RunInstances", "InsufficientInstanceCapacity", "full", status=500, zone="us-east-1b", times=3
    )
    hooks.inject(cloud, full)
    interface = {"DeviceIndex": 0, "SubnetId": subnets["us-east-1b"]}
    for place in (
        {"SubnetId": subnets["us-east-1b"]},
        {"Placement": {"AvailabilityZone": "us-east-1b"}},
        {"NetworkInterfaces": [interface]},
    ):
        with pytest.raises(ClientError, match="InvalidAMIID"):
            ec2.run_instances(**launch, SubnetId=subnets["us-east-1a"])
        with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
            ec2.run_instances(**launch, **place)


def test_what_a_hook_cannot_do_it_says(cloud: Endpoint) -> None:
    with pytest.raises(LocalCloudUnavailable, match="there is no instance i-1"):
        hooks.impair(cloud, "i-1")
    with pytest.raises(LocalCloudUnavailable, match="there is no instance i-1"):
        hooks.interrupt_spot(cloud, "i-1")
