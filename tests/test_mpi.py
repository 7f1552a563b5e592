"""Rmpi, snow and multicore on a launched cluster of three nodes with two slots each."""

from __future__ import annotations

import shlex
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from localcloud_nodes import until

from ppe_jupyter import errors

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.remote.session import RemoteR

CYCLES = 2
SLOTS = 6
HOST = 'Sys.info()[["nodename"]]'


@pytest.fixture
def mpi(r: RemoteR) -> RemoteR:
    """The session, with no workers yet."""
    r.eval(
        "library(Rmpi); if (!is.null(snow::getMPIcluster())) snow::stopCluster(snow::getMPIcluster())\n"
        "if (mpi.comm.size(1) > 1) mpi.close.Rslaves()"
    )
    return r


def node_names(cluster: Cluster) -> list[str]:
    return [node.private_dns.split(".")[0] for node in cluster.nodes]


def worker_list_exists(cluster: Cluster) -> bool:
    return cluster.ssh().run("test -e ~/.ppe/run/slaves.json", check=False).status == 0


def worker_processes(cluster: Cluster) -> int:
    """Rmpi's and snow's worker processes on all nodes."""
    count = "pgrep -fc 'slavedaemon[.]R|RMPInode[.]R' || true"
    found = (
        cluster.ssh()
        .run("; ".join(f"ssh {name} {shlex.quote(count)}" for name in node_names(cluster)))
        .stdout
    )
    return sum(map(int, found.split()))


def test_rmpi_starts_a_worker_for_every_slot_again_and_again(cluster: Cluster, mpi: RemoteR) -> None:
    for _ in range(CYCLES):
        mpi.eval("mpi.spawn.Rslaves()", on_output=lambda output: None)
        hosts = mpi.eval(f"unlist(mpi.remote.exec({HOST}), use.names = FALSE)")
        assert Counter(hosts) == dict.fromkeys(node_names(cluster), 2)
        assert list(mpi.eval("mpi.parSapply(1:12, function(i) i^2)")) == [i**2 for i in range(1, 13)]
        assert worker_list_exists(cluster)
        mpi.eval("mpi.close.Rslaves()")
        assert worker_processes(cluster) == 0
        assert not worker_list_exists(cluster)


def test_snow_starts_a_worker_for_every_slot_again_and_again(cluster: Cluster, mpi: RemoteR) -> None:
    mpi.eval("library(snow)")
    for _ in range(CYCLES):
        mpi.eval("cl <- makeMPIcluster()", on_output=lambda output: None)
        hosts = mpi.eval(f"unlist(clusterCall(cl, function() {HOST}))")
        assert Counter(hosts) == dict.fromkeys(node_names(cluster), 2)
        assert list(mpi.eval("unlist(parLapply(cl, 1:12, function(i) i^2))")) == [i**2 for i in range(1, 13)]
        mpi.eval("stopCluster(cl)")
        assert worker_processes(cluster) == 0


def test_a_given_count_is_obeyed(mpi: RemoteR) -> None:
    mpi.eval("mpi.spawn.Rslaves(nslaves = 2, quiet = TRUE)")
    assert mpi.eval("mpi.comm.size(1)") == 3
    mpi.eval("mpi.close.Rslaves()")


def test_spawning_quietly_leaves_the_random_numbers_alone(mpi: RemoteR) -> None:
    mpi.eval("set.seed(1); before <- .Random.seed; mpi.spawn.Rslaves(quiet = TRUE); mpi.close.Rslaves()")
    assert mpi.eval("identical(before, .Random.seed)")


def test_workers_have_one_thread_each_and_the_session_all(cluster: Cluster, mpi: RemoteR) -> None:
    mpi.eval('threads <- function() length(list.files("/proc/self/task"))')
    mpi.eval("mpi.spawn.Rslaves(quiet = TRUE); mpi.bcast.Robj2slave(threads)")
    asked = mpi.eval('unlist(mpi.remote.exec(Sys.getenv("OMP_NUM_THREADS")), use.names = FALSE)')
    workers = mpi.eval("unlist(mpi.remote.exec(threads()))")
    session = mpi.eval("threads()")
    mpi.eval("mpi.close.Rslaves()")
    assert list(asked) == ["1"] * SLOTS
    if int(cluster.ssh().run("nproc").stdout) > 1:
        assert session > max(workers)  # OpenBLAS starts its threads when it is loaded.


def test_who_waits_leaves_the_cores_to_those_that_compute(mpi: RemoteR) -> None:
    mpi.eval("invisible(mpi.spawn.Rslaves(quiet = TRUE))")
    spent = "{p <- proc.time(); invisible(mpi.remote.exec(Sys.sleep(3))); proc.time() - p}"
    user, system, elapsed = mpi.eval(f"as.numeric({spent})[1:3]")
    assert elapsed > 2.5, "the session has waited for its workers"
    assert user + system < 0.5 * elapsed, "waiting without patience.c takes a whole core"


def test_mclapply_uses_the_slots_of_the_master(r: RemoteR) -> None:
    assert r.eval('getOption("mc.cores")') == 2
    pids = r.eval("unlist(parallel::mclapply(1:4, function(i) Sys.getpid()))")
    assert len(set(pids)) == 2


def test_streams_of_tasks_give_the_same_numbers_anywhere(mpi: RemoteR) -> None:
    mpi.eval(
        """
        RNGkind("L'Ecuyer-CMRG"); set.seed(7)
        streams <- Reduce(function(s, i) parallel::nextRNGStream(s), 1:11, .Random.seed, accumulate = TRUE)
        task <- function(s) { assign(".Random.seed", s, envir = globalenv()); mean(rnorm(100)) }
        serial <- lapply(streams, task)
        mpi.spawn.Rslaves(quiet = TRUE)
        parallel <- mpi.iparLapply(streams, task)
        mpi.close.Rslaves()
        """
    )
    assert mpi.eval("identical(serial, parallel)")


def test_a_lost_worker_is_named_and_the_workspace_stays(cluster: Cluster, mpi: RemoteR) -> None:
    mpi.eval("kept <- 42; mpi.spawn.Rslaves(quiet = TRUE)")
    worker = mpi.eval('jsonlite::fromJSON("~/.ppe/run/slaves.json")[4, ]')
    rank, host, pid = (worker[name].iloc[0] for name in ("rank", "host", "pid"))
    raised: list[BaseException] = []

    def evaluate() -> Any:
        try:
            mpi.eval('file.create("/tmp/begun"); mpi.parSapply(1:6, function(i) Sys.sleep(600))')
        except errors.PpeError as exc:
            raised.append(exc)

    cluster.ssh().run("rm -f /tmp/begun")
    evaluating = threading.Thread(target=evaluate)
    evaluating.start()
    cluster.ssh().run("until [ -e /tmp/begun ]; do sleep 0.05; done", timeout=30)
    cluster.ssh().run(f"ssh {host} kill -9 {pid}")
    evaluating.join(timeout=90)
    assert not evaluating.is_alive()
    [failed] = raised
    assert isinstance(failed, errors.RankFailed), failed
    assert (failed.rank, failed.node) == (rank, host)
    assert str(rank) in str(failed) and host in str(failed)
    assert mpi.eval("kept") == 42
    until(lambda: not worker_processes(cluster))
    mpi.eval("library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE)")
    assert mpi.eval("mpi.comm.size(1)") == SLOTS + 1
    mpi.eval("mpi.close.Rslaves()")
