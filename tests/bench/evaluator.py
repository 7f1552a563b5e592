"""The R session beside its peers, in one run: ratios, and how much of a whole job each phase takes.

Run by `make bench`; prints a table and adds to build/bench.json.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faraway
import pandas as pd
import peers
from IPython.core.interactiveshell import InteractiveShell
from launch import TYPE, connecting_by
from results import add
from session import median_seconds

import ppe_jupyter as ppe
from ppe_jupyter import ssh
from ppe_jupyter.frontends.notebook import magics

ROWS = 1_000_000
FRAME = (
    f"(function(n) {{ set.seed(1); data.frame(i = seq_len(n), d = rnorm(n), s = sprintf('row %d', seq_len(n)), "
    f"f = factor(sample(letters, n, TRUE)), stringsAsFactors = FALSE) }})({ROWS})"
)
LINES = 100_000
FITS = 2000
SMALL_FILES = 10_000
LATENCY = 0.1


def beside(ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int) -> float:
    """How many times as long theirs takes: the median of pairs of medians, one right after the other."""
    ratios = []
    for _ in range(5):
        mine = median_seconds(ours, rounds=rounds)
        ratios.append(median_seconds(theirs, rounds=rounds) / mine)
    return statistics.median(ratios)


def evaluations(cluster: ppe.Cluster) -> dict[str, float]:
    """``1+1`` by IRkernel and by pyRserve ÷ ours.

    pyRserve's first hundred calls on a connection take 44 ms each: acknowledgements are delayed for its two small
    writes. Then the kernel no longer delays them, which is the warm figure.
    """
    session = cluster.r()

    def ours() -> object:
        return session.eval("1+1")

    with peers.irkernel(cluster) as evaluate:
        irkernel, irkernel_ratio = median_seconds(evaluate, rounds=20), beside(ours, evaluate, rounds=20)
    with peers.rserve(cluster) as evaluate:
        mine = median_seconds(ours, rounds=20)
        pyrserve = median_seconds(evaluate, rounds=20)
        median_seconds(evaluate, rounds=200)
        warm = beside(ours, evaluate, rounds=20)
    return {
        "irkernel_ms": irkernel * 1e3,
        "irkernel_vs_eval": irkernel_ratio,
        "pyrserve_ms": pyrserve * 1e3,
        "pyrserve_vs_eval": pyrserve / mine,
        "pyrserve_warm_vs_eval": warm,
    }


def beside_workers(cluster: ppe.Cluster) -> dict[str, float]:
    """``1+1`` while idle MPI workers live ÷ without them."""
    session = cluster.r()
    session.eval("library(Rmpi); mpi.spawn.Rslaves(); invisible(mpi.parSapply(1:100, sqrt))")
    busy = median_seconds(lambda: session.eval("1+1"), rounds=200)
    session.eval("mpi.close.Rslaves(); invisible(NULL)")
    return {"eval_beside_workers_vs_alone": busy / median_seconds(lambda: session.eval("1+1"), rounds=200)}


def frames(cluster: ppe.Cluster) -> dict[str, float]:
    """rpy2's conversions, in this process, of a frame of a million rows ÷ our whole way to the master and back."""
    session = cluster.r()
    session.eval(f"frame <- {FRAME}; invisible(NULL)")
    pulled = session.pull("frame")
    pull = median_seconds(lambda: session.pull("frame"), rounds=3)
    push = median_seconds(lambda: session.push("pushed", pulled), rounds=3)
    with peers.local_rpy2(FRAME) as (to_python, to_r):
        theirs = to_python()
        pull_theirs = median_seconds(to_python, rounds=1)
        push_theirs = median_seconds(lambda: to_r(theirs), rounds=1)
    session.eval("rm(frame, pushed); invisible(gc())")
    return {
        "pull_frame_s": pull,
        "push_frame_s": push,
        "rpy2_vs_pull_frame": pull_theirs / pull,
        "rpy2_vs_push_frame": push_theirs / push,
    }


def output(cluster: ppe.Cluster) -> dict[str, float]:
    """Lines per second until the last is here, ÷ those of R in ``ssh -t``."""
    session = cluster.r()
    code = f'for (i in 1:{LINES}) cat("line", i, "\\n")'

    def ours() -> float:
        began = time.perf_counter()
        session.run(code, on_output=lambda text: None)
        return time.perf_counter() - began

    pairs = [(ours(), peers.lines_by_ssh(cluster, code, b"line %d" % LINES)) for _ in range(3)]
    return {
        "lines_per_second": LINES / statistics.median(mine for mine, _ in pairs),
        "stdout_vs_ssh_r": statistics.median(theirs / mine for mine, theirs in pairs),
    }


def magic(cluster: ppe.Cluster) -> dict[str, float]:
    """A cell in an IPython shell ÷ ``eval`` of it; and what loading the extension adds to a shell's start."""
    shell = InteractiveShell.instance()
    magics.load(shell)
    shell.run_line_magic("ppe_connect", cluster.name)
    session = magics._loaded[shell].desk.target(None).r()
    session.eval("1")
    ratio = beside(
        lambda: session.eval("invisible(1)"), lambda: shell.run_cell("%%remote_r\ninvisible(1)"), rounds=50
    )
    magics.unload(shell)
    ipython = [sys.executable, "-m", "IPython", "-c"]
    code = (
        "import time; t = time.perf_counter(); get_ipython().run_line_magic('load_ext', 'ppe_jupyter'); "
        "print(time.perf_counter() - t)"
    )

    def loading() -> float:
        said = subprocess.run([*ipython, code], capture_output=True, text=True, check=True).stdout
        return float(said.splitlines()[-1])

    bare = median_seconds(lambda: subprocess.run([*ipython, "pass"], check=True), rounds=5)
    return {
        "magic_vs_eval": ratio,
        "load_ext_vs_ipython": statistics.median(loading() for _ in range(5)) / bare,
    }


def round_trips(cluster: ppe.Cluster) -> dict[str, float]:
    """Network round trips of a cell, and of connecting until the first answer: what 100 ms of latency add, ÷ 0.1."""
    address = cluster.master.address

    def connected(port: int | None) -> tuple[float, float]:
        def connect(target: ssh.Target, **options: object) -> ssh.Connection:
            there = replace(target, host="127.0.0.1", port=port) if port else target
            return ssh.connect(there, **options)  # type: ignore[arg-type]

        again = connecting_by(connect).cluster(cluster.name)
        began = time.perf_counter()
        again.r().eval("1")
        first = time.perf_counter() - began
        cell = median_seconds(lambda: again.r().run("invisible(1)"), rounds=9)
        again.close()
        return first, cell

    with faraway.far_away(address, 22, seconds=LATENCY) as port:
        far = [connected(port) for _ in range(3)]
    near = [connected(None) for _ in range(3)]
    first, cell = (
        (statistics.median(one[at] for one in far) - statistics.median(one[at] for one in near)) / LATENCY
        for at in (0, 1)
    )
    return {"round_trips_connect": first, "round_trips_per_cell": cell}


def files(cluster: ppe.Cluster) -> dict[str, float]:
    """A large file both ways ÷ the same bytes through a command's standard input and output; and many small ones."""
    size, connection = 300 * 10**6, cluster.ssh()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "large").write_bytes(os.urandom(10**6) * (size // 10**6))
        (here / "small").mkdir()
        for number in range(SMALL_FILES):
            (here / "small" / str(number)).write_bytes(b"%d," % number * 20)
        data = (here / "large").read_bytes()
        sink = median_seconds(lambda: connection.run("cat > /dev/null", stdin=data), rounds=3)
        up = statistics.median(cluster.upload(here / "large", to=f"/tmp/{at}").seconds for at in range(3))
        source = median_seconds(lambda: connection.run("cat /tmp/0"), rounds=3)
        down = statistics.median(cluster.download("/tmp/0", to=here / str(at)).seconds for at in range(3))
        small = cluster.upload(here / "small", to="/tmp/small").seconds
    connection.run("rm -r /tmp/0 /tmp/1 /tmp/2 /tmp/small")
    return {"upload_vs_ssh": sink / up, "download_vs_ssh": source / down, "upload_10000_files_s": small}


def bootstrap(manager: ppe.Manager) -> tuple[ppe.Cluster, dict[str, float]]:
    """From the launch of three nodes to the answer in pandas: 2,000 fits of resampled data on all slots."""
    marks = [("", time.perf_counter())]
    cluster = manager.launch(ppe.ClusterSpec(name="bench-evaluator", nodes=3, instance_type=TYPE))
    session = cluster.r()
    session.eval("invisible(NULL)")
    marks.append(("launch", time.perf_counter()))
    session.push("cars", pd.DataFrame({"x": range(1000), "y": [(7 * i) % 1000 for i in range(1000)]}))
    session.eval("library(Rmpi); mpi.spawn.Rslaves(); mpi.bcast.Robj2slave(cars); invisible(NULL)")
    marks.append(("spawn", time.perf_counter()))
    session.eval(
        "fit <- function(i) { set.seed(i); coef(lm(y ~ x, cars[sample(nrow(cars), replace = TRUE), ])) }; "
        f"fits <- as.data.frame(t(mpi.parSapply(1:{FITS}, fit))); mpi.close.Rslaves(); invisible(NULL)"
    )
    marks.append(("fits", time.perf_counter()))
    fits = session.pull("fits")
    assert fits.shape == (FITS, 2), fits.shape
    marks.append(("pull", time.perf_counter()))
    total = marks[-1][1] - marks[0][1]
    shares = {
        f"bootstrap_{name}_share": (at - before) / total
        for (_, before), (name, at) in itertools.pairwise(marks)
    }
    return cluster, {"bootstrap_seconds": total, **shares}


def main() -> None:
    """Launch, measure, terminate."""
    cluster, found = bootstrap(ppe.Manager(report=print))
    try:
        add(found)
        cluster.install(apt=peers.DEBIAN)
        for rows in (beside_workers, evaluations, frames, output, files, magic, round_trips):
            add(rows(cluster))
    finally:
        cluster.terminate()


if __name__ == "__main__":
    main()
