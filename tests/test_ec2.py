"""The EC2 adapter: what it sends against EC2's rules, which errors come back, the local cloud's endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from ppe_jupyter.cloud import shapes
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.facts import Image
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
REQUEST = shapes.InstanceRequest(
    count=3,
    instance_type="m5.xlarge",
    image=IMAGE,
    subnet_id="subnet-12345678",
    group_id="sg-12345678",
    placement_group="ppe-brisk-otter",
    key_name="ppe-alice-laptop-12345678",
    user_data=b"#cloud-config\n{}",
    root_gb=30,
    cores=2,
    client_token="a" * 32 + "-1234567890123456",
    instance_tags={"ppe:cluster": "brisk-otter", "ppe:state": "pending"},
    volume_tags={"ppe:cluster": "brisk-otter"},
)
SENT: Any = shapes.run_arguments(REQUEST)


@pytest.mark.parametrize(
    "request_",
    [REQUEST, replace(REQUEST, placement_group=None), replace(REQUEST, cores=None)],
    ids=["all", "no placement group", "no CPU options"],
)
def test_requests_are_of_the_shape_that_ec2_publishes(request_: shapes.InstanceRequest) -> None:
    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    # The model is of what is sent, where botocore has put base64 in place of the bytes.
    sent = {**shapes.run_arguments(request_), "UserData": "I2Nsb3VkLWNvbmZpZw=="}
    report = ParamValidator().validate(sent, shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize(
    ("page", "rule", "holds"),
    [
        (
            "instance-cpu-options-rules",
            "you must specify both the number of CPU cores and threads per core",
            lambda sent: set(sent["CpuOptions"]) == {"CoreCount", "ThreadsPerCore"},
        ),
        (
            "instance-cpu-options-rules",
            "to disable multithreading, specify one thread per core",
            lambda sent: sent["CpuOptions"]["ThreadsPerCore"] == 1,
        ),
        (
            "placement-groups",
            "use a single launch request to launch the number of instances that you need",
            lambda sent: sent["MinCount"] == sent["MaxCount"] == 3,
        ),
        (
            "placement-groups",
            "a cluster placement group can't span multiple Availability Zones: one subnet a request",
            lambda sent: sent["Placement"] == {"GroupName": "ppe-brisk-otter"} and "SubnetId" in sent,
        ),
        (
            "Using_Tags",
            "instances and volumes are tagged by the request that creates them",
            lambda sent: (
                [each["ResourceType"] for each in sent["TagSpecifications"]] == ["instance", "volume"]
            ),
        ),
        (
            "Run_Instance_Idempotency",
            "a client token has up to 64 ASCII characters",
            lambda sent: len(sent["ClientToken"]) <= 64 and sent["ClientToken"].isascii(),
        ),
        (
            "configuring-instance-metadata-options",
            "IMDSv2 is required when HttpTokens is required; hop limit 1 keeps containers out",
            lambda sent: sent["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        ),
        (
            "terminating-instances",
            "an instance that shuts itself down is terminated when told so at launch",
            lambda sent: sent["InstanceInitiatedShutdownBehavior"] == "terminate",
        ),
        (
            "EBSEncryption",
            "the root volume is encrypted, gp3, and goes with the instance",
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
    ],
)
def test_requests_keep_the_rules_of_the_user_guide(
    page: str, rule: str, holds: Callable[[Any], bool]
) -> None:
    assert holds(SENT), f"{page}: {rule}"


def test_cpu_options_and_placement_are_left_out_where_they_cannot_be() -> None:
    sent: Any = shapes.run_arguments(replace(REQUEST, cores=None, placement_group=None))
    assert "CpuOptions" not in sent
    assert "Placement" not in sent


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
        scripted.run_instances(REQUEST)
    assert type(caught.value) is kind
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
    image = ec2.own_node_image(["x86_64", "arm64"])
    assert image is not None
    assert (image.login_user, image.node) == ("admin", True)
    assert ec2.image(image.image_id) == image
    assert ec2.own_node_image(["i386"]) is None
    assert ec2.image("ami-00000000") is None


def test_groups_are_made_found_by_tag_and_removed_twice(ec2: EC2) -> None:
    vpc = ec2.subnets()[0].vpc_id
    tags = {"ppe:cluster": "test-ec2", "ppe:launch": "one"}
    group = ec2.create_security_group("ppe-test-ec2", vpc_id=vpc, tags=tags)
    try:
        ec2.open_security_group(group, ssh_from="203.0.113.7/32")
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
    from ppe_jupyter import ssh

    public = ssh.generate_key_pair().public
    assert not ec2.has_key_pair("test-ec2-key")
    for _ in range(2):
        ec2.import_key_pair("test-ec2-key", public, tags={"ppe:owner": "test"})
    assert ec2.has_key_pair("test-ec2-key")


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
