"""A real JupyterLab, and a real browser to look at it: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_lab import jupyter_lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SOON = 60_000  # milliseconds
CHROMIUM = shutil.which("chromium")
# The browser and the lab talk to nobody but each other.
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-sync",
]


def notebook(sources: Iterable[str]) -> dict[str, Any]:
    """A notebook of these cells, as JSON."""
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**empty, "id": str(index), "source": source} for index, source in enumerate(sources)]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": python, "cells": cells}


@contextlib.contextmanager
def jupyterlab(place: Path, **options: Any) -> Iterator[tuple[Path, Callable[[str], str]]]:
    """A JupyterLab with empty settings: its folder of notebooks, and what makes a path in it an address."""
    with jupyter_lab(place, **options) as lab:
        yield place / "notebooks", lab.page


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    """A page of a headless browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("needs the Debian package chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=BROWSER_ARGUMENTS)
        yield browser.new_page()
        browser.close()


def editors(page: Page) -> Locator:
    """The code cells' editors."""
    return page.locator(".jp-Notebook .jp-CodeCell .cm-content")
