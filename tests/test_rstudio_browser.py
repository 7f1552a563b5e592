"""RStudio in a real lab in a real browser: the tile, a choice, RStudio itself, two clusters, the end of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jupyter_lab import Lab, jupyter_lab
from test_rstudio import BIN, END, HERE, INSTANCE_TYPE, PUT

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

CHROMIUM = shutil.which("chromium")
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--no-first-run", "--disable-sync"]
CELLS = ["%load_ext ppe_jupyter", "%ppe_rstudio side"]
SHOTS = os.environ.get("SHOTS")  # a folder for pictures to look at

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    cells = [
        {
            "id": str(n),
            "cell_type": "code",
            "source": text,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for n, text in enumerate(CELLS)
    ]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": python, "cells": cells}
    (tmp_path / "notebooks" / "side.ipynb").write_text(json.dumps(notebook))
    with jupyter_lab(tmp_path, base_url="/user/a/") as lab:
        yield lab


@pytest.fixture
def page() -> Iterator[Page]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("needs the Debian package chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGUMENTS)
        yield browser.new_page(viewport={"width": 1400, "height": 800})
        browser.close()


@pytest.fixture
def side(manager: Manager) -> Iterator[Cluster]:
    import ppe_jupyter as ppe

    side = manager.launch(ppe.ClusterSpec(name="side", nodes=1, instance_type=INSTANCE_TYPE))
    yield side
    side.terminate()


@pytest.fixture
def rstudio(cluster: Cluster) -> Iterator[None]:
    """On the test cluster's master only."""
    cluster.ssh().run(PUT, stdin=(HERE / "fake_rserver.py").read_bytes())
    yield
    cluster.ssh().run(f"{END}; sudo rm -rf {BIN}", check=False)


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.usefixtures("rstudio")
def test_two_clusters_in_tabs_of_the_lab(lab: Lab, page: Page, cluster: Cluster, side: Cluster) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    page.set_default_timeout(60_000)
    page.goto(lab.page("lab"))
    tile = page.locator(".jp-LauncherCard", has_text="RStudio (cluster)")
    expect(tile).to_be_visible()
    shot(page, "launcher")
    tile.click()
    tab = page.frame_locator(".jp-ServerProxy iframe").first
    expect(tab.get_by_role("heading")).to_have_text("Which cluster?")
    shot(page, "choice")
    tab.get_by_role("link", name=f"RStudio on {cluster.name}").click()
    expect(tab.get_by_role("heading", name="RStudio", exact=True)).to_be_visible()
    expect(tab.locator("#user")).to_have_text(f"{cluster.record.login_user} in {cluster.r().eval('getwd()')}")
    expect(tab.locator("#console")).to_contain_text("R 42")
    expect(tab.locator("#socket")).to_have_text("typed into the terminal")
    shot(page, "rstudio")

    page.goto(lab.page("lab/tree/side.ipynb"))
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    for number in range(len(CELLS)):
        cells.nth(number).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
    other = page.frame_locator(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-ServerProxy iframe").last
    expect(other.get_by_role("heading")).to_have_text("RStudio on side cannot be opened")
    expect(other.get_by_text("%ppe_rstudio side --install")).to_be_visible()
    shot(page, "missing")
    page.get_by_role("tab", name="side.ipynb").click()
    expect(page.get_by_role("button", name="Open RStudio on side")).to_be_visible()
    shot(page, "button")
    page.get_by_role("tab", name="RStudio: side").click()
    side.terminate()
    other.get_by_role("link", name="Try again").click()
    expect(other.get_by_role("heading")).to_have_text("The cluster side is gone")
    shot(page, "gone")
    other.get_by_role("link", name=f"RStudio on {cluster.name}").click()
    expect(other.get_by_role("heading", name="RStudio", exact=True)).to_be_visible()
