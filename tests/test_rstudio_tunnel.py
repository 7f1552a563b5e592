"""The tunnel's own answers, and what the proxy is told: no cluster is needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from ppe_jupyter.cloud.records import ClusterState
from ppe_jupyter.errors import CloudError, NoSuchCluster, Unreachable
from ppe_jupyter.frontends import rstudio
from ppe_jupyter.frontends.rstudio import links
from ppe_jupyter.frontends.rstudio import process as tunnel
from ppe_jupyter.frontends.rstudio.downloads import Downloads
from ppe_jupyter.frontends.rstudio.pages import Page
from ppe_jupyter.settings import Settings
from ppe_jupyter.verbs import find

ROOT = "/user/a/ppe-rstudio/lab"
HOST = "hub.example:8000"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (f"http://{HOST}{ROOT}/auth-sign-in?a=1", f"//{HOST}{ROOT}/auth-sign-in?a=1"),
        (f"http://localhost:8787{ROOT}/", f"//{HOST}{ROOT}/"),
        ("http://localhost/help/", f"//{HOST}{ROOT}/help/"),
        (f"{ROOT}/help", f"//{HOST}{ROOT}/help"),
        ("/help", f"//{HOST}{ROOT}/help"),
        (ROOT, f"//{HOST}{ROOT}"),
        ("/user/a/ppe-jupyter/api/downloads/1-x", f"//{HOST}/user/a/ppe-jupyter/api/downloads/1-x"),
        (f"{ROOT}atory/", f"//{HOST}{ROOT}{ROOT}atory/"),
        ("../doc/", "../doc/"),
        ("lab/", "lab/"),
        ("https://www.r-project.org/a", "https://www.r-project.org/a"),
    ],
)
def test_redirects_lead_where_the_browser_is(location: str, expected: str) -> None:
    response = SimpleNamespace(headers=HTTPHeaders({"Location": location}))
    rstudio.rewrite(response, SimpleNamespace(path=f"{ROOT}/x", host=HOST), "/lab/x")
    assert response.headers["Location"] == expected


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("a=1; Path=/; HttpOnly", f"a=1; Path={ROOT}/; HttpOnly"),
        ("a=1; HttpOnly", f"a=1; HttpOnly; Path={ROOT}/"),
        (f"a=1; path={ROOT}; Secure", f"a=1; path={ROOT}; Secure"),
        (f"a=1; Path={ROOT}/p/4711", f"a=1; Path={ROOT}/p/4711"),
        ("a=1; Path=/user/a/ppe-rstudio/other", f"a=1; Path={ROOT}/"),
    ],
)
def test_cookies_are_one_cluster_s(cookie: str, expected: str) -> None:
    headers = HTTPHeaders()
    headers.add("Set-Cookie", cookie)
    headers.add("Set-Cookie", "b=2; Path=/")
    rstudio.rewrite(SimpleNamespace(headers=headers), SimpleNamespace(path=f"{ROOT}/x", host=HOST), "/lab/x")
    assert headers.get_list("Set-Cookie") == [expected, f"b=2; Path={ROOT}/"]


def test_the_lab_is_told_of_it_by_the_package() -> None:
    from importlib.metadata import entry_points

    from jupyter_server_proxy.config import ServerProcess

    entries = entry_points(group="jupyter_serverproxy_servers", name=rstudio.NAME)
    assert entries, "install the package again: pip install -e ."
    process = ServerProcess(name=rstudio.NAME, **next(iter(entries)).load()())
    assert not process.launcher_entry.enabled and not process.new_browser_tab
    words = [word.format(unix_socket="/s", base_url="/user/a/", port=0) for word in process.command]
    assert words[-4:] == ["--socket", "/s", "--base-url", "/user/a/"]
    assert find("rstudio-tunnel", face="cli").faces == ("cli",)


def test_a_page_is_text_whatever_the_error_says() -> None:
    page = (
        Page(title="<b>", text="a & <script>", hints=[("x", '"<i>"')], links=[('"', '"><b>')]).html().decode()
    )
    assert "<b>" not in page.replace("&lt;b&gt;", "") and "A &amp; &lt;script&gt;" in page
    assert "&quot;&gt;&lt;b&gt;" in page


class Clusters(links.Clusters):
    """Clusters in these states; the way to each fails."""

    def __init__(self, states: dict[str, ClusterState], *, chosen: str | None = None) -> None:
        self._states = states
        self._chosen = chosen
        self.error: Exception = Unreachable("nothing answers there", host="lab")

    def _clusters(self, wanted: Settings) -> list[Any]:
        def ssh() -> None:
            raise self.error

        def record(name: str, state: ClusterState) -> SimpleNamespace:
            return SimpleNamespace(name=name, state=state, busy_until=None)

        return [
            SimpleNamespace(name=name, state=state, ssh=ssh, record=record(name, state))
            for name, state in self._states.items()
        ]

    def chosen(self) -> str | None:
        return self._chosen if self._chosen in self._states else None


def ask(clusters: links.Clusters, *requests: str, through_proxy: bool = True) -> list[str]:
    """The answers to these request lines."""

    async def run() -> list[str]:
        one = tunnel.Tunnel("/user/a/", clusters)
        answers = []
        for request in requests:
            reader, taken = asyncio.StreamReader(), bytearray()
            fields = "X-Forwarded-Context: /user/a/ppe-rstudio\r\n" * through_proxy
            reader.feed_data(f"{request} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
            writer: Any = SimpleNamespace(write=taken.extend, drain=_nothing, close=lambda: None)
            await one.handle(reader, writer)
            answers.append(taken.decode())
        return answers

    return asyncio.run(run())


async def _nothing() -> None:
    pass


def location(answer: str) -> str:
    assert answer.startswith("HTTP/1.1 302")
    return answer.partition("Location: ")[2].partition("\r\n")[0]


UP, PARKED, COMING = ClusterState.RUNNING, ClusterState.PARKED, ClusterState.CONFIGURING


@pytest.mark.parametrize(
    ("states", "chosen", "expected"),
    [
        ({"lab": UP}, None, "lab/"),
        ({"lab": UP, "sim": UP}, "sim", "sim/"),
        ({"lab": UP, "sim": PARKED}, "sim", "sim/"),
        ({"lab": UP, "sim": PARKED}, "gone", "lab/"),
        ({"lab": COMING}, None, "lab/"),
    ],
)
def test_the_tile_leads_to_a_cluster(
    states: dict[str, ClusterState], chosen: str | None, expected: str
) -> None:
    assert location(ask(Clusters(states, chosen=chosen), "GET /")[0]) == expected


@pytest.mark.parametrize(
    ("states", "request_line", "said"),
    [
        ({}, "GET /", ["No cluster runs", "%ppe_launch --rstudio", "Try again"]),
        ({"sim": PARKED}, "GET /", ["No cluster runs", "%ppe_start sim"]),
        ({"lab": UP, "sim": UP}, "GET /", ["Which cluster?", 'href="lab/"', 'href="sim/"']),
        ({"lab": UP}, "GET /sim/", ["sim is gone", "may have been terminated", 'href="../lab/"']),
        ({"lab": UP}, "GET /lab/", ["RStudio on lab cannot be opened", "Nothing answers", "%ppe_status lab"]),
        ({"lab": PARKED}, "GET /lab/", ["lab is parked", "%ppe_start lab"]),
        ({"lab": COMING}, "GET /lab/", ["Connecting to lab", "location.reload()"]),
        ({}, "GET /..%2f..%2fetc/", ["no such page"]),
        ({"lab": UP}, "POST /lab/rpc/client_init", ["RStudio on lab cannot be opened"]),
    ],
)
def test_what_cannot_be_shown_is_a_page_that_says_why(
    states: dict[str, ClusterState], request_line: str, said: Sequence[str]
) -> None:
    answer = ask(Clusters(states), request_line)[0]
    assert answer.startswith("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html")
    assert all(each in answer for each in said), answer


def test_a_cloud_that_cannot_be_asked() -> None:
    class Broken(Clusters):
        def _clusters(self, wanted: Settings) -> list[Any]:
            raise CloudError("the credentials have expired")

    assert "The credentials have expired" in ask(Broken({}), "GET /")[0]


def test_the_proxy_is_told_at_once_that_we_are_ready() -> None:
    answer = ask(Clusters({}), "GET /", through_proxy=False)[0]
    assert answer.startswith("HTTP/1.1 200 OK")


def test_a_name_without_a_slash_gets_one() -> None:
    assert location(ask(Clusters({"lab": UP}), "GET /lab?a=1")[0]) == "lab/?a=1"


def test_the_head_is_rewritten_for_rserver() -> None:
    head = b"GET /lab/p/1 HTTP/1.1\r\nHost: x\r\nX-RStudio-Root-Path: /evil\r\nConnection: keep-alive\r\n\r\n"
    plain = tunnel._rewritten(head, "GET", "/p/1", ROOT).decode().split("\r\n")
    assert plain == [
        "GET /p/1 HTTP/1.1",
        "Host: x",
        f"X-RStudio-Root-Path: {ROOT}",
        "Connection: close",
        "",
        "",
    ]
    upgrade = head.replace(b"keep-alive", b"Upgrade\r\nUpgrade: websocket")
    assert "Connection: Upgrade" in tunnel._rewritten(upgrade, "GET", "/p/1", ROOT).decode()


def test_what_lets_one_into_the_lab_stays_there() -> None:
    head = (
        "GET {target} HTTP/1.1\r\nHost: x\r\nAUTHORIZATION: token s3cret\r\nX-XSRFToken: s3cret\r\n"
        "Cookie: _xsrf=s3cret; user-id=u|1; username-x=s3cret; rs-csrf-token=2;user-list-id-legacy=3\r\n"
        "Referer: http://x/lab?reset&token=s3cret\r\nUpgrade: websocket\r\n\r\n"
    )
    for target, seen in [
        ("/doc/?token=s3cret", "/doc/"),
        ("/doc/?a=1&token=s3cret&b=2", "/doc/?a=1&b=2"),
        ("/p/4711/?token=own", "/p/4711/?token=own"),
    ]:
        text = tunnel._rewritten(head.format(target=target).encode(), "GET", target, ROOT).decode()
        assert text.startswith(f"GET {seen} HTTP/1.1\r\n") and "s3cret" not in text
        assert "\r\nCookie: user-id=u|1; rs-csrf-token=2; user-list-id-legacy=3\r\n" in text
    nothing = b"GET / HTTP/1.1\r\nCookie: _xsrf=1\r\nHost: x\r\n\r\n"
    assert b"Cookie" not in tunnel._rewritten(nothing, "GET", "/", ROOT)


@pytest.mark.parametrize(
    ("head", "held"),
    [
        ("HTTP/1.1 200 OK\r\nContent-disposition:attachment; filename=a", True),
        ("HTTP/1.1 206 Partial Content\r\nX: y\r\nContent-Length: 500000000", True),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5000", False),
        ("HTTP/1.1 200 OK\r\nX: Content-Disposition: attachment", False),
        ("HTTP/1.1 404 Not Found\r\nContent-Disposition: attachment", False),
    ],
)
def test_a_file_goes_past_the_proxy_and_waits_until_somebody_comes(head: str, held: bool) -> None:
    answer = f"{head}\r\n\r\nbody".encode()

    def writer(taken: bytearray) -> Any:
        return SimpleNamespace(write=taken.extend, drain=_nothing, close=lambda: None)

    async def run() -> None:
        proxy, browser, downloads = bytearray(), bytearray(), Downloads("/user/a/")

        async def carry() -> None:
            with downloads.held(writer(proxy)) as to:
                for at in range(0, len(answer), 7):
                    to.write(answer[at : at + 7])
                    await to.drain()

        carried = asyncio.ensure_future(carry())
        while not proxy:
            await asyncio.sleep(0)
        if held:
            where = location(proxy.decode())
            assert where.startswith("/user/a/ppe-jupyter/api/downloads/")
            ticket = where.partition("-")[2].partition("-")[2]
            assert await downloads.hand_over(ticket, writer(browser))
            assert not await downloads.hand_over(ticket, writer(browser))
        await carried
        assert (browser if held else proxy) == answer

    asyncio.run(run())


def test_a_local_cloud_that_is_down_is_not_started_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPE_STATE_DIR", str(tmp_path))
    with pytest.raises(NoSuchCluster):
        links.Clusters().find("lab")
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_the_choice_is_of_its_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPE_STATE_DIR", str(tmp_path))
    links.write_private(
        links.chosen_file(tmp_path), {"cluster": "sim", "cloud": "aws", "region": "eu-west-1"}
    )
    assert links.chosen_file(tmp_path).stat().st_mode & 0o077 == 0

    class Recorded(links.Clusters):
        def _clusters(self, wanted: Settings) -> list[Any]:
            return [SimpleNamespace(name="sim", region=wanted.region)] if wanted.cloud == "aws" else []

    clusters: Any = Recorded()
    assert (clusters.chosen(), clusters.find("sim").region, clusters.all()) == ("sim", "eu-west-1", [])
    with pytest.raises(NoSuchCluster):
        clusters.find("lab")
    links.chosen_file(tmp_path).write_text("{")
    assert clusters.chosen() is None


def test_the_button_opens_a_tab_of_this_server_s_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/a/")
    assert rstudio.address("lab") == f"{ROOT}/"
    text = rstudio.opener("lab").data
    assert 'data-commandlinker-command="server-proxy:open"' in text
    arguments = text.partition('commandlinker-args="')[2].partition('"')[0].replace("&quot;", '"')
    assert json.loads(arguments)["url"] == f"{ROOT}/"


def test_the_request_of_a_file_ends_with_it() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Disposition: attachment\r\n\r\n"

    class Line:
        """A line whose far end sends a file, and waits for the end of the request."""

        async def forward(self) -> Line:
            return self

        async def carry(self, reader: asyncio.StreamReader, writer: Any, *, first: bytes) -> None:
            writer.write(head)
            await writer.drain()
            writer.write_eof()
            assert await reader.read() == b""

    def writer(taken: bytearray) -> Any:
        return SimpleNamespace(write=taken.extend, drain=_nothing, close=lambda: None, write_eof=lambda: None)

    async def run() -> None:
        served, proxy, browser = tunnel.Tunnel("/"), bytearray(), bytearray()
        asked = asyncio.StreamReader()
        line: Any = Line()
        carried = asyncio.ensure_future(served._carry(line, asked, writer(proxy), b"GET / HTTP/1.1\r\n\r\n"))
        while not proxy:
            await asyncio.sleep(0)
        asked.feed_eof()  # the proxy has gone where it was sent
        ticket = location(proxy.decode()).partition("-")[2].partition("-")[2]
        assert await served._downloads.hand_over(ticket, writer(browser))
        await asyncio.wait_for(carried, 10)
        assert browser == head

    asyncio.run(run())
