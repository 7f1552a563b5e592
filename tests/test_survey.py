"""The survey against the local cloud's endpoint: what is asked, what may be refused, and what comes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from localcloud_nodes import client

from ppe_jupyter import catalog
from ppe_jupyter.cloud.context import Context
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.ec2.network import way_out
from ppe_jupyter.cloud.ec2.types import described
from ppe_jupyter.cloud.facts import AccountPlan, Rule, Subnet
from ppe_jupyter.cloud.planning import permissions
from ppe_jupyter.cloud.planning.survey import MARKET_KEPT, Survey
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import CloudError, CredentialsError
from ppe_jupyter.localcloud import Endpoint, hooks
from ppe_jupyter.localcloud.hooks import Fault
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

    from ppe_jupyter.manager import Manager

SPEC = ClusterSpec(name="brisk-otter", nodes=3, instance_type="m5.xlarge")
DENIED = {"code": "UnauthorizedOperation", "status": 403}
UNTOLD = [
    Fault("GetServiceQuota", code="AccessDeniedException"),
    Fault("GetAccountPlanState", code="AccessDeniedException"),
    Fault("DescribeRouteTables", **DENIED),  # type: ignore[arg-type]
    Fault("GetProducts", code="AccessDeniedException"),
]


@pytest.fixture
def cloud(local_cloud: Endpoint) -> Iterator[Endpoint]:
    hooks.reset(local_cloud)
    yield local_cloud
    hooks.reset(local_cloud)


def survey(endpoint: Endpoint, settings: Settings, **chosen: Any) -> Survey:
    """A survey by a client that has asked nothing yet."""
    settings = replace(settings, **chosen)
    keys = {"access_key": endpoint.access_key, "secret_key": endpoint.secret_key}
    ec2 = EC2(settings, endpoint_url=endpoint.url, region=endpoint.region, **keys)
    return Survey(Context(ec2=ec2, settings=settings, caller_address=lambda: endpoint.caller_address))


@pytest.fixture
def asking(cloud: Endpoint, settings: Settings, tmp_path: Path) -> Survey:
    return survey(cloud, settings, state_dir=tmp_path)


@pytest.fixture
def boto(cloud: Endpoint) -> EC2Client:
    made: EC2Client = client(cloud)
    return made


@pytest.fixture
def private_subnet(boto: EC2Client) -> Iterator[str]:
    """A subnet of the default VPC whose default route is a NAT gateway."""
    vpc = boto.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
    public = boto.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"][0]
    block = vpc["CidrBlock"].rsplit(".", 2)[0] + ".255.0/28"
    made = boto.create_subnet(
        VpcId=vpc["VpcId"], CidrBlock=block, AvailabilityZone=public["AvailabilityZone"]
    )
    subnet = made["Subnet"]["SubnetId"]
    address = boto.allocate_address(Domain="vpc")["AllocationId"]
    nat = boto.create_nat_gateway(SubnetId=public["SubnetId"], AllocationId=address)["NatGateway"]
    table = boto.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
    boto.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=nat["NatGatewayId"])
    association = boto.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    yield subnet
    boto.disassociate_route_table(AssociationId=association)
    boto.delete_route_table(RouteTableId=table)
    boto.delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])
    boto.release_address(AllocationId=address)
    boto.delete_subnet(SubnetId=subnet)


# -- facts ------------------------------------------------------------------------------------------------------


def test_a_survey_takes_few_calls_and_changes_nothing(asking: Survey, cloud: Endpoint) -> None:
    plan = asking.plan(SPEC, existing=[])
    plan.check()
    calls = hooks.calls(cloud)
    assert len(calls) <= 12, calls
    assert len(set(calls)) == len(calls)
    assert all(call.startswith(("Describe", "Get")) for call in calls)
    hooks.reset(cloud)
    asking.plan(replace(SPEC, spot=True), existing=[])
    assert len(hooks.calls(cloud)) <= 15, "what was asked once is not asked again: identity and price"


def test_facts_are_what_the_endpoint_says(asking: Survey, cloud: Endpoint) -> None:
    facts = asking.facts(replace(SPEC, spot=True), existing=[])
    assert facts.unchecked == ()
    assert facts.instance_type is not None
    assert (facts.instance_type.cores, facts.instance_type.ena) == (2, "required")
    assert {subnet.way_out for subnet in facts.subnets} == {"internet"}
    assert all((subnet.free_addresses or 0) > 100 for subnet in facts.subnets)
    assert facts.image is not None
    assert facts.image.node
    assert facts.usd_per_hour == 0.192
    assert facts.prices.startswith("us-east-1, AWS price list as of 20")
    assert set(facts.spot_usd) == facts.zones
    assert (facts.quotas.keys(), facts.quotas["spot"].used) == ({"on-demand", "spot"}, 0)
    assert (facts.spot_role, facts.account_plan) == (True, AccountPlan(free=False))
    assert (facts.caller_cidr, facts.idle_hours) == (f"{cloud.caller_address}/32", 2.0)


def test_what_is_used_of_a_quota_is_counted(asking: Survey, cloud: Endpoint, boto: EC2Client) -> None:
    others = asking.facts(SPEC, existing=[]).quotas["on-demand"].used
    hooks.set_containerless(cloud, True)
    image = boto.describe_images(Owners=["self"])["Images"][0]["ImageId"]
    ran = boto.run_instances(ImageId=image, InstanceType="m5.xlarge", MinCount=1, MaxCount=1)["Instances"]
    hooks.set_quota(cloud, vcpus=others + 10)
    try:
        quota = asking.facts(SPEC, existing=[]).quotas["on-demand"]
        assert (quota.limit, quota.used) == (others + 10, others + 4)
        with pytest.raises(Exception, match=f"12 vCPUs, {others + 4} in use"):
            asking.plan(replace(SPEC, threads_per_core=2), existing=[]).check()
    finally:
        boto.terminate_instances(InstanceIds=[each["InstanceId"] for each in ran])


def test_what_may_not_be_asked_is_noted_and_no_error(asking: Survey, cloud: Endpoint) -> None:
    hooks.inject(cloud, *UNTOLD)
    plan = asking.plan(SPEC, existing=[])
    plan.check()
    said = [problem.text for problem in plan.problems if problem.grade == "info"]
    assert sorted(said) == [
        "not checked: the quota of vCPUs (GetServiceQuota is not allowed)",
        "not checked: ways out (DescribeRouteTables is not allowed)",
        "not checked: whether the account is on the free plan (GetAccountPlanState is not allowed)",
    ]
    assert f"shipped catalog, us-east-1 prices of {catalog.prices_as_of()}" in plan.review()


@pytest.mark.parametrize("code", ["ExpiredToken", "UnauthorizedOperation"])
def test_what_must_be_asked_raises(asking: Survey, cloud: Endpoint, code: str) -> None:
    hooks.inject(cloud, Fault("DescribeSubnets", code=code, status=403))
    with pytest.raises(CredentialsError, match="refuses DescribeSubnets"):
        asking.plan(SPEC, existing=[])


def test_the_free_plan_is_met(asking: Survey, cloud: Endpoint) -> None:
    hooks.set_account(cloud, free_plan=True)
    plan = asking.plan(SPEC, existing=[])
    assert "free plan, which does not have m5.xlarge" in plan.errors[0]
    small = asking.plan(replace(SPEC, instance_type="t3.small"), existing=[])
    assert small.errors == []
    assert "($100.00 left)" in small.review()


def test_a_type_that_is_none_is_an_error_of_the_plan(asking: Survey) -> None:
    plan = asking.plan(replace(SPEC, instance_type="m5.hugest"), existing=[])
    assert "there is no instance type 'm5.hugest' in this region; like it: m5" in plan.errors[0]


def test_a_private_subnet_is_known_as_one(asking: Survey, private_subnet: str) -> None:
    plan = asking.plan(replace(SPEC, subnet=private_subnet, image="debian-12"), existing=[])
    assert plan.bill is not None
    assert plan.bill.addresses == 0
    assert "leads to no internet gateway" in plan.review()
    assert "your NAT gateway" in plan.review()


def test_what_the_spec_names_is_looked_up(asking: Survey, boto: EC2Client) -> None:
    vpc = boto.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    group = boto.create_security_group(GroupName="theirs", Description="theirs", VpcId=vpc)["GroupId"]
    volume = boto.create_volume(AvailabilityZone="us-east-1b", Size=1)["VolumeId"]
    boto.create_placement_group(GroupName="near", Strategy="cluster")
    named = replace(
        SPEC, security_group=group, volumes=(f"{volume}:/data",), placement="near", instance_profile="none"
    )
    try:
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
        boto.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule, members])  # type: ignore[list-item]
        facts = asking.facts(named, existing=[])
        assert facts.group is not None
        ssh = Rule(protocol="tcp", first_port=22, last_port=22, sources=("0.0.0.0/0",))
        assert ssh in facts.group.rules
        assert any(rule.protocol == "-1" and group in rule.sources for rule in facts.group.rules)
        assert facts.placement_group is not None
        assert (facts.placement_group.strategy, facts.placement_group.zones) == ("cluster", frozenset())
        assert facts.volumes[volume].zone == "us-east-1b"
        assert facts.instance_profile is False
        assert asking.plan(named, existing=[]).errors == [
            "there is no instance profile 'none' in this account"
        ]
        asking.plan(replace(named, instance_profile=None), existing=[]).check()
        missing = replace(named, security_group="sg-00000000", placement="far", volumes=("vol-00000000",))
        assert len(asking.plan(missing, existing=[]).errors) == 4
    finally:
        boto.delete_placement_group(GroupName="near")
        boto.delete_volume(VolumeId=volume)
        boto.delete_security_group(GroupId=group)


# -- permissions --------------------------------------------------------------------------------------------------


def test_dry_run_asks_for_every_kind_of_call_and_does_none(asking: Survey, cloud: Endpoint) -> None:
    before = asking.facts(SPEC, existing=[])
    plan = asking.plan(replace(SPEC, spot=True), existing=[], dry_run=True)
    plan.check()
    asked = set(hooks.calls(cloud))
    assert {"RunInstances", "CreateSecurityGroup", "CreatePlacementGroup", "CreateTags"} <= asked
    assert {"TerminateInstances", "StopInstances", "AuthorizeSecurityGroupIngress"} <= asked
    assert {
        "StartInstances",
        "RebootInstances",
        "RevokeSecurityGroupIngress",
        "DescribeInstanceAttribute",
    } <= asked
    assert asking.facts(SPEC, existing=[]) == before


@pytest.mark.parametrize(
    "action",
    [
        "RunInstances",
        "CreateSecurityGroup",
        "CreateTags",
        "TerminateInstances",
        "StartInstances",
        "RebootInstances",
        "RevokeSecurityGroupIngress",
        "DescribeInstanceAttribute",
    ],
)
def test_a_permission_that_is_missing_forbids_the_launch(
    asking: Survey, cloud: Endpoint, action: str
) -> None:
    hooks.inject(cloud, Fault(action, **DENIED))  # type: ignore[arg-type]
    plan = asking.plan(SPEC, existing=[], dry_run=True)
    assert plan.errors == [f"your credentials do not allow ec2:{action} (IAM)"]
    assert plan.steps == ()


def test_the_action_that_ec2_names_is_named(asking: Survey, cloud: Endpoint) -> None:
    """RunInstances that tags needs CreateTags too (user guide, supported-iam-actions-tagging)."""
    message = (
        "You are not authorized to perform this operation. User: arn:aws:iam::1:user/x is not authorized to perform: "
        "ec2:CreateTags on resource: arn:aws:ec2:us-east-1:1:instance/* because no identity-based policy allows it"
    )
    hooks.inject(cloud, Fault("RunInstances", message=message, **DENIED))  # type: ignore[arg-type]
    plan = asking.plan(SPEC, existing=[], dry_run=True)
    assert plan.errors == ["your credentials do not allow ec2:CreateTags (IAM)"]


def test_what_ec2_finds_wrong_in_a_dry_run_forbids_the_launch(asking: Survey, cloud: Endpoint) -> None:
    hooks.inject(cloud, Fault("RunInstances", code="InvalidParameterCombination", message="not so"))
    (error,) = asking.plan(SPEC, existing=[], dry_run=True).errors
    assert error.startswith("EC2 would refuse it: RunInstances failed: not so")


@pytest.mark.parametrize(
    "changes", [{}, {"spot": True, "instance_profile": "arn:aws:iam::1:instance-profile/x"}]
)
def test_dry_runs_are_of_the_shapes_that_ec2_publishes(asking: Survey, changes: dict[str, Any]) -> None:
    plan = asking.plan(SPEC, existing=[])
    plan = replace(plan, spec=replace(plan.spec, **changes))
    model = botocore.session.get_session().get_service_model("ec2")
    for operation, arguments in permissions.calls(plan):
        shape = model.operation_model(operation).input_shape
        report = ParamValidator().validate({**arguments, "DryRun": True}, shape)
        assert not report.has_errors(), f"{operation}: {report.generate_report()}"


# -- whose, and types ---------------------------------------------------------------------------------------------


def test_whose_money_it_is(asking: Survey, cloud: Endpoint, settings: Settings) -> None:
    assert asking.whose() == "local cloud: free"
    assert hooks.calls(cloud) == []
    paid = survey(cloud, settings, cloud="aws")
    assert paid.whose() == "AWS account 123456789012 (local-cloud), region us-east-1, profile default"
    hooks.inject(cloud, Fault("ListAccountAliases", code="AccessDenied", status=403))
    assert paid.whose() == "AWS account 123456789012, region us-east-1, profile default"
    assert hooks.calls(cloud).count("GetCallerIdentity") == 1


def test_types_are_the_regions_with_prices_of_now(asking: Survey) -> None:
    table = asking.types(min_cores=8, cluster=True, arch="x86_64", sort="price")
    assert re.match(
        r"EC2 and its spot prices at \d\d:\d\d; prices: us-east-1, AWS price list as of ",
        table.attrs["source"],
    )
    row = table.loc["c7a.2xlarge"]
    assert (row["cores"], row["GB"], row["Gbit/s"], row["USD/h"]) == (8, 16.0, 3.125, 0.41056)
    assert row["spot USD/h"] == pytest.approx(0.41056 * 0.35, abs=1e-4)
    assert table["USD/h"].is_monotonic_increasing


def test_types_are_asked_for_once_in_ten_minutes(asking: Survey, cloud: Endpoint) -> None:
    first = asking.types(sort="price")
    asked = hooks.calls(cloud).count("DescribeInstanceTypes")
    again = asking.types(sort="price")
    assert again.equals(first) and again.attrs == first.attrs
    assert hooks.calls(cloud).count("DescribeInstanceTypes") == asked > 0
    later = asking._context.now() + 2 * MARKET_KEPT
    asking._context = replace(asking._context, now=lambda: later)
    assert f"{later.astimezone():%H:%M}" in asking.types().attrs["source"]
    assert hooks.calls(cloud).count("DescribeInstanceTypes") == 2 * asked


def test_types_without_ec2_are_the_shipped_ones(asking: Survey, cloud: Endpoint) -> None:
    hooks.inject(cloud, Fault("DescribeInstanceTypes", **DENIED))  # type: ignore[arg-type]
    table = asking.types(max_price=1)
    assert "shipped catalog" in table.attrs["source"]
    assert "DescribeInstanceTypes" in table.attrs["source"]
    assert table["spot USD/h"].isna().all()
    hooks.inject(cloud, Fault("DescribeSpotPriceHistory", **DENIED))  # type: ignore[arg-type]
    assert asking.types()["spot USD/h"].isna().all()


# -- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "leads"),
    [
        ([], "none"),
        ([{"DestinationCidrBlock": "10.0.0.0/8", "GatewayId": "local"}], "none"),
        ([{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}], "internet"),
        ([{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}], "nat"),
        ([{"DestinationCidrBlock": "0.0.0.0/0", "TransitGatewayId": "tgw-1"}], "other"),
        ([{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "blackhole"}], "none"),
        ([{"DestinationIpv6CidrBlock": "::/0", "GatewayId": "igw-1"}], "none"),  # nodes have IPv4
    ],
)
def test_where_a_default_route_leads(routes: Any, leads: str) -> None:
    assert way_out(routes) == leads


def test_a_type_as_ec2_describes_it() -> None:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceTypeInfo.html, the members that we read."""
    info: Any = {
        "InstanceType": "x99.large",
        "CurrentGeneration": True,
        "FreeTierEligible": True,
        "SupportedUsageClasses": ["on-demand"],
        "SupportedVirtualizationTypes": ["hvm", "paravirtual"],
        "SupportedBootModes": ["uefi"],
        "BurstablePerformanceSupported": True,
        "VCpuInfo": {
            "DefaultVCpus": 8,
            "DefaultCores": 4,
            "DefaultThreadsPerCore": 2,
            "ValidThreadsPerCore": [1, 2],
        },
        "MemoryInfo": {"SizeInMiB": 2048},
        "ProcessorInfo": {"SupportedArchitectures": ["i386", "x86_64"]},
        "InstanceStorageInfo": {"TotalSizeInGB": 80},
        "EbsInfo": {"EncryptionSupport": "unsupported"},
        "NetworkInfo": {
            "EnaSupport": "required",
            "NetworkCards": [{"BaselineBandwidthInGbps": 2.5}, {"BaselineBandwidthInGbps": 2.5}],
        },
        "PlacementGroupInfo": {"SupportedStrategies": ["spread"]},
        "GpuInfo": {"Gpus": [{"Count": 2}]},
    }
    kind = described(info)
    assert (kind.cores, kind.vcpus, kind.memory_gb, kind.valid_threads) == (4, 8, 2.0, (1, 2))
    assert (kind.network_mbps, kind.ena, kind.boot_modes) == (5000, "required", ("uefi",))
    assert (kind.spot, kind.burstable, kind.free_tier, kind.encryption) == (False, True, True, False)
    assert (kind.storage_gb, kind.gpus, kind.cluster, kind.usd_per_hour) == (80, 2, False, None)


def test_a_type_is_asked_of_ec2_and_is_as_shipped_if_that_is_refused(
    manager: Manager, cloud: Endpoint
) -> None:
    asked = manager.instance_type("m5.xlarge")
    assert asked is not None and (asked.ena, "uefi" in asked.boot_modes) == ("required", True)
    assert manager.instance_type("x1.nothing") is None
    hooks.inject(cloud, Fault("DescribeInstanceTypes", **DENIED))  # type: ignore[arg-type]
    assert manager.instance_type("m5.xlarge") == catalog.instance_types()["m5.xlarge"]


def test_the_local_clouds_subnets(asking: Survey, cloud: Endpoint) -> None:
    subnets = asking.facts(SPEC, existing=[]).subnets
    assert all(isinstance(each, Subnet) and each.public for each in subnets)


def test_an_endpoint_that_is_not_there_raises(cloud: Endpoint, settings: Settings) -> None:
    nowhere = replace(cloud, url="http://127.0.0.1:9")
    with pytest.raises(CloudError, match="cannot be asked"):
        survey(nowhere, settings, connect_timeout=0.2, retries=1).facts(SPEC, existing=[])
