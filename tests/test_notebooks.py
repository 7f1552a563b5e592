"""The notebooks, executed headless on the local cloud as a reader runs them, one after the other.

They begin with the same launch, of ``lab`` or ``trio``; those that end with no more than ``%ppe_terminate`` of it are
run up to that, and find the cluster that is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from test_readme import policy

from ppe_jupyter.localcloud import hooks
from ppe_jupyter.verbs import of

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager

Execute = Callable[..., str]
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ENDS = ("%ppe_terminate lab --yes", "%ppe_terminate trio --yes")
# What cloudRmpi's and rreval's users called: the manual, and what NAMESPACE exports of it.
ANCESTORS = """ppe.launchNetworkManager ppe.getNetworkNames ppe.getRunningNetworkNames ppe.getNetworkStatus
ppe.getMasterNodeURL ppe.startClient ppe.showClients re upo scpUpload scpDownload ppe.connectToRStudio
ppe.disconnectRStudio ppe.closeClient ppe.shutdown ppe.terminateNetwork"""


def cells(name: str) -> list[nbformat.NotebookNode]:
    return list(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells)


def shown(cell: nbformat.NotebookNode) -> str:
    """What a reader sees below a cell, as text."""
    said = []
    for output in cell.get("outputs", ()):
        said.append(output.get("text", "") + output.get("data", {}).get("text/plain", ""))
        said += output.get("traceback", ())
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(said))


def run(name: str, folder: Path, *, to_the_end: bool = False) -> str:
    """Run the notebook; all that it shows. A cell that is there to show an error must show one of ours."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert any(end in cell.source for cell in notebook.cells for end in ENDS)
    if not to_the_end:
        assert notebook.cells.pop().source in ENDS
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(folder)}})
    client.execute()
    for cell in notebook.cells:
        if "raises-exception" in cell.metadata.get("tags", ()):
            assert any(output.output_type == "error" for output in cell.outputs), cell.source
            assert "ppe_jupyter" not in shown(cell), "frames of ours"
    return "\n".join(map(shown, notebook.cells))


@pytest.fixture(scope="module")
def execute(manager: Manager) -> Iterator[Execute]:
    """``run``; the cluster that the notebooks share is gone afterwards."""
    yield run
    for cluster in manager.clusters():
        if cluster.name in ("lab", "later", "trio"):
            cluster.terminate()


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_is_committed_without_outputs(path: Path) -> None:
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells(path.stem))


def test_data_both_ways(execute: Execute, tmp_path: Path) -> None:
    said = execute("data", tmp_path)
    assert "identical: TRUE" in said
    assert "column 'id'" in said
    assert {path.name for path in tmp_path.iterdir()} == {"fit.rds", "trial.csv", "esr.pdf"}


@pytest.mark.slow
def test_python_with_mpi4py(execute: Execute, tmp_path: Path) -> None:
    said = execute("mpi4py", tmp_path)
    assert "800,000 rows on 4 ranks" in said and "4 ranks on 2 nodes" in said
    assert "these data are not for me" in said


@pytest.mark.slow
def test_a_monte_carlo_goes_on_and_is_that_of_one_process(execute: Execute, tmp_path: Path) -> None:
    said = execute("monte-carlo", tmp_path)
    assert "12,000 samples on 6 ranks" in said and "90,000 samples on 6 ranks" in said
    assert "the same counts as one process has: True" in said


@pytest.mark.slow
def test_r_and_python_agree(execute: Execute, tmp_path: Path) -> None:
    said = execute("r-and-python", tmp_path)
    assert said.count(": 500 permutations") == 6
    assert "every permutation agrees: True" in said


def test_rstudio_says_what_is_missing(execute: Execute, tmp_path: Path) -> None:
    said = execute("rstudio", tmp_path)
    assert "RStudio Server is not installed on this image" in said
    assert "no JupyterLab is known here" in said and "no RStudio is connected" in said


@pytest.mark.slow
def test_parallel_r(execute: Execute, tmp_path: Path) -> None:
    said = execute("rmpi-and-snow", tmp_path)
    assert "the same on the workers and on the master: TRUE" in said
    assert len(set(re.findall(r"ip-[\d-]+ slots=2", said))) == 2


@pytest.mark.slow
def test_bootstrap(execute: Execute, tmp_path: Path) -> None:
    said = execute("bootstrap", tmp_path)
    assert len(re.findall(r"^the same .*: TRUE", said, re.MULTILINE)) == 3
    assert "rank 1 on" in said and "was lost" in said
    assert re.search(r"^\d+ of 2000 are known", said, re.MULTILINE)
    assert "of 2000 results are there already" in said


class TestFromCloudRmpi:
    """The table of what is called how now."""

    def table(self) -> list[tuple[str, str]]:
        rows = re.findall(r"^\| (.*) \| (.*) \|$", cells("from-cloudRmpi")[0].source, re.MULTILINE)
        return rows[1:]

    def test_it_has_every_function_of_the_ancestors(self) -> None:
        old = " ".join(row[0] for row in self.table())
        assert [
            name for name in ANCESTORS.split() if not re.search(rf"(?<![\w.]){re.escape(name)}\(", old)
        ] == []

    def test_each_of_its_verbs_exists_and_is_run(self) -> None:
        new = set(re.findall(r"%+(\w+)", " ".join(row[1] for row in self.table())))
        typed = "\n".join(cell.source for cell in cells("from-cloudRmpi")[1:] if cell.cell_type == "code")
        assert new <= {verb.magic for verb in of("magic").values()}
        assert new <= set(re.findall(r"^(?:\w+ = )?%+(\w+)", typed, re.MULTILINE))

    @pytest.mark.slow
    def test_it_runs(self, execute: Execute, manager: Manager, tmp_path: Path) -> None:
        said = execute("from-cloudRmpi", tmp_path)
        assert 'could not find function "lss"' in said and "key_name" in said
        assert not manager.volumes()


@pytest.mark.slow
def test_storage_outlives_a_cluster(execute: Execute, manager: Manager, tmp_path: Path) -> None:
    said = execute("storage", tmp_path, to_the_end=True)
    assert "228 patients, as they were saved" in said
    assert not manager.volumes()
    assert not {"lab", "later"} & {cluster.name for cluster in manager.clusters()}


@pytest.mark.slow
def test_cross_validation_with_future(execute: Execute, tmp_path: Path) -> None:
    said = execute("cross-validation", tmp_path, to_the_end=True)
    assert "40 fits on 6 slots" in said
    assert len(re.findall(r"ip-[\d-]+", said)) >= 3 and "chosen:" in said
    assert said.count("identical: TRUE") == 2


@pytest.mark.slow
def test_costs_and_limits(execute: Execute, manager: Manager, tmp_path: Path) -> None:
    said = execute("costs-and-limits", tmp_path, to_the_end=True)
    assert "setosa" in said, "R's workspace is back"
    assert len(re.findall(r"── rank ", said)) == 6, "two slots on each of three nodes"
    assert "lab is terminated; nothing of it is left" in said
    assert {orphan.kind for orphan in manager.orphans(force=True)} <= {"key pair"}


def test_what_was_called_meanwhile_is_in_the_policy(local_cloud: Endpoint) -> None:
    allowed = {action.partition(":")[2] for each in policy()["Statement"] for action in each["Action"]}
    assert set(hooks.calls(local_cloud)) - {""} <= allowed
