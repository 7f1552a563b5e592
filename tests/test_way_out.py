"""Workers without a way out of their own: apt and pip by the master's proxy, and nothing else by it."""

from __future__ import annotations

import asyncio
import configparser
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import Archives, served

import ppe_jupyter as ppe
from ppe_jupyter.node.machine import way_out
from ppe_jupyter.node.server import Agent

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager


CRAN = "cran.example.test"  # a name that the master alone knows


@pytest.fixture(scope="module")
def archives(manager: Manager, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    """One with a package of R's."""
    with served(tmp_path_factory.mktemp("archives"), manager._caller_address()) as found:
        found.cran("1.0")
        yield found


@pytest.fixture(scope="module")
def cut(manager: Manager, archives: Archives) -> Iterator[Cluster]:
    """A cluster whose workers' packets to the internet are dropped outside of them, for want of public addresses."""
    spec = ppe.ClusterSpec(name="cut", nodes=3, instance_type="m5.large", public_addresses="master")
    settings = replace(manager.settings, cran_url=f"http://{CRAN}:{archives.port}/cran")
    cluster = ppe.Manager(settings).launch(spec)
    yield cluster
    cluster.terminate()


def said(cluster: Cluster, command: str) -> str:
    return cluster.ssh().run(command, check=False).stdout.decode()


# Status of what a proxy answers to the command's request, asked on that node.
ASK = (
    "import http.client, sys; c = http.client.HTTPConnection(sys.argv[1], 3128, timeout=20);"
    "c.request(*sys.argv[2:]); print(c.getresponse().status)"
)


def asked(cluster: Cluster, address: str, *request: str) -> str:
    proxy = cluster.master.private_ip
    return said(cluster, f"ssh {address} \"python3 -c '{ASK}' {proxy} {' '.join(request)}\"").strip()


@pytest.mark.slow
def test_what_is_asked_of_cran_goes_by_the_master(cut: Cluster, archives: Archives) -> None:
    said(cut, f"echo {archives.host} {CRAN} | sudo tee -a /etc/hosts")
    worker = cut.nodes[1].private_ip
    for first, answer in (("Sys.unsetenv('http_proxy')", "cannot open URL"), ("TRUE", "42")):
        code = f"invisible({first}); install.packages('ppetiny'); cat(ppetiny::twice(21))"
        command = f"Rscript -e {shlex.quote(code)} 2>&1"
        assert answer in said(cut, f"ssh {worker} {shlex.quote(command)}")
    assert asked(cut, worker, "GET", f"http://{CRAN}:{archives.port}/cran/src/contrib/PACKAGES") == "200"


@pytest.mark.slow
def test_packages_reach_all_nodes_and_nothing_else_does(cut: Cluster) -> None:
    workers = [node.private_ip for node in cut.nodes[1:]]
    cut.install(apt=["tree"], python=["tabulate"])
    for address in (cut.master.private_ip, *workers):
        assert "tree v" in said(cut, f"ssh {address} tree --version")
        assert "tabulate " in said(cut, f"ssh {address} .ppe/venv/bin/pip list")
        assert said(cut, f"ssh {address} .ppe/venv/bin/pip download -q --no-deps -d /tmp six && ls /tmp/six*")

    # Of the worker itself no way leads out, also to hosts that the proxy knows.
    probe = 'import socket; socket.create_connection((\\"deb.debian.org\\", 80), 3)'
    assert "timed out" in said(cut, f"ssh {workers[0]} \"python3 -c '{probe}'\" 2>&1")
    assert asked(cut, workers[0], "GET", "http://deb.debian.org/debian/") == "200"
    for request in (
        ("GET", "http://example.org/"),
        ("CONNECT", "example.org:443"),
        ("CONNECT", "pypi.org:22"),
    ):
        assert asked(cut, workers[0], *request) == "403", request
    assert asked(cut, workers[0], "GET", "http://169.254.169.254/latest/meta-data/") == "403"
    # The master is a member of the cluster, and none that the proxy is for.
    assert asked(cut, cut.master.private_ip, "GET", "http://deb.debian.org/debian/") == "403"
    # Whoever is no member gets no answer at all: of the master's ports only SSH's is open.
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((cut.master.private_ip, way_out.PORT), 1.0)

    cut.reboot()
    assert asked(cut, workers[0], "GET", "http://deb.debian.org/debian/") == "200"
    cut.resize(2)
    allowed = said(cut, "grep Allow ~/.ppe/way-out/tinyproxy.conf").split()
    assert allowed == ["Allow", cut.nodes[1].private_ip]
    cut.ssh().run("python3 ~/.ppe/node/agent.py stop")
    assert said(cut, "pgrep tinyproxy") == ""


@pytest.mark.slow
def test_where_all_have_a_way_out_there_is_no_proxy(cluster: Cluster) -> None:
    assert (
        said(cluster, "ls -d ~/.ppe/way-out /etc/apt/apt.conf.d/95* 2>/dev/null; command -v tinyproxy") == ""
    )


def test_its_hosts_are_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(
        "# deb http://old.example.org/ bookworm main\n"
        "deb [arch=amd64] https://user:word@Mirror.example.org:8080/debian bookworm main\n"
    )
    (tmp_path / "etc/apt/sources.list.d/r.sources").write_text("URIs: http://r.example.org/\n")
    (tmp_path / "etc/pip.conf").write_text("[global]\nindex-url = https://pip.example.org/simple\n")
    found = way_out.package_hosts("https://cran.example.org/2023-04-20", root=tmp_path)
    assert found[: len(way_out.HOSTS)] == list(way_out.HOSTS)
    assert found[len(way_out.HOSTS) :] == [
        "cran.example.org",
        "mirror.example.org",
        "r.example.org",
        "pip.example.org",
    ]


@pytest.mark.parametrize(
    ("host", "passes"),
    [("pypi.org", True), ("pypi.org.example.org", False), ("evil-pypi.org", False), ("pypixorg", False)],
)
def test_a_host_passes_by_its_whole_name_only(host: str, passes: bool) -> None:
    patterns = way_out.host_filter(["deb.debian.org", "pypi.org"]).split()
    assert any(re.search(pattern, host) for pattern in patterns) is passes


def test_a_proxy_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(way_out, "start", lambda: "no tinyproxy")
    agent = Agent(tmp_path, tmp_path / "agent.sock", hostfile=tmp_path / "hostfile")
    asyncio.run(agent._lead_out())
    assert "the proxy does not start: no tinyproxy" in str(agent._sessions.notices.recent()[-1]["text"])


def pip_proxy(folder: Path) -> str:
    """As pip reads it."""
    parser = configparser.RawConfigParser()
    parser.read(folder / "PIP")
    return parser["global"]["proxy"]


@pytest.mark.parametrize(
    "image",
    [
        "[global]\nindex-url = https://pip.example.org/simple\n[install]\nno-cache-dir = true\n",
        "[install]\nno-cache-dir = true\n",
        "# nothing but a header, without its end\n[global]",
    ],
)
def test_pips_configuration_of_the_image_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    for name in ("APT", "PIP", "R"):
        monkeypatch.setattr(way_out, name, tmp_path / name)
    (tmp_path / "PIP").write_text(image)
    for proxy in ("http://10.0.0.4:3128", "http://10.0.0.5:3128"):
        way_out.use(proxy)
        assert pip_proxy(tmp_path) == proxy
    assert way_out.pip_configuration(own := "[global]\nproxy = http://own:1\n", proxy) == own
    way_out.use(None)
    assert (tmp_path / "PIP").read_text().strip() == image.strip()


def test_a_node_goes_by_the_proxy_until_it_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APT", "PIP", "R"):
        monkeypatch.setattr(way_out, name, tmp_path / name)
    (tmp_path / "R").write_text("R_LIBS_SITE=x\n")
    for _ in range(2):
        way_out.use("http://10.0.0.4:3128")
    assert 'Acquire::https::Proxy "http://10.0.0.4:3128";' in (tmp_path / "APT").read_text()
    assert pip_proxy(tmp_path) == "http://10.0.0.4:3128"
    assert (tmp_path / "R").read_text().count("https_proxy=http://10.0.0.4:3128") == 1
    way_out.use(None)
    assert not (tmp_path / "APT").exists() and (tmp_path / "PIP").read_text() == ""
    assert (tmp_path / "R").read_text() == "R_LIBS_SITE=x\n"
