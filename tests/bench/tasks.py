"""Parallel tasks in R: `ppe.lapply` beside snow's `clusterApplyLB` and future.apply, in one run.

Six slots on one machine have its cores only, so a task computes for a time of its processor, and the ideal time is the
sum of these times by the cores. Run by `make bench`; adds to build/bench.json.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from results import add

import ppe_jupyter as ppe

SLOTS = 6
# Milliseconds of a task: how many tasks.
TASKS = {1: 3000, 10: 600, 100: 60}
ROUNDS = 3
MOST_SECONDS = 120.0
BRIEF = 20000
BURN = """
burn <- function(i, s) { end <- sum(proc.time()[1:2]) + s; while (sum(proc.time()[1:2]) < end) NULL; i }
spent <- function(expr) { answer <- NULL; took <- system.time(answer <- expr)[[3]]; force(answer); took }
invisible(NULL)
"""
RMPI = "library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE); invisible(ppe.lapply(1:6, identity))"
SNOW = "library(snow); cl <- makeMPIcluster(); library(future.apply); plan(future::cluster, workers = cl)"
CALLS = {
    "lapply": (RMPI, "ppe.lapply(seq_len({n}), burn, s = {s}, progress = FALSE)"),
    "snow": (SNOW, "clusterApplyLB(cl, seq_len({n}), burn, s = {s})"),
    "future": (SNOW, "future_lapply(seq_len({n}), burn, s = {s}, future.seed = 1L)"),
}


def seconds(r: ppe.RemoteR, call: str) -> float:
    """The median of some rounds; the answer must be right."""
    times = [float(r.eval(f"spent(answer <- {call})", timeout=MOST_SECONDS)) for _ in range(ROUNDS)]
    assert r.eval("identical(as.numeric(unlist(answer)), as.numeric(seq_along(answer)))")
    return statistics.median(times)


def efficiencies(r: ppe.RemoteR) -> Iterator[tuple[str, float]]:
    """Ideal time by time, of each way and kind of task; what ppe.lapply costs per task."""
    for start, stop in ((RMPI, "mpi.close.Rslaves()"), (SNOW, "plan(sequential); stopCluster(cl)")):
        r.eval(f"{start}{BURN}")
        for name, (needs, call) in CALLS.items():
            if needs != start:
                continue
            for ms, n in TASKS.items():
                ideal = n * ms / 1000 / min(SLOTS, os.cpu_count() or 1)
                yield f"{name}_efficiency_{ms}ms", ideal / seconds(r, call.format(n=n, s=ms / 1000))
        if start == RMPI:
            brief = seconds(r, f"ppe.lapply(seq_len({BRIEF}), identity, progress = FALSE)")
            yield "lapply_overhead_us_per_task", brief / BRIEF * 1e6
            yield "lapply_bytes_per_task", float(r.eval("sum(ppe.last()$bytes)")) / BRIEF
        r.eval(f"{stop}; invisible(NULL)")


def main() -> None:
    """Launch, measure, terminate."""
    manager = ppe.Manager(report=print)
    cluster = manager.launch(ppe.ClusterSpec(name="bench-tasks", nodes=3, instance_type="m5.xlarge"))
    try:
        found = dict(efficiencies(cluster.r()))
        add({**found, "lapply_vs_snow_1ms": found["lapply_efficiency_1ms"] / found["snow_efficiency_1ms"]})
    finally:
        cluster.terminate()


if __name__ == "__main__":
    main()
