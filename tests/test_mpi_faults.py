"""What goes wrong while real workers compute: memory, lost workers and nodes, and the stop button in a notebook."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from conftest import INSTANCE_TYPE
from localcloud_nodes import memory_limit, until
from notebook_kernel import Kernel, one_message
from test_mpi import RMPI, SLOTS, Evaluation, mpi, named_soon, worker_processes, workers_answer

import ppe_jupyter as ppe
from ppe_jupyter import errors
from ppe_jupyter.node.r.patience import PATIENCE
from ppe_jupyter.node.sessions.ladder import Rung

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR

__all__ = ["mpi"]  # the fixture

SPIN = r"""
writeLines("void spin(void) { for (volatile int i = 0; ; i++); }", "/tmp/spins.c")
system("cd /tmp && R CMD SHLIB spins.c >/dev/null 2>&1"); dyn.load("/tmp/spins.so"); kept <- 42
library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE)
"""


def workers(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.ssh().run("cat ~/.ppe/run/slaves.json").stdout)
    return found


def test_a_worker_that_the_kernel_kills_for_memory_is_said_to_be(cluster: Cluster, mpi: RemoteR) -> None:
    mpi.eval(f"kept <- 42; {RMPI}", on_output=lambda output: None)
    victim = workers(cluster)[3]
    node = next(each for each in cluster.nodes if each.private_dns.startswith(f"{victim['host']}."))
    grow = "if (mpi.comm.rank() == 4) { x <- numeric(1e9); sum(x + 1) } else Sys.sleep(600)"
    with memory_limit(node.instance_id, more=200_000_000) as limit:
        evaluation = Evaluation(cluster, mpi, f"mpi.parSapply(1:6, function(i) {grow})")
        failed = evaluation.failure()
    assert isinstance(failed, errors.RankFailed), failed
    assert (failed.rank, failed.node) == (4, victim["host"])
    told = re.search(rf"rank 4 on {victim['host']} was killed: ([\d.]+) of ([\d.]+) GB", str(failed))
    assert told, failed
    assert 0.1 < float(told[1]) <= float(told[2]) == round(limit / 1e9, 1)
    workers_answer(mpi, RMPI)


@pytest.mark.slow
def test_the_kernel_kills_r_itself_for_memory(cluster: Cluster, r: RemoteR) -> None:
    with memory_limit(cluster.nodes[0].instance_id, more=300_000_000) as limit:
        with pytest.raises(errors.RSessionDied) as died:
            r.eval("x <- numeric(1e9); sum(x + 1)")
        told = re.search(r"R was killed: ([\d.]+) of ([\d.]+) GB", str(died.value))
        assert told, died.value
        assert 0.1 < float(told[1]) <= float(told[2]) == round(limit / 1e9, 1)
    assert r.eval("exists('x')", on_output=lambda output: None) is False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupt_at_the_end_of_an_mpi_call_hits_nothing_later(mpi: RemoteR) -> None:
    mpi.eval("mpi.spawn.Rslaves(nslaves = 2, quiet = TRUE); f <- function(i) i^2")
    call, squares = "mpi.parSapply(1:4, f)", [1, 4, 9, 16]

    def seconds() -> float:
        begun = time.monotonic()
        mpi.eval(call)
        return time.monotonic() - begun

    delay, chance = median(seconds() for _ in range(15)), random.Random(4)
    ends = Counter[str]()
    for number in range(300):
        if min(ends["ended"], ends["interrupted"]) > 20:
            break
        # It stays near the end, however fast the machine is at the moment: later after each that came too early.
        timer = threading.Timer(delay * chance.uniform(0.95, 1.05), mpi.interrupt)
        timer.start()
        try:
            assert list(mpi.eval(call, on_output=lambda output: None)) == squares
            ends["ended"] += 1
            delay *= 0.98
        except errors.RemoteInterrupted:
            ends["interrupted"] += 1  # its workers are replaced, which takes seconds
            delay *= 1.1
        timer.join()
        assert mpi.eval(f"{number} + 1", on_output=lambda output: None, timeout=60) == number + 1
        assert list(mpi.eval(call, on_output=lambda output: None, timeout=60)) == squares
    print(f"{ends}; the last came after {delay * 1000:.1f} ms")
    assert min(ends["ended"], ends["interrupted"]) > 5, "the interrupts came neither all early nor all late"


def test_each_press_of_stop_in_a_notebook_takes_a_step_and_says_so(
    kernel: Kernel, cluster: Cluster, mpi: RemoteR
) -> None:
    kernel.cell(f"%%remote_r\n{SPIN}")
    presses = [
        ("spins\n", kernel.interrupt),
        ("the next press of stop interrupts its 6 workers (%remote_interrupt --workers)", kernel.interrupt),
        ("the next press of stop saves the workspace", kernel.interrupt),
    ]
    spin = "mpi.bcast.cmd(repeat sqrt(2))\ncat('spins\\n'); flush(stdout())\ninvisible(.C('spin'))"
    shown = kernel.cell(f"%%remote_r\n{spin}", when_printed=presses)
    steps = [
        "R was interrupted (SIGINT) but has not ended yet",
        "the next press of stop interrupts its 6 workers",
        "SIGINT was sent to R's 6 workers",
        "the next press of stop saves the workspace and restarts R with it (%remote_interrupt --restart)",
        "R is told to save its workspace and to end, and starts anew with it",
    ]
    places = [shown.stderr.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), shown.stderr
    assert "R was restarted: its variables were saved and loaded again" in one_message(shown)
    assert worker_processes(cluster) == 0
    assert kernel.cell("%remote_r kept").result == "42.0"


def test_the_workers_of_a_job_are_interrupted_by_a_verb(
    kernel: Kernel, cluster: Cluster, mpi: RemoteR
) -> None:
    mpi.eval(f"kept <- 42; {RMPI}", on_output=lambda output: None)
    computes = "mpi.parSapply(1:6, function(i) repeat sqrt(i))"
    kernel.cell(f"%%remote_r --background\n{computes}")
    job = mpi.jobs()[-1]
    busy = [(each["host"], each["pid"]) for each in workers(cluster)]
    until(lambda: {rank.call for rank in cluster.ranks() if (rank.node, rank.pid) in busy} == {"computes"})
    assert kernel.cell("%remote_interrupt --workers").error is None
    with pytest.raises(errors.RankFailed, match=r"rank \d on \S+ was lost"):
        job.result(60)
    printed = "".join(getattr(output, "text", "") for output in job.output())
    assert f"SIGINT was sent to R's {SLOTS} workers" in printed
    workers_answer(mpi, RMPI)


LACKS = {
    "a compiler": "rm -f /usr/bin/gcc* /usr/bin/cc /usr/bin/*-linux-gnu-gcc*",
    "MPI's header": "find /usr -name mpi.h -delete",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", LACKS.values(), ids=LACKS)
def test_without_the_shim_all_works_but_the_interrupt_of_a_waiting_call(
    manager: Manager, script: str
) -> None:
    bare = manager.launch(
        ppe.ClusterSpec(name="bare", nodes=2, instance_type=INSTANCE_TYPE, bootstrap=f"#!/bin/sh\n{script}\n")
    )
    try:
        session = bare.r()
        seen: list[Any] = []
        patient = bare.ssh().run(f"test -e {PATIENCE}", check=False).status == 0
        assert patient is (script == LACKS["MPI's header"])
        squares = "f <- function(i) i^2; unlist(mpi.parLapply(1:12, f))"
        session.eval(
            "library(Rmpi); kept <- 42; invisible(mpi.spawn.Rslaves(quiet = TRUE))", on_output=seen.append
        )
        assert list(session.eval(squares)) == [i**2 for i in range(1, 13)]
        with pytest.raises(errors.RemoteRError, match="not interruptible"):
            session.eval('stopifnot("not interruptible" = is.loaded("ppe_guard_signals"))')
        hangs = "mpi.parSapply(1:4, function(i) Sys.sleep(600))"
        # Where the call is deaf, the ladder's next steps and the watch over lost workers restart R with its workspace.
        evaluation = Evaluation(bare, session, hangs)
        session.interrupt()
        session.interrupt(Rung.RESTART)
        failed = evaluation.failure()
        assert isinstance(failed, errors.RSessionDied) and "saved and loaded again" in str(failed)
        assert session.eval("kept") == 42
        session.eval("library(Rmpi); invisible(mpi.spawn.Rslaves(quiet = TRUE))", on_output=seen.append)
        evaluation = Evaluation(bare, session, hangs)
        # Earlier, while it hands out the tasks, the loss is an error of Open MPI's own, and nothing waits.
        until(lambda: any(rank.rank == 0 and "Probe" in rank.call for rank in bare.ranks()))
        lost = workers(bare)[3]
        bare.ssh().run(f"ssh {lost['host']} kill -9 {lost['pid']}")
        failed = named_soon(evaluation)
        assert isinstance(failed, errors.RankFailed), failed
        assert (failed.rank, failed.node) == (4, lost["host"])
        assert "R was restarted: the variables were saved and loaded again" in str(failed)
        assert session.eval("kept") == 42
        session.eval("library(Rmpi); invisible(mpi.spawn.Rslaves(quiet = TRUE))", on_output=seen.append)
        assert list(session.eval(squares)) == [i**2 for i in range(1, 13)]
        session.eval("mpi.close.Rslaves()")
    finally:
        bare.terminate()
