"""The sidebar in a real lab: from the tile to a running cluster, its cells, and its end, all by clicks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from browser import editors

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from ppe_jupyter.manager import Manager

BUTTON = """from IPython.display import HTML
HTML('<button class="ppe-server-action" data-ppe-action="interrupt" data-ppe-cluster="side">stop R</button>')"""
SLEEP = "%%remote_r\nSys.sleep(600)"
# What a browser does to a page when another tab is in front of it, and when it is not any more.
SEEN = """state => {
  Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});
  Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def run(page: Page, source: str) -> Locator:
    """Type and run a cell at the notebook's end; returns that cell."""
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    new = cells.nth(cells.count())
    page.locator(".jp-Notebook-footer").click()
    new.locator(".cm-content").fill(source)
    new.locator(".cm-content").press("Control+Enter")
    return new


def prompt_name(cell: Locator) -> str:
    shown = cell.locator(".jp-InputPrompt").evaluate("node => getComputedStyle(node, '::after').content")
    return str(shown).strip('"')


@pytest.mark.timeout(900)
def test_launched_used_and_ended_by_clicks(lab: Callable[[str], str], page: Page, manager: Manager) -> None:
    from playwright.sync_api import expect

    page.goto(lab("lab"))
    page.locator(".jp-LauncherCard", has_text="MPI cluster").click()
    form = page.get_by_role("form", name="New cluster")
    form.get_by_label("Name").fill("Side 1")
    expect(form).to_contain_text("name 'Side 1' is not small letters")
    expect(form.get_by_role("button", name="Review and launch")).to_be_disabled()
    form.get_by_label("Name").fill("side")
    form.get_by_role("button", name="Choose the type").click()
    form.get_by_label("Filter").fill("m5.large")
    form.get_by_role("button", name="m5.large", exact=True).click()
    expect(form).to_contain_text(re.compile(r"\$0\.2\d/h on EC2; free here"))
    form.get_by_role("button", name="Review and launch").click()
    review = page.locator(".jp-Dialog", has_text="Launch side?")
    expect(review).to_contain_text("local cloud: free")
    review.get_by_role("button", name="Launch side").click()
    card = page.get_by_role("listitem", name="Cluster side")
    expect(card).to_contain_text("2 of 2 nodes up")
    expect(card.locator(".jp-ppe-state").first).to_have_text("running")
    expect(page.locator(".jp-ppe-status")).to_have_text(re.compile(r"\d clusters? · free"))

    card.get_by_role("button", name="Connect side").click()  # no notebook is open: a new one is
    expect(editors(page)).to_have_text("%load_ext ppe_jupyter%ppe_connect side")
    card.get_by_role("button", name="Connect side").click()
    expect(editors(page).nth(1)).to_have_text("%ppe_connect side")
    expect(page.get_by_role("button", name="| Idle")).to_be_visible()
    editors(page).first.click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("connected to side: running")

    run(page, BUTTON)
    stop = page.get_by_role("button", name="stop R")
    expect(stop).to_be_visible()
    sleeping = run(page, SLEEP)
    expect(sleeping.locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(sleeping).to_have_class(re.compile(r"\bjp-ppe-remote\b"))
    assert prompt_name(sleeping) == "side"
    stop.click()
    page.locator(".jp-Dialog").get_by_role("button", name="Interrupt").click()
    expect(sleeping).to_contain_text("interrupted")

    expect(run(page, SLEEP).locator(".jp-InputPrompt")).to_have_text("[*]:")
    card.get_by_role("button", name="Terminate side").click()
    review = page.locator(".jp-Dialog", has_text="Terminate side?")
    expect(review).to_contain_text("cannot be undone")
    review.get_by_role("button", name="Terminate side").click()
    expect(card).to_have_count(0)
    assert "side" not in [each.name for each in manager.clusters()]


@pytest.mark.slow
def test_a_hidden_page_asks_for_nothing(lab: Callable[[str], str], page: Page) -> None:
    page.clock.install()
    page.goto(lab("lab"))
    with page.expect_request("**/ppe-jupyter/api/overview?wait=*"):
        page.get_by_role("tab", name="Clusters").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_event("requestfailed", lambda request: "/overview?wait=" in request.url):
        page.evaluate(SEEN, "hidden")
    page.clock.fast_forward("30:00")
    with page.expect_request("**/the-end"):
        page.evaluate("void fetch('the-end').catch(() => null)")
    assert not [url for url in asked if "ppe-jupyter/api" in url]
    with page.expect_request("**/ppe-jupyter/api/overview*"):
        page.evaluate(SEEN, "visible")
