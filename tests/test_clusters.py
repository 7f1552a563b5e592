"""Find, connect, launch again: a running cluster as another client sees it, and the way to it; on the local cloud."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cloud_client import Cloud
from localcloud_nodes import client

from ppe_jupyter import ssh
from ppe_jupyter.cloud import access
from ppe_jupyter.cloud.ec2.groups import SshRule
from ppe_jupyter.cloud.launching import boot
from ppe_jupyter.cloud.launching.diagnosis import diagnose
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, InstanceState
from ppe_jupyter.errors import (
    CloudError,
    HostKeyMismatch,
    NoSuchCluster,
    SettingsError,
    SpecError,
    SshError,
    Unreachable,
)
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint


@pytest.fixture(scope="module")
def cloud(local_cloud: Endpoint, settings: Settings) -> Cloud:
    return Cloud(local_cloud, settings)


@pytest.fixture
def record(cluster: Cluster, cloud: Cloud) -> ClusterRecord:
    """The session's cluster, as a client finds it that knows nothing but the API."""
    return cloud.clusters().get(cluster.name)


@pytest.fixture
def group(record: ClusterRecord, cloud: Cloud) -> Iterator[str]:
    """The cluster's security group, whose rules are put back."""
    ec2 = cloud.ec2()
    (group,) = ec2.security_groups(cluster=record.name)
    before = ec2.ssh_rules([group])
    yield group
    ec2.revoke_ssh(group, [rule.cidr for rule in ec2.ssh_rules([group])])
    for rule in before:
        ec2.allow_ssh(group, rule.cidr, description=rule.description)


def test_another_client_finds_the_cluster_by_the_api_alone(
    record: ClusterRecord, cloud: Cloud, cluster: Cluster
) -> None:
    assert record.state is ClusterState.RUNNING
    assert [node.role for node in record.nodes] == ["master", "worker", "worker"]
    assert all(node.state is InstanceState.RUNNING and node.slots == 2 for node in record.nodes)
    assert record.nodes == cluster.refresh().record.nodes
    assert record.name in [each.name for each in cloud.clusters().find()]
    assert record.usd_per_hour == pytest.approx(0.6007, abs=0.001)
    assert record.owner.split("@")[0]
    assert record.troubles == ()


def test_the_master_is_reached_with_the_host_key_of_the_tags(record: ClusterRecord, cloud: Cloud) -> None:
    with cloud.clusters().connect(record) as connection:
        shown = connection.run("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout.decode()
        assert record.master.host_key.split()[1] == shown.split()[1]
        # Every worker has a host key of its own, and it is not the one of the user data.
        assert len({node.host_key for node in record.nodes} | {record.master.launch_host_key}) == 4
        known = connection.run("cat /etc/ssh/ssh_known_hosts").stdout.decode()
        for node in record.nodes:
            assert node.host_key.split()[1] in known


def test_another_host_key_is_refused(record: ClusterRecord, cloud: Cloud) -> None:
    impostor = replace(record.nodes[0], host_key=record.nodes[1].host_key)
    with pytest.raises(HostKeyMismatch, match="not the one that was launched"):
        cloud.clusters().connect(replace(record, nodes=(impostor, *record.nodes[1:])))
    unknown = replace(record.nodes[0], host_key="")
    with pytest.raises(SshError, match="cannot be verified"):
        cloud.clusters().connect(replace(record, nodes=(unknown, *record.nodes[1:])))


def test_a_client_without_the_key_can_list_but_not_connect(
    record: ClusterRecord, cloud: Cloud, tmp_path: Path
) -> None:
    stranger = cloud.clusters(settings=replace(cloud.settings, state_dir=tmp_path))
    assert stranger.get(record.name).nodes == record.nodes
    with pytest.raises(SettingsError, match=r"private half.*key_file"):
        stranger.connect(record)


def test_launching_it_again_changes_nothing(record: ClusterRecord, cloud: Cloud) -> None:
    assert record.spec is not None
    again = cloud.plan(record.spec)
    assert again.steps == ()
    hooks.reset(cloud.endpoint)
    assert cloud.clusters().launch(again).nodes == record.nodes
    assert hooks.calls(cloud.endpoint) == []
    with pytest.raises(SpecError, match="nodes: 3, not 2"):
        cloud.launch(replace(record.spec, nodes=2))


def test_everything_made_carries_our_tags(record: ClusterRecord, cloud: Cloud) -> None:
    client = cloud.ec2()._ec2
    wanted = [{"Name": "tag:ppe:cluster", "Values": [record.name]}]
    volumes = client.describe_volumes(Filters=wanted)["Volumes"]  # type: ignore[arg-type]
    groups = client.describe_security_groups(Filters=wanted)["SecurityGroups"]  # type: ignore[arg-type]
    placements = client.describe_placement_groups(Filters=wanted)["PlacementGroups"]  # type: ignore[arg-type]
    assert (len(volumes), len(groups), len(placements)) == (3, 1, 1)
    for each in [*volumes, *groups, *placements]:
        keys = {tag["Key"] for tag in each["Tags"]}
        assert {"Name", "ppe:cluster", "ppe:owner", "ppe:launch", "ppe:launching-until", "ppe:spec-0"} <= keys


def test_a_shutdown_from_inside_stops_the_master_and_ends_a_worker(
    record: ClusterRecord, cloud: Cloud
) -> None:
    """So the watchdog can park the cluster without credentials."""
    client = cloud.ec2()._ec2
    found = [
        client.describe_instance_attribute(
            InstanceId=node.instance_id, Attribute="instanceInitiatedShutdownBehavior"
        )["InstanceInitiatedShutdownBehavior"]["Value"]
        for node in record.nodes
    ]
    assert found == ["stop", "terminate", "terminate"]


def test_an_unknown_name_is_told_with_those_that_exist(record: ClusterRecord, cloud: Cloud) -> None:
    with pytest.raises(NoSuchCluster, match=f"no cluster 'nemo'.*{record.name}"):
        cloud.clusters().get("nemo")


# -- the way there --------------------------------------------------------------------------------------------


def test_only_the_caller_reaches_port_22(record: ClusterRecord, cloud: Cloud, group: str) -> None:
    description = access.rule_description(given=False)
    assert cloud.ec2().ssh_rules([group]) == [SshRule(f"{cloud.endpoint.caller_address}/32", description)]
    (found,) = cloud.ec2()._ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    rules = {each["IpProtocol"]: each for each in found["IpPermissions"]}
    assert set(rules) == {"tcp", "-1"}
    assert (rules["tcp"]["FromPort"], rules["tcp"]["ToPort"]) == (22, 22)
    assert [each["GroupId"] for each in rules["-1"]["UserIdGroupPairs"]] == [group]
    assert rules["-1"]["IpRanges"] == []


def test_the_rule_follows_the_callers_address_and_the_old_one_goes(
    record: ClusterRecord, cloud: Cloud, group: str
) -> None:
    ec2, here = cloud.ec2(), f"{cloud.endpoint.caller_address}/32"
    mine = access.rule_description(given=False)
    ec2.allow_ssh(group, "203.0.113.9/32", description=mine)
    ec2.allow_ssh(group, "198.51.100.7/32", description="SSH from bob@desk")
    ec2.revoke_ssh(group, [here])
    timeouts = iter([2.0])

    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        return ssh.connect(target, timeout=next(timeouts, timeout))

    clusters = cloud.clusters(connect=connect)
    with clusters.connect(record) as connection:
        assert connection.run("true").status == 0
    assert set(ec2.ssh_rules([group])) == {
        SshRule(here, mine),
        SshRule("198.51.100.7/32", "SSH from bob@desk"),
    }


def test_a_colleagues_range_is_not_taken_away(
    record: ClusterRecord, cloud: Cloud, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2, before = cloud.ec2(), set(cloud.ec2().ssh_rules([group]))
    ranges = {"ana": ("198.51.100.0/24", "203.0.113.0/24"), "bob": ("192.0.2.0/24",)}
    try:
        for name, given in ranges.items():
            monkeypatch.setattr(access, "os_user", lambda name=name: name)
            for cidr in given:
                context = cloud.context(settings=replace(cloud.settings, caller_cidr=cidr))
                assert access.refresh_rule(context, record)
        assert {rule.cidr for rule in {*ec2.ssh_rules([group])} - before} == {
            "203.0.113.0/24",
            "192.0.2.0/24",
        }
    finally:
        ec2.revoke_ssh(group, [rule.cidr for rule in {*ec2.ssh_rules([group])} - before])


def test_a_rule_that_does_not_help_is_left_alone(record: ClusterRecord, cloud: Cloud, group: str) -> None:
    ec2, impatient = cloud.ec2(), replace(cloud.settings, connect_timeout=0.5)
    before = ec2.ssh_rules([group])

    def unreachable(target: ssh.Target, **_: object) -> ssh.Connection:
        raise Unreachable("no SSH server answers", host=target.host)

    with pytest.raises(Unreachable, match=r"no SSH server answers$"):
        cloud.clusters(settings=impatient, connect=unreachable).connect(record)
    assert record.spec is not None
    given = replace(record, spec=replace(record.spec, caller_cidr="203.0.113.0/24"))
    elsewhere = cloud.context(settings=impatient, caller_address=lambda: "192.0.2.1", connect=unreachable)
    assert not access.refresh_rule(elsewhere, given)
    # Through a jump host it is that one's address that counts, and only the user knows it.
    through = replace(elsewhere, settings=replace(impatient, proxy_jump="bastion"))
    assert not access.refresh_rule(through, record)
    (master, *_) = elsewhere.ec2.instances(cluster=record.name)
    assert "whatever your proxy_jump comes from has to be among them" in diagnose(through, master)
    assert "your address, 192.0.2.1, is not among them" in diagnose(elsewhere, master)

    def unknown() -> str:
        raise CloudError("the address cannot be found out")

    with pytest.raises(Unreachable, match="its rule for port 22 was not checked: the address cannot"):
        access.connect(replace(elsewhere, caller_address=unknown), record)
    assert ec2.ssh_rules([group]) == before


def at_shutdown(cloud: Cloud, record: ClusterRecord) -> str:
    """What EC2 makes of the master's shutdown."""
    asked = client(cloud.endpoint).describe_instance_attribute(
        InstanceId=record.master.instance_id, Attribute="instanceInitiatedShutdownBehavior"
    )
    return str(asked["InstanceInitiatedShutdownBehavior"]["Value"])


def test_other_limits_reach_the_watchdog_the_tags_and_ec2(cluster: Cluster, cloud: Cloud) -> None:
    """Also when EC2 refuses: whatever the watchdog then does, the disk is kept."""
    before = cluster.record.spec
    assert before is not None

    def holds() -> tuple[str, str, str]:
        spec, watch = cluster.refresh().record.spec, cluster.watchdog()
        assert spec and watch
        return spec.then, watch.then, at_shutdown(cloud, cluster.record)

    refused = hooks.Fault("ModifyInstanceAttribute", code="UnauthorizedOperation", status=403)
    try:
        hooks.inject(cloud.endpoint, refused)
        with pytest.raises(CloudError):
            cluster.set_limits(then="terminate")
        assert holds() == ("park", "terminate", "stop")
        cluster.set_limits(then="terminate", idle_hours=0, budget_usd=500.0)
        assert holds() == ("terminate", "terminate", "terminate")
        watch = cluster.watchdog()
        assert watch and watch.acts_at and "500 USD" in watch.why
        hooks.inject(cloud.endpoint, refused)
        with pytest.raises(CloudError):
            cluster.set_limits(then="park")
        assert holds() == ("terminate", "terminate", "terminate")
    finally:
        hooks.clear_faults(cloud.endpoint)
        cluster.set_limits(then="park", idle_hours=before.idle_hours, budget_usd=0)
    assert holds() == ("park", "park", "stop")
    assert cluster.record.spec == before


def test_a_master_in_use_is_not_given_up_because_it_cannot_be_reached(
    record: ClusterRecord, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be this client's network; home and results are on that master's disk."""

    def unreachable(target: ssh.Target, **_: object) -> ssh.Connection:
        raise Unreachable("no SSH server answers", host=target.host)

    monkeypatch.setattr(boot, "HEIR_SECONDS", 0.1)
    impatient = replace(cloud.settings, boot_timeout=0.1)
    context = cloud.context(settings=impatient, connect=unreachable)
    instances = context.ec2.instances(cluster=record.name, launch=record.launch)
    growing = boot.Boot(context, instances, pace=context.pace(), report=lambda *said: None)
    with pytest.raises(CloudError, match=r"no SSH server answers.*%ppe_retry \S+ --replace --force"):
        growing.open_master(key="")
    assert cloud.clusters().get(record.name).master.instance_id == record.master.instance_id


@pytest.mark.parametrize("setting", ["proxy_jump", "proxy_command"])
def test_a_private_master_is_reached_through_another_host(
    record: ClusterRecord, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """A worker is the bastion host; OpenSSH knows it from a configuration of the user's."""
    bastion, private = record.nodes[2], tmp_path / "key"
    private.write_text(cloud.context().keys.private(record.key_name))
    private.chmod(stat.S_IRUSR)
    (tmp_path / "known_hosts").write_text(f"{bastion.private_ip} {bastion.host_key}\n")
    options = {"IdentityFile": private, "UserKnownHostsFile": tmp_path / "known_hosts"}
    (tmp_path / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    openssh = tmp_path / "ssh"
    openssh.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/said\nexec /usr/bin/ssh -F {tmp_path}/config "$@"\n'
    )
    openssh.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    jump = f"{record.login_user}@{bastion.private_ip}"
    proxies: dict[str, Any] = {
        "proxy_jump": f"{jump}:22",
        "proxy_command": shlex.join([str(openssh), "-W", "%h:%p", jump, "-o", "SetEnv=INSTANCE=%i"]),
    }
    hidden = replace(record.nodes[0], public_ip="203.0.113.1")
    settings = replace(cloud.settings, **{setting: proxies[setting]})
    with cloud.clusters(settings=settings).connect(
        replace(record, nodes=(hidden, *record.nodes[1:]))
    ) as connection:
        came_from = connection.run("echo $SSH_CONNECTION").stdout.decode().split()[0]
    assert came_from == bastion.private_ip
    said = (tmp_path / "said").read_text()
    assert f"{record.nodes[0].private_ip}:22" in said
    assert ("-p 22" in said) if setting == "proxy_jump" else (record.master.instance_id in said)
