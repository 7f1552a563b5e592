"""What the faces share: pictures, the poller, plans, operations; without a real cluster."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from localcloud_nodes import until
from many_clusters import many_clusters

from ppe_jupyter import errors, verbs
from ppe_jupyter.cloud.plan import Grade, Plan, Problem
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, Cost, InstanceState, Node, Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.frontends.actions.specs import typed_spec
from ppe_jupyter.frontends.typed import parse
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.localcloud.faults import Fault
from ppe_jupyter.manager import Manager
from ppe_jupyter.overview import magic, pictures, poller
from ppe_jupyter.overview.operations import Operations
from ppe_jupyter.overview.poller import Poller
from ppe_jupyter.settings import Settings

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

NOW = datetime(2026, 3, 5, 12, tzinfo=timezone.utc)


def node(index: int, **changes: Any) -> Node:
    values: dict[str, Any] = {
        "instance_id": f"i-{index:017x}",
        "index": index,
        "role": "worker" if index else "master",
        "state": InstanceState.RUNNING,
        "private_ip": f"10.0.0.{index + 4}",
        "private_dns": f"ip-10-0-0-{index + 4}.ec2.internal",
        "public_ip": "",
        "public_dns": "",
        "instance_type": "m5.large",
        "zone": "us-east-1a",
        "subnet_id": "subnet-1",
        "slots": 1,
        "launched": NOW - timedelta(hours=2),
        "host_key": "",
        "configured": True,
        "price": 0.096,
    }
    return Node(**(values | changes))


def record(**changes: Any) -> ClusterRecord:
    values: dict[str, Any] = {
        "name": "demo",
        "state": ClusterState.RUNNING,
        "nodes": (node(0), node(1)),
        "usd_per_hour": 0.2,
        "launched": NOW - timedelta(hours=2),
        "owner": "ann@host arn:aws:iam::123456789012:user/ann",
        "slots": 2,
        "login_user": "admin",
        "key_name": "ppe",
        "spec": ClusterSpec(name="demo", nodes=2, max_hours=3, budget_usd=5),
        "busy_until": None,
        "cost": Cost(spent_usd=0.0, usd_per_hour=0.2, since=NOW - timedelta(hours=2)),
    }
    return ClusterRecord(**(values | changes))


def pictured(**changes: Any) -> pictures.ClusterPicture:
    return pictures.cluster(record(**changes), now=NOW, mine=True, ssh="ssh …")


def test_a_cluster_says_what_it_is_costs_and_allows() -> None:
    seen = pictured()
    assert (seen["nodes_up"], seen["nodes_wanted"], seen["usd_so_far"]) == (2, 2, 0.4)
    assert seen["deadline"] == "2026-03-05T13:00:00Z"
    assert seen["actions"][-1] == "terminate"
    assert json.loads(json.dumps(seen)) == seen


@pytest.mark.parametrize("state", list(ClusterState))
def test_actions_are_verbs_that_fit_the_state(state: ClusterState) -> None:
    seen = pictured(state=state)
    assert ("start" in seen["actions"]) == (state is ClusterState.PARKED)
    assert (seen["ssh"] is not None) == ("connect" in seen["actions"])
    busy = pictures.cluster(record(state=state), now=NOW, mine=True, operation="1")
    assert set(busy["actions"]) <= {"terminate"}


def test_unknown_prices_are_null_and_not_zero() -> None:
    known, unknown = pictured(), pictured(usd_per_hour=None, cost=None)
    about: dict[str, Any] = {"version": "", "whose": "", "up": True, "at": NOW}
    assert pictures.overview(Settings(), [known, unknown], [], **about)["usd_per_hour"] is None
    assert pictures.overview(Settings(), [known, known], [], **about)["usd_per_hour"] == 0.4
    assert pictures.overview(Settings(), [], [], **about)["usd_per_hour"] == 0


def test_a_plan_says_who_pays_first_and_its_problems_by_weight() -> None:
    plan = Plan(
        spec=ClusterSpec(name="demo"),
        name="demo",
        owner="ann",
        steps=(),
        usd_per_hour=1.5,
        problems=(Problem(Grade.INFO, "i"), Problem(Grade.ERROR, "e"), Problem(Grade.WARNING, "w")),
    )
    seen = pictures.plan(plan, id="1", whose="account 1", free=False, magic="%ppe_launch demo")
    assert seen["rows"][0] == ("pays", "account 1")
    assert [each["text"] for each in seen["problems"]] == ["e", "w", "i"]
    assert not seen["ok"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NoSuchCluster("x"), 404),
        (errors.SpecError("x"), 400),
        (errors.NothingToDo("x"), 409),
        (errors.CloudError("x", code="UnauthorizedOperation"), 502),
        (errors.CloudError("nobody answers", operation="instances"), 503),
        (errors.Unreachable("x"), 503),
        (ValueError("x"), 500),
    ],
)
def test_problems_have_the_status_of_their_error(error: Exception, status: int) -> None:
    seen = pictures.problem(error)
    assert (seen["status"], seen["detail"]) == (status, str(error))


def test_an_operation_runs_reports_and_ends() -> None:
    operations, changed, go = Operations(), threading.Event(), threading.Event()
    operations.subscribe(changed.set)

    def work(report: Any, stop: threading.Event) -> None:
        report(Progress("booting", 1, 2, 0.5))
        assert go.wait(120)
        assert stop.wait(120)
        raise errors.LaunchFailed("it was stopped")

    launch = operations.start("launch", "demo", work, stoppable=True)
    with pytest.raises(errors.Occupied, match="launch of demo is under way"):
        operations.start("launch", "demo", work)
    go.set()
    end = operations.start("terminate", "demo", lambda report, stop: None)
    until_ended(launch, end)
    assert changed.is_set()
    assert (launch.state, end.state) == ("cancelled", "done")
    assert launch.picture()["phase"] == "booting"
    assert [each.id for each in operations.all()] == [end.id, launch.id]
    with pytest.raises(errors.Forgotten):
        operations.get("no")


def test_an_operation_that_fails_keeps_its_problem() -> None:
    def work(report: Any, stop: threading.Event) -> None:
        raise errors.CapacityError("none left")

    operation = Operations().start("launch", "demo", work)
    until_ended(operation)
    assert operation.picture()["problem"] == pictures.problem(errors.CapacityError("none left"))


def until_ended(*operations: Any) -> None:
    until(lambda: not any(each.running for each in operations))


def test_a_local_cloud_that_is_down_is_empty_and_stays_down(settings: Settings, tmp_path: Path) -> None:
    watched = Poller(replace(settings, state_dir=tmp_path))
    seen: list[pictures.Overview] = []
    came = threading.Event()
    unsubscribe = watched.subscribe(lambda picture: (seen.append(picture), came.set())[1])
    assert came.wait(120)
    unsubscribe()
    assert (seen[0]["clusters"], seen[0]["up"], seen[0]["problem"]) == ([], False, None)
    assert not watched.manager.local_status().running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "CALM_SECONDS", 0.2)
    monkeypatch.setattr(poller, "LONGEST_SECONDS", 0.4)


def test_when_the_cloud_refuses_the_last_picture_stays_with_the_problem(
    local_cloud: Endpoint, settings: Settings, quick: None
) -> None:
    hooks.reset(local_cloud)
    with many_clusters(local_cloud, settings, 3):
        watched = Poller(settings)
        seen: list[pictures.Overview] = []
        end = watched.subscribe(seen.append)
        try:
            until(lambda: seen and len(seen[-1]["clusters"]) >= 3)
            before = [each["name"] for each in seen[-1]["clusters"]]
            hooks.inject(local_cloud, Fault("DescribeInstances", code="UnauthorizedOperation", status=403))
            until(lambda: seen[-1]["problem"])
            assert [each["name"] for each in seen[-1]["clusters"]] == before
            assert seen[-1]["problem"]["status"] == 502
            until(lambda: seen[-1]["problem"] is None)
        finally:
            end()


def test_nobody_watches_nothing_is_asked(
    local_cloud: Endpoint, settings: Settings, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "LINGER_SECONDS", 0.2)
    watched = Poller(settings)
    ends = [watched.subscribe(lambda seen: None) for _ in range(3)]
    until(lambda: "DescribeInstances" in hooks.calls(local_cloud))
    for end in ends:
        end()
    until(lambda: watched._thread is None)
    hooks.reset(local_cloud)
    assert watched.latest is not None
    assert hooks.calls(local_cloud) == []


def test_a_launch_does_not_wait_for_the_local_clouds_image(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    building, built = threading.Event(), threading.Event()
    monkeypatch.setattr(Manager, "prepared", property(lambda manager: built.is_set()))

    def local_up(manager: Manager) -> None:
        manager._report("building the image of the nodes")
        building.set()
        assert built.wait(120)

    monkeypatch.setattr(Manager, "local_up", local_up)
    watched = Poller(settings)
    for _ in range(2):
        with pytest.raises(errors.LocalCloudUnavailable, match="is being built"):
            watched.plans.launch({})
    (operation,) = watched.operations.all()
    assert operation.verb == "prepare"
    assert building.wait(120)
    assert watched.latest is not None
    assert watched.latest["preparing"] == "building the image of the nodes"
    built.set()
    until_ended(operation)
    assert watched.plans.launch({})["ok"]


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"name": "demo", "nodes": 5, "instance_type": "m5.xlarge", "slots": 3, "placement": "my group"},
        {"spot": True, "spot_max_usd": 0.05, "spot_fallback": True, "encrypted": False, "imdsv2": False},
        {"idle_hours": 0.0, "max_hours": 1.5, "budget_usd": 12.5, "then": "terminate", "zone": "us-east-1b"},
        {"tags": {"project": "rain fall", "who": "ann"}, "volumes": ("vol-12345678:/data", "vol-87654321")},
        {"apt_packages": ("libgsl-dev", "jq"), "r_packages": ("lme4",), "python_packages": ("scipy>=1.1",)},
    ],
)
def test_a_copied_magic_launches_the_same(chosen: dict[str, Any]) -> None:
    spec = ClusterSpec(**chosen)
    name, _, typed = magic.launch(spec).partition(" ")
    assert name == "%ppe_launch"
    arguments = parse(verbs.find("launch", face="magic"), typed, face="magic")
    assert arguments is not None
    assert typed_spec(arguments) == spec


def test_a_copied_magic_changes_the_same() -> None:
    assert magic.line("retry", {"replace": True, "force": True}, words=["demo"]) == (
        "%ppe_retry demo --replace --force"
    )
    assert magic.line("limit", {"idle_hours": 0, "budget_usd": 7.5}, words=["demo"]) == (
        "%ppe_limit demo --idle off --budget 7.5"
    )
