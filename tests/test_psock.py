"""R's other parallel packages on the cluster: what they start without an argument is on all slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from test_mpi import Evaluation

from ppe_jupyter import errors

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.remote.sessions.session import RemoteR


@pytest.fixture
def r_after(r: RemoteR) -> Iterator[RemoteR]:
    """The session; its plan is as before afterwards."""
    yield r
    r.eval("if ('future' %in% loadedNamespaces()) future::plan('sequential'); gc(); invisible(NULL)")


WHERE = "function(i) c(Sys.info()[['nodename']], Sys.getenv('OMP_NUM_THREADS'), Sys.getenv('PPE_RUN'))"


def workers(cluster: Cluster) -> int:
    """How many PSOCK workers run on all nodes."""
    said = cluster.ssh().run(
        "for h in $(cut -d' ' -f1 ~/ompi-hostfile); do ssh -n $h 'pgrep -fc exec/[R].*workRSOCK'; done",
        check=False,
    )
    return sum(map(int, said.stdout.split()))


def test_future_finds_all_slots_and_its_random_numbers_are_the_serial_ones(
    r_after: RemoteR, cluster: Cluster
) -> None:
    r = r_after
    r.eval(
        "options(warn = 2); library(future.apply); oplan <- plan(cluster); options(warn = 0); invisible(NULL)"
    )
    assert r.eval("nbrOfWorkers()") == 6
    assert workers(cluster) == 6
    seen = r.eval(f"do.call(rbind, future_lapply(1:6, {WHERE}))")
    assert len(set(seen[:, 0])) == 3 and set(seen[:, 1]) == {"1"} and set(seen[:, 2]) == {""}
    r.eval("a <- future_lapply(1:20, function(i) rnorm(2), future.seed = 42L); plan(sequential)")
    assert r.eval("identical(a, future_lapply(1:20, function(i) rnorm(2), future.seed = 42L))")
    assert workers(cluster) == 0


def test_what_workers_answer_to_a_stopped_call_is_not_the_next_ones(
    r_after: RemoteR, cluster: Cluster
) -> None:
    r = r_after
    r.eval("cl <- parallel::makeCluster(parallelly::availableWorkers()[c(1, 3)])")
    wait = "function(i) { file.create('/tmp/begun'); while (!file.exists('/tmp/go_on')) Sys.sleep(0.05); -i }"
    hosts = "for h in $(cut -d' ' -f1 ~/ompi-hostfile); do ssh -n $h"
    for after in ("go on", "still at it"):
        cluster.ssh().run(f"{hosts} rm -f /tmp/begun /tmp/go_on; done")
        evaluation = Evaluation(cluster, r, f"x <- parallel::parLapply(cl, 1:4, {wait})")
        cluster.ssh().run("until [ -e /tmp/begun ]; do sleep 0.02; done", timeout=60)
        r.interrupt()
        assert isinstance(evaluation.failure(), errors.RemoteInterrupted)
        if after == "still at it":
            with pytest.raises(
                errors.RemoteRError, match=r"worker 1 on .* is still at a task that was stopped"
            ):
                r.eval("parallel::parSapply(cl, 1:4, function(i) i)")
        cluster.ssh().run(f"{hosts} touch /tmp/go_on; done")
        assert list(r.eval("parallel::parSapply(cl, 1:4, function(i) i)")) == [1, 2, 3, 4]
    cluster.ssh().run(f"{hosts} rm -f /tmp/begun /tmp/go_on; done")
    r.eval("parallel::stopCluster(cl)")
    assert workers(cluster) == 0


@pytest.mark.slow
def test_parallel_and_foreach_find_all_slots(r_after: RemoteR, cluster: Cluster) -> None:
    r = r_after
    r.eval("suppressPackageStartupMessages({library(doParallel); library(doRNG)}); options(warn = 2)")
    assert r.eval("cl <- parallel::makeCluster(); length(cl)") == 6
    assert r.eval(f"length(unique(unlist(lapply(parallel::clusterCall(cl, {WHERE}, 1), `[[`, 1))))") == 3
    r.eval("parallel::stopCluster(cl)")
    assert workers(cluster) == 0
    assert r.eval("registerDoParallel(); getDoParWorkers()") == 6
    r.eval("registerDoRNG(7); a <- foreach(i = 1:10, .combine = c) %dorng% rnorm(1); stopImplicitCluster()")
    assert workers(cluster) == 0
    assert r.eval("registerDoParallel(2); getDoParWorkers()") == 2, "a count means what it means elsewhere"
    assert r.eval("cl <- parallel::makeCluster(2); n <- length(cl); parallel::stopCluster(cl); n") == 2
    r.eval("registerDoSEQ(); registerDoRNG(7); b <- foreach(i = 1:10, .combine = c) %dorng% rnorm(1)")
    assert r.eval("options(warn = 0); identical(c(a), c(b))")


@pytest.mark.slow
def test_workers_end_with_r_and_follow_the_hostfile(r_after: RemoteR, cluster: Cluster) -> None:
    run = cluster.ssh().run
    code = "future::plan('cluster'); cat(future::nbrOfWorkers(), parallelly::availableWorkers()[1:2])"
    run("cp ~/ompi-hostfile /tmp/hostfile && head -n 2 /tmp/hostfile > ~/ompi-hostfile")
    try:
        said = run(f'Rscript -e "{code}"').stdout.decode()
    finally:
        run("cp /tmp/hostfile ~/ompi-hostfile")
    assert said.split()[0] == "4"
    r_after.eval("cl <- parallel::makeCluster()")
    nested = "parallel::clusterCall(cl, function() length(parallelly::availableWorkers()))"
    assert set(r_after.eval(f"unlist({nested})")) == {2}, "a worker's own are its node's"
    assert workers(cluster) == 6
    r_after.restart()
    assert workers(cluster) == 0
