"""The panel: the time to its first paint with 20 clusters, and what three panels ask of EC2 in a minute.

The clusters are records without containers. What is counted of the paint is the kernel's work, until all is said to the
page; a page's own is not.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from results import add

from ppe_jupyter import localcloud
from ppe_jupyter.frontends.panel import Panel
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

sys.path.insert(0, str(Path(__file__).parents[1]))
from many_clusters import many_clusters

ROUNDS, PANELS, MINUTES = 5, 3, 1.0


def paint_seconds() -> float:
    """From the call to all widgets having what they show; the cloud's answer is there already."""
    begun = time.perf_counter()
    panel, drawn = Panel(), threading.Event()
    panel.worker.do(drawn.set)
    assert drawn.wait(30)
    seconds = time.perf_counter() - begun
    panel.close()
    return seconds


def main() -> None:
    """Measure, and add to build/bench.json."""
    manager = Manager()
    endpoint = localcloud.ensure(manager.settings)
    with many_clusters(endpoint, manager.settings, 20):
        first = Panel()
        first.poller.refresh()
        paints = sorted(paint_seconds() for _ in range(ROUNDS))
        panels = [first, *(Panel() for _ in range(PANELS - 1))]
        hooks.reset(endpoint)
        hooks.set_containerless(endpoint, True)
        time.sleep(60 * MINUTES)
        calls = hooks.calls(endpoint).count("DescribeInstances")
        for each in panels:
            each.close()
    add(
        {
            "panel_first_paint_ms_20": 1000 * paints[ROUNDS // 2],
            "panel_describe_calls_per_min": calls / MINUTES,
        }
    )


if __name__ == "__main__":
    main()
