"""Nodes that are lost on the way: the others become a cluster that says so; on the local cloud's containers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cloud_client import Cloud
from localcloud_nodes import until

from ppe_jupyter import ssh
from ppe_jupyter.cloud.changing.change import Changes
from ppe_jupyter.cloud.launching import boot, bring_up
from ppe_jupyter.cloud.pace import Pace
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, InstanceState, Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import LaunchFailed, Unreachable
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

SPEC = ClusterSpec(name="lossy", nodes=3, instance_type="m5.xlarge")
HELLO = "mpirun --hostfile ~/ompi-hostfile --map-by ppr:1:node hostname"
Report = Callable[[Progress], None]


@pytest.fixture(scope="module")
def cloud(local_cloud: Endpoint, settings: Settings) -> Cloud:
    return Cloud(local_cloud, settings)


@pytest.fixture(autouse=True)
def nothing_left(cloud: Cloud) -> Iterator[None]:
    with cloud.unchanged():
        yield
        cloud.terminate("lossy")


def ending(cloud: Cloud, losses: dict[str, int], said: list[str]) -> Report:
    """A report that ends the node of an index when a phase begins; what it hears is ``said``."""
    left = dict(losses)

    def report(progress: Progress) -> None:
        said.append(progress.message)
        if (index := left.pop(progress.phase, None)) is not None:
            node = cloud.clusters().get("lossy").nodes[index]
            cloud.ec2().terminate_instances([node.instance_id])

    return report


def assert_usable(cloud: Cloud, record: ClusterRecord, *, left: list[int], master: int) -> None:
    """The nodes that are left run MPI and R, and any client sees what is lost."""
    found = cloud.clusters().get("lossy")
    assert found.state is ClusterState.DEGRADED
    assert found.master.index == master
    up = [node for node in found.nodes if node.up]
    assert up == [node for node in record.nodes if node.up]
    assert [node.index for node in up] == left
    assert found.busy_until is not None
    lost = [node for node in found.nodes if node not in up]
    assert len(found.troubles) == len(record.troubles) == len(lost)
    for node, text in zip(lost, record.troubles, strict=True):
        assert text.startswith(f"node {node.index} ({node.instance_id}) ")
    with cloud.clusters().connect(found) as connection:
        names = connection.run(HELLO).stdout.decode().split()
        assert sorted(names) == sorted(node.private_dns.split(".")[0] for node in up)
        assert b'"state": "idle"' in connection.run("python3 ~/.ppe/node/agent.py status", timeout=30).stdout


@pytest.mark.slow
def test_a_worker_and_then_the_master_are_lost(cloud: Cloud) -> None:
    said: list[str] = []
    losses = {"connecting": 3, "configuring": 0}
    record = cloud.launch(replace(SPEC, nodes=4), report=ending(cloud, losses, said))
    assert_usable(cloud, record, left=[1, 2], master=1)
    assert "node 1 becomes the master" in said
    incomplete = next(line for line in said if line.startswith("2 of 4 nodes of 'lossy' can be used"))
    assert "ended: it is" in incomplete
    assert "its console's last lines" in incomplete
    assert "%ppe_retry lossy --wait, --replace or --drop" in incomplete
    behaviors = [
        cloud.ec2()._ec2.describe_instance_attribute(
            InstanceId=node.instance_id, Attribute="instanceInitiatedShutdownBehavior"
        )["InstanceInitiatedShutdownBehavior"]["Value"]
        for node in record.nodes[1:3]
    ]
    assert behaviors == ["stop", "terminate"]


@pytest.mark.slow
def test_a_worker_is_lost_while_mpi_is_checked(cloud: Cloud) -> None:
    record = cloud.launch(SPEC, report=ending(cloud, {"checking MPI": 2}, []))
    assert_usable(cloud, record, left=[0, 1], master=0)
    clusters = cloud.clusters()
    changes = Changes(cloud.context(), clusters)
    mended = changes.carry_out(changes.plan(clusters.get("lossy"), "retry", choice="replace"))
    assert mended is not None and mended.state is clusters.get("lossy").state is ClusterState.RUNNING
    assert mended.nodes[2].instance_id != record.nodes[2].instance_id
    with clusters.connect(mended) as connection:
        assert len(connection.run(HELLO).stdout.split()) == 3


@pytest.mark.slow
def test_a_first_boot_that_installs_may_take_longer_than_a_boot(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "LEAST_PATIENCE_SECONDS", 6.0)
    spec = replace(SPEC, nodes=2, bootstrap="#!/bin/sh\nsleep 30\ntouch /installed\n")
    record = cloud.launch(spec, settings=replace(cloud.settings, boot_timeout=6.0))
    assert record.state is ClusterState.RUNNING, record.troubles
    with cloud.clusters().connect(record) as connection:
        connection.run(f"ls /installed && ssh {record.nodes[1].private_ip} ls /installed")


def test_when_no_node_is_left_everything_goes(cloud: Cloud) -> None:
    with pytest.raises(LaunchFailed, match=r"no node of 'lossy' can be the master: node 0 \(i-\w+\) ended"):
        cloud.launch(replace(SPEC, nodes=1), report=ending(cloud, {"connecting": 0}, []))


def test_a_master_that_does_not_answer_is_left_for_another(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is said: state, status checks, port 22's rule, the way out, the console."""
    monkeypatch.setattr(boot, "HEIR_SECONDS", 120.0)
    deaf: list[str] = []
    later = [0.0]

    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        deaf.append(target.host)
        if target.host == deaf[0]:
            ssh.connect(target, timeout=timeout).close()  # it has booted, and printed that
            until(lambda: console(target.host))
            later[0] += 1000.0
            raise Unreachable(f"no SSH server answers at {target.host}", host=target.host)
        return ssh.connect(target, timeout=timeout)

    def console(host: str) -> str:
        ec2 = cloud.ec2()
        (one,) = [each for each in ec2.our_instances() if host in (each.public_ip, each.private_ip)]
        return ec2.console_output(one.instance_id, latest=True).strip()

    def pace() -> Pace:
        return Pace(clock=lambda: time.monotonic() + later[0])

    clusters = cloud.clusters(connect=connect, pace=pace)
    record = clusters.launch(cloud.plan(SPEC))
    assert record.state is ClusterState.DEGRADED
    assert record.master.index == 1
    (trouble,) = record.troubles
    for checked in (
        f"node 0 ({record.nodes[0].instance_id}) does not answer: no SSH server answers",
        "it is running",
        "EC2's status checks say: system ",
        f"lets port 22 in from {cloud.endpoint.caller_address}/32",
        "its subnet's route leads to an internet gateway",
        "its console's last lines: ",
    ):
        assert checked in trouble
    assert record.nodes[0].state is InstanceState.RUNNING
    assert cloud.clusters().get("lossy").state is ClusterState.DEGRADED


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_left_out(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring_up, "LEAST_PATIENCE_SECONDS", 6.0)
    stopped: list[str] = []

    def report(progress: Progress) -> None:
        if progress.phase == "uploading" and not stopped:
            record = cloud.clusters().get("lossy")
            target = ssh.Target(
                host=record.nodes[1].address,
                user=record.login_user,
                key=cloud.context().keys.private(record.key_name),
                host_keys=(record.nodes[1].launch_host_key,),
            )
            with ssh.connect(target, timeout=20) as connection:
                connection.run("sudo kill -STOP $(cat /run/sshd.pid)")
            stopped.append(record.nodes[1].instance_id)

    record = cloud.launch(SPEC, report=report, settings=replace(cloud.settings, boot_timeout=6.0))
    assert_usable(cloud, record, left=[0, 2], master=0)
    assert "could not be set up" in record.troubles[0]
    assert "EC2's status checks say" in record.troubles[0]


@pytest.mark.slow
def test_a_master_that_cannot_be_set_up_is_left_for_another(cloud: Cloud) -> None:
    def spoil(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        connection = ssh.connect(target, timeout=timeout)
        spoilt.append(target.host)
        if target.host == spoilt[0]:
            connection.run("sudo rm /usr/bin/mpirun")
        return connection

    spoilt: list[str] = []
    clusters = cloud.clusters(connect=spoil)
    record = clusters.launch(cloud.plan(SPEC))
    assert_usable(cloud, record, left=[1, 2], master=1)
    assert "could not be set up" in record.troubles[0]
    assert "mpirun" in record.troubles[0]


@pytest.mark.slow
def test_a_line_that_is_cut_is_taken_up_again(cloud: Cloud) -> None:
    """Also after the nodes' own host keys have taken the place of the launch's."""
    made: list[ssh.Connection] = []
    cut: list[str] = []

    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        made.append(ssh.connect(target, timeout=timeout))
        return made[-1]

    def report(progress: Progress) -> None:
        if progress.phase in ("booting", "checking MPI") and made and progress.phase not in cut:
            cut.append(progress.phase)
            made[-1].close()

    record = cloud.launch(replace(SPEC, nodes=2), report=report, connect=connect)
    assert record.state is ClusterState.RUNNING
    assert len(made) == 3
    assert cloud.clusters().get("lossy").nodes == record.nodes


@pytest.mark.slow
def test_an_instance_that_ec2_lists_late_is_not_lost(cloud: Cloud) -> None:
    plan = cloud.plan(replace(SPEC, nodes=1))
    hooks.set_visibility(cloud.endpoint, calls=8)
    assert cloud.clusters().launch(plan).state is ClusterState.RUNNING
