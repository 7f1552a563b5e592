"""setup.py when nodes change: lost, new, removed and replaced ones, another master; extra software; making an image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from localcloud_nodes import connected, until
from members import SLOTS, Member, Members
from test_own_packages import source_package

from ppe_jupyter import ssh
from ppe_jupyter.delivery import bootstrap_script
from ppe_jupyter.errors import RemoteRError
from ppe_jupyter.localcloud import image

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings


@pytest.fixture(scope="module")
def members(local_cloud: Endpoint) -> Iterator[Members]:
    """Two nodes, the master's index is 1; the tests go on from one to the next."""
    found = Members(local_cloud, "changes")
    found.launch(0, 1, master=1)
    done(found.set_up())
    yield found
    found.close()


def done(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert events[-1]["event"] == "done", events[-1]
    return events[-1]


def spawned(members: Members) -> int:
    """How many workers an argumentless spawn starts in the running session."""
    with members.r() as r:
        code = "library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE); n <- mpi.comm.size(1) - 1; mpi.close.Rslaves(); n"
        return int(r.eval(code, on_output=lambda output: None))


def pid(members: Members) -> int:
    with members.r() as r:
        return int(r.eval("Sys.getpid()"))


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_left_out(members: Members) -> None:
    nowhere = Member(
        2, "i-0123456789abcdef0", "worker", "", members.free_address(), "ip-nowhere.ec2.internal"
    )
    task = members.task()
    keys = task["nodes"][0].keys()
    task["nodes"].append({key: getattr(nowhere, key) for key in keys})
    told = done(members.set_up(nodes=task["nodes"], patience_seconds=4))
    assert "node 2 (ip-nowhere" in told["lost"][nowhere.private_ip]
    assert set(told["host_keys"]) == {each.private_ip for each in members.members}
    master, worker = members.master.name, members.members[0].name
    assert members.shell("cat ~/ompi-hostfile") == f"{master} slots={SLOTS}\n{worker} slots={SLOTS}\n"
    assert "nowhere" not in members.shell("cat /etc/hosts /etc/ssh/ssh_known_hosts ~/.ppe/beacon.json")
    assert json.loads(members.shell("sudo ppe-deadman status"))["running"]


@pytest.mark.slow
def test_a_running_session_sees_new_nodes_and_forgets_removed_ones(members: Members) -> None:
    assert spawned(members) == 2 * SLOTS
    with members.r() as r:
        r.eval("kept <- 'here'")
    before = pid(members)
    (third,) = members.launch(2)
    done(members.set_up(cluster_private_key=None))
    assert (spawned(members), pid(members)) == (3 * SLOTS, before)

    members.nodes.ec2.terminate_instances(InstanceIds=[third.instance_id])
    members.members.remove(third)
    # Open MPI cannot spawn any more without that node, and R would die of it.
    with pytest.raises(RemoteRError, match=f"nodes were lost or rebooted: {third.name}"):
        spawned(members)
    done(members.set_up())
    # R is started anew, with what it had.
    until(lambda: pid(members) != before)
    assert third.name not in members.shell(
        "cat /etc/hosts /etc/ssh/ssh_known_hosts /etc/ssh/ssh_config.d/ppe.conf"
    )
    # The same of a node that is lost before it ever had workers.
    members.shell("echo 'lost-early slots=1' >> ~/.ppe/session-hostfile")
    with pytest.raises(RemoteRError, match=r"nodes were lost or rebooted: lost-early.*%ppe_retry"):
        spawned(members)
    members.shell("sed -i /lost-early/d ~/.ppe/session-hostfile")
    assert spawned(members) == 2 * SLOTS
    with members.r() as r:
        assert r.eval("kept") == "here"


@pytest.mark.slow
def test_a_node_replaced_at_the_same_place_with_another_host_key_works(members: Members) -> None:
    assert spawned(members) == 2 * SLOTS
    worker, r_pid = members.members[0], pid(members)
    before = (worker.instance_id, worker.host_key)
    members.nodes.ec2.terminate_instances(InstanceIds=[worker.instance_id])
    members.nodes.reaches(worker.instance_id, "terminated")
    (new,) = members.launch(0, address=worker.private_ip)
    assert (new.private_ip, new.name) == (worker.private_ip, worker.name)
    done(members.set_up())
    assert (new.instance_id, new.host_key) != before
    until(lambda: pid(members) != r_pid)
    assert members.elsewhere(new, "hostname").strip() == new.name
    assert spawned(members) == 2 * SLOTS


@pytest.mark.slow
def test_the_agent_comes_back_after_a_stop_with_other_public_addresses(members: Members) -> None:
    master = members.master
    members.nodes.ec2.stop_instances(InstanceIds=[master.instance_id])
    members.nodes.reaches(master.instance_id, "stopped")
    members.nodes.ec2.start_instances(InstanceIds=[master.instance_id])
    members.nodes.reaches(master.instance_id, "running")
    members.reconnect()
    until(lambda: members.status().get("r", {}).get("state") == "idle")
    assert spawned(members) == 2 * SLOTS


@pytest.mark.slow
def test_another_node_becomes_the_master(members: Members) -> None:
    old, new = members.master, members.members[-1]
    members.nodes.ec2.terminate_instances(InstanceIds=[old.instance_id])
    members.members.remove(old)
    new.role = "master"
    members.reconnect()
    members.launch(5)
    refused = members.set_up(cluster_private_key=None)[-1]
    assert "no key to the other nodes" in refused["message"]
    assert set(done(members.set_up())["host_keys"]) == {each.private_ip for each in members.members}
    assert spawned(members) == 2 * SLOTS


@pytest.mark.slow
def test_packages_of_three_kinds_are_installed_everywhere_and_on_new_nodes(members: Members) -> None:
    done(members.set_up())
    wanted = {"apt": ["tree"], "r": ["zoo", "Rmpi", "ppetiny"], "python": ["tomlkit"]}
    cran = "file:///home/admin/cran"
    members.ssh().run(
        "mkdir -p ~/cran/src/contrib && cat >~/cran/src/contrib/ppetiny_1.0.tar.gz",
        stdin=source_package("1.0"),
    )
    members.shell('Rscript -e \'tools::write_PACKAGES("~/cran/src/contrib", type = "source")\'')
    events = members.run_setup("install", {**wanted, "cran_url": cran})
    found = done(events)["versions"]
    assert set(found) == {str(each.index) for each in members.members}
    assert all(all(names.values()) for kinds in found.values() for names in kinds.values())
    assert any(": " in event.get("message", "") for event in events)
    members.launch(6)
    done(members.set_up())  # by somebody without that setting
    assert {members.elsewhere(each, "cat /etc/ppe/cran") for each in members.members} == {f"{cran}\n"}
    check = "tree --version && python3 -c 'import tomlkit' && Rscript -e 'library(zoo); library(ppetiny)'; echo $?"
    for each in members.members:
        assert members.elsewhere(each, check).splitlines()[-1] == "0"
    error = members.run_setup("install", {"apt": ["no-such-package"]})[-1]
    for why in error["failed"].values():
        assert "Unable to locate package no-such-package" in why
        assert "/var/log/ppe-install.log" in why
    assert set(error["failed"]) == set(found) | {"6"}


def test_a_cleaned_node_has_nothing_of_its_own_and_boots_as_a_new_one(members: Members) -> None:
    worker = members.members[-1]
    members.elsewhere(worker, "touch ~/data ~/.RData ~/.Rhistory; sudo touch /var/log/own.log.1")
    answer = members.elsewhere(
        worker, "echo '{}' | sudo -n python3 -B ~/.ppe/node this_node clean; ls -A ~ /etc ~/.ppe"
    )
    assert json.loads(answer.splitlines()[0]) == {}
    assert "data" in answer
    assert answer.splitlines()[-1] == "venv"  # installed software
    assert not {"node", ".ssh", ".RData", ".Rhistory", "ppe"} & set(answer.split())
    members.nodes.ec2.reboot_instances(InstanceIds=[worker.instance_id])
    target = ssh.Target(
        host=worker.private_ip,
        user="admin",
        key=members.nodes.key.private,
        host_keys=(worker.launch_host_key,),
    )
    with connected(target) as node:
        # At a first boot it begins within a second of its files being there, which may be after sshd.
        until(lambda: json.loads(node.run("sudo ppe-deadman status").stdout)["running"])
        told = json.loads(node.run("sudo ppe-deadman status").stdout)
    assert "not made a node of a cluster" in told["why"]


def test_the_users_script_fails_with_its_words(local_cloud: Endpoint) -> None:
    members = Members(local_cloud, "script")
    try:
        members.launch(
            0,
            master=0,
            extra_bootstrap="#!/bin/sh\necho installing the solver\necho no licence >&2\nexit 3\n",
        )
        error = members.set_up()[-1]
        assert error["event"] == "error"
        assert "your own bootstrap script ended with status 3" in error["message"]
        assert "installing the solver / no licence" in error["message"]
    finally:
        members.close()


# Minutes: two nodes install 45 packages.
@pytest.mark.slow
def test_a_stock_image_becomes_a_node(local_cloud: Endpoint, settings: Settings) -> None:
    stock = image.ensure_stock(settings.local_root, report=lambda line: None)
    members = Members(local_cloud, "stock", boot_seconds=900)
    try:
        script = "#!/bin/sh\ntouch /installed-after-$(cat /var/lib/ppe-node/bootstrap.status)\n"
        members.launch(
            0, 1, master=0, image=stock.ami_id, bootstrap=bootstrap_script(), extra_bootstrap=script
        )
        events = members.set_up(patience_seconds=600)
        assert any("the installation of R and Open MPI: " in event.get("message", "") for event in events)
        assert done(events)["versions"]["R"].startswith("4.")
        assert spawned(members) == 2 * SLOTS
        assert members.elsewhere(members.members[1], "ls /installed-after-0")
    finally:
        members.close()
