"""RStudio in a tab of the lab, through the whole chain: client → lab under a base URL → proxy → tunnel → SSH → node.

RStudio Server itself is a stand-in (fake_rserver.py) on the node.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
import websocket
from browser import jupyterlab

from ppe_jupyter.cloud import tags
from ppe_jupyter.errors import SetupFailed
from ppe_jupyter.frontends import cli, rstudio
from ppe_jupyter.remote import rstudio as remote

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster

HERE = Path(__file__).parent
BASE_URL = "/user/a/"
INSTANCE_TYPE = "m5.xlarge"
BODY_BYTES = 1_000_000  # that the lab takes of a request
EXPORT_BYTES = 150_000_001  # the proxy keeps 100 MB at most
BIN = "/usr/lib/rstudio-server/bin"
PUT = f"sudo mkdir -p {BIN} && sudo tee {BIN}/rserver >/dev/null && sudo chmod 755 {BIN}/rserver && "
PUT += f"sudo ln -sf rserver {BIN}/rsession"
END = "pkill -u $USER -f rstudio-server/bin/; rm -rf ~/.ppe/rstudio"
SPAWN = """
suppressMessages(library(Rmpi))
mpi.spawn.Rslaves(quiet = TRUE)
cat("WORKERS", sort(unlist(mpi.remote.exec(Sys.info()[["nodename"]]))), "\\n")
cat("HERE", getwd(), file.exists("ompi-hostfile"), "\\n")
mpi.close.Rslaves()
"""


@dataclass(frozen=True)
class Lab:
    """A lab's address, with its base URL, and what lets one in."""

    root: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    small = f"--ServerApp.max_body_size={BODY_BYTES}"
    with jupyterlab(tmp_path_factory.mktemp("lab"), base_url=BASE_URL, arguments=(small,)) as (_, address):
        yield Lab(*address("").split("?token="))


class Browser:
    """What a browser tab of the lab does, without showing it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.root = f"{lab.root}ppe-rstudio/{name}/"
        self.session = requests.Session()
        self.session.headers.update(lab.headers)
        self.session.get(f"{lab.root}api/status")

    def get(self, path: str = "", **options: Any) -> requests.Response:
        return self.session.get(f"{self.root}{path}", timeout=100, **options)

    def post(self, path: str, data: bytes | str = b"", **options: Any) -> requests.Response:
        return self.session.post(f"{self.root}{path}", data=data, timeout=100, **options)

    def opened(self) -> requests.Response:
        """The tab, when it no longer says that it connects."""
        deadline = time.monotonic() + 90
        while "Connecting to" in (answer := self.get()).text:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)
        return answer

    def rpc(self, method: str, *params: Any) -> Any:
        return self.post(f"rpc/{method}", json.dumps({"params": params})).json()["result"]

    def console(self, code: str) -> str:
        """Type it into R's console; the next output."""
        self.rpc("console_input", code)
        return str(self.post("events/get_events", "{}").json()["result"][0]["text"])

    def web_socket(self, path: str) -> websocket.WebSocket:
        address = f"{self.root.replace('http', 'ws', 1)}{path}"
        return websocket.create_connection(address, header=self.lab.headers, timeout=60)


@pytest.fixture(scope="module")
def bare(cluster: Cluster, lab: Lab) -> Browser:
    """A master without RStudio Server."""
    cluster.ssh().run(f"{END}; sudo rm -rf {BIN} /etc/fake-rserver", check=False)
    return Browser(lab, cluster.name)


def test_a_master_without_it_says_so_and_what_to_do(bare: Browser) -> None:
    page = bare.opened()
    assert page.status_code == 503 and page.headers["Content-Type"].startswith("text/html")
    assert "is not installed on" in page.text and "%ppe_rstudio test --install" in page.text


@pytest.fixture
def wanted(bare: Browser, cluster: Cluster) -> Iterator[None]:
    """As if the cluster had been launched with it, and it could not be installed then."""
    spec, ec2 = cluster.refresh().record.spec, cluster._account.context.ec2
    assert spec is not None
    ids = [node.instance_id for node in cluster.nodes]
    ec2.tag(ids, tags.of_spec(replace(spec, rstudio=True)))
    yield
    ec2.tag(ids, tags.of_spec(spec))


@pytest.mark.usefixtures("wanted")
def test_it_is_installed_if_it_is_what_was_meant(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The package is a stand-in too: its service must not start, and its keys must not stay."""
    package = "mkdir -p f/DEBIAN f/usr/lib/rstudio-server/bin f/var/lib/rstudio-server && "
    package += "printf 'Package: rstudio-server\\nVersion: 1\\nArchitecture: all\\nDescription: x\\nMaintainer: x\\n' "
    package += "> f/DEBIAN/control && cp /bin/true f/usr/lib/rstudio-server/bin/rserver && "
    package += (
        "touch f/var/lib/rstudio-server/session-rpc-key && dpkg-deb --build f /tmp/f.deb >/dev/null && "
    )
    package += "rm -r f && sha256sum /tmp/f.deb"
    sha256 = cluster.ssh().run(package).stdout.decode().split()[0]
    with pytest.raises(SetupFailed, match="another SHA-256"):
        remote.install(cluster.ssh(), url="copy:/tmp/f.deb", sha256="0" * 64)
    monkeypatch.setenv("PPE_RSTUDIO_URL", "copy:/tmp/f.deb")
    monkeypatch.setenv("PPE_RSTUDIO_SHA256", "0" * 64)
    assert cli.main(["retry", cluster.name]) == 0
    said = capsys.readouterr()
    assert "another SHA-256" in said.err and "install RStudio Server on the master" in said.out + said.err
    monkeypatch.setenv("PPE_RSTUDIO_SHA256", sha256)
    assert cli.main(["retry", cluster.name]) == 0
    assert "was not installed" not in capsys.readouterr().err
    cli.main(["retry", cluster.name])
    assert f"every node of {cluster.name} runs and answers" in "".join(capsys.readouterr())
    remote.install(cluster.ssh(), url="copy:/tmp/f.deb", sha256="0" * 64)  # it is there
    seen = cluster.ssh().run(
        "ls /var/lib/rstudio-server; readlink /etc/systemd/system/rstudio-server.service"
    )
    assert seen.stdout == b"/dev/null\n"
    cluster.ssh().run(
        "sudo dpkg --purge rstudio-server; sudo rm /etc/systemd/system/rstudio-server.service /tmp/f.deb"
    )


@pytest.mark.usefixtures("bare")
def test_without_a_way_to_the_download_a_launch_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PPE_RSTUDIO_URL", url := "https://rstudio.invalid/rstudio-server.deb")
    monkeypatch.setenv("PPE_RSTUDIO_SHA256", "0" * 64)
    launch = ["launch", cluster.name, "--nodes", "3", "--type", INSTANCE_TYPE, "--rstudio"]
    assert cli.main(launch) == 0
    said = capsys.readouterr().err
    assert "RStudio Server was not installed: E: " in said and f"{url} cannot be downloaded" in said
    assert f"{cluster.name} runs without it" in said


@pytest.fixture(scope="module")
def tab(bare: Browser, cluster: Cluster) -> Iterator[Browser]:
    """A tab with RStudio in it."""
    cluster.ssh().run(PUT, stdin=(HERE / "fake_rserver.py").read_bytes())
    page = bare.opened()
    assert page.status_code == 200 and "<h1>RStudio</h1>" in page.text, page.text
    yield bare
    cluster.ssh().run(f"{END}; sudo rm -rf {BIN} /etc/fake-rserver", check=False)


def test_the_lab_s_address_leads_to_the_sole_cluster(tab: Browser, lab: Lab) -> None:
    page = tab.session.get(f"{lab.root}ppe-rstudio/", timeout=60)
    assert (page.status_code, page.url) == (200, tab.root)
    # To sign in and back, as rserver says it: with its own host and the whole path.
    again = requests.get(tab.root, headers=lab.headers, timeout=60)
    assert [urlsplit(each.url).path for each in [*again.history, again]] == [
        "/user/a/ppe-rstudio/test/", "/user/a/ppe-rstudio/test/auth-sign-in", "/user/a/ppe-rstudio/test/",
    ]  # fmt: skip
    cookies = {cookie.name: cookie.path for each in again.history for cookie in each.cookies}
    assert cookies["user-id"] == "/user/a/ppe-rstudio/test"
    assert cookies["rs-csrf-token"] == "/user/a/ppe-rstudio/test/"  # rserver's own says /


def test_nobody_else_gets_in(tab: Browser, lab: Lab, cluster: Cluster) -> None:
    assert "login" in requests.get(tab.root, timeout=60).url  # the lab's
    sockets = (
        cluster.ssh()
        .run("ss -Hlnpxt | grep -E 'rserver|rsession'; stat -c %a ~/.ppe/rstudio")
        .stdout.decode()
    )
    assert {line.split()[0] for line in sockets.splitlines()[:-1]} == {"u_str"}  # Unix sockets only
    assert sockets.splitlines()[-1] == "700"


def test_it_knows_where_the_browser_is_on_a_web_socket_too(tab: Browser) -> None:
    seen = tab.get(
        "headers", headers={"X-Forwarded-Proto": "https"}
    ).json()  # a hub's, whose proxy speaks TLS
    assert seen["root"] == "/user/a/ppe-rstudio/test" and seen["proxied"].startswith("https://")
    assert any(cookie.name.startswith("username-") for cookie in tab.session.cookies)  # the lab's
    assert {each.partition("=")[0] for each in seen["cookie"].split("; ")} == {"user-id", "rs-csrf-token"}
    terminal = tab.web_socket("p/4711/terminal")
    assert terminal.recv() == "/user/a/ppe-rstudio/test/p/4711/terminal"
    for text in ("typed", "x" * 300_000):
        terminal.send(text)
        assert terminal.recv() == text
    terminal.close()


def test_large_files_go_both_ways(tab: Browser) -> None:
    data = bytes(range(256)) * 100_000
    assert len(data) > BODY_BYTES
    answer = tab.post("upload", data)
    assert answer.json() == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert answer.headers["Connection"] == "close"  # or the next request may go where nobody is
    assert tab.get("file?32000000").content == b"0123456789abcdef" * 2_000_000
    packed = tab.get("file?1600000")
    assert packed.headers["Content-Encoding"] == "gzip" and len(packed.content) == 1_600_000


def test_an_upload_is_the_owner_s_only(tab: Browser, lab: Lab) -> None:
    address = f"{tab.root}upload"
    assert requests.post(address, b"x", allow_redirects=False, timeout=60).status_code in (302, 403)
    browser = requests.Session()
    browser.get(f"{lab.root}lab?token={lab.token}", timeout=60).raise_for_status()
    elsewhere = browser.post(address, b"x", headers={"Origin": "https://elsewhere.example"}, timeout=60)
    assert elsewhere.status_code == 403
    assert browser.post(address, b"x", timeout=60).json()["error"]["message"] == "not signed in"  # RStudio's


def test_a_file_larger_than_the_proxy_keeps_is_passed_on_as_it_comes(tab: Browser, lab: Lab) -> None:
    size, digest = 0, hashlib.sha256()
    with tab.get(f"export?{EXPORT_BYTES}", stream=True) as answer:
        assert (answer.status_code, urlsplit(answer.url).path.rpartition("/")[0]) == (
            200,
            f"{BASE_URL}ppe-jupyter/api/downloads",
        )
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''big.bin"
        assert answer.headers["Connection"] == "close"
        for block in answer.iter_content(2**20):
            size += len(block)
            digest.update(block)
    block = bytes(range(256)) * 4096
    whole = hashlib.sha256(block * (EXPORT_BYTES // len(block)) + block[: EXPORT_BYTES % len(block)])
    assert (size, digest.hexdigest()) == (EXPORT_BYTES, whole.hexdigest())
    assert tab.session.get(answer.url).status_code == 410  # it is taken once
    with tab.get("file?160000000", stream=True) as large:  # no attachment, and with its length
        assert len(large.content) == 160_000_000
    held = tab.get("export?5000000", allow_redirects=False).headers["Location"]
    assert requests.get(f"http:{held}", allow_redirects=False, timeout=60).status_code in (302, 403)
    assert len(tab.session.get(f"http:{held}", timeout=60).content) == 5_000_000


def test_more_polls_than_sshd_has_sessions(tab: Browser) -> None:
    """A poll waits for an event while others, and all else, go on."""
    tab.rpc("client_init")
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        polls = [pool.submit(tab.post, "events/get_events", "{}") for _ in range(12)]
        for number in range(12):
            assert tab.rpc("console_input", f"cat({number})") is None
        texts = {poll.result().json()["result"][0]["text"] for poll in polls}
    assert texts == {str(number) for number in range(12)}


def test_r_is_where_remote_cells_are_and_reaches_every_node(tab: Browser, cluster: Cluster) -> None:
    about = tab.rpc("client_init")
    assert about["user"] == cluster.record.login_user
    output = tab.console(SPAWN)
    names = {node.private_dns.split(".")[0] for node in cluster.nodes}
    workers = re.search(r"WORKERS (.*)", output)
    assert workers is not None, output
    assert {name.split(".")[0] for name in workers[1].split()} == names and len(workers[1].split()) == 6
    assert f"HERE {cluster.r().eval('getwd()')} TRUE" in output
    # Open, it does not keep the cluster from being idle.
    code = "import os, sys; from node.lifetime import activity as a; p = a.processes(os.getuid());"
    code += "print(a.programs(a.outside(p, agent=int(sys.argv[1]), r=[])))"
    idle = cluster.ssh().run(f"cd ~/.ppe && python3 -c '{code}' $(pgrep -o -u $USER -f node/agent.py)")
    assert idle.stdout.strip() == b"[]", idle


def test_it_comes_back_with_the_same_sign_in(tab: Browser, cluster: Cluster) -> None:
    before = tab.rpc("client_init")
    cluster.ssh().run("pkill -u $USER -x rserver || pkill -u $USER -f bin/rserver")
    page = tab.get(allow_redirects=False)
    assert page.status_code == 200 and "<h1>RStudio</h1>" in page.text
    assert tab.rpc("client_init") == before  # R has lived on


def test_labs_under_other_addresses_do_not_fight_for_it(tab: Browser, cluster: Cluster) -> None:
    async def connect() -> None:
        await (await remote.connect(cluster.ssh(), "/b/ppe-rstudio/test")).close()

    before = tab.rpc("client_init")
    asyncio.run(connect())  # starts it anew, for that address
    assert "<h1>RStudio</h1>" in tab.opened().text
    assert tab.get("headers").json()["root"] == "/user/a/ppe-rstudio/test"
    assert tab.rpc("client_init") == before
    state = json.loads(cluster.ssh().get("~/.ppe/rstudio/rserver.json"))
    assert state["root_path"] == "/b/ppe-rstudio/test"


def test_a_cut_line_is_made_anew(tab: Browser, cluster: Cluster) -> None:
    before = tab.rpc("client_init")
    poll = concurrent.futures.ThreadPoolExecutor(1).submit(tab.post, "events/get_events", "{}")
    # The line is sshd's child, and the far end of the relay its shell's.
    cluster.ssh().run("kill $(ps -o ppid= -p $(pgrep -o -u $USER -f 'node rstudio relay'))")
    assert poll.result().status_code >= 500
    assert "<h1>RStudio</h1>" in tab.opened().text
    assert tab.rpc("client_init") == before
    assert cluster.ssh().alive


@pytest.mark.parametrize(("manner", "said"), [("old", "is too old"), ("dead", "session-rpc-key")])
def test_what_does_not_start_says_why(tab: Browser, cluster: Cluster, manner: str, said: str) -> None:
    cluster.ssh().run(
        f"echo {manner} | sudo tee /etc/fake-rserver; pkill -u $USER -f bin/rserver", check=False
    )
    assert rstudio._tell_tunnels("disconnect", None) == ["test"]
    assert "Disconnected from test" in tab.get().text
    page = tab.get("?connect")
    assert page.status_code == 503 and said in page.text, page.text
    cluster.ssh().run("sudo rm /etc/fake-rserver")
    assert "<h1>RStudio</h1>" in tab.opened().text


def test_a_cluster_that_is_not_there(lab: Lab, tab: Browser) -> None:
    page = Browser(lab, "no-such").opened()
    assert page.status_code == 503 and "no-such is gone" in page.text
    assert 'href="../test/"' in page.text
