"""Launch, find, connect, terminate, and every way in which a launch can end early; on the local cloud."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ppe_jupyter import ssh
from ppe_jupyter.cloud.clusters import Clusters
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, InstanceState, Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.cloud.steps import RunInstances
from ppe_jupyter.errors import (
    CapacityError,
    CloudError,
    HostKeyMismatch,
    LaunchFailed,
    NoSuchCluster,
    PpeError,
    SettingsError,
    SpecError,
    SshError,
)
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint

Snapshot = tuple[set[str], set[str], set[str]]
SPEC = ClusterSpec(nodes=2, instance_type="m5.xlarge")


class Cloud:
    """The local cloud's endpoint with what a test needs of it."""

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.calls: list[str] = []

    def ec2(self, kind: Callable[..., EC2] = EC2) -> EC2:
        made = kind(
            self.settings,
            endpoint_url=self.endpoint.url,
            access_key=self.endpoint.access_key,
            secret_key=self.endpoint.secret_key,
            region=self.endpoint.region,
        )
        for client in (made._ec2, made._sts, made._ssm):
            client.meta.events.register("before-call", self._count)
        return made

    def clusters(
        self, ec2: EC2 | None = None, *, settings: Settings | None = None, **options: Any
    ) -> Clusters:
        return Clusters(
            ec2 or self.ec2(),
            settings or self.settings,
            caller_address=lambda: self.endpoint.caller_address,
            **options,
        )

    def snapshot(self) -> Snapshot:
        """Ids of everything that exists: instances, security groups, placement groups."""
        client = self.ec2()._ec2
        instances = {
            each["InstanceId"]
            for page in client.get_paginator("describe_instances").paginate()
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
            if each["State"]["Name"] != "terminated"
        }
        groups = {each["GroupId"] for each in client.describe_security_groups()["SecurityGroups"]}
        placements = {each["GroupName"] for each in client.describe_placement_groups()["PlacementGroups"]}
        return instances, groups, placements

    def _count(self, model: Any, **_: Any) -> None:
        self.calls.append(model.name)


@pytest.fixture(scope="module")
def cloud(local_cloud: Endpoint, settings: Settings) -> Cloud:
    return Cloud(local_cloud, settings)


@pytest.fixture
def nothing_left(cloud: Cloud) -> Iterator[None]:
    before = cloud.snapshot()
    yield
    assert cloud.snapshot() == before


def ignore(progress: Progress) -> None:
    pass


# -- a running cluster --------------------------------------------------------------------------------------


@pytest.fixture
def record(cluster: Cluster, cloud: Cloud) -> ClusterRecord:
    """The session's cluster, as a client finds it that knows nothing but the API."""
    return cloud.clusters().get(cluster.name)


def test_another_client_finds_the_cluster_by_the_api_alone(
    record: ClusterRecord, cloud: Cloud, cluster: Cluster
) -> None:
    assert record.state is ClusterState.RUNNING
    assert [node.role for node in record.nodes] == ["master", "worker", "worker"]
    assert all(node.state is InstanceState.RUNNING and node.slots == 2 for node in record.nodes)
    assert record == cluster.refresh().record
    assert record.name in [each.name for each in cloud.clusters().find()]
    assert record.usd_per_hour == pytest.approx(0.6007, abs=0.001)
    assert record.owner.split("@")[0]


def test_the_master_is_reached_with_the_host_key_of_the_tags(record: ClusterRecord, cloud: Cloud) -> None:
    with cloud.clusters().connect(record) as connection:
        shown = connection.run("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout.decode()
        assert record.master.host_key.split()[1] == shown.split()[1]
        # Every worker has a host key of its own, and it is not the one of the user data.
        assert len({node.host_key for node in record.nodes}) == 3
        known = connection.run(
            "cat ~/.ssh/known_hosts /etc/ssh/ssh_known_hosts 2>/dev/null; true"
        ).stdout.decode()
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
    assert stranger.get(record.name) == record
    with pytest.raises(SettingsError, match=r"private half.*key_file"):
        stranger.connect(record)


def test_launching_it_again_changes_nothing(record: ClusterRecord, cloud: Cloud) -> None:
    assert record.spec is not None
    clusters = cloud.clusters()
    again = clusters.plan(record.spec)
    assert again.steps == ()
    cloud.calls.clear()
    assert clusters.launch(again) == record
    assert cloud.calls == []
    with pytest.raises(SpecError, match="nodes: 3, not 2"):
        clusters.launch(clusters.plan(replace(record.spec, nodes=2)))


def test_only_the_caller_reaches_port_22(record: ClusterRecord, cloud: Cloud) -> None:
    groups = cloud.ec2()._ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [f"ppe-{record.name}"]}]
    )["SecurityGroups"]
    (group,) = groups
    rules = {each["IpProtocol"]: each for each in group["IpPermissions"]}
    assert set(rules) == {"tcp", "-1"}
    assert (rules["tcp"]["FromPort"], rules["tcp"]["ToPort"]) == (22, 22)
    assert [each["CidrIp"] for each in rules["tcp"]["IpRanges"]] == [f"{cloud.endpoint.caller_address}/32"]
    assert [each["GroupId"] for each in rules["-1"]["UserIdGroupPairs"]] == [group["GroupId"]]
    assert rules["-1"]["IpRanges"] == []


def test_everything_made_carries_our_tags(record: ClusterRecord, cloud: Cloud) -> None:
    client = cloud.ec2()._ec2
    wanted = [{"Name": "tag:ppe:cluster", "Values": [record.name]}]
    volumes = client.describe_volumes(Filters=wanted)["Volumes"]  # type: ignore[arg-type]
    groups = client.describe_security_groups(Filters=wanted)["SecurityGroups"]  # type: ignore[arg-type]
    placements = client.describe_placement_groups(Filters=wanted)["PlacementGroups"]  # type: ignore[arg-type]
    assert (len(volumes), len(groups), len(placements)) == (3, 1, 1)
    for each in [*volumes, *groups, *placements]:
        tags = {tag["Key"]: tag["Value"] for tag in each["Tags"]}
        assert {"Name", "ppe:cluster", "ppe:owner", "ppe:launch", "ppe:launching-until"} <= set(tags)


def test_an_unknown_name_is_told_with_those_that_exist(record: ClusterRecord, cloud: Cloud) -> None:
    with pytest.raises(NoSuchCluster, match=f"no cluster 'nemo'.*{record.name}"):
        cloud.clusters().get("nemo")


# -- launches that succeed ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_left")
def test_a_launch_takes_few_calls_and_one_connection(cloud: Cloud) -> None:
    connections: list[ssh.Target] = []

    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        connection = ssh.connect(target, timeout=timeout)
        connections.append(target)
        return connection

    clusters = cloud.clusters(connect=connect)
    cloud.calls.clear()
    phases: list[str] = []
    record = clusters.launch(clusters.plan(SPEC), report=lambda progress: phases.append(progress.phase))
    try:
        assert len([call for call in cloud.calls if call != "DescribeInstances"]) <= 12
        assert cloud.calls.count("CreateTags") == 1
        with clusters.connect(record) as connection:
            assert b"R" in connection.run("Rscript --version 2>&1").stdout
        assert len(connections) == 1
        assert phases[0] == "creating"
        assert phases[-1] == "running"
        assert record == clusters.get(record.name)
    finally:
        assert clusters.terminate(record.name)
    assert clusters.terminate(record.name) is False
    with pytest.raises(NoSuchCluster):
        clusters.get(record.name)


@pytest.mark.usefixtures("nothing_left")
def test_a_launch_that_is_not_waited_for_goes_on(cloud: Cloud) -> None:
    clusters = cloud.clusters()
    plan = clusters.plan(replace(SPEC, nodes=1))
    record = clusters.launch(plan, wait=False)
    try:
        assert record.state in (ClusterState.PENDING, ClusterState.CONFIGURING)
        with pytest.raises(SpecError, match="being launched already"):
            clusters.launch(clusters.plan(plan.spec))
        for thread in threading.enumerate():
            if thread.name == "ppe-undertaking":
                thread.join(60)
        assert clusters.get(record.name).state is ClusterState.RUNNING
    finally:
        clusters.terminate(record.name)


@pytest.mark.usefixtures("nothing_left")
def test_another_zone_is_taken_when_one_is_full(cloud: Cloud) -> None:
    from ppe_jupyter.localcloud import hooks

    clusters = cloud.clusters()
    plan = clusters.plan(replace(SPEC, name="elsewhere", nodes=1))
    zones = [subnet.zone for step in plan.steps if isinstance(step, RunInstances) for subnet in step.subnets]
    said: list[str] = []
    hooks.set_capacity(cloud.endpoint, zone=min(zones), available=False)
    try:
        record = clusters.launch(plan, report=lambda progress: said.append(progress.message))
        assert record.master.zone == sorted(zones)[1]
        assert [line for line in said if min(zones) in line]
        clusters.terminate(record.name)
        hooks.set_capacity(cloud.endpoint, zone=None, available=False)
        with pytest.raises(CapacityError, match="no zone has") as caught:
            clusters.launch(clusters.plan(replace(SPEC, name="nowhere", nodes=1)))
        assert all(zone in str(caught.value) for zone in zones)
    finally:
        hooks.set_capacity(cloud.endpoint, zone=None, available=True)
        hooks.set_capacity(cloud.endpoint, zone=min(zones), available=True)


@pytest.mark.usefixtures("nothing_left")
def test_a_stock_image_becomes_a_node_by_its_user_data(cloud: Cloud) -> None:
    """The node image, taken for a stock one: bootstrap.sh travels in the user data and runs to its end."""
    clusters = cloud.clusters()
    plan = clusters.plan(replace(SPEC, name="stock", nodes=1))
    steps = tuple(
        replace(step, image=replace(step.image, node=False)) if isinstance(step, RunInstances) else step
        for step in plan.steps
    )
    try:
        record = clusters.launch(replace(plan, steps=steps))
        with clusters.connect(record) as connection:
            log = connection.run("cat /var/log/cloud-init-output.log").stdout.decode()
            assert "ppe bootstrap: done" in log
            assert (
                connection.run("test -x /var/lib/cloud/scripts/per-boot/ppe-agent", check=False).status == 0
            )
    finally:
        clusters.terminate("stock")


@pytest.mark.usefixtures("nothing_left")
def test_the_users_own_key_pair_is_used_and_stays_here(cloud: Cloud, tmp_path: Path) -> None:
    pair = ssh.generate_key_pair()
    key_file = tmp_path / "mine.pem"
    key_file.write_text(pair.private)
    settings = replace(cloud.settings, key_name="mine", key_file=key_file, state_dir=tmp_path)
    clusters = cloud.clusters(settings=settings)
    with pytest.raises(SpecError, match="EC2 has no key pair 'mine'"):
        clusters.launch(clusters.plan(replace(SPEC, name="own-key", nodes=1)))
    cloud.ec2().import_key_pair("mine", pair.public, tags={"made-by": "me"})
    try:
        record = clusters.launch(clusters.plan(replace(SPEC, name="own-key", nodes=1)))
        assert record.key_name == "mine"
        assert clusters.key_file(record) == key_file
        assert not (tmp_path / "keys").exists()
        with clusters.connect(record) as connection:
            secret = pair.private.splitlines()[3]
            found = connection.run(f"sudo grep -rlF '{secret}' /home /root /etc /var/lib/cloud", check=False)
            assert found.stdout == b""
    finally:
        clusters.terminate("own-key")


# -- launches that end early --------------------------------------------------------------------------------

PHASES = [
    "creating",
    "starting",
    "booting",
    "connecting",
    "uploading",
    "configuring",
    "checking MPI",
    "starting R",
]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("phase", PHASES)
def test_an_interrupt_in_any_phase_removes_everything(cloud: Cloud, phase: str) -> None:
    def report(progress: Progress) -> None:
        # And again, impatiently, while it is being removed.
        if progress.phase in (phase, "removing", "terminating"):
            raise KeyboardInterrupt

    clusters = cloud.clusters()
    with pytest.raises(LaunchFailed, match=r"it was stopped\. (Everything|Nothing)") as caught:
        clusters.launch(clusters.plan(replace(SPEC, name="interrupted")), report=report)
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


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("phase", ["booting", "connecting"])
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


class Faulty(EC2):
    """The real endpoint with one verb that fails, before or after it has done its work."""

    def __init__(
        self, *args: Any, verb: str, after: bool, code: str = "", times: int = 1, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        real = getattr(self, verb)

        def fail(*args: Any, **kwargs: Any) -> Any:
            nonlocal times
            result = real(*args, **kwargs) if after or times == 0 else None
            if times == 0:
                return result
            times -= 1
            raise CloudError(f"{verb} did not work", code=code)

        setattr(self, verb, fail)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("verb", "code", "after"),
    [
        ("create_security_group", "", False),
        ("create_security_group", "", True),
        ("open_security_group", "InvalidParameterValue", False),
        ("create_placement_group", "InvalidParameterValue", False),
        ("create_placement_group", "", True),
        ("run_instances", "InvalidParameterCombination", False),
        ("run_instances", "", True),  # no answer: whether there are instances is not known
        ("tag", "", False),
        ("tag", "", True),
    ],
)
def test_a_call_that_fails_leaves_nothing(cloud: Cloud, verb: str, code: str, after: bool) -> None:
    clusters = cloud.clusters(cloud.ec2(lambda *a, **k: Faulty(*a, **k, verb=verb, code=code, after=after)))
    plan = clusters.plan(replace(SPEC, name="faulty", nodes=1 if verb == "tag" else 2))
    with pytest.raises(LaunchFailed, match=f"'faulty' was not launched: {verb} did not work") as caught:
        clusters.launch(plan)
    assert caught.value.leftovers == ()


@pytest.mark.usefixtures("nothing_left")
def test_what_cannot_be_removed_is_named_with_what_to_do(cloud: Cloud) -> None:
    class Stuck(Faulty):
        def delete_security_group(self, group_id: str) -> None:
            raise CloudError("the API is down", code="InternalError")

    stuck = cloud.clusters(
        cloud.ec2(lambda *a, **k: Stuck(*a, **k, verb="run_instances", code="Refused", after=False))
    )
    with pytest.raises(
        LaunchFailed, match=r"Still there: sg-.*the API is down.*%ppe_terminate stuck"
    ) as caught:
        stuck.launch(stuck.plan(replace(SPEC, name="stuck")))
    assert len(caught.value.leftovers) == 1
    with pytest.raises(CloudError, match="not all of cluster 'stuck'"):
        stuck.terminate("stuck")
    # Another client, later: a launch that died before it had instances.
    again = cloud.clusters()
    with pytest.raises(LaunchFailed, match=r"ppe-stuck exists.*%ppe_terminate stuck"):
        again.launch(again.plan(replace(SPEC, name="stuck")))
    assert again.terminate("stuck") is True


@pytest.mark.usefixtures("nothing_left")
def test_a_group_in_use_is_waited_for(cloud: Cloud) -> None:
    ec2 = cloud.ec2(
        lambda *a, **k: Faulty(
            *a, **k, verb="delete_security_group", after=False, code="DependencyViolation", times=2
        )
    )
    tags = {"ppe:cluster": "busy", "ppe:launch": "x"}
    ec2.create_security_group("ppe-busy", vpc_id=ec2.subnets()[0].vpc_id, tags=tags)
    assert cloud.clusters(ec2).terminate("busy") is True


@pytest.mark.usefixtures("nothing_left")
def test_a_node_that_ends_while_booting_is_named(cloud: Cloud) -> None:
    clusters = cloud.clusters()
    plan = clusters.plan(replace(SPEC, name="dying"))
    ended: list[str] = []

    def report(progress: Progress) -> None:
        if progress.phase == "booting" and not ended:
            ended.append(clusters.get("dying").nodes[1].instance_id)
            cloud.ec2().terminate_instances(ended)

    with pytest.raises(LaunchFailed) as caught:
        clusters.launch(plan, report=report)
    assert ended[0] in str(caught.value) or "worker" in str(caught.value) or "node 1" in str(caught.value)


@pytest.mark.usefixtures("nothing_left")
def test_a_master_with_another_host_key_is_never_configured(cloud: Cloud) -> None:
    def connect(target: ssh.Target, *, timeout: float) -> ssh.Connection:
        return ssh.connect(replace(target, host_keys=(ssh.generate_key_pair().public,)), timeout=timeout)

    clusters = cloud.clusters(connect=connect)
    with pytest.raises(LaunchFailed, match="not the one that was launched"):
        clusters.launch(clusters.plan(replace(SPEC, name="impostor", nodes=1)))


@pytest.mark.usefixtures("nothing_left")
def test_of_two_clients_that_launch_one_name_one_wins(cloud: Cloud) -> None:
    outcomes: list[ClusterRecord | PpeError] = []
    spec = replace(SPEC, name="contested", nodes=1)
    both_planned = threading.Barrier(2)

    def client() -> None:
        clusters = cloud.clusters()
        plan = clusters.plan(spec)
        both_planned.wait()
        try:
            outcomes.append(clusters.launch(plan))
        except PpeError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        (won,) = [each for each in outcomes if isinstance(each, ClusterRecord)]
        (lost,) = [each for each in outcomes if isinstance(each, PpeError)]
        assert "being launched elsewhere" in str(lost)
        assert cloud.clusters().get("contested") == won
        assert len(won.nodes) == 1
    finally:
        cloud.clusters().terminate("contested")


@pytest.mark.usefixtures("nothing_left")
def test_a_cluster_terminated_while_it_is_launched_ends_the_launch(cloud: Cloud) -> None:
    clusters = cloud.clusters()
    plan = clusters.plan(replace(SPEC, name="shortlived"))
    terminated: list[bool] = []

    def report(progress: Progress) -> None:
        if progress.phase == "connecting" and not terminated:
            terminated.append(cloud.clusters().terminate("shortlived"))

    with pytest.raises(LaunchFailed, match="'shortlived' was not launched"):
        clusters.launch(plan, report=report)
    assert terminated == [True]


def test_caps_of_the_configuration_are_kept(cloud: Cloud) -> None:
    capped = cloud.clusters(settings=replace(cloud.settings, max_usd_per_hour=0.1, max_nodes=1))
    with pytest.raises(SpecError, match=r"max_nodes = 1.*max_usd_per_hour = 0.1"):
        capped.launch(capped.plan(SPEC))
