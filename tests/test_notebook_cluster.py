"""The notebook of a cluster's life, executed headless on the local cloud: every verb once, as a reader types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

if TYPE_CHECKING:
    from ppe_jupyter.manager import Manager

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "cluster.ipynb"


@pytest.mark.slow
def test_the_life_of_a_cluster_ends_without_remains(manager: Manager, tmp_path: Path) -> None:
    command = [sys.executable, str(NOTEBOOK.with_name("run.py")), str(NOTEBOOK), str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    ranks = [line.split()[-2] for line in said.splitlines() if line.startswith("── rank ")]
    assert len(ranks) == 6 and len(set(ranks)) == 3, "six ranks on three hosts"
    assert "life: parked · 1 of 3 nodes" in said
    assert "[1]  1  4  9 16 25 36" in said and '[1] "kept"' in said, "the workspace and the volume are back"
    assert {orphan.kind for orphan in manager.orphans(force=True)} <= {"key pair"}
    assert "life" not in {cluster.name for cluster in manager.clusters()} and not manager.volumes()


def test_it_is_committed_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
