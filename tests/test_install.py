"""Packages on all nodes of a running cluster, and in its spec for those to come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ppe_jupyter.cloud.keeping.install import Packages, install
from ppe_jupyter.cloud.pace import Pace
from ppe_jupyter.cloud.records import Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import SetupFailed, SpecError

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster


def test_packages_are_added_to_the_spec_once() -> None:
    spec = ClusterSpec(apt_packages=("tree",), r_packages=("MASS",))
    added = Packages(apt=("jq", "tree"), python=("numpy>=1.26",)).added_to(spec)
    assert Packages.of(added) == Packages(apt=("tree", "jq"), r=("MASS",), python=("numpy>=1.26",))
    with pytest.raises(SpecError, match="is not a package's name"):
        Packages(apt=("tree; reboot",)).added_to(spec)


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
