"""What an instance learns of itself, as EC2 documents it, and what becomes of it: notices, ways out, reasons, power."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from localcloud_nodes import Nodes, client, until

from ppe_jupyter import ssh
from ppe_jupyter.localcloud import Endpoint, hooks
from ppe_jupyter.localcloud.machines.metadata import MAX_TTL, TTL_HEADER, Tokens, answer

ROOT = "http://169.254.169.254/latest"
GET = """
import sys, urllib.request, urllib.error
def ask(path, method="GET", **headers):
    wish = urllib.request.Request("http://169.254.169.254/" + path, method=method, headers=headers)
    try:
        return urllib.request.urlopen(wish, timeout=10).read().decode()
    except urllib.error.HTTPError as error:
        return str(error.code)
"""
TOKEN = f"""
token = ask("latest/api/token", "PUT", **{{"{TTL_HEADER}": "60"}})
def get(path, **more):
    return ask("latest/" + path, **({{"X-aws-ec2-metadata-token": token}} | more))
"""


@pytest.fixture(scope="module")
def nodes(local_cloud: Endpoint) -> Iterator[Nodes]:
    nodes = Nodes(local_cloud, "metadata-test")
    yield nodes
    nodes.close()
    hooks.reset(local_cloud)


@pytest.fixture(scope="module")
def instance(nodes: Nodes) -> str:
    (instance_id,) = nodes.launch(MetadataOptions={"HttpTokens": "required"})
    return instance_id


@pytest.fixture(scope="module")
def connection(nodes: Nodes, instance: str) -> Iterator[ssh.Connection]:
    with nodes.connect(instance) as connection:
        yield connection


def python(connection: ssh.Connection, expression: str) -> Any:
    """What an expression about the service gives on a node."""
    program = f"{GET}{TOKEN}import json; print(json.dumps({expression}))"
    return json.loads(connection.run("python3 -", stdin=program.encode()).stdout)


def test_paths_and_tokens() -> None:
    texts = {"meta-data/a": b"1", "meta-data/b/c": b"2", "user-data": b"3"}
    assert answer(texts, "meta-data/a") == b"1"
    assert answer(texts, "meta-data/") == b"a\nb/"
    assert answer(texts, "") == b"meta-data/\nuser-data"
    assert answer(texts, "meta-data/d") is answer(texts, "meta") is None
    now = 0.0
    tokens = Tokens(clock=lambda: now)
    token = tokens.issue("10.0.0.1", 60)
    assert tokens.accepts(token, "10.0.0.1")
    assert not tokens.accepts(token, "10.0.0.2")
    now = 60.0
    assert not tokens.accepts(token, "10.0.0.1")


def test_an_instance_learns_what_it_is(nodes: Nodes, instance: str, connection: ssh.Connection) -> None:
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
    described = nodes.describe(instance)
    wanted = {
        "ami-id": described["ImageId"],
        "instance-id": instance,
        "instance-type": described["InstanceType"],
        "local-hostname": described["PrivateDnsName"],
        "local-ipv4": described["PrivateIpAddress"],
        "public-ipv4": described["PublicIpAddress"],
        "placement/availability-zone": described["Placement"]["AvailabilityZone"],
        "public-keys/0/openssh-key": nodes.key.public.strip(),
        "spot/instance-action": "404",
        "spot/termination-time": "404",
        "tags/instance": "404",
    }
    found = python(connection, f"{{name: get('meta-data/' + name) for name in {list(wanted)}}}")
    assert found == wanted
    assert "instance-id\n" in python(connection, "get('meta-data/')")
    assert python(connection, "get('user-data')").startswith("#cloud-config")


def test_tokens_are_required_where_the_launch_says_so(connection: ssh.Connection, nodes: Nodes) -> None:
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    assert python(connection, "ask('latest/meta-data/instance-id')") == "401"
    assert python(connection, "get('meta-data/', **{'X-aws-ec2-metadata-token': 'x'})") == "401"
    for headers, status in (
        ({}, "400"),
        ({TTL_HEADER: str(MAX_TTL + 1)}, "400"),
        ({TTL_HEADER: "60", "X-Forwarded-For": "1.2.3.4"}, "403"),
    ):
        assert python(connection, f"ask('latest/api/token', 'PUT', **{headers})") == status
    (optional,) = nodes.launch()
    with nodes.connect(optional) as other:
        assert python(other, "ask('latest/meta-data/instance-id')") == optional
    nodes.ec2.terminate_instances(InstanceIds=[optional])


def test_a_reclaimed_instance_has_notice_and_goes(nodes: Nodes, local_cloud: Endpoint) -> None:
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    (spot,) = nodes.launch(InstanceMarketOptions={"MarketType": "spot"})
    with nodes.connect(spot) as connection:
        hooks.interrupt_spot(local_cloud, spot, seconds=2)
        notice = json.loads(python(connection, "get('meta-data/spot/instance-action')"))
        assert notice["action"] == "terminate"
        end = datetime.strptime(notice["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        assert abs((end - datetime.now(timezone.utc)).total_seconds()) < 30
    nodes.reaches(spot, "terminated")
    assert nodes.describe(spot)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_without_a_public_address_the_way_out_is_a_nat_gateway(nodes: Nodes) -> None:
    ec2 = nodes.ec2
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    subnet = ec2.create_subnet(
        VpcId=vpc["VpcId"],
        AvailabilityZone="us-east-1a",
        CidrBlock=vpc["CidrBlock"].replace(".0.0/16", ".240.0/24"),
    )["Subnet"]["SubnetId"]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet,
        "Groups": [nodes.group],
        "AssociatePublicIpAddress": False,
    }
    mine: dict[str, Any] = {"NetworkInterfaces": [interface], "SecurityGroupIds": []}
    (instance_id,) = nodes.launch(**mine)
    described = nodes.describe(instance_id)
    assert described.get("PublicIpAddress") is None
    assert described.get("PublicDnsName", "") == ""
    update = "sudo timeout 30 apt-get -q -o Acquire::Retries=0 -o Acquire::http::Timeout=3 update"
    with nodes.connect(instance_id) as connection:

        def gets_out() -> bool:
            return not connection.run(f"{update} > out 2>&1; grep '^Get:\\|^Hit:' out", check=False).status

        assert not gets_out()
        assert python(connection, "get('meta-data/public-ipv4')") == "404"
        assert python(connection, "get('meta-data/instance-id')") == instance_id
        address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        public = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0][
            "SubnetId"
        ]
        gateway = ec2.create_nat_gateway(SubnetId=public, AllocationId=address)["NatGateway"]["NatGatewayId"]
        table = ec2.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway)
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        until(gets_out)


def test_states_have_reasons_and_times(nodes: Nodes) -> None:
    (instance_id,) = nodes.launch()
    nodes.reaches(instance_id, "running")
    first = nodes.describe(instance_id)
    assert first.get("StateTransitionReason", "") == ""
    nodes.ec2.stop_instances(InstanceIds=[instance_id])
    nodes.reaches(instance_id, "stopped")
    stopped = nodes.describe(instance_id)
    assert re.fullmatch(
        r"User initiated \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d GMT\)", stopped["StateTransitionReason"]
    )
    assert stopped["StateReason"] == {
        "Code": "Client.UserInitiatedShutdown",
        "Message": "Client.UserInitiatedShutdown: User initiated shutdown",
    }
    assert stopped.get("PublicIpAddress") is None
    assert stopped["PrivateIpAddress"] == first["PrivateIpAddress"]
    until(lambda: datetime.now(timezone.utc) > first["LaunchTime"] + timedelta(seconds=1))
    nodes.ec2.start_instances(InstanceIds=[instance_id])
    nodes.reaches(instance_id, "running")
    again = nodes.describe(instance_id)
    assert again["LaunchTime"] > first["LaunchTime"]
    assert again["PublicIpAddress"] == first["PublicIpAddress"]
    nodes.ec2.modify_instance_attribute(
        InstanceId=instance_id, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
    )
    assert nodes.run(instance_id, "sudo shutdown -h +1 && sudo shutdown -c && sudo poweroff")[0] in (0, 255)
    nodes.reaches(instance_id, "terminated")
    reason = nodes.describe(instance_id)["StateReason"]
    assert reason["Code"] == "Client.InstanceInitiatedShutdown"


def test_hundreds_of_instances_are_records_without_containers(nodes: Nodes, local_cloud: Endpoint) -> None:
    hooks.set_containerless(local_cloud, True)
    try:
        ids = nodes.launch(200, UserData="")
    finally:
        hooks.set_containerless(local_cloud, False)
    ec2 = client(local_cloud)

    def states() -> set[str]:
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "key-name", "Values": [nodes.name]}], PaginationConfig={"PageSize": 1000}
        )
        reservations = [each for page in pages for each in page["Reservations"]]
        found = {each["InstanceId"]: each["State"]["Name"] for r in reservations for each in r["Instances"]}
        return {found[instance_id] for instance_id in ids}

    until(lambda: states() == {"running"})
    (beside,) = nodes.launch()
    assert nodes.run(beside, "hostname")[0] == 0
    nodes.ec2.stop_instances(InstanceIds=ids[:1])
    nodes.reaches(ids[0], "stopped")
    nodes.ec2.terminate_instances(InstanceIds=[*ids, beside])
    until(lambda: states() == {"terminated"})
    nodes.ids = [each for each in nodes.ids if each not in ids]
