"""The README's picture of the panel: a real cluster in a real lab, photographed by a browser.

usage: python tests/panel_picture.py notebooks/panel.png [dark]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from browser import browser_page, editors, jupyterlab, notebook

import ppe_jupyter as ppe

if TYPE_CHECKING:
    from playwright.sync_api import Page

CELL = "%load_ext ppe_jupyter\n%ppe_panel"
THEMES = "config/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
NAME = "brisk-otter"
SSH = "ssh -i ~/.ppe/keys/ppe-ann -o …"


def photograph(target: Path, *, dark: bool = False, width: int = 1240) -> None:
    """Launch, open the panel, take the picture, terminate."""
    manager = ppe.Manager()
    manager.launch(ppe.ClusterSpec(name=NAME, nodes=3, instance_type="m5.xlarge", max_hours=8, budget_usd=10))
    try:
        with tempfile.TemporaryDirectory() as place:
            if dark:
                themes = Path(place, THEMES)
                themes.parent.mkdir(parents=True)
                themes.write_text('{"theme": "JupyterLab Dark"}')
            _visit(Path(place), target, width)
    finally:
        manager.terminate(NAME)


def _visit(place: Path, target: Path, width: int) -> None:
    with jupyterlab(place) as (folder, address), browser_page() as page:
        (folder / "panel.ipynb").write_text(json.dumps(notebook([CELL])))
        _open(page, address("lab/tree/panel.ipynb"), width)
        target.parent.mkdir(parents=True, exist_ok=True)
        page.locator(".ppe-panel").first.screenshot(path=target)


def _open(page: Page, address: str, width: int) -> None:
    """The panel with its cluster opened, all that the master says there."""
    page.set_viewport_size({"width": width, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(address)
    editors(page).first.click()
    page.keyboard.press("Control+b")
    page.keyboard.press("Control+Enter")
    row = page.locator(".ppe-row", has_text=NAME)
    row.locator("button.ppe-opener").click()
    row.get_by_text("idle").first.wait_for()
    row.locator("input[type=text]").last.evaluate(f"field => {{ field.value = '{SSH}'; }}")  # not whose files
    page.mouse.move(0, 0)


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), dark="dark" in sys.argv[2:])
