"""What would be lost with a cluster, as its own nodes tell it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from ppe_jupyter import errors

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.remote.sessions.session import RemoteR

HERE = "mkdir lost; echo 123456 > lost/new.csv; touch -d 2001-01-01 lost/unpacked; sudo touch lost/by-root"
MAKE = f"{HERE}; sudo install -d -o $USER /srv/data; head -c 3000 /dev/zero > /srv/data/big; echo > ~/.hidden"
LAUNCHED = "/etc/ppe/deadman.json"


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[str]:
    """A worker's name; it and the master have files of the user's, which go again."""
    name = cluster.nodes[1].private_dns.split(".")[0]
    connection = cluster.ssh()
    connection.run(MAKE)
    connection.run(f"ssh {name} 'mkdir lost; echo 1 > lost/there'")
    yield name
    connection.run(f"rm -rf lost .hidden; sudo rm -rf /srv/data; ssh {name} rm -rf lost")


def test_what_would_be_lost_is_known_of_every_node(cluster: Cluster, r: RemoteR, worker: str) -> None:
    r.eval("x <- 1:10; y <- 2")
    r.pull("y")
    lost = cluster.losses()
    assert {(name, pulled) for name, _, pulled in lost.objects or ()} == {("x", False), ("y", True)}
    files = dict(lost.files)
    assert (files["/srv/data/big"], files["lost/new.csv"]) == (3000, 7)
    assert {"lost/unpacked", "lost/by-root", f"{worker}:lost/there"} <= {*files}
    assert not [path for path in files if "hidden" in path or "ompi" in path or "Rtmp" in path]
    assert (lost.silent, lost.any) == ((), True)


def test_every_session_is_asked_and_results_that_nobody_has_are_counted(cluster: Cluster, r: RemoteR) -> None:
    before = cluster.losses().unfetched
    r.eval("here <- 1")
    second = cluster.r("second")
    try:
        job = second.submit("1 + 2")
        second.eval("there <- 2")
        lost = cluster.losses()
        assert [[each for each, _ in lost.unpulled[name]] for name in ("main", "second")] == [
            ["here"],
            ["there"],
        ]
        assert (lost.unfetched, lost.any) == (before + 1, True)
        assert job.result() == 3
        assert cluster.losses().unfetched == before
        waited_for = second.submit("4")
        assert waited_for.result() == 4
        assert cluster.losses().unfetched == before
        second.submit("Sys.sleep(60)")
        assert cluster.losses().busy == ["second"]
    finally:
        cluster.close_session("second")


def test_what_a_failed_ppe_lapply_has_kept_is_named_until_it_is_looked_at(r: RemoteR) -> None:
    with pytest.raises(errors.RemoteRError, match="task 3 of 9"):
        r.eval("ppe.lapply(1:9, function(i) if (i == 3) stop('no') else i, slots = 0)")
    ((name, size, pulled),) = r.objects()
    assert (name, pulled) == ("ppe.last()", False) and size > 0
    done = set(r.pull(name)["done"])
    assert {1, 2} <= done and 3 not in done
    assert r.objects() == []


def test_what_came_with_the_image_is_no_loss(cluster: Cluster, worker: str) -> None:
    connection = cluster.ssh()
    connection.run(f"sudo cp -p {LAUNCHED} /run/kept && sudo touch -d tomorrow {LAUNCHED}")
    try:
        found = dict(cluster.losses().files)
    finally:
        connection.run(f"sudo cp -p /run/kept {LAUNCHED}")
    assert "lost/new.csv" not in found and f"{worker}:lost/there" in found


def test_a_node_that_does_not_answer_is_named(cluster: Cluster, worker: str) -> None:
    connection = cluster.ssh()
    connection.run(f"ssh {worker} mv .ppe .ppe-away")
    try:
        assert cluster.losses().silent == (worker,)
    finally:
        connection.run(f"ssh {worker} mv .ppe-away .ppe")


def test_r_in_rstudio_is_told_of_though_it_cannot_be_asked(cluster: Cluster) -> None:
    connection = cluster.ssh()
    folder = ".local/share/rstudio/sessions/active/session-1a/suspended-session-data"
    connection.run(f"mkdir -p {folder}/more; printf 12345 > {folder}/more/environment")
    connection.run(
        "bash -c 'exec -a /usr/lib/rstudio-server/bin/rsession sleep 600' >/dev/null 2>&1 </dev/null &"
    )
    try:
        lost = cluster.losses()
    finally:
        connection.run(
            "pkill -f ^/usr/lib/rstudio-server/bin/rsession; rm -r .local/share/rstudio", check=False
        )
    ((size, since),) = lost.rstudio
    assert 10**5 < size < 10**8 and abs((datetime.now(timezone.utc) - since).total_seconds()) < 60
    assert (lost.suspended_bytes, lost.any) == (5, True)


def test_many_files_are_counted_and_the_biggest_are_named(cluster: Cluster, worker: str) -> None:
    cluster.ssh().run("mkdir lost/many; cd lost/many; for i in $(seq 1100); do echo > $i; done")
    lost = cluster.losses()
    assert len(lost.files) == 1000
    assert lost.files[0][1] >= 3000
    assert lost.more_files >= 100 and lost.more_bytes >= 100
