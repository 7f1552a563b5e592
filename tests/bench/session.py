"""What the R session costs beside the SSH connection that carries it: ratios, measured in one run.

Run by `make bench`; prints a table and writes build/bench.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from results import add

import ppe_jupyter as ppe

ROUNDS = 300
MEGABYTES = 100


def median_seconds(act: Callable[[], object], *, rounds: int) -> float:
    """The median time of one act."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def text_seconds(session: ppe.RemoteR) -> float:
    """From what R prints to its coming here, by the one clock that both have on the local cloud."""
    took: list[float] = []
    session.run(
        "for (i in 1:50) { cat(sprintf('%.6f\\n', as.numeric(Sys.time()))); Sys.sleep(0.05) }",
        on_output=lambda output: took.append(time.time() - float(output.text.split()[-1])),
    )
    return statistics.median(took)


def measure(cluster: ppe.Cluster) -> dict[str, float]:
    """Seconds and ratios by name."""
    session, connection = cluster.r(), cluster.ssh()
    session.eval("invisible(gc())")
    with connection.popen("cat") as echo:

        def once() -> None:
            echo.send_all(b"x")
            echo.recv(1)

        pairs = [(median_seconds(lambda: session.eval("1 + 1"), rounds=50), median_seconds(once, rounds=50))
                 for _ in range(ROUNDS // 50)]  # fmt: skip
    size = MEGABYTES * 10**6
    raw = median_seconds(lambda: connection.run(f"head -c {size} /dev/zero"), rounds=3)
    session.eval(f"x <- as.double(seq_len({size // 8})); invisible(NULL)")
    pull = median_seconds(lambda: session.pull("x"), rounds=3)
    sink = median_seconds(lambda: connection.run("cat > /dev/null", stdin=bytes(size)), rounds=3)
    values = np.arange(size // 8, dtype=float)
    push = median_seconds(lambda: session.push("y", values), rounds=3)
    evaluate, echoed = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "eval_ms": evaluate * 1e3,
        "ssh_echo_ms": echoed * 1e3,
        "eval_vs_ssh_echo": statistics.median(a / b for a, b in pairs),
        "text_seconds": text_seconds(session),
        "pull_numeric_vs_ssh": raw / pull,
        "push_numeric_vs_ssh": sink / push,
    }


def main() -> None:
    """Launch, measure, terminate."""
    manager = ppe.Manager(report=print)
    started = time.perf_counter()
    cluster = manager.launch(ppe.ClusterSpec(name="bench", nodes=3, instance_type="m5.xlarge"))
    try:
        results = {"launch_3_seconds": time.perf_counter() - started, **measure(cluster)}
    finally:
        cluster.terminate()
    add(results)


if __name__ == "__main__":
    main()
