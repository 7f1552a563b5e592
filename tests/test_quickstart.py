"""The quickstart notebook, executed headless as `make demo` does it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ppe_jupyter.manager import Manager

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.mark.timeout(900)
def test_the_quickstart_runs_on_three_nodes_and_leaves_nothing(manager: Manager, tmp_path: Path) -> None:
    page = tmp_path / "quickstart.html"
    command = [sys.executable, str(NOTEBOOKS / "run.py"), str(NOTEBOOKS / "quickstart.ipynb"), str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "the same numbers to the last bit: TRUE" in said
    ranks = [line.split()[-2] for line in said.splitlines() if line.startswith("── rank ")]
    assert len(ranks) == 6 and len(set(ranks)) == 3, "six ranks on three hosts"
    assert "[plot: image/svg+xml" in said
    assert "demo is terminated; nothing of it is left" in said
    assert not [cluster for cluster in manager.clusters() if cluster.name == "demo"]
    assert "Hazard ratio" in page.read_text(encoding="utf-8")
