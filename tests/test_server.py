"""The server extension in a real Jupyter server: who is refused, and clusters over REST on the local cloud."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cloud_client import Cloud
from jupyter_lab import Lab, jupyter_lab
from localcloud_nodes import until
from many_clusters import many_clusters
from tornado.iostream import IOStream

from ppe_jupyter.frontends.server.extension import LARGEST_BODY, QUEUE, THREADS, Busy, Calls, Handler
from ppe_jupyter.frontends.server.route import Route
from ppe_jupyter.frontends.server.routes import ID, NAME, ROUTES
from ppe_jupyter.frontends.server.uploads import Upload
from ppe_jupyter.localcloud import hooks

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings

# Shorter in the server of these tests.
BUSY_SECONDS, CALM_SECONDS = 1.0, 3.0
ELSEWHERE = {"Origin": "https://elsewhere.example"}
PLAIN = {"ServerApp": {"jpserver_extensions": {"ppe_jupyter": True, "jupyter_lsp": False}}}


@pytest.fixture(scope="module")
def lab(local_cloud: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("server")
    config = folder / "config" / "jupyter_server_config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(PLAIN))
    tests = Path(__file__).parent
    code = f"import sys\nsys.path.insert(0, {str(tests)!r})\nc = get_config()\n"
    code += "from ppe_jupyter.overview import poller\n"
    code += f"poller.BUSY_SECONDS, poller.CALM_SECONDS = {BUSY_SECONDS}, {CALM_SECONDS}\n"
    code += "from read_only import ReadOnly\nc.ServerApp.authorizer_class = ReadOnly\n"
    (folder / "config" / "jupyter_server_config.py").write_text(code)
    with jupyter_lab(folder, base_url="/user/a/") as lab:
        yield lab


class Client:
    """One who asks; with the server's token, or with what a browser has after a login with it."""

    def __init__(self, lab: Lab, *, browser: bool = False) -> None:
        self.root = f"{lab.root}ppe-jupyter/api/"
        self.session = requests.Session()
        if browser:
            self.session.get(lab.page("lab"), timeout=30).raise_for_status()
        else:
            self.session.headers.update(lab.headers)

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, f"{self.root}{path}", timeout=60, **options)

    def ask(self, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        answer = self.send(method, path, **options)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["status"] == status
        return answer.json()

    def overview(self, **query: str) -> Any:
        return self.ask("GET", "overview", params=query)

    def until(self, holds: Callable[[Any], bool], *, within: float = 120) -> Any:
        """The first overview of which that holds."""
        deadline, seen = time.monotonic() + within, self.overview()
        while not holds(seen):
            assert time.monotonic() < deadline, seen
            seen = self.overview(wait=seen["version"])
        return seen

    def carry_out(self, **plan: Any) -> str:
        """Plan it and begin; the operation's id."""
        made = self.ask("POST", "plan", json=plan)
        assert made["ok"], made
        return str(self.ask("POST", "operations", status=202, json={"plan": made["plan"]})["id"])

    def follow(self, operation: str) -> tuple[list[str], Any]:
        """Its phases, and how it ended."""
        phases: list[str] = []
        while True:
            told = self.ask("GET", f"operations/{operation}", params={"since": len(phases)})
            phases += [each["phase"] for each in told["events"]]
            if told["state"] != "running":
                return phases, told


def states(overview: Any) -> dict[str, str]:
    """Of each cluster by name."""
    return {each["name"]: each["state"] for each in overview["clusters"]}


@pytest.fixture
def client(lab: Lab) -> Client:
    return Client(lab)


def example(route: Route) -> str:
    return route.path.replace(NAME, "nobody").replace(ID, "none")


each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@each_route
def test_strangers_are_refused(lab: Lab, route: Route) -> None:
    answer = requests.request(route.method, f"{lab.root}ppe-jupyter/api/{example(route)}", timeout=30)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/problem+json"


@each_route
def test_other_sites_are_refused(lab: Lab, route: Route) -> None:
    browser = Client(lab, browser=True)
    browser.ask(route.method, example(route), status=404, headers=ELSEWHERE)
    if route.method != "GET":
        browser.ask(route.method, example(route), status=403)
        # With the token of its own site it is let in, and there is no such thing, or something is missing.
        xsrf = {"X-XSRFToken": browser.session.cookies.get_dict(path="/user/a/")["_xsrf"]}
        assert browser.send(route.method, example(route), headers=xsrf).status_code in (200, 400, 404)


@each_route
def test_who_may_only_read_changes_nothing(client: Client, route: Route) -> None:
    answer = client.send(route.method, example(route), headers={"X-Only-Reads": "1"})
    assert (answer.status_code == 403) == (route.method != "GET")


@each_route
def test_what_is_malformed_is_refused(client: Client, route: Route) -> None:
    path = example(route)
    if route.method == "GET":
        client.ask("GET", path, status=400, params={"nonsense": "1"})
    for body in (b"{", b"[1]", b'{"a": NaN}', b'{"nonsense": 1}', b"[" * 50_000, b'"' + b"x" * LARGEST_BODY):
        client.ask(route.method, path, status=400, data=body)
    client.ask(route.method.replace("GET", "PATCH"), "clusters/nobody", status=405)
    client.ask(route.method, "nothing/here", status=404)


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "types", {"params": {"min_cores": "-1"}}),
        ("GET", "types", {"params": {"max_price": "nan"}}),
        ("GET", "types", {"params": {"cluster": "perhaps"}}),
        ("GET", "images", {"params": {"type": "x1.nothing"}}),
        ("GET", "costs", {"params": {"month": "yesterday"}}),
        ("POST", "plan", {"json": {"verb": "explode", "cluster": "a"}}),
        ("POST", "plan", {"json": {"verb": "launch", "spec": {"nodes": "2"}}}),
        ("POST", "plan", {"json": {"verb": "launch", "spec": {"encrypted": "no"}}}),
        ("POST", "plan", {"json": {"verb": "launch", "spec": {"tags": {"a": 1}}}}),
        ("POST", "plan", {"json": {"verb": "launch", "spec": {"node": 2}}}),
        ("POST", "plan", {"json": {"verb": "resize", "cluster": "a", "nodes": True}}),
        ("POST", "operations", {"json": {"plan": 1}}),
        ("POST", "clusters/a/interrupt", {"json": {"step": "harder"}}),
        ("POST", "cleanup", {"json": {"ids": [1]}}),
        ("PATCH", "settings", {"json": {"colour": "red"}}),
        ("PATCH", "settings", {"json": {"max_nodes": -1}}),
        ("PATCH", "settings", {"json": {"proxy": "http://***@proxy"}}),
    ],
)
def test_what_makes_no_sense_is_refused(client: Client, method: str, path: str, options: Any) -> None:
    client.ask(method, path, status=400, **options)


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "clusters/nobody", {}),
        ("GET", "operations/none", {}),
        ("POST", "operations", {"json": {"plan": "none"}}),
        ("POST", "plan", {"json": {"verb": "park", "cluster": "nobody"}}),
        ("POST", "clusters/nobody/restart", {}),
        ("POST", "cleanup", {"json": {"ids": []}}),
    ],
)
def test_what_is_not_there_is_not_found(client: Client, method: str, path: str, options: Any) -> None:
    client.ask(method, path, status=400 if path == "cleanup" else 404, **options)


def test_a_client_that_has_gone_is_waited_for_no_longer() -> None:
    told: list[str] = []
    watched = Route(
        method="GET",
        path="here",
        answer=lambda: told.append("asked"),
        changes=lambda: lambda tell: lambda: told.append("ended"),
        known=lambda answer, given: True,
    )

    async def go_away() -> None:
        handler = Handler.__new__(Handler)
        handler.initialize({"GET": watched}, Calls())
        answer = asyncio.ensure_future(handler._asked(watched, watched.answer, (), {}))
        while not told:
            await asyncio.sleep(0.01)
        handler.on_connection_close()
        await asyncio.wait_for(answer, 10)

    asyncio.run(go_away())
    assert told[-1] == "ended"


def test_an_upload_whose_browser_has_gone_waits_for_no_answer() -> None:
    async def run() -> None:
        browser, ours = socket.socketpair()
        reader = asyncio.StreamReader()  # of a tunnel that never answers
        handler: Any = SimpleNamespace(
            _refusal=None,
            _tunnel=(reader, None),
            detach=lambda: IOStream(ours),
            _hang_up=reader.feed_eof,
        )
        answered = asyncio.ensure_future(Upload.post.__wrapped__(handler, "/lab/upload"))
        await asyncio.sleep(0)
        assert not answered.done()
        browser.close()
        await asyncio.wait_for(answered, 10)

    asyncio.run(run())


def test_more_than_can_be_answered_is_refused_at_once() -> None:
    go = threading.Event()

    async def ask_much() -> None:
        calls = Calls()
        asked = [asyncio.ensure_future(calls(go.wait)) for _ in range(THREADS + QUEUE)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="try again"):
            await calls(go.wait)
        go.set()
        assert all(await asyncio.gather(*asked))

    asyncio.run(ask_much())


def test_settings_are_noticed_and_secrets_are_not_told(client: Client, settings: Settings) -> None:
    changes = {"max_nodes": 5, "proxy": "http://ann:secret@proxy:3128"}
    try:
        told = {each["name"]: each for each in client.ask("PATCH", "settings", json=changes)}
        assert told["proxy"]["value"] == "http://***@proxy:3128"
        assert "secret" not in json.dumps(client.ask("GET", "settings"))
        assert client.overview()["max_nodes"] == 5
        plan = client.ask("POST", "plan", json={"verb": "launch", "spec": {"nodes": 6}})
        assert not plan["ok"]
        client.ask("POST", "operations", status=400, json={"plan": plan["plan"]})
    finally:
        client.ask("PATCH", "settings", json=dict.fromkeys(changes))
    assert client.overview()["max_nodes"] is None


def test_lists_are_json_of_the_cloud(client: Client) -> None:
    types = client.ask("GET", "types", params={"min_cores": "4", "cluster": "true"})
    assert types["types"]
    assert all(each["cores"] >= 4 and each["cluster_capable"] for each in types["types"])
    choices = client.ask("GET", "choices")
    assert "us-east-1a" in choices["zones"]
    assert choices["defaults"]["nodes"] == 2
    images = client.ask("GET", "images", params={"type": "c7g.xlarge"})
    assert {each["fits"] for each in images if each["why"]} == {False}
    assert any(each["why"] for each in images)
    assert client.ask("GET", "costs")["columns"]
    assert isinstance(client.ask("GET", "volumes"), list)
    assert isinstance(client.ask("GET", "orphans"), list)


def test_a_cluster_from_launch_to_end_as_two_clients_see_it(lab: Lab) -> None:
    one, other = Client(lab), Client(lab)
    spec = {"name": "rest", "nodes": 2, "instance_type": "m5.large", "max_hours": 3}
    launch = one.carry_out(verb="launch", spec=spec)
    one.ask("POST", "plan", status=400, json={"verb": "launch", "spec": {**spec, "nodes": 0}})
    phases, ended = one.follow(launch)
    assert ended["state"] == "done", ended
    assert {"booting", "configuring", "running"} <= set(phases)

    seen = other.until(lambda seen: states(seen).get("rest") == "running")
    assert states(one.overview()) == states(seen)
    (cluster,) = (each for each in seen["clusters"] if each["name"] == "rest")
    assert (cluster["nodes_up"], cluster["mine"], cluster["operation"]) == (2, True, None)
    assert {"connect", "park", "terminate"} <= set(cluster["actions"])

    details = other.ask("GET", "clusters/rest")["details"]
    assert details["problem"] is None
    assert (details["session"]["state"], details["watchdog"]["action"]) == ("idle", "park")
    assert [each["index"] for each in details["loads"]] == [0, 1]
    assert [each["rank"] for each in details["ranks"]] == [0]
    assert one.ask("POST", "clusters/rest/interrupt", json={}) == {}
    one.ask("POST", "clusters/rest/interrupt", status=404, json={"session": "nobodys"})
    assert one.ask("POST", "clusters/rest/restart", json={}) == {}
    restarted = one.ask("GET", "clusters/rest")["details"]["session"]
    assert restarted["since"] >= details["session"]["since"]

    plan = other.ask("POST", "plan", json={"verb": "terminate", "cluster": "rest"})
    assert plan["destroys"]
    assert plan["magic"] == "%ppe_terminate rest"
    end = other.ask("POST", "operations", status=202, json={"plan": plan["plan"]})
    other.ask("POST", "operations", status=404, json={"plan": plan["plan"]})  # each is carried out once
    assert one.follow(end["id"])[1]["state"] == "done"
    gone = one.until(lambda seen: "rest" not in states(seen))
    assert [each["verb"] for each in gone["operations"][:2]] == ["terminate", "launch"]
    one.ask("GET", "clusters/rest", status=404)


def test_a_launch_that_is_stopped_undoes_itself(client: Client, local_cloud: Endpoint) -> None:
    hooks.reset(local_cloud)
    launch = client.carry_out(
        verb="launch", spec={"name": "stopped", "nodes": 2, "instance_type": "m5.large"}
    )
    until(lambda: "RunInstances" in hooks.calls(local_cloud))  # the picture may come when all is done
    client.ask("DELETE", f"operations/{launch}", status=202)
    assert client.follow(launch)[1]["state"] == "cancelled"
    client.until(lambda seen: "stopped" not in states(seen))


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_many_clients_are_one_call_an_interval(
    lab: Lab, local_cloud: Endpoint, settings: Settings, count: int
) -> None:
    """However many clusters there are; and more who wait than there are threads keep nobody from being answered."""

    def changed(seen: Any) -> bool:
        return states(seen).get("many-0") != "running"

    with many_clusters(local_cloud, settings, count) as clusters:
        client = Client(lab)
        client.until(lambda seen: clusters.keys() <= states(seen).keys())
        hooks.reset(local_cloud)
        hooks.set_containerless(local_cloud, True)
        begun = time.monotonic()
        with ThreadPoolExecutor(5 * THREADS) as pool:
            gone = [pool.submit(Client(lab).until, changed) for _ in range(5 * THREADS)]
            assert client.ask("GET", "settings")
            Cloud(local_cloud, settings).ec2().terminate_instances(clusters["many-0"])
            assert all(states(each.result())["many-1"] == "running" for each in gone)
        calls = hooks.calls(local_cloud)
        intervals = (time.monotonic() - begun) / BUSY_SECONDS
    assert 1 <= calls.count("DescribeInstances") <= intervals + 2
