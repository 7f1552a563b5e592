"""RStudio in a real lab in a real browser: the tile, a choice, RStudio itself, two clusters, the end of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from browser import browser_page, editors, jupyterlab, notebook
from test_rstudio import BIN, END, HERE, INSTANCE_TYPE, PUT, Browser, Lab

from ppe_jupyter.frontends.rstudio.links import chosen_file

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.settings import Settings

CELLS = ["%load_ext ppe_jupyter", "%ppe_rstudio side"]
SHOTS = os.environ.get("SHOTS")  # a folder for pictures to look at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    with jupyterlab(tmp_path, base_url="/user/a/") as (folder, address):
        (folder / "side.ipynb").write_text(json.dumps(notebook(CELLS)))
        yield address


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page() as page:
        page.set_viewport_size({"width": 1400, "height": 1000})
        yield page


@pytest.fixture
def side(manager: Manager) -> Iterator[Cluster]:
    import ppe_jupyter as ppe

    side = manager.launch(ppe.ClusterSpec(name="side", nodes=1, instance_type=INSTANCE_TYPE))
    yield side
    side.terminate()


@pytest.fixture
def rstudio(cluster: Cluster) -> Iterator[None]:
    """On the test cluster's master only."""
    put(cluster)
    yield
    cluster.ssh().run(f"{END}; sudo rm -rf {BIN}", check=False)


def put(cluster: Cluster) -> None:
    """The stand-in on its master."""
    cluster.ssh().run(PUT, stdin=(HERE / "fake_rserver.py").read_bytes())


def restart_kernels(tab: Browser) -> None:
    """Those of the lab, which has one."""
    kernels = f"{tab.lab.root}api/kernels"
    (kernel,) = tab.session.get(kernels, timeout=60).json()
    token = {"Authorization": f"token {tab.lab.token}"}
    assert requests.post(f"{kernels}/{kernel['id']}/restart", headers=token, timeout=60).ok


@pytest.fixture
def nothing_chosen(settings: Settings) -> Iterator[None]:
    """Before, and after."""
    chosen_file(settings.state_dir).unlink(missing_ok=True)
    yield
    chosen_file(settings.state_dir).unlink(missing_ok=True)


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.usefixtures("nothing_chosen", "rstudio")
def test_two_clusters_in_tabs_of_the_lab(
    lab: Callable[[str], str], page: Page, cluster: Cluster, side: Cluster
) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    page.set_default_timeout(60_000)
    page.goto(lab("lab"))
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

    page.goto(lab("lab/tree/side.ipynb"))
    expect(page.get_by_role("button", name="| Idle")).to_be_visible()
    for number in range(len(CELLS)):
        editors(page).nth(number).press("Control+Enter")
        expect(page.locator(".jp-CodeCell .jp-InputPrompt").nth(number)).to_have_text(f"[{number + 1}]:")
    other = page.frame_locator(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-ServerProxy iframe").last
    expect(other.get_by_role("heading")).to_have_text("RStudio on side cannot be opened")
    expect(other.get_by_text("%ppe_rstudio side --install")).to_be_visible()
    shot(page, "missing")
    page.get_by_role("tab", name="side.ipynb").click()
    expect(page.get_by_role("button", name="Open RStudio on side")).to_be_visible()
    shot(page, "button")
    put(side)
    rstudio_tab = page.get_by_role("tab", name="RStudio: side")
    expect(rstudio_tab.locator("svg[data-icon='ppe-jupyter:session']")).to_be_visible()
    rstudio_tab.click()
    other.get_by_role("link", name="Try again").click()
    expect(other.locator("#console")).to_contain_text("R 42")

    # Both at once, each its own; and the notebook's kernel has no part in it.
    tabs = {name: Browser(Lab(*lab("").split("?token=")), name) for name in (cluster.name, "side")}
    assert all("<h1>RStudio</h1>" in tab.opened().text for tab in tabs.values())  # signs in
    sessions = {name: tab.rpc("client_init") for name, tab in tabs.items()}
    for name, session in sessions.items():
        assert f"--session-root-path=/user/a/ppe-rstudio/{name}/" in session["arguments"]
    restart_kernels(tabs["side"])
    assert {name: tab.rpc("client_init") for name, tab in tabs.items()} == sessions
    shot(page, "side")
    side.terminate()
    other.locator("body").evaluate("() => location.reload()")
    expect(other.get_by_role("heading")).to_have_text("The cluster side is gone")
    shot(page, "gone")
    other.get_by_role("link", name=f"RStudio on {cluster.name}").click()
    expect(other.get_by_role("heading", name="RStudio", exact=True)).to_be_visible()
