"""Parallel tasks in R: `ppe.lapply` beside Rmpi's `mpi.applyLB`, snow's `clusterApplyLB` and future.apply, in one run.

Six slots on one machine have its cores only. So the ideal time is measured, before each round: the same tasks, dealt
out beforehand to one process for each core. Tasks that sleep tell of the six slots: their ideal is counted.
Run by `make bench`; adds to build/bench.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from results import add

import ppe_jupyter as ppe

SLOTS = 6
# Milliseconds of a task: how many tasks, which slots and cores divide.
TASKS = {1: 300, 10: 120, 100: 36}
ROUNDS = 3
MOST_SECONDS = 120.0
# Rmpi collects garbage after each object that it sends, 15 ms of the session's time: so do mpi.applyLB and snow after
# each task. What is slow by so much is measured once.
FAR_OFF = 0.2
BRIEF = 6000
BURN = """
burn <- compiler::cmpfun(function(i, k) { x <- 0; for (j in seq_len(k)) x <- x + sqrt(j); i })
spent <- function(expr) { answer <- NULL; took <- system.time(answer <- expr)[[3]]; force(answer); took }
# Steps of a millisecond.
steps <- 1e6 / median(sapply(1:5, function(i) spent(burn(i, 1e6)))) / 1000
cores <- parallel::detectCores()
dealt_out <- function(n, k) {
  parallel::mclapply(split(seq_len(n), seq_len(n) %% cores), lapply, burn, k = k, mc.cores = cores)
}
invisible(NULL)
"""
RMPI = "library(Rmpi); mpi.spawn.Rslaves(quiet = TRUE); invisible(ppe.lapply(1:6, identity))"
SNOW = "library(snow); cl <- makeMPIcluster(); library(future.apply); plan(future::cluster, workers = cl)"
IDEAL = "dealt_out({n}, {ms} * steps)"
CALLS = {
    (RMPI, "mpi.close.Rslaves()"): {
        "lapply": "ppe.lapply(seq_len({n}), burn, k = {ms} * steps, progress = FALSE)",
        "rmpi": "mpi.applyLB(seq_len({n}), burn, k = {ms} * steps)",
    },
    (SNOW, "plan(sequential); stopCluster(cl)"): {
        "snow": "clusterApplyLB(cl, seq_len({n}), burn, k = {ms} * steps)",
        "future": "future_lapply(seq_len({n}), burn, k = {ms} * steps, future.seed = 1L)",
    },
}


def seconds(r: ppe.RemoteR, call: str) -> float:
    """How long it takes; the answer must be right."""
    took = float(r.eval(f"spent(answer <- {call})", timeout=MOST_SECONDS))
    assert r.eval("identical(sort(as.numeric(unlist(answer))), as.numeric(seq_along(unlist(answer))))")
    return took


def efficiencies(r: ppe.RemoteR) -> Iterator[tuple[str, float]]:
    """Ideal time by time, of each way and kind of task; what ppe.lapply costs per task."""
    for (start, stop), calls in CALLS.items():
        r.eval(f"{start}; {BURN}")
        for ms, n in TASKS.items():
            found: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(ROUNDS):
                ideal = seconds(r, IDEAL.format(n=n, ms=ms))
                for name, call in calls.items():
                    if not found[name] or min(found[name]) > FAR_OFF:
                        found[name].append(ideal / seconds(r, call.format(n=n, ms=ms)))
            for name, ratios in found.items():
                yield f"{name}_efficiency_{ms}ms", statistics.median(ratios)
        if start == RMPI:
            yield from costs(r)
        r.eval(f"{stop}; invisible(NULL)")


def costs(r: ppe.RemoteR) -> Iterator[tuple[str, float]]:
    """Of ppe.lapply: the slots' efficiency, and what a task costs that does nothing."""
    sleeps = 60
    times = [
        seconds(r, f"ppe.lapply(seq_len({sleeps}), function(i) {{ Sys.sleep(0.1); i }}, progress = FALSE)")
        for _ in range(ROUNDS)
    ]
    yield "lapply_sleep_efficiency_100ms", sleeps * 0.1 / SLOTS / statistics.median(times)
    brief = [seconds(r, f"ppe.lapply(seq_len({BRIEF}), identity, progress = FALSE)") for _ in range(ROUNDS)]
    yield "lapply_overhead_us_per_task", statistics.median(brief) / BRIEF * 1e6
    yield "lapply_bytes_per_task", float(r.eval("sum(ppe.last()$bytes)")) / BRIEF


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
