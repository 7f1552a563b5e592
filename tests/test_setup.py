"""What setup.py makes of booted machines, seen from the master of a launched cluster."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from ppe_jupyter import ssh

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.remote.sessions.session import RemoteR


def shell(cluster: Cluster, command: str) -> str:
    return cluster.ssh().run(command, timeout=60).stdout.decode()


def everywhere(cluster: Cluster, command: str) -> list[str]:
    """What a command prints on each node, reached from the master as MPI does."""
    return [
        shell(cluster, f"ssh -o BatchMode=yes {name(node)} {shlex.quote(command)}") for node in cluster.nodes
    ]


def name(node: Any) -> str:
    return str(node.private_dns.split(".")[0])


def task(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    """What setup.py was told at the launch. The launch's host key is in force nowhere any more."""
    keys = ("index", "instance_id", "private_ip", "private_dns", "slots", "role")
    return {
        "cluster": cluster.name,
        "login_user": cluster.record.login_user,
        "subnet_cidr": shell(
            cluster, "sed -n 's/^btl_tcp_if_include = //p' ~/.openmpi/mca-params.conf"
        ).strip(),
        "launch_host_key": ssh.generate_key_pair().public,
        "cluster_private_key": shell(cluster, "cat ~/.ssh/id_ed25519"),
        "nodes": [{key: asdict(node)[key] for key in keys} for node in cluster.nodes],
        "shared": {"kind": "bind"},
        **changes,
    }


def set_up(cluster: Cluster, what: dict[str, Any]) -> list[dict[str, Any]]:
    stdin = json.dumps(what).encode()
    done = cluster.ssh().run("python3 ~/.ppe/node setup", stdin=stdin, timeout=120, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_node_has_a_host_key_of_its_own(cluster: Cluster) -> None:
    keys = everywhere(cluster, "cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub")
    assert len({key.strip() for key in keys}) == 3
    assert [key.strip() for key in keys] == [node.host_key for node in cluster.nodes]


def test_every_node_knows_all_names_and_host_keys(cluster: Cluster) -> None:
    expected = "".join(f"{node.private_ip}\n" * 2 for node in cluster.nodes)
    names = " ".join(f"{node.private_dns} {name(node)}" for node in cluster.nodes)
    lookup = f"for n in {names}; do getent hosts $n | cut -d' ' -f1; done"
    assert everywhere(cluster, lookup) == [expected] * 3
    known = "for n in %s; do ssh-keygen -F $n -f /etc/ssh/ssh_known_hosts | tail -n 1 | cut -d' ' -f2,3; done"
    keys = "".join(f"{node.host_key}\n" for node in cluster.nodes)
    assert everywhere(cluster, known % " ".join(map(name, cluster.nodes))) == [keys] * 3


def test_the_hostfile_has_the_slots(cluster: Cluster) -> None:
    expected = [f"{name(node)} slots=2" for node in cluster.nodes]
    assert shell(cluster, "cat ~/ompi-hostfile").splitlines() == expected
    assert everywhere(cluster, "cat /etc/ppe/slots") == ["2\n"] * 3


def test_the_private_key_of_the_cluster_is_on_the_master_only(cluster: Cluster) -> None:
    assert shell(cluster, "stat -c %a ~/.ssh/id_ed25519") == "600\n"
    assert everywhere(cluster, "ls ~/.ssh")[1:] == ["authorized_keys\n"] * 2


def test_debians_own_profile_is_kept(cluster: Cluster) -> None:
    for profile in everywhere(cluster, "cat /etc/R/Rprofile.site"):
        assert "https://cloud.r-project.org" in profile
        assert profile.count("mpi.spawn.Rslaves") and profile.count(">>> ppe") == 1


def test_a_second_setup_changes_nothing_and_leaves_the_session(cluster: Cluster, r: RemoteR) -> None:
    r.eval("kept <- 'still here'")
    files = "cat /etc/hosts /etc/R/Rprofile.site /etc/ssh/ssh_known_hosts ~/.openmpi/mca-params.conf"
    before = everywhere(cluster, files)
    done = set_up(cluster, task(cluster))[-1]
    assert done["event"] == "done", done
    assert done["host_keys"] == {node.private_ip: node.host_key for node in cluster.nodes}
    assert done["versions"]["R"].startswith("4.") and all(done["versions"].values())
    assert everywhere(cluster, files) == before
    assert r.eval("kept") == "still here"


def test_progress_counts_the_nodes(cluster: Cluster) -> None:
    events = [event for event in set_up(cluster, task(cluster)) if event["event"] == "progress"]
    assert {event["total"] for event in events} == {3}
    phases = list(dict.fromkeys(event["phase"] for event in events))
    assert phases == ["booting", "configuring", "checking MPI", "starting R"]


def test_a_worker_with_another_host_key_is_named_and_told_nothing(cluster: Cluster) -> None:
    stranger = task(cluster)
    stranger["nodes"][2]["instance_id"] = (
        "i-0123456789abcdef0"  # A new machine: only the launch's key is right.
    )
    try:
        error = set_up(cluster, stranger)[-1]
        assert error["event"] == "error"
        assert error["node"] == cluster.nodes[2].private_ip
        assert "host key" in error["message"] and name(cluster.nodes[2]) in error["message"]
    finally:
        assert set_up(cluster, task(cluster))[-1]["event"] == "done"


@pytest.mark.parametrize("broken", ["{", '{"nodes": []}'])
def test_a_task_that_cannot_be_read_is_an_error_event(cluster: Cluster, broken: str) -> None:
    done = cluster.ssh().run("python3 ~/.ppe/node setup", stdin=broken.encode(), check=False)
    assert done.status == 1
    assert json.loads(done.stdout)["event"] == "error"
