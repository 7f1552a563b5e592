"""Packages on all nodes of a running cluster, and in its spec for those to come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ppe_jupyter.cloud import tags
from ppe_jupyter.cloud.keeping.install import Packages, install
from ppe_jupyter.cloud.pace import Pace
from ppe_jupyter.cloud.records import Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import PartlyInstalled, SetupFailed, SpecError
from ppe_jupyter.node.machine import own_packages, packages
from ppe_jupyter.node.setting_up import installing
from ppe_jupyter.node.setting_up.phase import Phase
from ppe_jupyter.node.setting_up.reach import Node, NodeFailed

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster


def test_packages_are_added_to_the_spec_once() -> None:
    spec = ClusterSpec(apt_packages=("tree",), r_packages=("MASS",))
    added = Packages(apt=("jq", "tree"), python=("numpy>=1.26",)).added_to(spec)
    assert Packages.of(added) == Packages(apt=("tree", "jq"), r=("MASS",), python=("numpy>=1.26",))
    with pytest.raises(SpecError, match="is not a package's name"):
        Packages(apt=("tree; reboot",)).added_to(spec)


@pytest.mark.parametrize(("kept", "error"), [(True, PartlyInstalled), (False, SetupFailed)])
def test_what_the_master_has_later_nodes_get_too(
    monkeypatch: pytest.MonkeyPatch, kept: bool, error: type[SetupFailed]
) -> None:
    done = {"event": "done", "failed": {"2": "disk full"}, "versions": {"0": {}, "1": {}}, "kept": kept}
    monkeypatch.setattr("ppe_jupyter.cloud.configure.run_setup", lambda *args, **more: [done])
    connection: Any = None
    with pytest.raises(SetupFailed, match=r"^node 2: disk full; done on nodes 0, 1") as caught:
        install(connection, Packages(apt=("tree",)), report=lambda progress: None, pace=Pace())
    assert type(caught.value) is error


def test_packages_that_a_node_lacks_are_in_the_spec_nevertheless(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def partly(*args: Any, **more: Any) -> None:
        raise PartlyInstalled("node 2: disk full")

    monkeypatch.setattr("ppe_jupyter.equipment.install", partly)
    before = cluster.record.spec
    assert before is not None
    try:
        with pytest.raises(PartlyInstalled):
            cluster.install(apt=["tree"])
        assert cluster.record.spec == Packages(apt=("tree",)).added_to(before)
    finally:
        cluster._account.context.ec2.tag([each.instance_id for each in cluster.nodes], tags.of_spec(before))
        cluster.refresh()


def test_what_is_there_needs_no_source_in_later_setups(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[str]] = []

    def install_own(r: list[str], python: list[str], say: object) -> None:
        tried.append([*r, *python])
        if "gone" in r:
            raise packages.NotInstalled("no CRAN")

    monkeypatch.setattr(packages, "install_own", install_own)
    monkeypatch.setattr(own_packages, "installed", lambda: {"r": {}, "python": {"torch": "2.1", "six": "1"}})
    master = Node(0, "i-1", "10.0.0.4", "ip-10-0-0-4", 1, "master")
    phase = Phase("installing", [master], 1)
    said: list[str] = []
    monkeypatch.setattr(phase, "warn", said.append)
    before = {"r": ["gone"], "python": ["Torch>=2"]}
    installing.again(["gone"], ["Torch>=2", "six"], before, phase)
    assert tried == [["gone"]] and "no CRAN" in said[0]
    installing.again(["new"], ["Torch>=2", "six>=1"], {}, phase)
    assert tried[1:] == [["new", "Torch>=2", "six>=1"]]
    with pytest.raises(NodeFailed, match="no CRAN"):
        installing.again(["gone"], [], {}, phase)


@pytest.fixture
def forgotten(cluster: Cluster) -> Iterator[None]:
    """The cluster's own list of what new nodes need is as before."""
    yield
    cluster.ssh().run("rm -f ~/.ppe/packages.json")


@pytest.mark.usefixtures("forgotten")
def test_a_package_is_on_every_node(cluster: Cluster) -> None:
    said: list[Progress] = []
    for _ in range(2):
        done = install(cluster.ssh(), Packages(apt=("tree",), r=("MASS",)), report=said.append, pace=Pace())
    assert {(each.phase, each.total) for each in said} == {("installing", 3), ("looking", 3)}
    assert re.fullmatch(r"Debian: tree 2[.][\d.-]+; R: MASS 7[\d.-]+", done.summary())
    assert not done.differences()
    assert said[-1].ready == 3
    for node in cluster.nodes[1:]:
        assert b"tree v" in cluster.ssh().run(f"ssh {node.private_ip} tree --version").stdout
    assert b"tree v" in cluster.ssh().run("tree --version").stdout


def test_a_package_that_does_not_exist_is_named_with_the_end_of_the_log(cluster: Cluster) -> None:
    with pytest.raises(SetupFailed, match=r"^nodes 0, 1, 2: .*no-such-package"):
        install(cluster.ssh(), Packages(apt=("no-such-package",)), report=lambda progress: None, pace=Pace())
    with pytest.raises(SpecError, match="is not a package's name"):
        install(cluster.ssh(), Packages(apt=("-oX=y",)), report=lambda progress: None, pace=Pace())
