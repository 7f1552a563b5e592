"""Changes of a real cluster, one after the other: after each, MPI reaches all its nodes, and R is as it should be."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import ppe_jupyter as ppe
from ppe_jupyter import catalog
from ppe_jupyter.cloud import tags
from ppe_jupyter.cloud.records import ClusterState, Cost, InstanceState, Progress
from ppe_jupyter.errors import CapacityError, CloudError, NoSuchCluster, NothingToDo, PpeError, SpecError
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint

NAME = "changing"
TYPE = "m5.xlarge"
SPOT = ppe.ClusterSpec(instance_type=TYPE, nodes=2, spot=True)
BOOTSTRAP = "#!/bin/sh\ntouch /var/tmp/made-ready\n"


@pytest.fixture(scope="module")
def changing(manager: Manager) -> Iterator[Cluster]:
    """Two nodes at first; the tests of this module leave it running, with whatever nodes they name."""
    spec = ppe.ClusterSpec(name=NAME, nodes=2, instance_type=TYPE, bootstrap=BOOTSTRAP, tags={"project": "x"})
    cluster = manager.launch(spec)
    cluster.r().eval("kept <- 42; invisible(NULL)")
    cluster.run_shell("echo kept > ~/kept.txt", on_output=lambda output: None)
    yield cluster
    with contextlib.suppress(NoSuchCluster, NothingToDo):
        manager.terminate(NAME)


def hosts(cluster: Cluster) -> list[str]:
    """Where the ranks of an MPI program run, one a node."""
    printed: list[str] = []
    cluster.run_shell(
        "mpirun --hostfile ~/ompi-hostfile --map-by ppr:1:node hostname",
        on_output=lambda output: printed.append(output.text),  # type: ignore[union-attr]
    )
    return sorted(line for line in "".join(printed).split() if line.startswith("ip-"))


def assert_works(cluster: Cluster, *, nodes: int, kept: bool = True) -> None:
    cluster.refresh()
    assert (cluster.state, cluster.record.troubles) == (ClusterState.RUNNING, ())
    assert [node.index for node in cluster.nodes] == list(range(nodes))
    assert hosts(cluster) == sorted(node.private_dns.split(".")[0] for node in cluster.nodes)
    assert cluster.r().eval("exists('kept') && kept == 42") is kept
    assert cluster.record.spec is not None
    assert cluster.record.spec.nodes == nodes
    one = catalog.usd_per_hour(TYPE, root_gb=30)
    assert one is not None
    assert cluster.record.usd_per_hour == pytest.approx(nodes * one)
    assert not cluster.plan("park").errors  # nobody is at work on it any more


def boots(cluster: Cluster) -> dict[str, str]:
    """Each node's boot id by host name."""
    printed: list[str] = []
    cluster.run_shell(
        "echo $(hostname) $(cat /proc/sys/kernel/random/boot_id)",
        all_nodes=True,
        on_output=lambda output: printed.append(output.text),  # type: ignore[union-attr]
    )
    lines = [line.split() for line in "".join(printed).splitlines() if line.startswith("ip-")]
    return dict(lines)


def lose(manager: Manager, cluster: Cluster, index: int) -> None:
    """An instance ends, as a spot one does, or by somebody's hand."""
    (node,) = [node for node in cluster.refresh().nodes if node.index == index]
    manager._ec2.terminate_instances([node.instance_id])


def test_a_reboot_ends_when_every_node_has_booted_anew_and_r_answers(changing: Cluster) -> None:
    before = boots(changing)
    phases: list[str] = []
    changing.reboot(report=lambda progress: phases.append(progress.phase))
    assert "saving" in phases and "rebooting" in phases
    after = boots(changing)
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    assert_works(changing, nodes=2)


@pytest.mark.slow
def test_one_node_can_be_rebooted_and_r_lives_on(changing: Cluster) -> None:
    before, pid = boots(changing), changing.r().eval("Sys.getpid()")
    worker = changing.nodes[1].private_dns.split(".")[0]
    changing.reboot(1)
    assert {name for name, boot in boots(changing).items() if boot != before[name]} == {worker}
    assert changing.r().eval("Sys.getpid()") == pid
    assert_works(changing, nodes=2)


def test_more_nodes_are_used_by_the_running_session(changing: Cluster) -> None:
    changing.resize(3)
    assert_works(changing, nodes=3)
    r = changing.r()
    r.eval("library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE); invisible(NULL)")
    assert r.eval("length(unique(unlist(mpi.remote.exec(Sys.info()[['nodename']]))))") == 3


def test_new_nodes_are_like_the_others(changing: Cluster, manager: Manager) -> None:
    changing.run_shell("test -e /var/tmp/made-ready", all_nodes=True, on_output=lambda output: None)
    first, *others = manager._ec2.instances(cluster=NAME)
    own = {tags.FIRST_INDEX, tags.LAUNCH_HOST_KEY}
    for each in others:
        assert {key: each.tags.get(key) for key in first.tags.keys() - own} == {
            key: value for key, value in first.tags.items() if key not in own
        }
        assert (each.group_ids, each.subnet_id, each.placement_group, each.image_id) == (
            first.group_ids, first.subnet_id, first.placement_group, first.image_id
        )  # fmt: skip


def test_the_region_is_asked_for_the_price_of_new_nodes(changing: Cluster) -> None:
    facts = changing._account.changes._facts(replace(changing.record, spec=SPOT), "start")
    (known,) = Manager()._ec2.on_demand_prices(TYPE).values()
    assert facts.usd_per_hour == known and "price list" in facts.prices
    assert facts.spot_usd is not None and 0 < facts.spot_usd < known


def test_fewer_nodes_but_not_from_under_rs_workers(changing: Cluster) -> None:
    plan = changing.plan("resize", nodes=2)
    assert "node 2 runs" in plan.errors[0] and "R" in plan.errors[0]
    with pytest.raises(SpecError, match="close R's workers"):
        changing.carry_out(plan)
    changing.r().eval("mpi.close.Rslaves(); invisible(NULL)")
    (leaving,) = [node for node in changing.nodes if node.index == 2]
    changing.resize(2)
    assert leaving.instance_id not in [node.instance_id for node in changing.nodes]
    assert_works(changing, nodes=2)


def test_no_room_for_more_leaves_it_as_it_was(changing: Cluster, local_cloud: Endpoint) -> None:
    hooks.set_capacity(local_cloud, zone=None, available=False)
    try:
        with pytest.raises(CapacityError, match=r"resize of 'changing' did not succeed \(it is as it was\)"):
            changing.resize(4)
    finally:
        hooks.set_capacity(local_cloud, zone=None, available=True)
    assert_works(changing, nodes=2)


@pytest.mark.parametrize("phase", [pytest.param("booting", marks=pytest.mark.slow), "configuring"])
def test_an_interrupt_leaves_it_as_it_was(changing: Cluster, phase: str) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.phase in (phase, "undoing"):
            raise KeyboardInterrupt

    with pytest.raises(CloudError, match=r"\(it is as it was\): it was stopped"):
        changing.resize(3, report=interrupt)
    assert_works(changing, nodes=2)


def test_parked_only_the_masters_disk_is_left(changing: Cluster, manager: Manager) -> None:
    workers = [node.instance_id for node in changing.nodes[1:]]
    changing.park()
    assert changing.refresh().state is ClusterState.PARKED
    master = changing.master
    assert (master.state, master.public_ip) == (InstanceState.STOPPED, "")
    found = {each.instance_id: each.state for each in manager._ec2.instances(cluster=NAME)}
    assert not any(found[each].alive for each in workers if each in found)
    assert changing.record.usd_per_hour == pytest.approx(catalog.disk_usd_per_hour(30))
    assert changing.record.cost is not None
    assert changing.record.cost.usd_per_hour == pytest.approx(catalog.disk_usd_per_hour(30), abs=1e-6)
    assert changing.record.cost.spent_usd > 0
    assert "parked already" in changing.plan("park").review()


@pytest.mark.parametrize("told_by", ["EC2", "console", "nobody"])
def test_what_a_cluster_has_cost_that_parked_itself(
    changing: Cluster, monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    """Its tag still says that all nodes run; when it stopped is what EC2 says, or its console."""
    changes, now = changing._account.changes, changing._account.context.now()
    began, disk = now - timedelta(hours=10), catalog.disk_usd_per_hour(30)
    record = replace(changing.record, cost=Cost(spent_usd=1.0, usd_per_hour=0.4, since=began))
    stopped = now - timedelta(hours=8)
    master = replace(record.master, stopped=stopped if told_by == "EC2" else None)
    record = replace(record, nodes=(master,))
    said = (
        f"ppe-watchdog: parking at {stopped:%Y-%m-%dT%H:%M:%SZ}, spent 1.8\n" if told_by == "console" else ""
    )
    monkeypatch.setattr(changing._account.context.ec2, "console_output", lambda *_, **__: said)
    cost = changes.settle(record).cost_so_far(now)
    expected = 1.0 + 10 * 0.4 if told_by == "nobody" else 1.0 + 2 * 0.4 + 8 * disk
    assert cost == pytest.approx(expected, abs=1e-3)
    noted = changing.refresh().record
    assert changes.settle(noted) == noted


def test_no_room_for_the_workers_leaves_it_parked(changing: Cluster, local_cloud: Endpoint) -> None:
    spent = changing.record.cost_so_far(changing._account.context.now())
    hooks.set_capacity(local_cloud, zone=None, available=False)
    try:
        with pytest.raises(CapacityError, match="it is parked again"):
            changing.start()
    finally:
        hooks.set_capacity(local_cloud, zone=None, available=True)
    assert changing.refresh().state is ClusterState.PARKED
    after = changing.record.cost_so_far(changing._account.context.now())
    assert spent is not None and after is not None and after >= spent


def test_started_again_it_is_what_it_was(changing: Cluster, manager: Manager) -> None:
    """By a client whose address is another one since, and with other limits."""
    ec2 = manager._ec2
    (group,) = ec2.security_groups(cluster=NAME)
    (rule,) = ec2.ssh_rules([group])
    ec2.allow_ssh(group, "203.0.113.9/32", description=rule.description)
    ec2.revoke_ssh(group, [rule.cidr])
    changing.set_limits(budget_usd=1000.0, max_hours=3.0)
    changing.set_limits(max_hours=0)
    changing.start()
    assert ec2.ssh_rules([group]) == [rule]
    assert changing.record.spec is not None and changing.record.spec.budget_usd == 1000.0
    assert changing.record.spec.max_hours is None
    assert_works(changing, nodes=2)
    printed: list[Any] = []
    changing.run_shell("cat ~/kept.txt", on_output=lambda output: printed.append(output))
    assert "kept" in "".join(output.text for output in printed)


def test_a_lost_worker_is_named_and_replaced(changing: Cluster, manager: Manager) -> None:
    lost = changing.nodes[1].instance_id
    lose(manager, changing, 1)
    assert changing.refresh().state is ClusterState.DEGRADED
    assert lost in changing.record.troubles[0]
    changing.retry("replace")
    assert lost not in [node.instance_id for node in changing.nodes]
    assert_works(changing, nodes=2)


@pytest.mark.slow
def test_a_worker_lost_while_it_computes_does_not_take_r_along(changing: Cluster, manager: Manager) -> None:
    r = changing.r()
    r.eval("library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE); invisible(NULL)")
    ended: list[PpeError] = []

    def compute() -> None:
        try:
            r.eval("mpi.parSapply(1:4, function(i) Sys.sleep(600))")
        except PpeError as exc:
            ended.append(exc)

    thread = threading.Thread(target=compute)
    thread.start()
    lose(manager, changing, 1)
    thread.join(120)
    assert ended and "lost" in str(ended[0])
    changing.retry("replace")
    assert_works(changing, nodes=2)


@pytest.mark.slow
def test_without_a_lost_node_the_others_move_up(changing: Cluster, manager: Manager) -> None:
    changing.resize(3)
    last = changing.nodes[2].instance_id
    lose(manager, changing, 1)
    changing.refresh().retry("drop")
    assert [node.instance_id for node in changing.refresh().nodes][1] == last
    assert_works(changing, nodes=2)


def test_a_lost_masters_place_is_taken_by_another_node(changing: Cluster, manager: Manager) -> None:
    heir = changing.nodes[1].instance_id
    changing.close()
    lose(manager, changing, 0)
    plan = changing.plan("retry", choice="replace")
    assert "new R session" in plan.review()
    changing.carry_out(plan)
    assert changing.master.instance_id == heir
    assert_works(changing, nodes=2, kept=False)
    changing.r().eval("kept <- 42; invisible(NULL)")
    # And what comes later can be done to such a cluster as to any other.
    changing.resize(3)
    assert_works(changing, nodes=3)


def test_of_two_clients_that_change_it_one_gives_way(changing: Cluster) -> None:
    plans = [Manager().cluster(NAME).plan("resize", nodes=4) for _ in range(2)]
    outcomes: list[PpeError | None] = []
    both = threading.Barrier(2)

    def client(plan: Any) -> None:
        cluster = Manager().cluster(NAME)
        both.wait()
        try:
            cluster.carry_out(plan)
            outcomes.append(None)
        except PpeError as exc:
            outcomes.append(exc)

    threads = [threading.Thread(target=client, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(None) == 1, outcomes
    assert_works(changing, nodes=4)


def test_terminated_while_it_grows_nothing_is_left(changing: Cluster, manager: Manager) -> None:
    ended: list[str] = []

    def terminate(progress: Progress) -> None:
        if progress.phase == "booting" and not ended:
            ended.append("")
            thread = threading.Thread(target=Manager().terminate, args=(NAME,))
            thread.start()
            threads.append(thread)

    threads: list[threading.Thread] = []
    with pytest.raises(CloudError):
        changing.resize(5, report=terminate)
    threads[0].join()
    ec2 = manager._ec2
    assert not [each for each in ec2.instances(cluster=NAME) if each.state.alive]
    assert not ec2.security_groups(cluster=NAME) and not ec2.placement_groups(cluster=NAME)
    with pytest.raises(NothingToDo, match="terminated already"):
        manager.terminate(NAME)
    with pytest.raises(NoSuchCluster, match="no cluster 'chanign'"):
        manager.terminate("chanign")


HALF_WAY = """
import os, signal
from ppe_jupyter import ClusterSpec, Manager

def die(progress):
    if progress.phase == "{phase}":
        os.kill(os.getpid(), signal.SIGKILL)

Manager().launch(ClusterSpec(name="half-way", nodes=2, instance_type="m5.xlarge"), report=die)
"""


@pytest.mark.parametrize("phase", [pytest.param("connecting", marks=pytest.mark.slow), "configuring"])
def test_another_client_finishes_a_launch_that_died(manager: Manager, phase: str) -> None:
    died = subprocess.run([sys.executable, "-c", HALF_WAY.format(phase=phase)], timeout=120, check=False)
    assert died.returncode == -9
    cluster = manager.cluster("half-way")
    try:
        assert "--force" in cluster.plan("retry").errors[0]  # that client may be alive
        cluster.carry_out(cluster.plan("retry", force=True))
        assert_works(cluster, nodes=2, kept=False)
    finally:
        manager.terminate("half-way")


@pytest.mark.slow
def test_two_clients_can_terminate_at_once(manager: Manager) -> None:
    manager.launch(ppe.ClusterSpec(name="twice", nodes=1, instance_type=TYPE))
    failed: list[PpeError] = []

    def terminate() -> None:
        try:
            Manager().terminate("twice")
        except NothingToDo:
            pass
        except PpeError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=terminate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert not manager._ec2.security_groups(cluster="twice")
