"""Installed from the wheel as users do it, with nothing else: in the newest lab from the tile to a cluster's end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import editors, jupyterlab, notebook
from test_labextension import CELLS, enabled, expect_language, listed, served, tracked
from test_rstudio import HERE, PUT
from test_rstudio_browser import shot
from test_sidebar import SLEEP, run

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Locator, Page

    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager

    Lab = Callable[[str], str]

NEWEST, OLDEST = ("jupyterlab", "notebook"), ("jupyterlab==4.2.*", "notebook==7.2.*")
PANEL = "%load_ext ppe_jupyter\n%ppe_panel"
PLOT = "%%remote_r\nplot(1:10)"
COLD = 120_000  # milliseconds; what was just installed is compiled when it is imported

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def pip(python: str, *arguments: str, **environment: str) -> None:
    command = [python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the tracked files, with no node on the path."""
    place = tmp_path_factory.mktemp("wheel")
    (place / "bin").mkdir()
    (place / "bin" / "sh").symlink_to("/bin/sh")  # npm's own need
    source = tracked(place / "source")
    pip(sys.executable, "wheel", "--no-deps", "-w", str(place), str(source), PATH=str(place / "bin"))
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes one of the wheel and such packages; returns its Python."""
    made: dict[tuple[str, ...], str] = {}

    def make(*packages: str) -> str:
        if packages not in made:
            place = tmp_path_factory.mktemp("environment")
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            made[packages] = str(place / "bin" / "python")
            pip(made[packages], "install", f"{wheel}[local]", *packages)
        return made[packages]

    return make


@pytest.fixture
def page(page: Page) -> Page:
    """With more time."""
    from playwright.sync_api import expect

    expect.set_options(timeout=COLD)
    page.set_default_timeout(COLD)
    page.set_viewport_size({"width": 1400, "height": 1000})
    return page


def test_both_extensions_are_enabled(environment: Callable[..., str]) -> None:
    python = environment(*NEWEST)
    listing = listed(python)
    assert enabled(listing), listing
    listing = listed(python, "server", "extension")
    assert served(listing), listing


@pytest.fixture
def lab(environment: Callable[..., str], tmp_path: Path, local_cloud: Endpoint) -> Iterator[Lab]:
    """Addresses in the newest JupyterLab with the wheel, and chain.ipynb in its folder."""
    with jupyterlab(tmp_path, python=environment(*NEWEST), base_url="/user/a/") as (folder, address):
        (folder / "chain.ipynb").write_text(json.dumps(notebook([PANEL])))
        yield address


def test_from_the_tile_to_the_end(lab: Lab, page: Page, manager: Manager) -> None:
    from playwright.sync_api import expect

    page.goto(lab("lab/tree/chain.ipynb"))
    expect(page.get_by_role("button", name="| Idle")).to_be_visible()
    editors(page).first.click()
    page.keyboard.press("Control+Enter")
    panel = page.locator(".ppe-panel").first
    expect(panel.get_by_role("tab", name="Clusters")).to_be_visible()

    launch(page)
    page.get_by_role("tab", name="chain.ipynb").click()
    card, row = (
        page.get_by_role("listitem", name="Cluster chain"),
        panel.locator(".ppe-row", has_text="chain"),
    )
    expect(card.locator(".jp-ppe-state")).to_have_text("running")
    expect(row).to_contain_text("● running")
    for shown in (card, row):
        expect(shown).to_contain_text("2 of 2 nodes")
    shot(page, "both")

    card.get_by_role("button", name="Connect chain").click()
    expect(editors(page).nth(1)).to_have_text("%ppe_connect chain")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-Notebook .jp-CodeCell").nth(1)).to_contain_text("connected to chain: running")
    plot = run(page, PLOT).locator(".jp-OutputArea img, .jp-OutputArea svg").first
    expect(plot).to_be_visible()
    assert plot.bounding_box()["width"] > 200  # type: ignore[index]
    shot(page, "plot")

    manager.cluster("chain").ssh().run(PUT, stdin=(HERE / "fake_rserver.py").read_bytes())
    card.get_by_role("button", name="RStudio chain").click()
    expect(rstudio(page).get_by_role("heading", name="RStudio", exact=True)).to_be_visible()
    expect(rstudio(page).locator("#console")).to_contain_text("R 42")
    shot(page, "rstudio")

    page.get_by_role("tab", name="chain.ipynb").click()
    sleeping = run(page, SLEEP)
    expect(sleeping.locator(".jp-InputPrompt")).to_have_text("[*]:")
    panel.scroll_into_view_if_needed()  # out of sight it is silent
    expect(panel).to_contain_text("busy since")
    shot(page, "busy")
    rate = page.locator(".jp-ppe-status").inner_text()
    card.get_by_role("button", name="Terminate chain").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Terminate chain").click()
    assert_gone(page, lab, card, panel, sleeping, rate)
    assert "chain" not in [each.name for each in manager.clusters()]


def launch(page: Page) -> None:
    """By the tile, the form and the review."""
    page.locator(".jp-ToolbarButton, .lm-TabBar-addButton").and_(
        page.get_by_title("New Launcher")
    ).first.click()
    page.locator(".jp-LauncherCard", has_text="MPI cluster").click()
    form = page.get_by_role("form", name="New cluster")
    form.get_by_label("Name").fill("chain")
    form.get_by_label("Type", exact=True).fill("m5.large")
    form.get_by_role("button", name="Review and launch").click()
    page.locator(".jp-Dialog").get_by_role("button", name="Launch chain").click()


def rstudio(page: Page) -> FrameLocator:
    return page.frame_locator(".jp-ServerProxy iframe")


def assert_gone(page: Page, lab: Lab, card: Locator, panel: Locator, sleeping: Locator, rate: str) -> None:
    """From the sidebar, the panel, the cell that waited, the status bar and RStudio's tab."""
    from playwright.sync_api import expect

    expect(card).to_have_count(0)
    expect(panel.locator(".ppe-row", has_text="chain")).to_have_count(0)
    expect(sleeping.locator(".jp-InputPrompt")).not_to_have_text("[*]:")
    expect(page.locator(".jp-ppe-status")).not_to_have_text(rate)
    shot(page, "gone")
    page.goto(lab("ppe-rstudio/chain/"))
    expect(page.get_by_role("heading")).to_have_text("The cluster chain is gone")


@pytest.mark.parametrize("packages", [NEWEST, OLDEST], ids=["newest", "oldest"])
def test_lab_and_notebook_have_the_sidebar_and_the_languages(
    packages: Any, environment: Callable[..., str], tmp_path: Path, local_cloud: Endpoint, page: Page
) -> None:
    from playwright.sync_api import expect

    with jupyterlab(tmp_path, python=environment(*packages)) as (folder, address):
        (folder / "remote.ipynb").write_text(json.dumps(notebook(CELLS)))
        page.goto(address("lab"))
        page.locator(".jp-LauncherCard", has_text="MPI cluster").click()
        form = page.get_by_role("form", name="New cluster")
        expect(form).to_contain_text("on EC2; free here")
        page.goto(address("notebooks/remote.ipynb"))
        for index, language in enumerate(CELLS.values()):
            expect_language(editors(page).nth(index), language)
        page.get_by_role("menuitem", name="Cluster").click()
        page.get_by_role("menuitem", name="Launch an MPI cluster…").click()
        expect(form).to_contain_text("on EC2; free here")
        page.get_by_role("button", name="Back to clusters").click()
        expect(page.get_by_role("region", name="Clusters")).to_contain_text("local cloud: free")
