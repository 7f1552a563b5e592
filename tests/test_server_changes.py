"""Changes of a cluster over REST: each is planned, carried out and seen by all, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from cloud_client import Cloud
from jupyter_lab import jupyter_lab
from many_clusters import many_clusters
from test_server import Client

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings

NAME = "changes"
ANN = "ann@desk arn:aws:iam::1:user/ann"


@pytest.fixture(scope="module")
def client(local_cloud: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with jupyter_lab(tmp_path_factory.mktemp("changes")) as lab:
        yield Client(lab)


@pytest.fixture(scope="class")
def recorded(local_cloud: Endpoint, settings: Settings) -> Iterator[str]:
    """The name of a cluster of two nodes that has records only, as has whatever is launched meanwhile."""
    with many_clusters(local_cloud, settings, 1) as clusters:
        yield next(iter(clusters))


def picture(name: str, overview: Any) -> Any:
    return next((each for each in overview["clusters"] if each["name"] == name), {})


class TestPlans:
    @pytest.mark.parametrize(
        ("options", "typed", "dearer"),
        [
            ({"verb": "reboot", "node": 1}, "%ppe_reboot many-0 --node 1", False),
            ({"verb": "park"}, "%ppe_park many-0", False),
            ({"verb": "resize", "nodes": 3}, "%ppe_resize many-0 --nodes 3", True),
            ({"verb": "limit", "max_hours": 0}, "%ppe_limit many-0 --max-hours off", False),
            (
                {"verb": "limit", "budget_usd": 9.5, "then": "terminate"},
                "--budget 9.5 --then terminate",
                False,
            ),
            ({"verb": "terminate"}, "%ppe_terminate many-0", False),
        ],
    )
    def test_a_plan_shows_what_would_be_and_changes_nothing(
        self, client: Client, recorded: str, options: Any, typed: str, dearer: bool
    ) -> None:
        seen = client.until(lambda seen: picture(recorded, seen).get("state") == "running")
        plan = client.ask("POST", "plan", json={**options, "cluster": recorded})
        assert plan["rows"][0] == ["pays", "local cloud: free"]
        assert typed in plan["magic"]
        assert (plan["usd_per_hour"] > picture(recorded, seen)["usd_per_hour"]) == dearer
        assert picture(recorded, client.overview())["state"] == "running"

    @pytest.mark.parametrize(
        "options",
        [
            {"verb": "retry", "choice": "hope"},
            {"verb": "limit", "idle_hours": -1},
            {"verb": "limit", "then": "explode"},
            {"verb": "reboot", "node": 7},
        ],
    )
    def test_a_plan_that_makes_no_sense_is_refused(self, client: Client, recorded: str, options: Any) -> None:
        client.ask("POST", "plan", status=400, json={**options, "cluster": recorded})


def test_somebody_elses_cluster_needs_a_yes(
    client: Client, local_cloud: Endpoint, settings: Settings
) -> None:
    with many_clusters(local_cloud, settings, 1, owner=ANN):
        client.until(lambda seen: picture("many-0", seen).get("mine") is False)
        volumes = "clusters/many-0/volumes"
        for refused in (
            client.ask("POST", volumes, status=409, json={"volume": "vol-1"}),
            client.ask("DELETE", f"{volumes}/vol-1", status=409),
            client.ask("POST", "clusters/many-0/interrupt", status=409, json={}),
            client.ask("POST", "clusters/many-0/restart", status=409, json={"agreed": False}),
        ):
            assert f"many-0 is not yours: {ANN} launched it" in refused["detail"]
        begun = client.ask("DELETE", f"{volumes}/vol-1", status=202, params={"agreed": "true"})
        assert "many-0" in client.follow(begun["id"])[1]["problem"]["detail"]  # it has no machines


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_limited_resized_parked_started_and_mended(
    client: Client, local_cloud: Endpoint, settings: Settings
) -> None:
    def carry_out(**options: Any) -> Any:
        plan = client.ask("POST", "plan", json={"cluster": NAME, **options})
        assert plan["ok"], plan
        begun = client.ask("POST", "operations", status=202, json={"plan": plan["plan"]})
        ended = client.follow(begun["id"])[1]
        assert ended["state"] == "done", ended
        return picture(NAME, client.overview())

    def until(holds: Callable[[Any], bool]) -> Any:
        return picture(NAME, client.until(lambda seen: holds(picture(NAME, seen))))

    spec = {"name": NAME, "nodes": 2, "instance_type": "m5.large", "max_hours": 3}
    client.follow(client.carry_out(verb="launch", spec=spec))
    try:
        assert until(lambda seen: seen.get("state") == "running")["max_hours"] == 3
        limited = carry_out(verb="limit", max_hours=0, budget_usd=20, then="terminate")
        limits = [limited[key] for key in ("max_hours", "budget_usd", "then", "deadline")]
        assert limits == [None, 20, "terminate", None]
        assert carry_out(verb="limit", budget_usd=0, then="park")["budget_usd"] is None

        assert carry_out(verb="resize", nodes=3)["nodes_up"] == 3
        parked = carry_out(verb="park")
        assert (parked["state"], parked["actions"]) == ("parked", ["start", "limit", "terminate"])
        started = carry_out(verb="start", nodes=2)
        assert (started["state"], started["nodes_up"]) == ("running", 2)
        whole = client.ask("POST", "plan", json={"verb": "retry", "cluster": NAME, "choice": "drop"})
        assert "every node of changes runs" in whole["problems"][0]["text"]

        Cloud(local_cloud, settings).ec2().terminate_instances([started["nodes"][1]["instance_id"]])
        lost = until(lambda seen: seen["state"] == "degraded")
        assert "retry" in lost["actions"] and lost["troubles"]
        mended = carry_out(verb="retry", choice="replace")
        assert (mended["state"], mended["nodes_up"], mended["troubles"]) == ("running", 2, [])
    finally:
        client.follow(client.carry_out(verb="terminate", cluster=NAME))
