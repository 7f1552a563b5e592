"""Launching: what succeeds, every way in which a launch can end early, and clients at once; on the local cloud."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cloud_client import Cloud, ignore

from ppe_jupyter import ssh
from ppe_jupyter.cloud.access import rule_description
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.keeping.volumes import Volumes
from ppe_jupyter.cloud.launching.removal import remove
from ppe_jupyter.cloud.pace import Pace
from ppe_jupyter.cloud.plan import Plan
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.cloud.steps import RunInstances
from ppe_jupyter.errors import CapacityError, CloudError, LaunchFailed, NoSuchCluster, PpeError, SpecError
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.localcloud.hooks import Fault
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

SPEC = ClusterSpec(nodes=2, instance_type="m5.xlarge")
ONE = replace(SPEC, nodes=1)


@pytest.fixture(scope="module")
def cloud(local_cloud: Endpoint, settings: Settings) -> Cloud:
    return Cloud(local_cloud, settings)


@pytest.fixture(autouse=True)
def nothing_left(cloud: Cloud) -> Iterator[None]:
    with cloud.unchanged():
        yield


# -- launches that succeed ----------------------------------------------------------------------------------


def test_a_launch_takes_few_calls_and_one_connection(cloud: Cloud) -> None:
    connections: list[ssh.Target] = []

    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        connection = ssh.connect(target, timeout=timeout)
        connections.append(target)
        return connection

    clusters, plan = cloud.clusters(connect=connect), cloud.plan(SPEC)
    hooks.reset(cloud.endpoint)
    phases: list[str] = []
    record = clusters.launch(plan, report=lambda progress: phases.append(progress.phase))
    try:
        calls = [call for call in hooks.calls(cloud.endpoint) if call != "DescribeInstances"]
        assert calls[-4:] == ["RunInstances", "CreateTags", "ModifyInstanceAttribute", "CreateTags"]
        assert len(calls) <= 8
        with clusters.connect(record) as connection:
            assert b"R" in connection.run("Rscript --version 2>&1").stdout
        assert len(connections) == 1
        assert (phases[0], phases[-1]) == ("creating", "running")
        assert record == clusters.get(record.name)
    finally:
        assert cloud.terminate(record.name)
    assert not cloud.terminate(record.name)
    with pytest.raises(NoSuchCluster):
        clusters.get(record.name)


@pytest.mark.slow
def test_the_name_is_free_again_at_once(cloud: Cloud) -> None:
    clusters = cloud.clusters()
    first = clusters.launch(cloud.plan(replace(ONE, name="again")), wait=False)
    try:
        with pytest.raises(SpecError, match="being launched already"):
            clusters.launch(cloud.plan(replace(ONE, name="again")))
        assert first.state in (ClusterState.PENDING, ClusterState.CONFIGURING)
        wait_for_undertakings()
        assert clusters.get("again").state is ClusterState.RUNNING
        cloud.terminate("again")
        second = cloud.launch(replace(ONE, name="again"))
        assert second.state is ClusterState.RUNNING
        assert second.master.instance_id != first.master.instance_id
    finally:
        cloud.terminate("again")


def wait_for_undertakings() -> None:
    for thread in threading.enumerate():
        if thread.name == "ppe-undertaking":
            thread.join(60)


@pytest.mark.slow
def test_spot_workers_of_a_master_with_the_only_public_address(cloud: Cloud) -> None:
    spec = replace(SPEC, name="spotty", spot=True, public_addresses="master", then="terminate")
    try:
        record = cloud.launch(spec)
        assert [(node.role, node.spot, bool(node.public_ip)) for node in record.nodes] == [
            ("master", False, True),
            ("worker", True, False),
        ]
        assert record.state is ClusterState.RUNNING
        master, worker = (node.price for node in record.nodes)
        assert master is not None and worker is not None and worker < master
        requests = cloud.ec2()._ec2.describe_spot_instance_requests(
            Filters=[{"Name": "tag:ppe:cluster", "Values": ["spotty"]}]
        )["SpotInstanceRequests"]
        assert [each["Type"] for each in requests] == ["one-time"]
        # Nothing here can be parked, so a shutdown from inside ends the master too.
        assert "ModifyInstanceAttribute" not in hooks.calls(cloud.endpoint)
    finally:
        cloud.terminate("spotty")


@pytest.mark.slow
def test_on_demand_nodes_cost_what_they_cost_when_there_is_no_spot_capacity(cloud: Cloud) -> None:
    hooks.set_capacity(cloud.endpoint, zone=None, available=False, market="spot")
    said: list[str] = []
    spec = replace(SPEC, name="fallback", spot=True, spot_fallback=True)
    plan = cloud.plan(spec)
    try:
        record = cloud.clusters().launch(plan, report=lambda progress: said.append(progress.message))
        assert not any(node.spot for node in record.nodes)
        assert record.nodes[0].price == record.nodes[1].price
        assert record.cost is not None and record.cost.usd_per_hour is not None
        assert plan.usd_per_hour is not None and record.cost.usd_per_hour > plan.usd_per_hour
        assert "there is no spot capacity: the workers are on demand" in said
    finally:
        cloud.terminate("fallback")


@pytest.mark.slow
def test_another_zone_is_taken_when_one_is_full(cloud: Cloud) -> None:
    plan = cloud.plan(replace(ONE, name="elsewhere"))
    zones = [subnet.zone for step in plan.steps if isinstance(step, RunInstances) for subnet in step.subnets]
    said: list[str] = []
    hooks.set_capacity(cloud.endpoint, zone=zones[0], available=False)
    try:
        record = cloud.clusters().launch(plan, report=lambda progress: said.append(progress.message))
        assert record.master.zone == zones[1]
        assert [line for line in said if line.startswith(f"{zones[0]} has no 1 × m5.xlarge")]
    finally:
        cloud.terminate("elsewhere")
    hooks.set_capacity(cloud.endpoint, zone=None, available=False)
    with pytest.raises(CapacityError, match="no zone has") as caught:
        cloud.launch(replace(ONE, name="nowhere"))
    assert [zone for zone, _, _ in caught.value.tried] == zones


def test_a_stock_image_becomes_a_node_by_its_user_data(cloud: Cloud) -> None:
    """The node image, taken for a stock one: bootstrap.sh travels in the user data and runs to its end."""
    plan = cloud.plan(replace(ONE, name="stock", bootstrap="#!/bin/sh\necho mine > /etc/mine\n"))
    steps = tuple(
        replace(step, image=replace(step.image, node=False)) if isinstance(step, RunInstances) else step
        for step in plan.steps
    )
    clusters = cloud.clusters()
    try:
        with clusters.connect(clusters.launch(replace(plan, steps=steps))) as connection:
            assert "ppe bootstrap: done" in connection.run("sudo cat /var/lib/ppe-node/*.log").stdout.decode()
            assert connection.run("cat /etc/mine").stdout == b"mine\n"
    finally:
        cloud.terminate("stock")


@pytest.mark.slow
def test_the_users_own_key_pair_is_used_and_stays_here(cloud: Cloud, tmp_path: Path) -> None:
    pair = ssh.generate_key_pair()
    key_file = tmp_path / "mine.pem"
    key_file.write_text(pair.private)
    settings = replace(cloud.settings, key_name="mine", key_file=key_file, state_dir=tmp_path)
    clusters = cloud.clusters(settings=settings)
    with pytest.raises(SpecError, match="EC2 has no key pair 'mine'"):
        cloud.launch(replace(ONE, name="own-key"), settings=settings)
    cloud.ec2().import_key_pair("mine", pair.public, tags={"made-by": "me"})
    try:
        record = clusters.launch(cloud.plan(replace(ONE, name="own-key"), settings=settings))
        assert record.key_name == "mine"
        assert clusters.key_file(record) == key_file
        assert not (tmp_path / "keys").exists()
        with clusters.connect(record) as connection:
            secret = pair.private.splitlines()[3]
            found = connection.run(f"sudo grep -rlF '{secret}' /home /root /etc /var/lib/cloud", check=False)
            assert found.stdout == b""
    finally:
        cloud.terminate("own-key")
        cloud.ec2().delete_key_pair("mine")


@pytest.mark.slow
def test_a_cluster_is_of_use_without_its_volume_and_says_so(cloud: Cloud) -> None:
    volumes = Volumes(cloud.context())
    volume = volumes.create(gb=1, zone="us-east-1b")
    try:
        record = cloud.launch(replace(ONE, name="empty-disk", volumes=(f"{volume}:/data",)))
        assert (record.state, record.master.zone) == (ClusterState.RUNNING, "us-east-1b")
        (trouble,) = record.troubles
        assert trouble.startswith(f"{volume} is not attached: ")
        assert trouble.endswith(f"try: %ppe_attach_volume {volume} --mount /data")
    finally:
        cloud.terminate("empty-disk")
        volumes.delete(volume)


@pytest.fixture
def own_group(cloud: Cloud) -> Iterator[str]:
    """A security group of the user's."""
    ec2 = cloud.ec2()
    group = ec2.create_security_group("mine", vpc_id=ec2.subnets()[0].vpc_id, tags={"made-by": "me"})
    here = f"{cloud.endpoint.caller_address}/32"
    ec2.open_security_group(group, ssh_from=here, description=rule_description(given=True))
    yield group
    ec2.delete_security_group(group)


@pytest.mark.slow
def test_an_existing_group_is_used_and_stays_and_one_of_two_clients_wins(
    cloud: Cloud, own_group: str
) -> None:
    """With a group of the user's there is no group to be the lock: the clients see each other's instances."""
    outcomes = contest(cloud, replace(ONE, name="shared", security_group=own_group))
    try:
        assert_one_won(cloud, outcomes, "shared")
        assert cloud.ec2().security_groups(cluster="shared") == []
    finally:
        cloud.terminate("shared")
    assert cloud.ec2().ssh_rules([own_group])


def test_of_two_clients_that_launch_one_name_one_wins(cloud: Cloud) -> None:
    outcomes = contest(cloud, replace(ONE, name="contested"))
    try:
        assert_one_won(cloud, outcomes, "contested")
    finally:
        cloud.terminate("contested")


def contest(cloud: Cloud, spec: ClusterSpec) -> list[ClusterRecord | PpeError]:
    """What becomes of two launches that were planned before either began."""
    outcomes: list[ClusterRecord | PpeError] = []

    def client(plan: Plan) -> None:
        try:
            outcomes.append(cloud.clusters().launch(plan))
        except PpeError as exc:
            outcomes.append(exc)

    plans = [cloud.plan(spec), cloud.plan(spec)]
    threads = [threading.Thread(target=client, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def assert_one_won(cloud: Cloud, outcomes: list[ClusterRecord | PpeError], name: str) -> None:
    (won,) = [each for each in outcomes if isinstance(each, ClusterRecord)]
    (lost,) = [each for each in outcomes if isinstance(each, PpeError)]
    assert "being launched elsewhere" in str(lost)
    assert cloud.clusters().get(name) == won
    assert len([each for each in cloud.ec2().instances(cluster=name) if each.state.alive]) == 1


def test_a_launch_gets_over_faults_that_pass(cloud: Cloud) -> None:
    """Answers lost, throttling, faults of the server's, what was made not known at once: as EC2 does it."""
    plan = cloud.plan(replace(ONE, name="rough"))
    hooks.inject(
        cloud.endpoint,
        Fault("CreateSecurityGroup", drop=True, after=True),
        Fault("AuthorizeSecurityGroupIngress", code="InvalidGroup.NotFound"),
        Fault("CreatePlacementGroup", drop=True, after=True),
        Fault("RunInstances", code="RequestLimitExceeded", status=503),
        Fault("RunInstances", drop=True, after=True),
        Fault("DescribeInstances", code="InternalError", status=500, times=2),
        Fault("CreateTags", code="InvalidInstanceID.NotFound"),
        Fault("CreateTags", drop=True, after=True),
        Fault("ModifyInstanceAttribute", code="ServiceUnavailable", status=503),
    )
    hooks.set_visibility(cloud.endpoint, calls=3)
    try:
        record = cloud.clusters().launch(plan)
        assert record.state is ClusterState.RUNNING
        assert len(cloud.ec2().instances(cluster="rough")) == 1
    finally:
        cloud.terminate("rough")


# -- launches that end early --------------------------------------------------------------------------------

RARE = [
    "creating",
    "starting",
    "connecting",
    "uploading",
    "checking MPI",
    "starting R",
]


@pytest.mark.parametrize(
    "phase", ["booting", "configuring", *(pytest.param(phase, marks=pytest.mark.slow) for phase in RARE)]
)
def test_an_interrupt_in_any_phase_removes_everything(cloud: Cloud, phase: str) -> None:
    def report(progress: Progress) -> None:
        # And again, impatiently, while it is being removed.
        if progress.phase in (phase, "removing", "terminating"):
            raise KeyboardInterrupt

    with pytest.raises(LaunchFailed, match=r"it was stopped\. (Everything|Nothing)") as caught:
        cloud.launch(replace(SPEC, name="interrupted"), report=report)
    assert caught.value.leftovers == ()


SCRIPT = """
import sys
from ppe_jupyter import ClusterSpec, Manager, errors

def report(progress):
    print(progress.phase, flush=True)

try:
    Manager().launch(ClusterSpec(name="sigint", nodes=2, instance_type="m5.xlarge"), report=report)
except errors.LaunchFailed as exc:
    print(exc, flush=True)
    sys.exit(7)
"""


@pytest.mark.parametrize("phase", [pytest.param("booting", marks=pytest.mark.slow), "connecting"])
def test_ctrl_c_ends_a_launch_in_good_order(cloud: Cloud, phase: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] in (phase, "terminating"):
            os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 7, stderr
    assert lines[-1].startswith("cluster 'sigint' was not launched: it was stopped. Everything it had made")


@pytest.mark.parametrize(
    "action",
    [
        "CreateSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "CreatePlacementGroup",
        "RunInstances",
        pytest.param("CreateTags", marks=pytest.mark.slow),
        "ModifyInstanceAttribute",
    ],
)
def test_a_call_that_fails_leaves_nothing(cloud: Cloud, action: str) -> None:
    plan = cloud.plan(replace(SPEC, name="faulty"))
    hooks.inject(cloud.endpoint, Fault(action, code="UnauthorizedOperation", status=403))
    with pytest.raises(
        LaunchFailed, match=f"'faulty' was not launched: the cloud refuses {action}"
    ) as caught:
        cloud.clusters().launch(plan)
    assert caught.value.leftovers == ()


@pytest.mark.slow
def test_instances_that_nobody_told_of_are_removed_too(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer to RunInstances is lost, and the instance is listed only later."""
    from ppe_jupyter.cloud.launching import purchase

    monkeypatch.setattr(purchase, "PATIENCE_SECONDS", 0.0)
    plan = cloud.plan(replace(ONE, name="unheard"))
    hooks.inject(cloud.endpoint, Fault("RunInstances", drop=True, after=True, times=50))
    hooks.set_visibility(cloud.endpoint, calls=9)
    with pytest.raises(LaunchFailed, match="Everything it had made was removed"):
        cloud.clusters().launch(plan)
    assert len(cloud.ec2().instances(cluster="unheard")) == 1


def test_what_cannot_be_removed_is_named_with_what_to_do(cloud: Cloud) -> None:
    class Stuck(EC2):
        def delete_security_group(self, group_id: str) -> None:
            raise CloudError("the API is down", code="InternalError")

    ec2: Any = cloud.ec2()
    ec2.__class__ = Stuck
    plan = cloud.plan(replace(SPEC, name="stuck"))
    hooks.inject(cloud.endpoint, Fault("RunInstances", code="InvalidParameterCombination"))
    with pytest.raises(
        LaunchFailed, match=r"Still there: sg-.*the API is down.*%ppe_terminate stuck"
    ) as caught:
        cloud.clusters(ec2=ec2).launch(plan)
    assert len(caught.value.leftovers) == 1
    # Another client, later: a launch that died before it had instances.
    with pytest.raises(LaunchFailed, match=r"ppe-stuck exists.*%ppe_terminate stuck"):
        cloud.launch(replace(SPEC, name="stuck"))
    assert cloud.terminate("stuck")


def test_a_group_in_use_is_waited_for(cloud: Cloud) -> None:
    ec2 = cloud.ec2()
    tags = {"ppe:cluster": "busy", "ppe:launch": "x"}
    ec2.create_security_group("ppe-busy", vpc_id=ec2.subnets()[0].vpc_id, tags=tags)
    hooks.inject(cloud.endpoint, Fault("DeleteSecurityGroup", code="DependencyViolation", times=2))
    assert remove(ec2, pace=Pace(), report=ignore, cluster="busy").leftovers == {}


def test_a_master_with_another_host_key_is_never_configured(cloud: Cloud) -> None:
    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        return ssh.connect(replace(target, host_keys=(ssh.generate_key_pair().public,)), timeout=timeout)

    with pytest.raises(LaunchFailed, match="not the one that was launched"):
        cloud.launch(replace(ONE, name="impostor"), connect=connect)


@pytest.mark.parametrize("phase", [pytest.param("booting", marks=pytest.mark.slow), "configuring"])
def test_a_cluster_terminated_while_it_is_launched_ends_the_launch(cloud: Cloud, phase: str) -> None:
    terminated: list[bool] = []

    def report(progress: Progress) -> None:
        if progress.phase == phase and not terminated:
            terminated.append(cloud.terminate("shortlived"))

    with pytest.raises(LaunchFailed, match="'shortlived' was not launched"):
        cloud.launch(replace(SPEC, name="shortlived"), report=report)
    assert terminated == [True]


def test_caps_of_the_configuration_are_kept(cloud: Cloud) -> None:
    capped = replace(cloud.settings, max_usd_per_hour=0.1, max_nodes=1)
    with pytest.raises(SpecError, match=r"max_nodes = 1.*max_usd_per_hour = 0.1"):
        cloud.launch(SPEC, settings=capped)
