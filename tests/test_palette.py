"""The commands of the palette in a real lab, each typed and looked at; and the tile of a sole cluster's RStudio."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from browser import editors
from many_clusters import many_clusters
from test_rstudio_browser import shot

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings


TRIES, TRY = 10, 5_000  # milliseconds


def command(page: Page, label: str) -> None:
    """Typed into the palette, and chosen; a kernel that starts closes it again."""
    from playwright.sync_api import Error, expect

    palette = page.locator("#command-palette")
    found = palette.locator(".lm-CommandPalette-item", has_text=label)
    for _ in range(TRIES):
        page.keyboard.press("Control+Shift+C")
        with contextlib.suppress(Error, AssertionError):
            palette.locator("input").fill(label, timeout=TRY)
            expect(palette.locator(".lm-CommandPalette-item")).to_have_count(1, timeout=TRY)
            shot(page, f"palette {label}")
            found.click(timeout=TRY)
            return
        page.keyboard.press("Escape")
    pytest.fail(f"the palette did not offer {label}")


@pytest.mark.slow
def test_each_command_does_what_it_says(
    lab: Callable[[str], str], page: Page, local_cloud: Endpoint, settings: Settings
) -> None:
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 1400, "height": 1000})
    with many_clusters(local_cloud, settings, 1):
        page.goto(lab("lab"))
        expect(page.locator(".jp-ppe-status")).to_contain_text("1 cluster")
        command(page, "Show clusters")
        expect(page.get_by_role("listitem", name="Cluster many-0")).to_be_visible()
        command(page, "Launch an MPI cluster…")
        expect(page.get_by_role("form", name="New cluster")).to_be_visible()
        command(page, "Connect the notebook to a cluster…")
        expect(editors(page).first).to_have_text("%load_ext ppe_jupyter%ppe_connect many-0")
        command(page, "Terminate a cluster…")
        review = page.locator(".jp-Dialog", has_text="Terminate many-0?")
        expect(review).to_contain_text("cannot be undone", timeout=60_000)
        review.get_by_role("button", name="Cancel").click()
        command(page, "Open RStudio of a cluster…")
        tab = page.frame_locator(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-ServerProxy iframe")
        heading = tab.get_by_role("heading")
        expect(heading).to_have_text("RStudio on many-0 cannot be opened", timeout=60_000)
        command(page, "New cluster notebook")
        expect(page.locator(".cm-content", has_text="%ppe_launch --nodes 2")).to_be_visible()

        page.get_by_role("tab", name="Launcher").click()
        page.locator(".jp-LauncherCard", has_text="RStudio (cluster)").click()
        expect(page.get_by_role("tab", name="RStudio (cluster)")).to_be_visible()
        expect(heading).to_have_text("RStudio on many-0 cannot be opened", timeout=60_000)
