"""Instances of the local cloud are real machines: what they are, what they may, how they end."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcloud_nodes import TYPE, Nodes, client, until

from ppe_jupyter import ssh
from ppe_jupyter.localcloud import Endpoint, hooks

CONFIG = """\
runcmd:
- [sh, -c, 'touch /run/from-user-data']
bootcmd:
- |
  python3 - >/dev/null 2>&1 <<'END' &
  from http.server import BaseHTTPRequestHandler, HTTPServer
  class Answer(BaseHTTPRequestHandler):
      def do_POST(self):
          open("/run/phoned", "wb").write(self.rfile.read(int(self.headers["Content-Length"])))
          self.send_response(200)
          self.end_headers()
  HTTPServer(("127.0.0.1", 8123), Answer).handle_request()
  END
phone_home: {url: "http://127.0.0.1:8123/", post: [instance_id, hostname], tries: 5}
"""


@pytest.fixture(scope="module")
def nodes(local_cloud: Endpoint) -> Iterator[Nodes]:
    nodes = Nodes(local_cloud, "nodes-test")
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def pair(nodes: Nodes) -> list[str]:
    """Two running instances that the tests leave as they are."""
    return nodes.launch(2, config=CONFIG)


@pytest.fixture(scope="module")
def connection(nodes: Nodes, pair: list[str]) -> Iterator[ssh.Connection]:
    with nodes.connect(pair[0]) as connection:
        until(lambda: not connection.run("test -e /run/from-user-data", check=False).status)
        yield connection


def test_a_launch_is_pending_then_running_then_boots(nodes: Nodes, pair: list[str]) -> None:
    for instance_id in pair:
        nodes.reaches(instance_id, "running")
        assert nodes.run(instance_id, "id -un") == (0, "admin\n")
    key = nodes.host_key.public.split()[1]
    until(lambda: key in nodes.ec2.get_console_output(InstanceId=pair[0])["Output"])
    until(lambda: "Cloud-init v." in nodes.ec2.get_console_output(InstanceId=pair[0])["Output"])


def test_cloud_init_can_fetch_and_send_though_it_starts_without_what_that_takes(
    pair: list[str], connection: ssh.Connection
) -> None:
    until(lambda: not connection.run("test -e /var/lib/cloud/instance/boot-finished", check=False).status)
    assert f"instance_id={pair[0]}" in connection.run("cat /run/phoned").stdout.decode()
    result = json.loads(connection.run("cat /run/cloud-init/result.json").stdout)
    assert result["v1"]["errors"] == []


def test_address_and_names_are_the_containers_own(
    nodes: Nodes, pair: list[str], connection: ssh.Connection
) -> None:
    here, peer = nodes.describe(pair[0]), nodes.describe(pair[1])
    assert here["PublicIpAddress"] == here["PrivateIpAddress"]
    addresses = connection.run("ip -brief -4 address show eth0").stdout.decode()
    assert f"{here['PrivateIpAddress']}/16" in addresses
    hostname = here["PrivateDnsName"].partition(".")[0]
    assert connection.run("hostname").stdout.decode().strip() == hostname
    for instance in (here, peer):
        for name in (instance["PrivateDnsName"], instance["PublicDnsName"]):
            line = connection.run(f"getent hosts {name}").stdout.decode()
            assert line.split()[0] == instance["PrivateIpAddress"]
            on_host = subprocess.run(
                ["getent", "hosts", name], capture_output=True, text=True, check=True
            ).stdout
            assert on_host.split()[0] == instance["PrivateIpAddress"]


def test_containers_give_this_host_no_addresses(pair: list[str], connection: ssh.Connection) -> None:
    """With each that came or went a browser here would fail requests that wait for a connection."""
    ports = [f"pv{instance_id[-12:]}" for instance_id in pair]
    bridge = Path(f"/sys/class/net/{ports[0]}/master").resolve().name
    addresses = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout)
    found = {each["ifname"]: [one["family"] for one in each["addr_info"]] for each in addresses}
    assert [found[name] for name in (*ports, bridge)] == [[], [], ["inet"]]


def test_the_outside_is_reachable_through_the_hosts_resolver(connection: ssh.Connection) -> None:
    assert connection.run("sudo apt-get -q update && apt-cache policy hello", timeout=60).status == 0


def test_root_inside_cannot_harm_the_host(connection: ssh.Connection) -> None:
    for harm in (
        "date -s 2001-01-01",
        "mknod /tmp/disk b 253 0 && head -c 1 /tmp/disk",
        "mknod /tmp/memory c 1 1 && head -c 1 /tmp/memory",
        "sh -c 'echo 1 > /proc/sys/kernel/panic'",
        "sh -c 'echo h > /proc/sysrq-trigger'",
        "dmesg --clear",
        "mount -o remount,rw /proc/sys",
        "mount -t proc proc /mnt",
        "mount -t tmpfs none /mnt",
        "unshare --mount true",
        "nsenter --target 1 --mount true",
    ):
        assert connection.run(f"sudo {harm}", check=False).status != 0, harm
    # init_module, kexec_file_load
    for number in {"x86_64": (175, 320), "aarch64": (105, 294)}[platform.machine()]:
        program = "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
        program += f"print(c.syscall({number}, *[-1] * 5), ctypes.get_errno())"
        assert connection.run(f'sudo python3 -c "{program}"').stdout == b"-1 1\n"
    devices = "console fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(connection.run("ls /dev").stdout.decode().split()) == devices


def test_ports_are_closed_but_for_the_groups_rules(
    nodes: Nodes, pair: list[str], connection: ssh.Connection
) -> None:
    peer = nodes.address(pair[1])
    knock = f"timeout 2 bash -c '</dev/tcp/{peer}/22'"
    nodes.connect(pair[1]).close()
    assert connection.run(knock, check=False).status != 0, "only the caller's address is allowed"
    members = [{"GroupId": nodes.group}]
    nodes.allow(UserIdGroupPairs=members)
    until(lambda: not connection.run(knock, check=False).status)
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": members}
    nodes.ec2.revoke_security_group_ingress(GroupId=nodes.group, IpPermissions=[permission])
    until(lambda: connection.run(knock, check=False).status)
    assert connection.alive, "established connections go on"


def test_a_group_in_use_stays(nodes: Nodes, pair: list[str]) -> None:
    with pytest.raises(nodes.ec2.exceptions.ClientError, match="DependencyViolation"):
        nodes.ec2.delete_security_group(GroupId=nodes.group)


def test_a_client_token_launches_once(nodes: Nodes) -> None:
    first = nodes.launch(ClientToken="token-1")
    assert nodes.launch(ClientToken="token-1") == first
    with pytest.raises(nodes.ec2.exceptions.ClientError, match="IdempotentParameterMismatch"):
        nodes.launch(2, ClientToken="token-1")
    nodes.ec2.terminate_instances(InstanceIds=first)


def test_placement_groups_and_cpu_options(nodes: Nodes) -> None:
    ec2, group = nodes.ec2, "nodes-test-pg"
    tags = [{"ResourceType": "placement-group", "Tags": [{"Key": "ppe:cluster", "Value": "x"}]}]
    with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidPlacementGroup\.Unknown"):
        nodes.launch(Placement={"GroupName": group})
    ec2.create_placement_group(GroupName=group, Strategy="cluster", TagSpecifications=tags)
    with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidPlacementGroup\.Duplicate"):
        ec2.create_placement_group(GroupName=group, Strategy="cluster")
    with pytest.raises(ec2.exceptions.ClientError, match="InvalidParameterCombination"):
        nodes.launch(Placement={"GroupName": group}, InstanceType="t3.micro")
    with pytest.raises(ec2.exceptions.ClientError, match="InvalidParameterValue"):
        nodes.launch(InstanceType="c5.xlarge", CpuOptions={"CoreCount": 3, "ThreadsPerCore": 1})
    options = {"CoreCount": 2, "ThreadsPerCore": 1}
    (instance_id,) = nodes.launch(
        Placement={"GroupName": group}, InstanceType="c5.xlarge", CpuOptions=options
    )
    described = nodes.describe(instance_id)
    assert described["Placement"]["GroupName"] == group
    assert described["CpuOptions"] == options
    with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidPlacementGroup\.InUse"):
        ec2.delete_placement_group(GroupName=group)
    ec2.terminate_instances(InstanceIds=[instance_id])
    ec2.delete_placement_group(GroupName=group)
    found = ec2.describe_placement_groups(Filters=[{"Name": "tag:ppe:cluster", "Values": ["x"]}])
    assert found["PlacementGroups"] == []


def test_capacity_can_run_out_in_a_zone(nodes: Nodes, local_cloud: Endpoint) -> None:
    hooks.set_capacity(local_cloud, zone="us-east-1a", available=False)
    try:
        with pytest.raises(nodes.ec2.exceptions.ClientError, match="InsufficientInstanceCapacity"):
            nodes.launch(Placement={"AvailabilityZone": "us-east-1a"})
        with pytest.raises(nodes.ec2.exceptions.ClientError, match="DryRunOperation"):
            nodes.launch(Placement={"AvailabilityZone": "us-east-1b"}, DryRun=True)
    finally:
        hooks.set_capacity(local_cloud, zone="us-east-1a", available=True)


def test_reboot_and_stop_keep_disk_and_address(nodes: Nodes) -> None:
    (instance_id,) = nodes.launch()
    address = nodes.address(instance_id)
    for restart in ("api", "inside", "stop"):
        nodes.run(instance_id, "echo kept > mark; echo gone > /dev/shm/mark")
        if restart == "api":
            nodes.ec2.reboot_instances(InstanceIds=[instance_id])
        elif restart == "inside":
            nodes.run(instance_id, "sudo reboot")
        else:
            nodes.ec2.stop_instances(InstanceIds=[instance_id])
            nodes.reaches(instance_id, "stopped")
            nodes.ec2.start_instances(InstanceIds=[instance_id])
            nodes.reaches(instance_id, "running")
        until(lambda: nodes.run(instance_id, "test -e /dev/shm/mark")[0] == 1)
        assert nodes.run(instance_id, "cat mark /dev/shm/mark")[1].startswith("kept\ncat: "), restart
        assert nodes.address(instance_id) == address
    nodes.ec2.terminate_instances(InstanceIds=[instance_id])


@pytest.mark.parametrize(("behaviour", "state"), [("terminate", "terminated"), ("stop", "stopped")])
def test_a_shutdown_from_inside_does_what_the_launch_said(nodes: Nodes, behaviour: str, state: str) -> None:
    (instance_id,) = nodes.launch(InstanceInitiatedShutdownBehavior=behaviour)
    nodes.run(instance_id, "sudo shutdown -h now")
    nodes.reaches(instance_id, state)
    assert nodes.describe(instance_id)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    nodes.ec2.terminate_instances(InstanceIds=[instance_id])
    nodes.reaches(instance_id, "terminated")


def traces(instance_id: str) -> list[str]:
    """Where this host still knows an instance."""
    commands = (["ip", "link"], ["mount"], ["ps", "-ewwo", "args"], ["cat", "/etc/hosts"])
    text = "".join(subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    places = [Path("/var/lib/ppe_jupyter"), Path("/run/lxc"), Path("/sys/fs/cgroup")]
    listings = [["find", str(place), "-maxdepth", "6", "-name", f"*{instance_id}*"] for place in places]
    text += "".join(subprocess.run(c, capture_output=True, text=True, check=False).stdout for c in listings)
    return [line for line in text.splitlines() if instance_id in line or f"pv{instance_id[-12:]}" in line]


def test_terminate_leaves_nothing(nodes: Nodes) -> None:
    (instance_id,) = nodes.launch()
    nodes.reaches(instance_id, "running")
    address = nodes.address(instance_id)
    assert traces(instance_id)
    attached = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    volumes = nodes.ec2.describe_volumes(Filters=attached)["Volumes"]
    assert len(volumes) == 1
    nodes.ec2.terminate_instances(InstanceIds=[instance_id])
    nodes.reaches(instance_id, "terminated")
    assert traces(instance_id) == []
    assert address not in Path("/etc/hosts").read_text()
    left = nodes.ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volumes[0]["VolumeId"]]}])
    interfaces = nodes.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert left["Volumes"] == []
    assert instance_id not in {i.get("Attachment", {}).get("InstanceId") for i in interfaces}


def test_types_of_instances_and_zones_are_aws_own(local_cloud: Endpoint) -> None:
    ec2 = client(local_cloud)
    (found,) = ec2.describe_instance_types(InstanceTypes=[TYPE])["InstanceTypes"]
    assert found["VCpuInfo"]["DefaultCores"] == 8
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert local_cloud.caller_address.rpartition(".")[0] + ".0/16" == vpc["CidrBlock"]
    assert {s["AvailabilityZone"] for s in ec2.describe_subnets()["Subnets"]} >= {"us-east-1a", "us-east-1b"}
