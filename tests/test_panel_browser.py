"""The panel in a real lab: launch, look, connect, interrupt and terminate while a cell runs; and what stays of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import editors, notebook
from test_sidebar import SLEEP, run

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from ppe_jupyter.manager import Manager

CELL = "%load_ext ppe_jupyter\n%ppe_panel"


def open_panel(page: Page, lab: Callable[[str], str], folder: Path) -> None:
    (folder / "notebooks" / "panel.ipynb").write_text(json.dumps(notebook([CELL])))
    page.goto(lab("lab/tree/panel.ipynb"))
    page.get_by_role("button", name="| Idle").wait_for()
    editors(page).first.click()
    page.keyboard.press("Control+Enter")


def fill_form(panel: Locator, name: str) -> None:
    """A new cluster of two m5.large."""
    panel.get_by_role("tab", name="New cluster").click()
    panel.get_by_label("Name", exact=True).fill(name)
    panel.get_by_label("Filter", exact=True).fill("m5.large")
    panel.get_by_role("radio", name="m5.large", exact=True).check()


@pytest.mark.slow
def test_from_the_form_to_the_end_by_clicks(
    lab: Callable[[str], str], page: Page, manager: Manager, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 1400, "height": 1000})
    open_panel(page, lab, tmp_path)
    panel = page.locator(".ppe-panel").first
    fill_form(panel, "Clicks 1")
    expect(panel).to_contain_text("name 'Clicks 1' is not small letters")
    panel.get_by_label("Name", exact=True).fill("clicks")
    panel.get_by_role("button", name="Launch clicks").click()
    row = panel.locator(".ppe-row", has_text="clicks")
    expect(row).to_contain_text("2 of 2 nodes ready")
    expect(row).to_contain_text("● running")
    row.locator("button.ppe-opener").click()
    expect(row).to_contain_text("Nodes")
    expect(row).to_contain_text("● idle")
    row.get_by_role("button", name="Connect").click()
    expect(panel).to_contain_text("connected: %%remote_r runs on clicks")

    sleeping = run(page, SLEEP)
    expect(sleeping.locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(row).to_contain_text("busy")  # it is live while a cell runs
    row.get_by_role("button", name="Interrupt R").and_(row.locator(".ppe-server-action")).click()
    page.locator(".jp-Dialog").get_by_role("button", name="Interrupt").click()
    expect(sleeping).to_contain_text("interrupted")

    expect(run(page, "import time; time.sleep(600)").locator(".jp-InputPrompt")).to_have_text("[*]:")
    row.get_by_role("button", name="Terminate").and_(row.locator(".ppe-server-action")).click()
    review = page.locator(".jp-Dialog", has_text="Terminate clicks?")
    review.get_by_role("button", name="Terminate clicks").click()
    expect(panel).to_contain_text("There is no cluster")
    assert "clicks" not in [each.name for each in manager.clusters()]


@pytest.mark.slow
def test_a_page_whose_kernel_knows_no_panel_shows_its_last_picture(
    lab: Callable[[str], str], page: Page, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    open_panel(page, lab, tmp_path)
    expect(page.locator(".ppe-panel").first).to_contain_text("local cloud: free")
    expect(page.locator(".ppe-last")).to_contain_text("Clusters at")  # the update came
    expect(page.locator(".ppe-last")).to_be_hidden()
    page.keyboard.press("Control+s")
    page.get_by_role("menuitem", name="Kernel").click()
    page.get_by_text("Shut Down Kernel", exact=True).click()
    page.reload()
    expect(page.locator(".ppe-last")).to_be_visible()
    expect(page.locator(".jp-OutputArea", has_text="Error displaying widget")).to_be_hidden()
    expect(page.locator(".ppe-last")).to_contain_text("local cloud: free")
