"""The panel: the time to its first paint with 20 clusters, and what three panels ask of EC2 in a minute.

The clusters are records without containers. The paint is from running the cell to the last row in a browser's page, in
a kernel that has the extension loaded.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from results import add

from ppe_jupyter import localcloud
from ppe_jupyter.frontends.panel.panel import Panel
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import browser_page, editors, jupyterlab, notebook
from many_clusters import many_clusters

if TYPE_CHECKING:
    from playwright.sync_api import Page

COUNT, ROUNDS, PANELS = 20, 5, 3
BEATS, BEAT_SECONDS = 4, 15.0  # a page that is looked at says so four times a minute
PAINTED = "count => document.querySelectorAll('.ppe-row').length >= count && performance.now() - begun"


def paints() -> list[float]:
    """Milliseconds, of each round."""
    cells = ["%load_ext ppe_jupyter", *["%ppe_panel"] * ROUNDS]
    with tempfile.TemporaryDirectory() as place, jupyterlab(Path(place)) as (folder, address):
        (folder / "panel.ipynb").write_text(json.dumps(notebook(cells)))
        with browser_page() as page:
            page.goto(address("lab/tree/panel.ipynb"))
            page.get_by_role("button", name="| Idle").wait_for()
            editors(page).first.click()
            page.keyboard.press("Shift+Enter")
            page.get_by_text("[1]:").wait_for()
            return [paint(page, round) for round in range(ROUNDS)]


def paint(page: Page, round: int) -> float:
    """Of one more panel."""
    page.evaluate("document.addEventListener('keydown', () => { window.begun = performance.now(); })")
    page.keyboard.press("Shift+Enter")
    shown = page.wait_for_function(PAINTED, arg=COUNT * (round + 1), timeout=60_000)
    return float(shown.json_value())


def calls_per_minute(count: int) -> int:
    """Of so many panels that are looked at."""
    manager = Manager()
    endpoint = localcloud.ensure(manager.settings)
    panels = [Panel() for _ in range(count)]
    panels[0].poller.refresh()
    hooks.reset(endpoint)
    hooks.set_containerless(endpoint, True)
    for _ in range(BEATS):
        for each in panels:
            each.worker.do(partial(each._presence._told, "page", True))
        time.sleep(BEAT_SECONDS)
    calls = hooks.calls(endpoint).count("DescribeInstances")
    for each in panels:
        each.close()
    return calls


def main() -> None:
    """Measure, and add to build/bench.json."""
    manager = Manager()
    with many_clusters(localcloud.ensure(manager.settings), manager.settings, COUNT):
        found = sorted(paints())
        calls = calls_per_minute(PANELS)
    add({"panel_first_paint_ms_20": found[ROUNDS // 2], "panel_describe_calls_per_min": float(calls)})


if __name__ == "__main__":
    main()
