"""The same packages on every node, also those that were installed by hand: R's user library and ~/.ppe/venv."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_cells import Shown

import ppe_jupyter as ppe
from ppe_jupyter.cloud.keeping.install import Installed
from ppe_jupyter.node.machine import own_packages
from ppe_jupyter.remote.ranks.team import TeamCell

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.outputs import Output
    from ppe_jupyter.remote.sessions.session import RemoteR

R_PACKAGE = {
    "DESCRIPTION": (
        "Package: ppetiny\nVersion: {version}\nTitle: Tiny\nDescription: Tiny.\nLicense: GPL-2\n"
        "Author: A\nMaintainer: A <a@example.org>\nNeedsCompilation: no\nRepository: CRAN\n"
    ),
    "NAMESPACE": "export(twice)\n",
    "R/twice.R": "twice <- function(x) 2 * x\n",
}
WHEEL = {
    "ppetiny.py": "def twice(x):\n    return 2 * x\n",
    "ppetiny-{version}.dist-info/METADATA": "Metadata-Version: 2.1\nName: ppetiny\nVersion: {version}\n",
    "ppetiny-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "ppetiny-{version}.dist-info/RECORD": "ppetiny.py,,\nppetiny-{version}.dist-info/METADATA,,\n"
    "ppetiny-{version}.dist-info/WHEEL,,\nppetiny-{version}.dist-info/RECORD,,\n",
}
SHARE = "python3 ~/.ppe/node own_packages"
CRAN = "file:///home/admin/cran"
SPAWNED = (
    "library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE); x <- {}; mpi.close.Rslaves(); as.numeric(unlist(x))"
)


def source_package(version: str) -> bytes:
    """A source package of R."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in R_PACKAGE.items():
            info = tarfile.TarInfo(f"ppetiny/{name}")
            data = text.replace("{version}", version).encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def wheel(version: str = "2.0") -> bytes:
    """A package of Python."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in WHEEL.items():
            archive.writestr(*(each.replace("{version}", version) for each in (name, text)))
    return buffer.getvalue()


def shell(cluster: Cluster, command: str, stdin: bytes = b"") -> str:
    return cluster.ssh().run(command, stdin=stdin, timeout=60).stdout.decode()


def make_repository(cluster: Cluster) -> None:
    """A repository of R packages on the master, with one small package."""
    put = "mkdir -p ~/cran/src/contrib && cat >~/cran/src/contrib/ppetiny_1.2.3.tar.gz"
    shell(cluster, put, source_package("1.2.3"))
    shell(cluster, 'Rscript -e \'tools::write_PACKAGES("~/cran/src/contrib", type = "source")\'')


@pytest.fixture
def cran(cluster: Cluster) -> Iterator[str]:
    """Such a repository; what a test installs of it is gone afterwards."""
    make_repository(cluster)
    yield CRAN
    shell(cluster, "rm -rf ~/cran ~/R/*-library/*/ppetiny")
    shell(cluster, SHARE)


def said_by(r: RemoteR, code: str) -> tuple[Any, str]:
    said: list[Output] = []
    value = r.eval(code, on_output=said.append)
    return value, "".join(getattr(each, "text", "") for each in said)


# --- Without a cluster


def test_a_package_that_is_not_the_same_everywhere_is_named() -> None:
    versions = {
        "r": {"glue": {0: "1.7.0", 1: "1.6.2", 2: "1.6.2"}},
        "apt": {"tree": {0: "2.1", 1: "2.1", 2: "2.1"}, "jq": {0: "1.6", 1: "", 2: "1.6"}},
    }
    done = Installed(versions=versions, notes=())
    assert done.summary() == "Debian: tree 2.1, jq 1.6; R: glue 1.7.0 or 1.6.2"
    assert done.differences() == [
        "jq (Debian) differs between nodes: 1.6 on nodes 0, 2; not there on node 1",
        "glue (R) differs between nodes: 1.7.0 on node 0; 1.6.2 on nodes 1, 2",
    ]


def test_a_node_that_does_not_answer_is_not_asked_for_each_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts").write_text("master slots=1\nworker slots=1\ndead slots=1\n")
    package = tmp_path / "R" / "x-library" / "4.2" / "glue"
    package.mkdir(parents=True)
    (package / "DESCRIPTION").write_text("Version: 1.7.0\n")
    monkeypatch.setattr(own_packages, "FOLDER", tmp_path)
    monkeypatch.setattr(own_packages, "VENV", tmp_path / "venv")
    monkeypatch.setattr(own_packages, "SHARED", tmp_path / "own-packages.json")
    monkeypatch.setattr(own_packages, "FAILED", tmp_path / "own-packages-failed.json")
    monkeypatch.setattr(own_packages, "HOSTFILE", tmp_path / "hosts")
    monkeypatch.setattr(own_packages, "_home", lambda: tmp_path)
    asked: list[str] = []

    def copy(node: str) -> str:
        asked.append(node)
        return "no answer" if node == "dead" else ""

    monkeypatch.setattr(own_packages, "_copy", copy)
    monkeypatch.setattr(own_packages, "TICK_NS", 0)  # the package has just been made
    warning = "!dead does not have the same packages as the master: no answer"
    assert list(own_packages.share())[1:] == [warning]
    assert list(own_packages.share()) == [warning]
    assert sorted(asked) == ["dead", "worker"]
    monkeypatch.setattr(own_packages, "FAILED_SECONDS", 0.0)
    assert list(own_packages.share()) == [warning]
    assert len(asked) == 4


def test_a_package_that_is_just_being_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_packages, "_home", lambda: tmp_path)
    monkeypatch.setattr(own_packages, "VENV", tmp_path / "venv")
    for name in ("glue", "gone"):
        (tmp_path / "R" / "x-library" / "4.2" / name).mkdir(parents=True)
    (tmp_path / "R/x-library/4.2/glue/DESCRIPTION").write_text("Version: 1.7.0\n")
    (tmp_path / "R/x-library/4.2/gone/DESCRIPTION").symlink_to("nothing")
    assert own_packages.installed()["r"] == {"glue": "1.7.0"}


# --- On a launched cluster


@pytest.mark.slow
def test_what_a_cell_installs_is_on_every_node_before_workers_start(
    cluster: Cluster, r: RemoteR, cran: str
) -> None:
    # The last one before R 4.3.
    assert r.eval('getOption("repos")[["CRAN"]]') == "https://packagemanager.posit.co/cran/2023-04-20"
    said_by(r, f'install.packages("ppetiny", repos = "{cran}", quiet = TRUE)')
    values, said = said_by(r, SPAWNED.format("mpi.remote.exec(ppetiny::twice(21))"))
    assert list(values) == [42] * 6
    assert "R library: 1 package (ppetiny 1.2.3) copied to 2 nodes" in said
    _, said = said_by(r, SPAWNED.format("1"))
    assert "ppetiny" not in said


def test_a_worker_that_cannot_be_reached_is_named_and_the_others_have_all(cluster: Cluster) -> None:
    library = shell(cluster, "echo ~/R/*-library/*").strip()
    try:
        shell(cluster, f"mkdir {library}/ppefake && echo 'Version: 1.0' >{library}/ppefake/DESCRIPTION")
        shell(cluster, "echo 'nowhere.invalid slots=1' >>~/ompi-hostfile")
        first, second = shell(cluster, SHARE), shell(cluster, SHARE)
        assert "R library: 1 package (ppefake 1.0) copied to 2 nodes\n!nowhere.invalid does not have" in first
        assert second.startswith("!nowhere.invalid")  # as long as it is so
        for node in cluster.nodes[1:]:
            assert "1.0" in shell(cluster, f"ssh {node.private_ip} cat {library}/ppefake/DESCRIPTION")
    finally:
        shell(cluster, f"rm -r {library}/ppefake; sed -i /nowhere.invalid/d ~/ompi-hostfile")
    assert shell(cluster, SHARE) == "R library: 1 package (ppefake) removed from 2 nodes\n"
    assert shell(cluster, SHARE) == ""


@pytest.mark.slow
def test_what_pip_installs_is_there_for_ranks_of_python(cluster: Cluster) -> None:
    shown = Shown()
    try:
        shell(cluster, "cat >ppetiny-2.0-py3-none-any.whl", wheel())
        cluster.run_shell("pip install -q --no-index ./ppetiny-2.0-py3-none-any.whl", on_output=shown)
        cell = TeamCell(code="import ppetiny, mpi4py, numpy; x = ppetiny.twice(4)", outputs=("x",))
        assert [each["x"] for each in cluster.run_ranks(cell, on_output=shown)] == [8] * 6
        assert shown.text == "[Python: 1 package (ppetiny 2.0) copied to 2 nodes]\n"
        for command in ("python3", "mpirun --hostfile ~/ompi-hostfile python3"):
            shown = Shown()
            cluster.run_shell(
                f"{command} -c 'import ppetiny; print(ppetiny.twice(3))' 2>/dev/null", on_output=shown
            )
            assert set(shown.text.split()) == {"6"}
    finally:
        shell(cluster, "rm -f ppetiny*.whl; ~/.ppe/venv/bin/pip uninstall -qy ppetiny")
        shell(cluster, SHARE)


@pytest.mark.slow
def test_what_is_installed_from_a_notebook_is_used_by_every_rank_and_by_nodes_that_come_later(
    manager: Manager, bare_kernel: Kernel
) -> None:
    cluster = manager.launch(ppe.ClusterSpec(name="packages", nodes=2, instance_type="m5.xlarge"))
    try:
        make_repository(cluster)
        cell = bare_kernel.cell
        cell("%ppe_connect packages")
        cell(f"%ppe_config cran_url {CRAN}")
        said = cell("%ppe_install --r zoo ppetiny --py roman --apt tree").stdout
        assert re.search(
            r"2 nodes of packages: Debian: tree 2[\d.-]+; R: zoo 1[\d.-]+, ppetiny 1.2.3; Python: roman \d",
            said,
        )
        cell("%remote_restart")
        assert CRAN in cell("%%remote_r\ngetOption('repos')[['CRAN']]").stdout
        cluster.resize(3)
        r = cell("%%remote_r --ranks all\nlibrary(zoo); ppetiny::twice(21)").stdout
        python = cell("%%remote_py --ranks all\nimport roman; roman.toRoman(42)").stdout
        assert (r.count("[1] 42"), python.count("XLII")) == (6, 6)
        everywhere = cell("%%remote_sh --all\ntree --version; pip list | grep roman").stdout
        assert (everywhere.count("tree v"), everywhere.count("roman ")) == (3, 3)
    finally:
        bare_kernel.cell("%ppe_config cran_url ''")
        cluster.terminate()
