"""The daemon's life: started by whoever comes first, shared by all, and nothing left when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from localcloud_nodes import Nodes, until

from ppe_jupyter import localcloud
from ppe_jupyter.localcloud import check, network
from ppe_jupyter.localcloud.machines import container, firewall
from ppe_jupyter.settings import Settings

ENSURE = "from ppe_jupyter import localcloud, settings; print(localcloud.ensure(settings.load()).url)"


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a local cloud that the test may break."""
    localcloud.prepare(settings)
    own = replace(settings, state_dir=tmp_path)
    yield own
    localcloud.down(own)


def inventory(cloud_id: str) -> str:
    """All that this host knows of a local cloud."""
    commands = [
        ["ip", "-brief", "link"], ["nft", "list", "tables"], ["mount"], ["ps", "-ewwo", "args"],
        ["cat", "/etc/hosts"],
        ["losetup", "--list"],
        ["find", "/var/lib/ppe_jupyter/clouds", "/run/lxc", "/sys/fs/cgroup", "-maxdepth", "6"],
    ]  # fmt: skip
    text = "".join(subprocess.run(c, capture_output=True, text=True, check=False).stdout for c in commands)
    return "\n".join(line for line in text.splitlines() if cloud_id in line)


def cloud_id(settings: Settings) -> str:
    return localcloud._cloud_id(settings)


def test_processes_that_start_it_at_once_share_one(own: Settings) -> None:
    environment = {**os.environ, "PPE_STATE_DIR": str(own.state_dir)}
    command = [sys.executable, "-c", ENSURE]
    clients = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {client.communicate(timeout=60)[0] for client in clients}
    assert len(answers) == 1
    assert {localcloud.ensure(own).url + "\n"} == answers
    pid = localcloud.status(own).pid
    assert pid is not None
    assert os.getsid(pid) == pid, "Ctrl-C in a terminal must not reach it"
    assert inventory(cloud_id(own))
    localcloud.down(own)
    assert inventory(cloud_id(own)) == ""
    assert not localcloud.status(own).running


def test_after_kill_9_the_next_use_removes_what_is_left_and_starts_again(own: Settings) -> None:
    first = localcloud.ensure(own)
    nodes = Nodes(first, "killed")
    (instance_id,) = nodes.launch()
    nodes.connect(instance_id).close()
    volume_id = nodes.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    nodes.ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device="/dev/sdf")
    mount = "sudo mkfs.ext4 -q /dev/nvme1n1 && sudo mount /dev/nvme1n1 /mnt"
    until(lambda: nodes.run(instance_id, mount)[0] == 0)
    pid = localcloud.status(own).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not container._processes(instance_id))
    assert not localcloud.status(own).running
    second = localcloud.ensure(own)
    assert second.url != first.url
    assert localcloud.status(own).instances == 0
    left = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert instance_id not in left
    assert instance_id not in inventory(cloud_id(own))
    assert not Path(f"/sys/class/net/pv{instance_id[-12:]}").exists()
    again = Nodes(second, "again")
    (instance_id,) = again.launch()
    assert again.run(instance_id, "true")[0] == 0
    localcloud.down(own)
    assert inventory(cloud_id(own)) == ""
    assert not container._cgroups(instance_id)


def test_the_bridges_network_hides_nothing_the_host_reaches() -> None:
    first = network.choose([])
    assert network.choose([first]) != first
    office = network.IPv4Network("10.0.0.0/8")
    assert not network.choose([office]).overlaps(office)
    with pytest.raises(localcloud.LocalCloudUnavailable, match="every private network"):
        network.choose([network.IPv4Network("0.0.0.0/1"), network.IPv4Network("128.0.0.0/1")])


def test_a_firewall_that_would_cut_the_nodes_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, stdin: str = "") -> str:
        assert command[:2] == ("nft", "--json")
        return json.dumps({"nftables": [{"metainfo": {}}, {"chain": dropping}]})

    dropping = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    monkeypatch.setattr(network, "run", run)
    monkeypatch.setattr(network.shutil, "which", lambda tool: None)
    with pytest.raises(
        localcloud.LocalCloudUnavailable, match=r"nftables ip filter FORWARD.*install iptables"
    ):
        network._except_from_firewall("ppe00000000")


def test_a_firewall_with_iptables_gets_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = ["-P INPUT ACCEPT", "-P FORWARD DROP", "-A FORWARD -j DOCKER-USER"]

    def run(*command: str, stdin: str = "") -> str:
        if command[1] == "-I":
            rules.append(" ".join(["-A", *command[2:]]))
        chain = command[2] if len(command) > 2 else ""
        return "\n".join(rule for rule in rules if chain in rule)

    monkeypatch.setattr(network, "run", run)
    monkeypatch.setattr(network.shutil, "which", lambda tool: f"/usr/sbin/{tool}")
    network._except_from_firewall("ppe00000000")
    assert [" ".join(rule) for rule in network._exceptions("ppe00000000")] == [
        f"FORWARD -{way} ppe00000000 -m comment --comment ppe00000000 -j ACCEPT" for way in "io"
    ]


def test_rules_of_a_security_group() -> None:
    text = firewall.ruleset([
        firewall.Ingress("tcp", (22, 22), ("10.0.0.1/32",)),
        firewall.Ingress("udp", (60000, 61000), ("0.0.0.0/0",)),
        firewall.Ingress("icmp", (8, -1), ("10.0.0.1/32", "10.0.0.2/32")),
        firewall.Ingress("-1", None, ("10.0.0.9/32",)),
        firewall.Ingress("tcp", (80, 80), ()),
        firewall.Ingress("50", None, ("10.0.0.1/32",)),
    ])  # fmt: skip
    assert "policy drop" in text
    assert "ip saddr { 10.0.0.1/32 } tcp dport 22-22 accept" in text
    assert "    udp dport 60000-61000 accept" in text
    assert "icmp type 8 accept" in text
    assert "ip saddr { 10.0.0.9/32 } accept" in text
    assert "dport 80" not in text, "a group without members lets in nobody"
    checked = subprocess.run(
        ["nft", "--check", "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_missing_tool_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check.problem() is None
    monkeypatch.setattr(check.shutil, "which", lambda tool, path: None if tool == "lxc-start" else tool)
    assert check.problem() == "the local cloud needs lxc: sudo apt-get install lxc"
