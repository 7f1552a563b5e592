"""Locks: what nodes had, written, read and compared without a cluster; had again, or said what is missing, on one."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_plan import facts

import ppe_jupyter as ppe
from ppe_jupyter import catalog
from ppe_jupyter.cloud import lock_file
from ppe_jupyter.cloud.keeping.bake import DIGEST, ORIGIN
from ppe_jupyter.cloud.keeping.images import ImageStore
from ppe_jupyter.cloud.lock import Difference, Lock
from ppe_jupyter.cloud.planning.plan_launch import plan_launch
from ppe_jupyter.cloud.software import KINDS, Software, Version
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import NotAsLocked, SpecError
from ppe_jupyter.session_info import SessionInfo

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR


def software(r: dict[str, str], apt: dict[str, str] | None = None, **facts: str) -> Software:
    return Software(
        facts={"R": "4.2.2", "architecture": "x86_64", **facts},
        packages={
            "apt": {name: Version(version, "Debian") for name, version in (apt or {"bash": "5.2"}).items()},
            "r": {name: Version(version, "CRAN") for name, version in r.items()},
            "python": {"six": Version("1.16.0", "Debian")},
        },
    )


def lock_of(nodes: dict[int, Software]) -> Lock:
    return Lock.of(
        nodes,
        cluster="lab",
        written="2026-01-02T03:04:05Z",
        image_id="ami-0fedcba9876543210",
        image_name="old",
    )


NODES = {
    0: software({"glue": "1.6.2", "boot": "1.3"}, {"bash": "5.2", "rstudio-server": "2024"}),
    1: software({"glue": "1.6.2", "boot": "1.2"}),
    2: software({"glue": "1.6.2", "boot": "1.2"}),
}


# --- Without a cluster


def test_a_lock_tells_what_is_common_and_what_is_particular() -> None:
    lock = lock_of(NODES)
    assert lock.packages["r"] == {"glue": Version("1.6.2", "CRAN")}
    assert lock.particular[0]["apt"] == {"rstudio-server": Version("2024", "Debian")}
    for index, node in NODES.items():
        assert lock.of_node(index) == node.packages
    # A node more than there were is to have what all had.
    assert lock.of_node(3) == {kind: dict(lock.packages[kind]) for kind in KINDS}
    assert lock.digest == NODES[0].digest != NODES[1].digest


def test_a_lock_returns_from_its_file(tmp_path: Path) -> None:
    path = lock_file.beside(tmp_path / "cluster.toml")
    assert path.name == "cluster.lock.toml"
    lock = lock_of(NODES)
    lock_file.save(lock, path)
    assert lock_file.load(path) == lock
    assert 'bash = "5.2"' in path.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no lock .*--save writes one"),
        ("format = ", "is not TOML"),
        ("format = 2", "no lock that this version"),
        ("format = 1\ncluster = 'x'", "damaged lock"),
        ("format = 1\ncluster = 'x'\nwritten = ''\narchitecture = ''\nimage = 3", "damaged lock"),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "cluster.lock.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError, match=said):
        lock_file.load(path)


def test_differences_name_node_and_versions_and_extras_are_none() -> None:
    lock = lock_of(NODES)
    there = {0: NODES[0], 1: software({"glue": "1.7", "more": "1"}, {"zsh": "5"})}
    assert lock.differences(there) == [
        Difference(index=1, kind="apt", name="bash", wanted="5.2", there=""),
        Difference(index=1, kind="r", name="glue", wanted="1.6.2", there="1.7"),
        Difference(index=1, kind="r", name="boot", wanted="1.2", there=""),
    ]
    assert lock.pins(there) == {1: {"apt": {"bash": "5.2"}, "r": {"glue": "1.6.2", "boot": "1.2"}}}


def test_programs_and_sources_are_compared_too() -> None:
    def github(r: str) -> Software:
        return Software(
            facts={"R": r, "Python": "3.11.2"},
            packages={
                "apt": {},
                "python": {},
                "r": {"own": Version("1.0", "github"), "dbx": Version("2", "CRAN")},
            },
        )

    lock = lock_of({0: github("4.2.2")})
    there = Software(
        facts={"R": "4.3.0", "Python": "3.11.2"},
        packages={"apt": {}, "python": {}, "r": {"own": Version("1.0", "CRAN"), "dbx": Version("2", "RSPM")}},
    )
    found = [(each.kind, each.name, each.wanted, each.there) for each in lock.differences({0: there})]
    assert found == [("version", "R", "4.2.2", "4.3.0"), ("r", "own", "1.0 (github)", "1.0 (CRAN)")]
    assert lock.pins({0: there}) == {}  # CRAN's 1.0 is other code
    local = replace(there, packages={**there.packages, "r": {"dbx": Version("2", "local")}})
    assert lock.pins({1: local}) == {1: {"r": {"dbx": "2"}}}


def test_a_number_tells_the_code_only_where_it_is_given_once() -> None:
    def digest(version: str, source: str) -> str:
        return Software(facts={}, packages={"r": {"own": Version(version, source)}}).digest

    assert digest("1", "CRAN") == digest("1", "RSPM") == digest("1", "Debian") != digest("2", "CRAN")
    others = {"CRAN", "local", "https://a.r-universe.dev", "github 3f2c1aa", "github 77d0b1c"}
    assert len({digest("1", source) for source in others}) == len(others)


def test_nodes_that_come_later_are_to_have_what_was_changed_since_as_the_master_has_it() -> None:
    lock = lock_of(NODES)
    changed = software({"glue": "1.8.0", "more": "1"}, {"bash": "5.2", "rstudio-server": "2024"}, R="4.3.0")
    later = lock.changed_as(changed)
    assert later.packages["r"] == {"glue": Version("1.8.0", "CRAN")}
    assert later.versions["R"] == "4.3.0" and later.particular == lock.particular
    assert [each.name for each in later.differences({3: NODES[1]})] == ["R", "glue"]
    # Of what all had, what is not there any more is not wanted; of what was added the spec tells.
    assert lock.changed_as(software({})).packages["r"] == {}


def test_node_0_of_a_lock_is_the_master_whichever_it_was() -> None:
    swapped = {0: NODES[1], 1: NODES[0], 2: NODES[2]}
    wanted = {"cluster": "lab", "written": "", "image_id": "", "image_name": ""}
    lock = Lock.of(swapped, master=1, **wanted)
    assert lock == Lock.of(NODES, **wanted) and lock.digest == NODES[0].digest
    assert lock.differences(NODES) == lock.differences(swapped, master=1) == []
    assert {each.index for each in lock.differences(swapped)} == {0, 1}
    assert set(lock.pins(NODES, master=1)) == {0, 1}


def test_what_is_debians_is_installed_by_apt_alone() -> None:
    lock = lock_of(NODES)
    without = replace(NODES[0], packages={**NODES[0].packages, "python": {}})
    assert [each.name for each in lock.differences({0: without})] == ["six"]
    assert lock.pins({0: without}) == {}


def test_an_image_that_is_gone_is_said_before_anything_is_bought() -> None:
    plan = plan_launch(ClusterSpec(), facts(image=None, lock=lock_of(NODES)))
    assert not plan.steps
    assert re.search(r"ami-0fedcba9876543210 \(old\) does not exist any more", "".join(plan.errors))
    assert len(plan.errors) == 1


def test_an_image_that_is_typed_is_not_the_locks() -> None:
    plan = plan_launch(ClusterSpec(image="ami-typo"), facts(image=None, lock=lock_of(NODES)))
    assert len(plan.errors) == 1 and "image ami-typo cannot be found" in plan.errors[0]


def test_the_image_for_a_lock_is_of_its_architecture() -> None:
    lock = lock_of(NODES)

    def image(image_id: str, architecture: str, **tags: str) -> SimpleNamespace:
        return SimpleNamespace(
            image_id=image_id, architecture=architecture, tags=tags, state="available", node=True
        )

    def locked(lock: Lock, *own: SimpleNamespace) -> str | None:
        ec2 = SimpleNamespace(own_images=lambda: own, image=lambda image_id: None)
        context: Any = SimpleNamespace(ec2=ec2)
        found = ImageStore(context).locked(lock)
        return found and found.image_id

    arm = image("ami-arm", "arm64", **{DIGEST: lock.digest})
    exact = image("ami-exact", "x86_64", **{DIGEST: lock.digest})
    made = image("ami-made", "x86_64", **{ORIGIN: lock.image_id})
    assert [locked(lock, arm, made, exact), locked(lock, arm, made), locked(lock, arm)] == [
        "ami-exact", "ami-made", None,
    ]  # fmt: skip
    unknown = image("ami-of-nothing", "x86_64", **{ORIGIN: ""})
    assert locked(replace(lock, image_id=""), unknown) is None


def test_a_lock_of_another_architecture_is_refused() -> None:
    arm = {"instance_type": catalog.instance_types()["c7g.2xlarge"]}
    plan = plan_launch(ClusterSpec(instance_type="c7g.2xlarge"), facts(**arm, lock=lock_of(NODES)))
    assert any("packages are for x86_64, c7g.2xlarge is arm64" in error for error in plan.errors)


def test_another_image_in_place_of_the_locks_is_told() -> None:
    plan = plan_launch(ClusterSpec(), facts(lock=lock_of(NODES)))
    assert not plan.errors
    assert any("in place of the lock's image ami-0fedcba9876543210 (old)" in text for _, text in plan.rows())


def test_session_info_tells_once_what_is_the_same_and_marks_what_differs() -> None:
    nodes = {**NODES, 2: replace(NODES[2], facts={**NODES[2].facts, "CPU": "Xeon"})}
    info = SessionInfo(about={"cluster": "lab"}, types=dict.fromkeys(nodes, "m5.xlarge"), software=nodes)
    rows = set(info.rows())
    assert {("R", "4.2.2", "all"), ("instance type", "m5.xlarge", "all")} <= rows
    assert {("≠ CPU", "absent", "0, 1"), ("≠ CPU", "Xeon", "2")} <= rows
    assert {("≠ boot", "1.3", "0"), ("≠ boot", "1.2", "1, 2")} <= rows
    assert {("≠ rstudio-server", "2024", "0"), ("≠ rstudio-server", "absent", "1, 2")} <= rows
    assert "R packages: boot 1.2|1.3, glue 1.6.2" in info.text()
    assert max(map(len, info.text().splitlines())) <= 80
    packages = info.packages()
    assert packages.loc[("r", "boot"), "differs"] and not packages.loc[("r", "glue"), "differs"]
    assert list(info.frame().columns) == ["value", "nodes"]


# --- On a cluster


def test_session_info_asks_every_node_and_the_session(cluster: Cluster, r: RemoteR) -> None:
    r.eval('RNGkind("L\'Ecuyer-CMRG"); set.seed(1); library(survival); invisible(NULL)')
    cluster.r("aside").eval("set.seed(2); ppe.sapply(1, identity, seed = 3, slots = 0)")
    assert cluster.map(abs, [-1], seed=77, progress=False) == [1]
    info = cluster.session_info()
    facts = {row.what: row.value for row in info.rows()}
    assert facts["R"] == r.eval("as.character(getRversion())")
    seed = ", ".join(f"{each}L" for each in r.eval(".Random.seed"))
    assert facts["random numbers"] == f"L'Ecuyer-CMRG, Inversion, Rejection; .Random.seed is c({seed})"
    stream = np.asarray(cluster.r("aside").eval(".Random.seed"), "<i4").tobytes()
    there = f"Mersenne-Twister, Inversion, Rejection; .Random.seed has the SHA-256 {sha256(stream).hexdigest()[:16]}…"
    assert facts["random numbers of session aside"] == there
    assert facts["last seed of session aside"].endswith("of ppe.lapply")
    assert facts["last seed of map"] == "77"
    assert facts["BLAS"] == r.eval("extSoftVersion()[['BLAS']]")
    assert list(info.software) == [0, 1, 2]
    assert any(each.startswith("survival 3.") for each in info.attached or ())
    versions = info.versions("r")["survival"]
    assert set(versions.values()) == {r.eval("packageDescription('survival')$Version")}
    cluster.close_session("aside")
    r.eval("RNGkind('default'); detach('package:survival', unload = TRUE)")


def test_what_is_typed_in_a_notebook(kernel: Kernel, tmp_path: Path) -> None:
    shown = kernel.cell("%ppe_session_info")
    assert "Open MPI" in str(shown) and "mpi4py" in str(shown)
    path = tmp_path / "lab.lock.toml"
    assert "software of test's nodes is in" in kernel.cell(f"%ppe_session_info --lock {path}").stdout
    assert lock_file.load(path).packages["r"]["Rmpi"].source == "Debian"
    assert "--locked: only with --spec" in str(kernel.cell("%ppe_launch test --locked"))


@pytest.mark.slow
def test_a_baked_image_satisfies_a_lock_whose_own_image_is_gone(manager: Manager, cluster: Cluster) -> None:
    lock = cluster.lock()
    image_id = cluster.bake("locked-image")
    try:
        gone = replace(lock, image_id="ami-00000000000000000")
        plan = manager.plan(ppe.ClusterSpec(name="locked", nodes=2, instance_type="m5.xlarge"), lock=gone)
        again = manager.launch(plan)
        try:
            again.satisfy(gone)
            assert again.lock().packages == lock.packages
            assert again.lock().image_id == image_id
        finally:
            again.terminate()
    finally:
        manager.delete_image(image_id)


@pytest.mark.slow
def test_what_is_missing_is_installed_and_what_cannot_be_had_is_said(cluster: Cluster) -> None:
    lock = cluster.lock()
    master = cluster.ssh()
    master.run("sudo apt-get -q update", timeout=120)
    version = master.run("apt-cache madison jq | tail -1 | cut -d'|' -f2").stdout.decode().strip()
    former = dict.fromkeys(("jq", "libjq1"), Version(version, "Debian"))
    more = {**lock.packages["apt"], **former, "no-such": Version("1", "Debian")}
    r = {**lock.packages["r"], "glue": Version("0.0.1", "CRAN")}
    wanted = replace(lock, packages={**lock.packages, "apt": more, "r": r})
    with pytest.raises(NotAsLocked, match=r"apt no-such: wanted 1, there is none on nodes 0, 1, 2") as caught:
        cluster.satisfy(wanted)
    assert {(each.kind, each.name) for each in caught.value.differences} == {
        ("apt", "no-such"),
        ("r", "glue"),
    }
    assert "r glue: wanted 0.0.1" in str(caught.value) and "%ppe_terminate test" in str(caught.value)
    for node in cluster.nodes[1:]:
        assert b"jq-" in master.run(f"ssh {node.private_ip} jq --version").stdout
