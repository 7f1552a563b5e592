"""Rmpi, snow and multicore on a launched cluster of three nodes with two slots each."""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from conftest import INSTANCE_TYPE
from localcloud_nodes import pull_the_plug, until

import ppe_jupyter as ppe
from ppe_jupyter import errors
from ppe_jupyter.node.sessions.ladder import Rung

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR

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


@pytest.mark.slow
def test_a_cluster_of_parallels_ends_as_one_of_snows(cluster: Cluster, mpi: RemoteR) -> None:
    for _ in range(CYCLES):
        mpi.eval("cl <- parallel::makeCluster(3, type = 'MPI')", on_output=lambda output: None)
        assert list(mpi.eval("parallel::parSapply(cl, 1:3, function(i) i^2)")) == [1, 4, 9]
        mpi.eval("parallel::stopCluster(cl)")
        assert worker_processes(cluster) == 0
        assert not worker_list_exists(cluster)


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


class Evaluation:
    """One that has begun, in a thread; the code itself ``tells`` that by a file, or it is told."""

    def __init__(self, cluster: Cluster, session: RemoteR, code: str, *, tells: bool = False) -> None:
        self._raised: list[BaseException] = []
        cluster.ssh().run("rm -f /tmp/begun")
        code = code if tells else f'file.create("/tmp/begun"); {code}'
        self._thread = threading.Thread(target=self._run, args=(session, code), daemon=True)
        self._thread.start()
        cluster.ssh().run("until [ -e /tmp/begun ]; do sleep 0.02; done", timeout=30)

    def _run(self, session: RemoteR, code: str) -> None:
        try:
            session.eval(code)
        except BaseException as exc:
            self._raised.append(exc)

    def failure(self, *, within: float = 60) -> BaseException:
        self._join(within)
        [raised] = self._raised
        return raised

    def end(self, *, within: float = 60) -> None:
        self._join(within)
        assert not self._raised

    def _join(self, within: float) -> None:
        self._thread.join(timeout=within)
        assert not self._thread.is_alive()


# Ten are promised; this machine may have much else to do.
NAMED_SECONDS = 120.0
# How workers are started, and a call that waits for them.
RMPI = "mpi.spawn.Rslaves(quiet = TRUE)"
SNOW = "library(snow); cl <- makeMPIcluster()"
CALLS = {
    "mpi.parSapply": (RMPI, "mpi.parSapply(1:6, function(i) Sys.sleep(600))"),
    "mpi.applyLB": (RMPI, "mpi.applyLB(1:12, function(i) Sys.sleep(600))"),
    "parLapply": (SNOW, "parLapply(cl, 1:12, function(i) Sys.sleep(600))"),
    # The manual's section 10: the workers do not know `obs`, and the master waits for them in a collective call.
    "a broadcast that hangs": (RMPI, "mpi.bcast.cmd(exists(obs)); mpi.bcast(1, type = 2); mpi.barrier(1)"),
}


def but(*slow: str) -> pytest.MarkDecorator:
    """Each of the calls, those named in slow tests."""
    return pytest.mark.parametrize(
        ("start", "call"),
        [
            pytest.param(*each, id=name, marks=[pytest.mark.slow] if name in slow else [])
            for name, each in CALLS.items()
        ],
    )


def hanging(cluster: Cluster, mpi: RemoteR, start: str, call: str) -> tuple[Evaluation, int]:
    """The call, when R naps in it (sched_yield or nanosleep of x86_64 or arm64), and R's pid."""
    mpi.eval(f"kept <- 42; {start}", on_output=lambda output: None)
    pid = int(mpi.eval("Sys.getpid()"))
    evaluation = Evaluation(cluster, mpi, call)
    look = f"until grep -qE '^(24|35|230|124|101|115) ' /proc/{pid}/syscall; do sleep 0.05; done"
    cluster.ssh().run(look, timeout=30)
    return evaluation, pid


def named_soon(evaluation: Evaluation) -> BaseException:
    """Its failure, after a loss that has just been."""
    begun = time.monotonic()
    failed = evaluation.failure(within=NAMED_SECONDS)
    print(f"named {time.monotonic() - begun:.1f} s after the loss: {failed}")
    return failed


def workers_answer(mpi: RemoteR, start: str) -> None:
    """The same communicator has as many workers, which do what they are told."""
    squares = "unlist(parLapply(cl, 1:12, f))" if start == SNOW else "mpi.parSapply(1:12, f)"
    assert list(mpi.eval(f"f <- function(i) i^2; {squares}")) == [i**2 for i in range(1, 13)]
    assert mpi.eval("mpi.comm.size(1)") == SLOTS + 1
    assert mpi.eval("kept") == 42


@but("mpi.applyLB")
def test_the_stop_button_ends_a_call_that_waits_for_workers(
    cluster: Cluster, mpi: RemoteR, start: str, call: str
) -> None:
    evaluation, pid = hanging(cluster, mpi, start, call)
    mpi.interrupt()
    assert isinstance(evaluation.failure(), errors.RemoteInterrupted)
    workers_answer(mpi, start)
    assert mpi.eval("Sys.getpid()") == pid, "R was not restarted"


@but("mpi.applyLB", "parLapply")
def test_a_worker_that_is_killed_ends_the_call_by_its_name(
    cluster: Cluster, mpi: RemoteR, start: str, call: str
) -> None:
    evaluation, pid = hanging(cluster, mpi, start, call)
    listed = cluster.ssh().run("cat ~/.ppe/run/slaves.json").stdout
    worker = json.loads(listed)[3]
    cluster.ssh().run(f"ssh {worker['host']} kill -9 {worker['pid']}")
    failed = named_soon(evaluation)
    assert isinstance(failed, errors.RankFailed), failed
    assert (failed.rank, failed.node) == (worker["rank"], worker["host"])
    assert f"rank {worker['rank']} on {worker['host']} was lost" in str(failed)
    workers_answer(mpi, start)
    assert mpi.eval("Sys.getpid()") == pid, "R was not restarted"


@pytest.mark.slow
@pytest.mark.parametrize("start", [RMPI, SNOW])
def test_workers_can_be_closed_when_one_was_lost_between_calls(
    cluster: Cluster, mpi: RemoteR, start: str
) -> None:
    mpi.eval(f"kept <- 42; {start}")
    worker = json.loads(cluster.ssh().run("cat ~/.ppe/run/slaves.json").stdout)[3]
    cluster.ssh().run(f"ssh {worker['host']} kill -9 {worker['pid']}")
    mpi.eval("stopCluster(cl)" if start == SNOW else "mpi.close.Rslaves()", timeout=NAMED_SECONDS)
    until(lambda: worker_processes(cluster) == 0)
    mpi.eval(start)
    workers_answer(mpi, start)


@pytest.mark.slow
def test_a_call_after_a_worker_was_lost_names_it(cluster: Cluster, mpi: RemoteR) -> None:
    mpi.eval(f"kept <- 42; {RMPI}")
    worker = json.loads(cluster.ssh().run("cat ~/.ppe/run/slaves.json").stdout)[3]
    cluster.ssh().run(f"ssh {worker['host']} kill -9 {worker['pid']}")
    for _ in range(2):  # the first write to it may be taken
        try:
            mpi.eval("invisible(mpi.parSapply(1:12, function(i) i))", timeout=NAMED_SECONDS)
        except errors.RankFailed as failed:
            assert (failed.rank, failed.node) == (worker["rank"], worker["host"])
            break
    else:
        pytest.fail("the lost worker was not missed")
    workers_answer(mpi, RMPI)
    assert mpi.eval("kept") == 42


def test_every_rank_is_listed_with_its_call_and_can_be_ended(cluster: Cluster, mpi: RemoteR) -> None:
    start, call = CALLS["a broadcast that hangs"]
    evaluation, pid = hanging(cluster, mpi, start, call)
    ranks = {rank.rank: rank for rank in cluster.ranks() if rank.job == "R"}
    assert set(ranks) == set(range(SLOTS + 1))
    assert Counter(rank.node for rank in ranks.values()) == {
        name: 2 + (index == 0) for index, name in enumerate(node_names(cluster))
    }
    assert (ranks[0].pid, ranks[0].program, ranks[0].call) == (pid, "R session", "waits in MPI_Barrier")
    assert all(rank.memory_bytes and rank.memory_bytes > 10e6 for rank in ranks.values())
    ended = cluster.kill_rank(4)
    failed = evaluation.failure()
    assert isinstance(failed, errors.RankFailed) and (failed.rank, failed.node) == (4, ended.node)
    with pytest.raises(errors.UsageError, match="no rank 77"):
        cluster.kill_rank(77)
    with pytest.raises(errors.UsageError, match="remote_restart"):
        cluster.kill_rank(0)


def test_code_that_catches_the_interrupt_is_told_that_the_workers_are_gone(
    cluster: Cluster, mpi: RemoteR
) -> None:
    call = "mpi.parSapply(1:6, function(i) Sys.sleep(600))"
    evaluation, _ = hanging(cluster, mpi, RMPI, f"tryCatch({call}, interrupt = identity); {call}")
    mpi.interrupt()
    failed = evaluation.failure()
    assert isinstance(failed, errors.RemoteRError) and "replaced when this cell has ended" in str(failed)
    workers_answer(mpi, RMPI)


def test_an_interrupt_at_the_end_of_an_evaluation_hits_no_other(mpi: RemoteR) -> None:
    ends = Counter[str]()
    for number in range(150):
        timer = threading.Timer(0.002 + number % 30 * 0.0002, mpi.interrupt)
        timer.start()
        try:
            mpi.eval("Sys.sleep(0.004)")
            ends["ended"] += 1
        except errors.RemoteInterrupted:
            ends["interrupted"] += 1
        timer.join()
        assert mpi.eval(f"{number} + 1") == number + 1
    assert set(ends) == {"ended", "interrupted"}, "the interrupts came neither all early nor all late"


def test_foreign_code_that_never_looks_reaches_the_restart(cluster: Cluster, mpi: RemoteR) -> None:
    mpi.eval(
        """
        writeLines(c("#include <stdio.h>", "void spin(void) {",
                     "fclose(fopen(\\"/tmp/begun\\", \\"w\\")); for (volatile int i = 0; ; i++); }"), "/tmp/spin.c")
        system("cd /tmp && R CMD SHLIB spin.c >/dev/null 2>&1"); dyn.load("/tmp/spin.so"); kept <- 42
        """
    )
    evaluation = Evaluation(cluster, mpi, '.C("spin")', tells=True)
    mpi.interrupt()
    mpi.interrupt(Rung.RESTART)
    failed = evaluation.failure()
    assert isinstance(failed, errors.RSessionDied) and "saved and loaded again" in str(failed)
    assert mpi.eval("kept") == 42


@pytest.fixture(scope="module")
def fragile(manager: Manager) -> Iterator[Cluster]:
    """A cluster whose second node may be lost; a test mends it."""
    cluster = manager.launch(ppe.ClusterSpec(name="fragile", nodes=2, instance_type=INSTANCE_TYPE))
    yield cluster
    cluster.terminate()


@pytest.mark.slow
@but("mpi.applyLB")
def test_a_node_that_is_lost_ends_the_call_by_its_name(
    manager: Manager, fragile: Cluster, start: str, call: str
) -> None:
    r = fragile.r()
    r.eval("library(Rmpi)")
    evaluation, _ = hanging(fragile, r, start, call)
    lost = fragile.refresh().nodes[1]
    pull_the_plug(lost.instance_id)
    failed = named_soon(evaluation)
    assert isinstance(failed, errors.RankFailed), failed
    assert failed.node == lost.private_dns.split(".")[0]
    assert r.eval("kept") == 42
    assert r.eval("mpi.comm.size(1)") == 0, "there is no cluster to start workers on"
    fragile.retry("replace")
    r = fragile.r()
    assert r.eval("kept") == 42
    r.eval(f"library(Rmpi); {start}", on_output=lambda output: None)
    assert r.eval("mpi.comm.size(1)") == 5
    r.eval("stopCluster(cl)" if start == SNOW else "mpi.close.Rslaves()")
