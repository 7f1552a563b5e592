"""EC2's rules in the local cloud, on instances without containers; each test names AWS's page on its subject."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from localcloud_nodes import client, running_vcpus, until

from ppe_jupyter import ssh
from ppe_jupyter.localcloud import Endpoint, hooks
from ppe_jupyter.localcloud.faults import Fault

TYPE = "m5.xlarge"  # 4 vCPUs, 2 cores, USD 0.192 an hour
ZONES = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"]  # that offer c7a.2xlarge
TAGS = [{"Key": "ppe:cluster", "Value": "rules"}]
SPOT = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}}
CAPACITY = "InsufficientInstanceCapacity"


class Rules:
    """A client that tries once, and launches of nothing but records."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.ec2 = client(endpoint, config=Config(retries={"total_max_attempts": 1}))
        self.image = self.ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"]

    def run(self, count: int = 1, **more: Any) -> list[Any]:
        wanted = {"ImageId": self.image, "InstanceType": TYPE, "MinCount": count, "MaxCount": count}
        instances: list[Any] = self.ec2.run_instances(**(wanted | more))["Instances"]
        return instances

    def id(self, **more: Any) -> str:
        return str(self.run(**more)[0]["InstanceId"])

    def describe(self, instance_id: str) -> Any:
        return self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]

    def living(self) -> set[str]:
        """Ids of the instances that are not ended, whoever launched them."""
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=states)
        return {i["InstanceId"] for page in pages for r in page["Reservations"] for i in r["Instances"]}

    def refused(self, code: str, call: Any, **parameters: Any) -> str:
        with pytest.raises(ClientError) as caught:
            call(**parameters)
        assert caught.value.response["Error"]["Code"] == code
        return str(caught.value.response["Error"]["Message"])


@pytest.fixture
def rules(local_cloud: Endpoint) -> Iterator[Rules]:
    hooks.reset(local_cloud)
    hooks.set_containerless(local_cloud, True)
    rules = Rules(local_cloud)
    others = rules.living()
    yield rules
    if left := rules.living() - others:
        rules.ec2.terminate_instances(InstanceIds=sorted(left))
    hooks.reset(local_cloud)


def where(**filters: str) -> list[dict[str, Any]]:
    return [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in filters.items()]


# -- spot ---------------------------------------------------------------------------------------------------


def test_a_spot_instance_has_a_request_and_cannot_be_stopped(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/spot-request-status.html, .../stop-spot-instances (persistent requests only)"""
    tagged = [{"ResourceType": "spot-instances-request", "Tags": TAGS}]
    (instance,) = rules.run(InstanceMarketOptions=SPOT, TagSpecifications=tagged)
    instance_id = instance["InstanceId"]
    assert instance["InstanceLifecycle"] == rules.describe(instance_id)["InstanceLifecycle"] == "spot"
    (found,) = rules.ec2.describe_instances(Filters=where(instance_lifecycle="spot"))["Reservations"]
    assert [each["InstanceId"] for each in found["Instances"]] == [instance_id]
    find = {"Filters": [*where(instance_id=instance_id), {"Name": "tag:ppe:cluster", "Values": ["rules"]}]}
    (request,) = rules.ec2.describe_spot_instance_requests(**find)["SpotInstanceRequests"]
    assert request["SpotInstanceRequestId"] == instance["SpotInstanceRequestId"]
    assert (request["State"], request["Status"]["Code"], request["Type"]) == (
        "active",
        "fulfilled",
        "one-time",
    )
    assert request["Tags"] == TAGS
    message = rules.refused("UnsupportedOperation", rules.ec2.stop_instances, InstanceIds=[instance_id])
    assert "one-time Spot Instance request" in message
    ids = [request["SpotInstanceRequestId"]]
    rules.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=ids)
    (request,) = rules.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=ids)["SpotInstanceRequests"]
    assert request["Status"]["Code"] == "request-canceled-and-instance-running"
    rules.ec2.terminate_instances(InstanceIds=[instance_id])
    (request,) = rules.ec2.describe_spot_instance_requests(SpotInstanceRequestIds=ids)["SpotInstanceRequests"]
    assert request["Status"]["Code"] == "instance-terminated-by-user"
    nothing = {"SpotInstanceRequestIds": ["sir-00000000"]}
    rules.refused(
        "InvalidSpotInstanceRequestID.NotFound", rules.ec2.describe_spot_instance_requests, **nothing
    )


def test_an_interrupted_spot_instance_is_marked_and_terminated(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/spot-instance-termination-notices.html"""
    steady, doomed = rules.id(), rules.id(InstanceMarketOptions=SPOT)
    with pytest.raises(Exception, match="no spot instance"):
        hooks.interrupt_spot(rules.endpoint, steady)

    def status() -> str:
        found = rules.ec2.describe_spot_instance_requests(Filters=where(instance_id=doomed))
        return str(found["SpotInstanceRequests"][0]["Status"]["Code"])

    hooks.interrupt_spot(rules.endpoint, doomed, seconds=600)
    assert status() == "marked-for-termination"
    assert rules.describe(doomed)["State"]["Name"] == "running"
    hooks.interrupt_spot(rules.endpoint, doomed, seconds=0)
    until(lambda: status() == "instance-terminated-no-capacity")
    until(lambda: rules.describe(doomed)["State"]["Name"] == "terminated")
    assert rules.describe(doomed)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_spot_prices_are_below_on_demand_and_a_maximum_below_them_is_refused(rules: Rules) -> None:
    """AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html, errors-overview.html (SpotMaxPriceTooLow)"""
    history = rules.ec2.describe_spot_price_history(
        InstanceTypes=[TYPE], ProductDescriptions=["Linux/UNIX"], MaxResults=1000
    )["SpotPriceHistory"]
    prices = {each["AvailabilityZone"]: float(each["SpotPrice"]) for each in history}
    assert prices["us-east-1a"] == pytest.approx(0.35 * 0.192)
    assert all(0 < price < 0.192 for price in prices.values())
    found = rules.ec2.describe_spot_price_history(Filters=where(availability_zone="us-east-1b"), MaxResults=5)
    assert {each["AvailabilityZone"] for each in found["SpotPriceHistory"]} == {"us-east-1b"}
    assert found["NextToken"]
    cheap = {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.01"}}
    assert "0.0672" in rules.refused("SpotMaxPriceTooLow", rules.run, InstanceMarketOptions=cheap)
    rules.run(InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0672"}})
    persistent = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "persistent"}}
    rules.refused("InvalidParameterCombination", rules.run, InstanceMarketOptions=persistent)


def test_spot_wants_the_service_linked_role(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/service-linked-roles-spot-instance-requests.html"""
    iam, role = client(rules.endpoint, "iam"), "AWSServiceRoleForEC2Spot"
    found = iam.get_role(RoleName=role)["Role"]
    iam.delete_role(RoleName=role)
    try:
        code = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
        rules.refused(code, rules.run, InstanceMarketOptions=SPOT)
    finally:
        iam.create_role(RoleName=role, Path=found["Path"], AssumeRolePolicyDocument="{}")


# -- capacity, quotas, offers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [CAPACITY, "InsufficientHostCapacity", "MaxSpotInstanceCountExceeded", "VcpuLimitExceeded"]
)
def test_capacity_is_of_a_zone_a_market_and_a_code(rules: Rules, code: str) -> None:
    """AWSEC2/latest/APIReference/errors-overview.html"""
    launch = {"InstanceType": "c7a.2xlarge", "Placement": {"AvailabilityZone": "us-east-1a"}}
    hooks.set_capacity(rules.endpoint, zone="us-east-1a", available=False, market="on-demand", code=code)
    message = rules.refused(code, rules.run, **launch)
    if code == CAPACITY:
        assert message.endswith(f"or choosing {', '.join(ZONES[1:])}.")
    rules.run(**launch, InstanceMarketOptions=SPOT)
    rules.refused("DryRunOperation", rules.run, **launch, DryRun=True)
    (elsewhere,) = rules.run(InstanceType="c7a.2xlarge")
    assert elsewhere["Placement"]["AvailabilityZone"] == "us-east-1b"
    hooks.set_capacity(rules.endpoint, zone="us-east-1a", available=True, market="on-demand")
    rules.run(**launch)
    hooks.set_capacity(rules.endpoint, zone=None, available=False, market="spot")
    assert "no Spot capacity" in rules.refused(CAPACITY, rules.run, **launch, InstanceMarketOptions=SPOT)


def test_quotas_count_the_vcpus_that_run(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits"""
    limit = 8 + running_vcpus(rules.ec2)
    hooks.set_quota(rules.endpoint, vcpus=limit)
    hooks.set_quota(rules.endpoint, vcpus=4, market="spot")
    message = rules.refused("VcpuLimitExceeded", rules.run, count=3)
    assert f"your current vCPU limit of {limit} allows" in message
    ids = [each["InstanceId"] for each in rules.run(2)]
    rules.refused("VcpuLimitExceeded", rules.run)
    rules.run(InstanceMarketOptions=SPOT)
    rules.refused("MaxSpotInstanceCountExceeded", rules.run, InstanceMarketOptions=SPOT)
    rules.run(InstanceType="g4dn.xlarge")  # of another quota
    rules.ec2.terminate_instances(InstanceIds=ids[:1])
    rules.run()


def test_what_is_not_offered_or_not_free_or_unknown_is_refused(rules: Rules) -> None:
    """errors-overview.html (Unsupported); awsaccountbilling/latest/aboutv2/free-tier-plans.html"""
    subnets = rules.ec2.describe_subnets(Filters=where(availability_zone="us-east-1e"))["Subnets"]
    c7a = {"InstanceType": "c7a.2xlarge", "SubnetId": subnets[0]["SubnetId"]}
    assert f"or choosing {', '.join(ZONES)}." in rules.refused("Unsupported", rules.run, **c7a)
    rules.refused("InvalidParameterValue", rules.run, IamInstanceProfile={"Name": "nobody"})
    hooks.set_account(rules.endpoint, free_plan=True)
    assert "not eligible for Free Tier" in rules.refused("InvalidParameterCombination", rules.run)
    rules.run(InstanceType="t3.micro")


def test_every_instance_has_the_launchs_profile(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html"""
    iam = client(rules.endpoint, "iam")
    profile = iam.create_instance_profile(InstanceProfileName="reader")["InstanceProfile"]
    arns = [each["IamInstanceProfile"]["Arn"] for each in rules.run(2, IamInstanceProfile={"Name": "reader"})]
    assert arns == [profile["Arn"]] * 2


# -- limits, pages, dry runs ----------------------------------------------------------------------------------


def test_limits_of_filters_and_tags(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/Using_Filtering.html, .../Using_Tags.html#tag-restrictions, API_CreateTags.html"""
    instance_id = rules.id()
    many = [{"Name": "instance-id", "Values": [f"i-{number:017x}" for number in range(201)]}]
    rules.refused("FilterLimitExceeded", rules.ec2.describe_instances, Filters=many)
    many[0]["Values"].pop()
    assert rules.ec2.describe_instances(Filters=many)["Reservations"] == []
    tags = [{"Key": f"key{number}", "Value": ""} for number in range(51)]
    tag = rules.ec2.create_tags
    rules.refused("TagLimitExceeded", tag, Resources=[instance_id], Tags=tags)
    rules.refused(
        "TagLimitExceeded", rules.run, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )
    rules.refused("InvalidParameterValue", tag, Resources=[instance_id] * 1001, Tags=TAGS)
    rules.refused("InvalidInstanceID.NotFound", tag, Resources=["i-0123456789abcdef0"], Tags=TAGS)
    for key, value in (("aws:mine", ""), ("k" * 129, ""), ("key", "v" * 257)):
        bad = [{"Key": key, "Value": value}]
        rules.refused("InvalidParameterValue", tag, Resources=[instance_id], Tags=bad)


def test_answers_come_in_pages(rules: Rules) -> None:
    """AWSEC2/latest/APIReference/API_DescribeInstances.html, API_DescribeInstanceTypes.html (5 to 100)"""
    others = rules.living()
    ids = {each["InstanceId"] for each in rules.run(12)}
    ask, found = {"Filters": where(instance_state_name="running"), "MaxResults": 5}, []
    while ask:
        answer = rules.ec2.describe_instances(**ask)
        page = [each["InstanceId"] for found in answer["Reservations"] for each in found["Instances"]]
        assert len(page) <= 5
        found += page
        ask = ask | {"NextToken": answer["NextToken"]} if "NextToken" in answer else {}
    assert sorted(found) == sorted(ids | others)
    for size in (4, 1001):
        rules.refused("InvalidParameterValue", rules.ec2.describe_instances, MaxResults=size)
    rules.refused(
        "InvalidParameterCombination", rules.ec2.describe_instances, MaxResults=5, InstanceIds=[*ids]
    )
    types = rules.ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 100})
    pages = [page["InstanceTypes"] for page in types]
    assert len(pages[0]) == 100
    assert len({each["InstanceType"] for page in pages for each in page}) > 700
    rules.refused("InvalidParameterValue", rules.ec2.describe_instance_types, MaxResults=101)


def test_a_dry_run_changes_nothing(rules: Rules) -> None:
    """AWSEC2/latest/APIReference/CommonParameters.html: DryRunOperation, or UnauthorizedOperation"""
    instance_id, name = rules.id(), {"GroupName": "dry"}
    ec2 = rules.ec2
    calls: list[tuple[Any, dict[str, Any]]] = [
        (ec2.run_instances, {"ImageId": rules.image, "MinCount": 1, "MaxCount": 1, "InstanceType": TYPE}),
        (ec2.create_security_group, {**name, "Description": "dry"}),
        (ec2.create_placement_group, {**name, "Strategy": "cluster"}),
        (ec2.create_tags, {"Resources": [instance_id], "Tags": TAGS}),
        (ec2.terminate_instances, {"InstanceIds": [instance_id]}),
        (ec2.stop_instances, {"InstanceIds": [instance_id]}),
        (ec2.reboot_instances, {"InstanceIds": [instance_id]}),
        (ec2.describe_instances, {}),
        (ec2.describe_instance_types, {}),
        (ec2.create_volume, {"AvailabilityZone": "us-east-1a", "Size": 1}),
        (ec2.create_image, {"InstanceId": instance_id, "Name": "dry"}),
    ]
    before = rules.describe(instance_id)
    for call, parameters in calls:
        with pytest.raises(ClientError) as caught:
            call(**parameters, DryRun=True)
        assert caught.value.response["Error"]["Code"] == "DryRunOperation", call
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert rules.describe(instance_id) == before
    assert ec2.describe_security_groups(Filters=where(group_name="dry"))["SecurityGroups"] == []
    groups = ec2.describe_placement_groups()["PlacementGroups"]
    assert "dry" not in [each["GroupName"] for each in groups]
    hooks.inject(rules.endpoint, Fault("RunInstances", "UnauthorizedOperation", status=403))
    rules.refused("UnauthorizedOperation", rules.run, DryRun=True)
    rules.refused("InvalidAMIID.NotFound", rules.run, ImageId="ami-0123456789abcdef0", DryRun=True)


# -- instances ------------------------------------------------------------------------------------------------


def test_status_checks_pass_after_a_while_or_fail(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/monitoring-system-instance-status-check.html"""
    instance_id = rules.id()

    def status() -> tuple[str, str]:
        answer = rules.ec2.describe_instance_status(InstanceIds=[instance_id])
        (found,) = answer["InstanceStatuses"]
        assert found["InstanceId"] == instance_id
        return found["SystemStatus"]["Status"], found["InstanceStatus"]["Status"]

    assert status() == ("initializing", "initializing")
    until(lambda: status() == ("ok", "ok"))
    hooks.impair(rules.endpoint, instance_id)
    assert status() == ("ok", "impaired")
    broken = [{"Name": "instance-status.status", "Values": ["impaired"]}]
    (found,) = rules.ec2.describe_instance_status(Filters=broken)["InstanceStatuses"]
    assert found["InstanceId"] == instance_id
    hooks.impair(rules.endpoint, instance_id, impaired=False)
    assert status() == ("ok", "ok")
    rules.ec2.terminate_instances(InstanceIds=[instance_id])
    assert rules.ec2.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"] == []
    (found,) = rules.ec2.describe_instance_status(InstanceIds=[instance_id], IncludeAllInstances=True)[
        "InstanceStatuses"
    ]
    assert found["InstanceStatus"]["Status"] == "not-applicable"


def test_states_are_answered_as_they_are(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html"""
    ids = [rules.id()]
    start, stop, end = rules.ec2.start_instances, rules.ec2.stop_instances, rules.ec2.terminate_instances
    (change,) = start(InstanceIds=ids)["StartingInstances"]
    assert change["CurrentState"]["Name"] == change["PreviousState"]["Name"] == "running"
    stop(InstanceIds=ids)
    until(lambda: rules.describe(ids[0])["State"]["Name"] == "stopped")
    (change,) = stop(InstanceIds=ids)["StoppingInstances"]
    assert change["CurrentState"]["Name"] == "stopped"
    rules.refused("IncorrectInstanceState", rules.ec2.reboot_instances, InstanceIds=ids)
    end(InstanceIds=ids)
    until(lambda: rules.describe(ids[0])["State"]["Name"] == "terminated")
    (change,) = end(InstanceIds=ids)["TerminatingInstances"]
    assert change["CurrentState"]["Name"] == change["PreviousState"]["Name"] == "terminated"
    for call in (start, stop):
        rules.refused("IncorrectInstanceState", call, InstanceIds=ids)


def test_attributes_of_an_instance(rules: Rules) -> None:
    """API_ModifyInstanceAttribute.html, API_DescribeInstanceAttribute.html, API_Placement.html"""
    rules.ec2.create_placement_group(GroupName="attributes", Strategy="cluster")
    group = {"GroupName": "attributes"}
    (instance,) = rules.run(InstanceType="c7a.2xlarge", Placement=group, UserData="#cloud-config")
    ask = {"InstanceId": instance["InstanceId"]}
    found = rules.ec2.describe_instance_attribute(**ask, Attribute="userData")
    assert base64.b64decode(found["UserData"]["Value"]) == b"#cloud-config"
    behavior = {"Attribute": "instanceInitiatedShutdownBehavior"}
    rules.ec2.modify_instance_attribute(**ask, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
    found = rules.ec2.describe_instance_attribute(**ask, **behavior)
    assert found["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
    rules.ec2.modify_instance_attribute(**ask, **behavior, Value="stop")
    found = rules.ec2.describe_instance_attribute(**ask, **behavior)
    assert found["InstanceInitiatedShutdownBehavior"]["Value"] == "stop"
    rules.refused("InvalidParameterValue", rules.ec2.modify_instance_attribute, **ask, **behavior, Value="x")
    described = rules.describe(instance["InstanceId"])
    assert described["SecurityGroups"], "a change of the behavior is none of the groups"
    assert described["Placement"]["GroupName"] == "attributes"
    rules.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    rules.ec2.delete_placement_group(**group)


def test_a_new_instance_may_not_be_seen_at_once(rules: Rules) -> None:
    """AWSEC2/latest/APIReference/query-api-troubleshooting.html#eventual-consistency"""
    hooks.set_visibility(rules.endpoint, calls=3)
    instance_id = rules.id()
    rules.refused("InvalidInstanceID.NotFound", rules.ec2.describe_instances, InstanceIds=[instance_id])
    assert rules.ec2.describe_instances(Filters=where(instance_id=instance_id))["Reservations"] == []
    rules.refused("InvalidInstanceID.NotFound", rules.ec2.create_tags, Resources=[instance_id], Tags=TAGS)
    assert rules.describe(instance_id)["InstanceId"] == instance_id


def test_500_instances_are_launched_and_described_in_two_calls(rules: Rules) -> None:
    others = rules.living()
    launched = rules.run(500)
    answer = rules.ec2.describe_instances(MaxResults=1000, Filters=where(instance_state_name="running"))
    described = [each for reservation in answer["Reservations"] for each in reservation["Instances"]]
    assert {each["InstanceId"] for each in described} - others == {each["InstanceId"] for each in launched}
    assert len({each["PrivateIpAddress"] for each in described}) == len(described) == 500 + len(others)
    assert hooks.calls(rules.endpoint)[-2:] == ["RunInstances", "DescribeInstances"]


# -- the account ----------------------------------------------------------------------------------------------


def test_everything_is_tagged_when_made_and_found_by_its_tags(rules: Rules) -> None:
    """AWSEC2/latest/UserGuide/Using_Tags.html#tag-on-create, API_Filter.html"""
    ec2 = rules.ec2
    tags = [{"Key": "rules:of", "Value": "tags"}]

    def tagged(kind: str) -> dict[str, Any]:
        return {"TagSpecifications": [{"ResourceType": kind, "Tags": tags}]}

    public = ssh.generate_key_pair().public.encode()
    ec2.import_key_pair(KeyName="tagged", PublicKeyMaterial=public, **tagged("key-pair"))
    group = ec2.create_security_group(GroupName="tagged", Description="tagged", **tagged("security-group"))
    placement = {"GroupName": "tagged", "Strategy": "cluster", **tagged("placement-group")}
    placement_id = ec2.create_placement_group(**placement)["PlacementGroup"]["GroupId"]
    ec2.delete_tags(Resources=[placement_id], Tags=tags)
    ec2.create_tags(Resources=[placement_id], Tags=tags)
    (found,) = ec2.describe_tags(Filters=where(resource_type="placement-group", value="tags"))["Tags"]
    assert (found["ResourceId"], found["Value"]) == (placement_id, "tags")
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, **tagged("volume"))["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1})
    lists = {
        "KeyPairs": ec2.describe_key_pairs,
        "SecurityGroups": ec2.describe_security_groups,
        "PlacementGroups": ec2.describe_placement_groups,
        "Volumes": ec2.describe_volumes,
    }
    by_value = [{"Name": "tag:rules:of", "Values": ["tags"]}]
    for key, describe in lists.items():
        for filters in (by_value, where(tag_key="rules:of")):
            (found,) = describe(Filters=filters)[key]
            assert found["Tags"] == tags, key
        assert describe(Filters=[{"Name": "tag:rules:of", "Values": ["other"]}])[key] == []
    ec2.delete_volume(VolumeId=volume)
    ec2.delete_placement_group(GroupName="tagged")
    ec2.delete_security_group(GroupId=group["GroupId"])
    ec2.delete_key_pair(KeyName="tagged")
    for key, describe in {**lists, "Tags": ec2.describe_tags}.items():
        ours = where(value="tags") if key == "Tags" else by_value
        assert describe(Filters=ours)[key] == [], key


def test_a_rule_is_described_and_revoked_alone(rules: Rules) -> None:
    """AWSEC2/latest/APIReference/API_RevokeSecurityGroupIngress.html"""
    ec2 = rules.ec2
    group = ec2.create_security_group(GroupName="rules", Description="rules")["GroupId"]
    here = {"CidrIp": "192.0.2.1/32", "Description": "home"}
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [here]}
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission, members])
    first, second = made["SecurityGroupRules"]
    assert (first["CidrIpv4"], first["Description"]) == ("192.0.2.1/32", "home")
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert found["IpPermissions"][0]["IpRanges"] == [here]
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[first["SecurityGroupRuleId"]])
    left = ec2.describe_security_group_rules(Filters=where(group_id=group))["SecurityGroupRules"]
    assert [each["SecurityGroupRuleId"] for each in left if not each["IsEgress"]] == [
        second["SecurityGroupRuleId"]
    ]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[members])
    revoke = {"GroupId": group, "IpPermissions": [members]}
    rules.refused("InvalidPermission.NotFound", ec2.revoke_security_group_ingress, **revoke)
    ec2.delete_security_group(GroupId=group)


def test_the_default_vpc_has_a_way_out(rules: Rules) -> None:
    """vpc/latest/userguide/default-vpc-components.html"""
    (vpc,) = rules.ec2.describe_vpcs(Filters=where(is_default="true"))["Vpcs"]
    main = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}, {"Name": "association.main", "Values": ["true"]}]
    (table,) = rules.ec2.describe_route_tables(Filters=main)["RouteTables"]
    (out,) = [each for each in table["Routes"] if each["DestinationCidrBlock"] == "0.0.0.0/0"]
    assert out["GatewayId"].startswith("igw-")
    assert all(each["MapPublicIpOnLaunch"] for each in rules.ec2.describe_subnets()["Subnets"])
    gateways = rules.ec2.describe_nat_gateways()["NatGateways"]  # another test's is listed for an hour
    assert all(each["State"] == "deleted" for each in gateways)


def test_another_region_is_listed_and_refused(rules: Rules) -> None:
    """IAM/latest/UserGuide/reference_sigv-troubleshooting.html (credential scope)"""
    regions = [each["RegionName"] for each in rules.ec2.describe_regions()["Regions"]]
    assert {"us-east-1", "eu-west-1"} <= set(regions)
    elsewhere = client(rules.endpoint, region_name="eu-west-1")
    message = rules.refused("AuthFailure", elsewhere.describe_instances)
    assert "should be scoped to a valid region, not 'eu-west-1'" in message
