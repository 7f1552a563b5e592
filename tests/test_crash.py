"""Nothing is lost when a client dies: killed before and after each call, what it left is found and removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from localcloud_nodes import client

import ppe_jupyter as ppe
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings

CHANGING = (
    "Create",
    "Run",
    "Authorize",
    "Revoke",
    "Import",
    "Modify",
    "Terminate",
    "Delete",
    "Start",
    "Stop",
)
NAME = "crash"
KILLED = -9


@dataclass(frozen=True)
class Strike:
    """When a client dies: before or after a call, the how manieth of its kind."""

    when: str = ""
    operation: str = ""
    occurrence: int = 0


class Clients:
    """Clients that live, or die at a given call; each a process of its own, forked from one that is warm."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).parent / "crash_client.py")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, strike: Strike | None = None, **task: Any) -> tuple[int, list[str]]:
        """Exit status, and the operations that it called."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({**asdict(strike or Strike()), **task}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["status"], answer["calls"]

    def close(self) -> None:
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()


@pytest.fixture(scope="module")
def clients(local_cloud: Endpoint) -> Iterator[Clients]:
    clients = Clients()
    yield clients
    clients.close()


@pytest.fixture(autouse=True)
def a_new_user(settings: Settings) -> Iterator[None]:
    """Without a key pair, so that each launch imports one; that of the session's cluster comes back."""
    keys, away = settings.state_dir / "keys", settings.state_dir / "keys-away"
    if keys.exists():
        keys.rename(away)
    yield
    shutil.rmtree(keys, ignore_errors=True)
    if away.exists():
        away.rename(keys)


@pytest.fixture
def records_only(local_cloud: Endpoint) -> Iterator[None]:
    """Instances without containers: quick, and their sshd never answers."""
    hooks.set_containerless(local_cloud, True)
    yield
    hooks.reset(local_cloud)


def everything(endpoint: Endpoint) -> dict[str, set[str]]:
    """All that exists, by kind; without what EC2 itself forgets after an hour."""
    ec2 = client(endpoint)
    reservations = ec2.describe_instances()["Reservations"]
    return {
        "instances": {
            f"{each['InstanceId']} {each['State']['Name']}"
            for reservation in reservations
            for each in reservation["Instances"]
            if each["State"]["Name"] != "terminated"
        },
        "groups": {each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]},
        "placement": {each["GroupName"] for each in ec2.describe_placement_groups()["PlacementGroups"]},
        "keys": {each["KeyName"] for each in ec2.describe_key_pairs()["KeyPairs"]},
        "volumes": {each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]},
        "images": {each["ImageId"] for each in ec2.describe_images(Owners=["self"])["Images"]},
    }


def clean_up() -> None:
    """What any other client of the user's does, that knows nothing."""
    manager = Manager()
    manager.clean_up(manager.orphans(force=True))


def spec(nodes: int) -> dict[str, Any]:
    return {"name": NAME, "nodes": nodes, "instance_type": "m5.xlarge"}


def strikes(calls: list[str], *, every: bool = False, since: int = 0) -> list[Strike]:
    """Before and after each call from that one on, or only those that change something."""
    seen: Counter[str] = Counter()
    found = []
    for number, call in enumerate(calls):
        seen[call] += 1
        if number >= since and (every or call.startswith(CHANGING)):
            found += [Strike("before", call, seen[call]), Strike("after", call, seen[call])]
    return found


def distinct(calls: list[str]) -> list[Strike]:
    """Of every call: whoever only asks leaves the same before and after it, and asks as often as it has to wait."""
    return [
        each
        for each in strikes(calls, every=True)
        if each.operation.startswith(CHANGING) or (each.when == "after" and each.occurrence <= 2)
    ]


def test_a_client_killed_at_a_changing_call_of_a_launch_leaves_nothing_for_long(
    clients: Clients, local_cloud: Endpoint, records_only: None
) -> None:
    launch_killed(clients, local_cloud, every=False)


@pytest.mark.slow
def test_a_client_killed_at_any_call_of_a_launch_leaves_nothing_for_long(
    clients: Clients, local_cloud: Endpoint, records_only: None
) -> None:
    launch_killed(clients, local_cloud, every=True)


def launch_killed(clients: Clients, endpoint: Endpoint, *, every: bool) -> None:
    """The launch fails, because records have no sshd, so that its removal is a part of what is interrupted."""
    launch = {"verb": "launch", "spec": spec(2), "records": True}
    clean_up()
    before = everything(endpoint)
    status, calls = clients.run(**launch)
    assert status == 1, "records cannot be configured"
    clean_up()
    assert everything(endpoint) == before
    assert {"ImportKeyPair", "CreateSecurityGroup", "CreatePlacementGroup", "RunInstances"} <= set(calls)
    for strike in strikes(calls, every=every):
        status, called = clients.run(strike, **launch)
        assert status == KILLED or strike.operation == "DescribeInstances", (strike, called)
        clean_up()
        assert everything(endpoint) == before, (strike, called)


@pytest.mark.slow
def test_a_client_killed_at_the_end_of_a_launch_leaves_nothing_for_long(
    clients: Clients, local_cloud: Endpoint
) -> None:
    """With a real node, for the calls that come after its sshd has answered."""
    clean_up()
    before = everything(local_cloud)
    status, calls = clients.run(verb="launch", spec=spec(1))
    assert status == 0
    Manager().terminate(NAME)
    clean_up()
    since = calls.index("RunInstances") + 1
    assert strikes(calls, since=since), calls
    for strike in strikes(calls, since=since):
        status, called = clients.run(strike, verb="launch", spec=spec(1))
        assert status == KILLED, called
        clean_up()
        if everything(local_cloud) != before:  # killed when all was done: it runs, and is no orphan
            assert Manager().cluster(NAME).state == "running", (strike, called)
            Manager().terminate(NAME)
            clean_up()
        assert everything(local_cloud) == before, (strike, called)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_client_killed_while_it_terminates_leaves_nothing_for_long(
    clients: Clients, local_cloud: Endpoint, records_only: None, every: bool
) -> None:
    clean_up()
    before = everything(local_cloud)

    def halfway() -> None:
        assert (
            clients.run(Strike("after", "RunInstances", 1), verb="launch", spec=spec(2), records=True)[0]
            == KILLED
        )

    halfway()
    status, calls = clients.run(verb="terminate", name=NAME)
    assert status == 0
    for strike in strikes(calls, every=every):
        halfway()
        status, called = clients.run(strike, verb="terminate", name=NAME)
        assert status == KILLED or strike.operation == "DescribeInstances", (strike, called)
        clean_up()
        assert everything(local_cloud) == before, (strike, called)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_client_killed_while_it_grows_leaves_the_cluster_as_it_was(
    clients: Clients, local_cloud: Endpoint, every: bool
) -> None:
    """Or, if not at every call, then when it has just paid for the new node."""
    clean_up()
    manager = Manager()
    bare = everything(local_cloud)
    cluster = manager.launch(ppe.ClusterSpec(**spec(1)))
    try:
        cluster.r().eval("kept <- 42; invisible(NULL)")
        before = everything(local_cloud)
        found = [Strike("after", "RunInstances", 1)]
        if every:
            status, calls = clients.run(verb="resize", name=NAME, options={"nodes": 2})
            assert status == 0, calls
            cluster.refresh().resize(1)
            assert everything(local_cloud) == before
            found = distinct(calls)
        for strike in found:
            status, called = clients.run(strike, verb="resize", name=NAME, options={"nodes": 2})
            assert status == KILLED, (strike, called)
            clean_up()
            if len(manager.cluster(NAME).nodes) == 2:  # killed when the new node was the cluster's already
                manager.cluster(NAME).resize(1)
            assert everything(local_cloud) == before, (strike, called)
            assert cluster.refresh().state == "running", (strike, called)
        assert cluster.r().eval("kept") == 42
    finally:
        cluster.terminate()
    clean_up()
    assert everything(local_cloud) == bare


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_clients_killed_while_they_shrink_it_one_after_the_other_leave_it_to_the_next(
    clients: Clients, local_cloud: Endpoint, every: bool
) -> None:
    """Each goes on from what the last has left: a cluster of two nodes, or of one."""
    clean_up()
    manager = Manager()
    bare = everything(local_cloud)
    cluster = manager.launch(ppe.ClusterSpec(**spec(2)))
    shrink = {"verb": "resize", "name": NAME, "options": {"nodes": 1, "force": True}}
    found = [Strike("after", "CreateTags", 1), Strike("before", "TerminateInstances", 1)]
    try:
        cluster.r().eval("kept <- 42; invisible(NULL)")
        if every:
            status, calls = clients.run(**shrink)
            assert status == 0, calls
            cluster.refresh().resize(2)
            found = distinct(calls)
        for strike in found:
            status, called = clients.run(strike, **shrink)
            assert status == KILLED, (strike, called)
            left = manager.cluster(NAME)
            assert left.state == "running" and left.record.wanted in (1, len(left.nodes)), (strike, called)
            if len(left.nodes) == 1 and strike != found[-1]:
                left.carry_out(left.plan("resize", nodes=2, force=True))
        assert clients.run(**shrink)[0] == 0
        assert len(cluster.refresh().nodes) == 1 and not cluster.plan("park").errors
        assert cluster.r().eval("kept") == 42
    finally:
        cluster.terminate()
    clean_up()
    assert everything(local_cloud) == bare
