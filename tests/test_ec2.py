"""The EC2 adapter: what it sends against EC2's rules, which errors come back, the local cloud's endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from ppe_jupyter import ssh
from ppe_jupyter.cloud import tags
from ppe_jupyter.cloud.ec2 import EC2, shapes
from ppe_jupyter.cloud.facts import Image, Subnet
from ppe_jupyter.cloud.records import Cost
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import CapacityError, CloudError, CredentialsError
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

# -- request ↔ constraint -----------------------------------------------------------------------------------

IMAGE = Image(
    image_id="ami-0123456789abcdef0",
    name="node",
    architecture="x86_64",
    login_user="admin",
    node=True,
    root_device="/dev/xvda",
    root_gb=8,
)
SUBNET = Subnet(
    subnet_id="subnet-12345678", vpc_id="vpc-1", zone="us-east-1a", cidr="10.0.0.0/20", public=True
)
REQUEST = shapes.InstanceRequest(
    count=3,
    instance_type="m5.xlarge",
    image=IMAGE,
    group_id="sg-12345678",
    placement_group="ppe-brisk-otter",
    key_name="ppe-alice-laptop-12345678",
    user_data=b"#cloud-config\n{}",
    root_gb=30,
    cores=2,
    instance_tags={"ppe:cluster": "brisk-otter", "ppe:state": "pending"},
    other_tags={"ppe:cluster": "brisk-otter"},
)
PROFILE = "arn:aws:iam::123456789012:instance-profile/nodes"
TOKEN = "a" * 64
REQUESTS = {
    "default": REQUEST,
    "least": replace(REQUEST, placement_group=None, cores=None, encrypted=False, imdsv2=False),
    "spot": replace(REQUEST, spot=True, spot_max_usd=0.0421),
    "spot at any price": replace(REQUEST, spot=True),
    "private": replace(REQUEST, public=False, root_type="gp2", instance_profile="nodes"),
    "profile by ARN": replace(REQUEST, instance_profile=PROFILE),
}
SENT: dict[str, Any] = {
    name: shapes.run_arguments(each, SUBNET, client_token=TOKEN) for name, each in REQUESTS.items()
}
SPOT_OPTIONS = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_of_the_shape_that_ec2_publishes(name: str) -> None:
    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    assert shape is not None
    # The model is of what is sent, where botocore has put base64 in place of the bytes.
    sent = {**SENT[name], "UserData": "I2Nsb3VkLWNvbmZpZw=="}
    report = ParamValidator().validate(sent, shape)
    assert not report.has_errors(), report.generate_report()


def tagged(sent: Any) -> set[str]:
    return {each["ResourceType"] for each in sent["TagSpecifications"]}


# Pages of the EC2 user guide and of the API reference, what they say, which request, and that it holds.
RULES: list[tuple[str, str, str, Callable[[Any], bool]]] = [
    (
        "instance-cpu-options-rules",
        "you must specify both the number of CPU cores and threads per core",
        "default",
        lambda sent: set(sent["CpuOptions"]) == {"CoreCount", "ThreadsPerCore"},
    ),
    (
        "instance-cpu-options-rules",
        "to disable multithreading, specify one thread per core",
        "default",
        lambda sent: sent["CpuOptions"] == {"CoreCount": 2, "ThreadsPerCore": 1},
    ),
    (
        "instance-cpu-options-rules",
        "CPU options can be specified during launch only; left out where the type has no choice",
        "least",
        lambda sent: "CpuOptions" not in sent,
    ),
    (
        "placement-groups",
        "use a single launch request to launch the number of instances that you need",
        "default",
        lambda sent: sent["MinCount"] == sent["MaxCount"] == 3,
    ),
    (
        "placement-groups",
        "a cluster placement group can't span multiple Availability Zones: one subnet a request",
        "default",
        lambda sent: sent["Placement"] == {"GroupName": "ppe-brisk-otter"} and "SubnetId" in sent,
    ),
    (
        "placement-groups",
        "not all instance types can be in one: then none is named",
        "least",
        lambda sent: "Placement" not in sent,
    ),
    (
        "placement-groups",
        "you can't launch a Spot Instance that is configured to stop or hibernate on interruption in one",
        "spot",
        lambda sent: (
            sent["InstanceMarketOptions"]["SpotOptions"]["InstanceInterruptionBehavior"] == "terminate"
        ),
    ),
    (
        "API_SpotMarketOptions",
        "the maximum hourly price is a string of USD, more than 0.001",
        "spot",
        lambda sent: (
            sent["InstanceMarketOptions"]
            == {"MarketType": "spot", "SpotOptions": {**SPOT_OPTIONS, "MaxPrice": "0.042100"}}
        ),
    ),
    (
        "API_SpotMarketOptions",
        "if you do not specify it, you pay the current Spot price",
        "spot at any price",
        lambda sent: sent["InstanceMarketOptions"]["SpotOptions"] == SPOT_OPTIONS,
    ),
    (
        "spot-instance-termination",
        "a one-time Spot Instance cannot stop: shutting it down terminates it",
        "spot",
        lambda sent: sent["InstanceInitiatedShutdownBehavior"] == "terminate",
    ),
    (
        "API_RunInstances",
        "TagSpecifications: instances, volumes, Spot Instance requests and network interfaces only",
        "spot",
        lambda sent: tagged(sent) == {"instance", "volume", "network-interface", "spot-instances-request"},
    ),
    (
        "API_RunInstances",
        "only what the request creates can be tagged by it",
        "default",
        lambda sent: tagged(sent) == {"instance", "volume", "network-interface"},
    ),
    (
        "Using_Tags",
        "a tag has a key of 1 to 128 and a value of up to 256 characters",
        "default",
        lambda sent: all(
            0 < len(tag["Key"]) <= 128 and len(tag["Value"]) <= 256
            for each in sent["TagSpecifications"]
            for tag in each["Tags"]
        ),
    ),
    (
        "API_RunInstances",
        "if you specify a network interface, specify security groups and subnet as part of it",
        "private",
        lambda sent: not {"SecurityGroupIds", "SubnetId"} & set(sent) and len(sent["NetworkInterfaces"]) == 1,
    ),
    (
        "API_InstanceNetworkInterfaceSpecification",
        "a public address can be assigned to a new interface for eth0 only",
        "private",
        lambda sent: (
            sent["NetworkInterfaces"][0]
            == {
                "DeviceIndex": 0,
                "SubnetId": "subnet-12345678",
                "Groups": ["sg-12345678"],
                "AssociatePublicIpAddress": False,
                "DeleteOnTermination": True,
            }
        ),
    ),
    (
        "API_IamInstanceProfileSpecification",
        "an instance profile is named by name or by ARN",
        "private",
        lambda sent: sent["IamInstanceProfile"] == {"Name": "nodes"},
    ),
    (
        "API_IamInstanceProfileSpecification",
        "an instance profile is named by name or by ARN",
        "profile by ARN",
        lambda sent: sent["IamInstanceProfile"] == {"Arn": PROFILE},
    ),
    (
        "Run_Instance_Idempotency",
        "a client token has up to 64 ASCII characters",
        "default",
        lambda sent: len(sent["ClientToken"]) <= 64 and sent["ClientToken"].isascii(),
    ),
    (
        "configuring-instance-metadata-options",
        "IMDSv2 is required when HttpTokens is required; hop limit 1 keeps containers out",
        "default",
        lambda sent: sent["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    ),
    (
        "configuring-instance-metadata-options",
        "IMDSv1 is allowed when HttpTokens is optional",
        "least",
        lambda sent: sent["MetadataOptions"]["HttpTokens"] == "optional",
    ),
    (
        "terminating-instances",
        "an instance that shuts itself down is terminated when told so at launch",
        "default",
        lambda sent: sent["InstanceInitiatedShutdownBehavior"] == "terminate",
    ),
    (
        "EBSEncryption",
        "the root volume is encrypted, gp3, and goes with the instance",
        "default",
        lambda sent: (
            sent["BlockDeviceMappings"]
            == [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {
                        "VolumeSize": 30,
                        "VolumeType": "gp3",
                        "Encrypted": True,
                        "DeleteOnTermination": True,
                    },
                }
            ]
        ),
    ),
    (
        "EBSEncryption",
        "you can't create an unencrypted volume from an encrypted snapshot: nothing is said then",
        "least",
        lambda sent: "Encrypted" not in sent["BlockDeviceMappings"][0]["Ebs"],
    ),
]


@pytest.mark.parametrize(("page", "rule", "name", "holds"), RULES)
def test_requests_keep_the_rules_of_the_documentation(
    page: str, rule: str, name: str, holds: Callable[[Any], bool]
) -> None:
    assert holds(SENT[name]), f"{page}: {rule}"


def test_all_tags_of_a_launch_fit_a_resource() -> None:
    """Using_Tags: 50 tags on a resource, those of a running cluster of the greatest size included."""
    spec = ClusterSpec(
        name="x",
        nodes=1000,
        tags={f"key{number}": "v" for number in range(10)},
        apt_packages=tuple(f"package-{number}" for number in range(100, 207)),
    )
    assert 0 <= tags.MAX_SPEC_TAGS * 256 - len(spec.to_tag()) < 20
    now = datetime.now(timezone.utc)
    common = tags.for_everything(spec, name="x", owner="o" * 300, launch="l", busy_until=now)
    cost = Cost(spent_usd=0.0, usd_per_hour=1.0, since=now)
    launched = tags.for_instances(
        common, slots=2, login_user="admin", launch_host_key="k", cost=cost, price=1.0
    )
    key = ssh.generate_key_pair().public
    running = tags.when_running(dict.fromkeys(range(1000), key))
    sent = {**launched, **running, **tags.of_master("i-1")}
    assert len(sent) <= 50
    assert all(len(value) <= 256 for value in sent.values())


# -- errors -------------------------------------------------------------------------------------------------

ERROR = (
    "<Response><Errors><Error><Code>{code}</Code><Message>EC2's words</Message></Error></Errors>"
    "<RequestID>1</RequestID></Response>"
)
NO_KEY_PAIRS = (
    '<DescribeKeyPairsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
    "<requestId>1</requestId><keySet/></DescribeKeyPairsResponse>"
)


class Script:
    """An endpoint that answers as it is told, the last answer for ever, and counts."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.calls = 0
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = script.answers[min(script.calls, len(script.answers) - 1)]
                script.calls += 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.server.shutdown()
    script.server.server_close()
    script.thread.join()


@pytest.fixture
def scripted(script: Script) -> EC2:
    return EC2(Settings(), endpoint_url=script.url, access_key="k", secret_key="s", region="us-east-1")


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (500, "InsufficientInstanceCapacity", CapacityError, "EC2's words"),
        (400, "Unsupported", CapacityError, "EC2's words"),
        (400, "VcpuLimitExceeded", CapacityError, "EC2's words"),
        (403, "UnauthorizedOperation", CredentialsError, "refuses RunInstances"),
        (401, "AuthFailure", CredentialsError, "refuses RunInstances"),
        (400, "RequestExpired", CredentialsError, "refuses RunInstances"),
        (400, "InvalidParameterCombination", CloudError, "RunInstances failed: EC2's words"),
    ],
)
def test_refusals_become_our_errors(
    scripted: EC2, script: Script, status: int, code: str, kind: type[CloudError], said: str
) -> None:
    script.answers = [(status, ERROR.format(code=code))]
    with pytest.raises(CloudError, match=said) as caught:
        scripted.run_instances(REQUEST, SUBNET, client_token=TOKEN)
    assert type(caught.value) is kind
    assert script.calls == 1
    assert (caught.value.code, caught.value.operation) == (code, "RunInstances")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [(400, ERROR.format(code="RequestLimitExceeded")), (503, ERROR.format(code="Unavailable"))],
    ids=["throttled", "503"],
)
def test_passing_faults_are_tried_again(scripted: EC2, script: Script, answer: tuple[int, str]) -> None:
    script.answers = [answer, (200, NO_KEY_PAIRS)]
    assert scripted.has_key_pair("any") is False
    assert script.calls == 2


def test_a_page_of_a_proxy_is_an_error_in_one_sentence(scripted: EC2, script: Script) -> None:
    script.answers = [(407, "<!doctype html><title>Proxy</title>")]
    with pytest.raises(CloudError, match="cannot be asked"):
        scripted.has_key_pair("any")


def test_an_endpoint_that_is_not_there_is_an_error() -> None:
    nowhere = EC2(
        replace(Settings(), connect_timeout=0.2),
        endpoint_url="http://127.0.0.1:9",
        access_key="k",
        secret_key="s",
        region="us-east-1",
    )
    with pytest.raises(CloudError, match=r"cannot be asked.*127.0.0.1:9"):
        nowhere.identity()


def test_without_region_or_profile_the_error_says_what_to_set() -> None:
    with pytest.raises(CredentialsError, match="region"):
        EC2(Settings())
    with pytest.raises(CredentialsError, match="no-such-profile"):
        EC2(replace(Settings(), profile="no-such-profile", region="us-east-1"))


def test_without_credentials_the_error_says_so() -> None:
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        EC2(replace(Settings(), region="us-east-1", endpoint_url="http://127.0.0.1:9")).has_key_pair("any")


# -- the local cloud's endpoint -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ec2(local_cloud: Endpoint, settings: Settings) -> EC2:
    return EC2(
        settings,
        endpoint_url=local_cloud.url,
        access_key=local_cloud.access_key,
        secret_key=local_cloud.secret_key,
        region=local_cloud.region,
    )


def test_facts_of_the_region(ec2: EC2) -> None:
    kind = ec2.instance_type("m5.xlarge")
    assert kind is not None
    assert (kind.cores, kind.threads_per_core, kind.cluster) == (2, 2, True)
    assert kind.usd_per_hour == 0.192
    assert ec2.instance_type("m5.nothing") is None
    zones = ec2.zones_offering("m5.xlarge")
    subnets = ec2.subnets()
    assert {subnet.zone for subnet in subnets} & zones
    assert all(subnet.public for subnet in subnets)
    assert ec2.subnets(subnets[0].subnet_id) == subnets[:1]
    assert ec2.subnets("subnet-00000000") == []
    assert ec2.identity().region == "us-east-1"


def test_the_node_image_is_found_by_its_tags(ec2: EC2) -> None:
    image = next(each for each in ec2.own_images() if each.node)
    assert image.login_user == "admin"
    assert ec2.image(image.image_id) == image
    assert ec2.image("ami-00000000") is None


def test_groups_are_made_found_by_tag_and_removed_twice(ec2: EC2) -> None:
    vpc = ec2.subnets()[0].vpc_id
    tags = {"ppe:cluster": "test-ec2", "ppe:launch": "one"}
    group = ec2.create_security_group("ppe-test-ec2", vpc_id=vpc, tags=tags)
    try:
        for _ in range(2):
            ec2.open_security_group(group, ssh_from="203.0.113.7/32", description="SSH from alice@laptop")
            ec2.allow_ssh(group, "198.51.100.0/24", description="SSH from bob@desk")
        assert {(rule.cidr, rule.description) for rule in ec2.ssh_rules([group])} == {
            ("203.0.113.7/32", "SSH from alice@laptop"),
            ("198.51.100.0/24", "SSH from bob@desk"),
        }
        for _ in range(2):
            ec2.revoke_ssh(group, ["203.0.113.7/32"])
        assert [rule.cidr for rule in ec2.ssh_rules([group])] == ["198.51.100.0/24"]
        with pytest.raises(CloudError) as caught:
            ec2.create_security_group("ppe-test-ec2", vpc_id=vpc, tags=tags)
        assert caught.value.code == "InvalidGroup.Duplicate"
        ec2.create_placement_group("ppe-test-ec2", tags=tags)
        with pytest.raises(CloudError) as caught:
            ec2.create_placement_group("ppe-test-ec2", tags=tags)
        assert caught.value.code == "InvalidPlacementGroup.Duplicate"
        for wanted in ({"cluster": "test-ec2"}, {"cluster": "test-ec2", "launch": "one"}):
            assert ec2.security_groups(**wanted) == [group]
            assert ec2.placement_groups(**wanted) == ["ppe-test-ec2"]
        assert ec2.security_groups(cluster="test-ec2", launch="two") == []
        assert ec2.placement_groups(cluster="test-ec2", launch="two") == []
    finally:
        for _ in range(2):
            ec2.delete_security_group(group)
            ec2.delete_placement_group("ppe-test-ec2")
    assert ec2.security_groups(cluster="test-ec2") == ec2.placement_groups(cluster="test-ec2") == []


def test_a_key_pair_is_imported_once(ec2: EC2) -> None:
    public = ssh.generate_key_pair().public
    assert not ec2.has_key_pair("test-ec2-key")
    for _ in range(2):
        ec2.import_key_pair("test-ec2-key", public, tags={"ppe:owner": "test"})
    assert ec2.has_key_pair("test-ec2-key")
    ec2.delete_key_pair("test-ec2-key")


def test_a_foreign_key_is_refused(local_cloud: Endpoint, settings: Settings) -> None:
    stranger = EC2(
        settings,
        endpoint_url=local_cloud.url,
        access_key=local_cloud.access_key,
        secret_key="guessed",
        region=local_cloud.region,
    )
    for ask in (stranger.identity, stranger.instances, lambda: stranger.has_key_pair("x")):
        with pytest.raises(CredentialsError):
            ask()
