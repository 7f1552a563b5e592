"""axe-core finds nothing to mend: panel, sidebar, launch forms and dialogs in a real lab, in light and dark.

With SHOTS, a folder, the scenes are photographed there, to be looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import browser_page, editors, jupyterlab, notebook
from many_clusters import many_clusters

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings

CELL = "%load_ext ppe_jupyter\n%ppe_panel"
SHOTS = os.environ.get("SHOTS")
THEMES = "config/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
ANN = "ann@desk arn:aws:iam::1:user/ann"
OURS = [".ppe-panel", ".jp-ppe-sidebar", ".jp-ppe-status", ".jp-Dialog-content"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Visit:
    """A page of a lab, and what axe-core has found in it, by scene."""

    def __init__(self, page: Page, theme: str) -> None:
        self.page, self._theme = page, theme
        self.found: list[str] = []

    def look(self, scene: str) -> None:
        """At what of ours is in the page."""
        from axe_playwright_python.sync_playwright import Axe

        here = [[each] for each in OURS if self.page.locator(each).count()]
        result = Axe().run(self.page, {"include": here})
        self.found += [
            f"{scene}: {each['id']}: {node['html'][:200]} {node['failureSummary']}"
            for each in result.response["violations"]
            for node in each["nodes"]
        ]
        if SHOTS:
            self.page.screenshot(path=str(Path(SHOTS) / f"{self._theme}-{scene}.png"))


@pytest.fixture(params=["light", "dark"])
def visit(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    cluster: Cluster,
    local_cloud: Endpoint,
    settings: Settings,
) -> Iterator[Visit]:
    """The panel and the sidebar side by side, with the tests' cluster and some of ann's."""
    if request.param == "dark":
        themes = tmp_path / THEMES
        themes.parent.mkdir(parents=True)
        themes.write_text('{"theme": "JupyterLab Dark"}')
    with (
        many_clusters(local_cloud, settings, 2, owner=ANN),
        jupyterlab(tmp_path) as (folder, address),
        browser_page() as page,
    ):
        (folder / "panel.ipynb").write_text(json.dumps(notebook([CELL])))
        page.set_viewport_size({"width": 1500, "height": 1000})
        page.set_default_timeout(60_000)
        page.goto(address("lab/tree/panel.ipynb"))
        page.get_by_role("button", name="| Idle").wait_for()
        editors(page).first.click()
        page.keyboard.press("Control+Enter")
        page.get_by_role("tab", name="Clusters").first.click()
        page.locator(".ppe-row", has_text="many-1").wait_for()
        page.get_by_role("listitem", name="Cluster many-1").wait_for()
        yield Visit(page, request.param)


def test_nothing_of_ours_keeps_anybody_out(visit: Visit, cluster: Cluster) -> None:
    scenes: tuple[Callable[[Visit, str], None], ...] = (clusters, forms, dialogs, panel_tabs)
    for scene in scenes:
        scene(visit, cluster.name)
    assert visit.found == []


def clusters(visit: Visit, name: str) -> None:
    page = visit.page
    visit.look("closed")
    page.locator(".ppe-row", has_text=name).locator("button.ppe-opener").click()
    card = page.get_by_role("listitem", name=f"Cluster {name}")
    card.locator(".jp-ppe-cardHead").click()
    page.locator(".ppe-row", has_text=name).get_by_text("Watchdog").wait_for()
    card.get_by_text("Watchdog").wait_for()
    visit.look("opened")


def forms(visit: Visit, name: str) -> None:
    sidebar = visit.page.locator(".jp-ppe-sidebar")
    sidebar.get_by_role("button", name="New cluster").click()
    form = visit.page.get_by_role("form", name="New cluster")
    form.get_by_role("button", name="Choose the type").click()
    form.get_by_label("Filter").fill("m5")
    form.get_by_role("button", name="m5.large", exact=True).wait_for()
    form.get_by_label("Name", exact=True).fill("Not So")
    form.get_by_text("is not small letters").first.wait_for()
    visit.look("form")
    sidebar.get_by_role("button", name="Back to clusters").click()


def dialogs(visit: Visit, name: str) -> None:
    page = visit.page
    card = page.get_by_role("listitem", name=f"Cluster {name}")
    for label in ("Terminate", "Limits", "Resize", "Reboot"):
        card.get_by_role("button", name=f"{label} {name}").click()
        page.locator(".jp-Dialog-content").wait_for()
        visit.look(label.lower())
        page.locator(".jp-Dialog-content").get_by_role("button", name="Cancel").click()
    ann = page.get_by_role("listitem", name="Cluster many-1")
    ann.locator(".jp-ppe-cardHead").click()
    for label in ("Interrupt R", "Restart R"):
        ann.get_by_role("button", name=label).click()
        asked = page.locator(".jp-Dialog-content", has_text="It is not yours: ann@desk")
        asked.wait_for()
        visit.look(label.replace(" ", "-").lower())
        asked.get_by_role("button", name="Cancel").click()


def panel_tabs(visit: Visit, name: str) -> None:
    panel = visit.page.locator(".ppe-panel").first
    row = panel.locator(".ppe-row", has_text=name)
    for action in ("Resize…", "Limits…", "Terminate…"):
        row.get_by_role("button", name=action, exact=True).click()
        row.get_by_role("button", name="Leave it").wait_for()
        row.get_by_text("planning").wait_for(state="detached")
        visit.look(f"panel-{action.rstrip('…').lower()}")
        row.get_by_role("button", name="Leave it").click()
    for tab in ("New cluster", "Left behind", "Settings"):
        panel.get_by_role("tab", name=tab).click()
        if tab == "New cluster":
            panel.get_by_label("Filter", exact=True).fill("m5")
            panel.get_by_role("radio", name="m5.large", exact=True).wait_for()
        visit.look(f"panel-{tab.replace(' ', '-').lower()}")
