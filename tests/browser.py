"""A real JupyterLab, and a real browser to look at it: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = shutil.which("chromium")
# The browser and the lab talk to nobody but each other.
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-sync",
]
LAB_ARGUMENTS = [
    "--no-browser",
    "--allow-root",
    "--port=0",
    "--LabApp.extension_manager=readonly",
]
NEWS = "@jupyterlab/apputils-extension:announcements"


def notebook(sources: Iterable[str]) -> dict[str, Any]:
    """A notebook of these cells, as JSON."""
    empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**empty, "id": str(index), "source": source} for index, source in enumerate(sources)]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": python, "cells": cells}


@contextlib.contextmanager
def jupyterlab(place: Path, *, base_url: str = "/") -> Iterator[tuple[Path, Callable[[str], str]]]:
    """A JupyterLab with empty settings: its folder of notebooks, and what makes a path in it an address."""
    folder = place / "notebooks"
    folder.mkdir()
    settings = place / "config" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"disabledExtensions": {NEWS: True}}))
    token = secrets.token_hex()
    places = {f"JUPYTER_{kind.upper()}_DIR": str(place / kind) for kind in ("config", "data", "runtime")}
    environment = {**os.environ, **places, "JUPYTER_TOKEN": token}
    own = [f"--ServerApp.root_dir={folder}", f"--ServerApp.base_url={base_url}"]
    command = [sys.executable, "-m", "jupyter", "lab", *LAB_ARGUMENTS, *own]
    with (place / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        root = _address(server, place)
        yield folder, lambda path: f"{root}{path}?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            # It has stopped serving, and waits for an idle AnyIO worker thread that nobody ends.
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], place: Path, *, within: float = 60) -> str:
    """The URL that a Jupyter server writes down once it listens."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and server.poll() is None:
        for file in (place / "runtime").glob(f"jpserver-{server.pid}.json"):
            if text := file.read_text():
                return str(json.loads(text)["url"])
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start: {(place / 'log').read_text()}")


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
