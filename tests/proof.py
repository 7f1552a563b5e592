"""A notebook that proves something, at work: its own cells in a kernel, and what goes wrong in the middle of one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from localcloud_nodes import pull_the_plug, until
from nbclient import NotebookClient
from notebook_kernel import Kernel, Outputs
from test_line_faults import RESET
from test_sessions import cut_off

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# A task says that it has begun, and ends when what is to go wrong has gone wrong: files that all nodes have.
BEGUN, DONE = "shared/begun", "shared/done"


@contextmanager
def kernel_in(folder: Path) -> Iterator[Kernel]:
    """A new one; it may be killed."""
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=180, allow_errors=True, resources=resources)
    with client.setup_kernel():
        yield Kernel(client)


class Proof:
    """The notebook up to its first cell with ``words``, on the cluster that it launches."""

    def __init__(self, name: str, manager: Manager, folder: Path, *, ready: str) -> None:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        self._sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        self._folder, self._stack = folder, ExitStack()
        self.kernel = self._stack.enter_context(kernel_in(folder))
        for source in self._sources[: self._sources.index(self.source(ready)) + 1]:
            self.runs(source)
        self.cluster: Cluster = manager.cluster(
            self.source("%ppe_launch").split("%ppe_launch ")[1].split()[0]
        )

    def close(self) -> None:
        self._stack.close()
        self.cluster.terminate()

    def source(self, words: str) -> str:
        """The notebook's cell that has these words."""
        [found] = [source for source in self._sources if words in source]
        return found

    def runs(self, source: str) -> Outputs:
        """The cell's outputs; it must not fail."""
        shown = self.kernel.cell(source)
        assert shown.error is None, shown
        return shown

    def again(self, *words: str) -> list[Outputs]:
        """Run the notebook's cells with these words."""
        return [self.runs(self.source(each)) for each in words]

    def disturbed(self, source: str, fault: Callable[[], Any]) -> Outputs:
        """The outputs of the cell, in the middle of which this happens."""
        self._shell(f"rm -f {BEGUN} {DONE}")
        with ThreadPoolExecutor(1) as pool:
            happens = pool.submit(self._in_the_middle, fault)
            shown = self.kernel.cell(source)
            happens.result()
        return shown

    def _in_the_middle(self, fault: Callable[[], Any]) -> None:
        try:
            self._shell(f"until [ -e {BEGUN} ]; do sleep 0.05; done")
            fault()
        finally:
            self._shell(f"touch {DONE}")

    def _shell(self, command: str) -> str:
        return self.cluster.ssh().run(command, timeout=60).stdout.decode()

    # --- What goes wrong

    def a_node_is_lost(self) -> str:
        """Its name."""
        lost = self.cluster.refresh().nodes[2]
        pull_the_plug(lost.instance_id)
        return lost.private_dns.split(".")[0]

    @contextmanager
    def a_cut_line(self) -> Iterator[Callable[[], None]]:
        """What cuts the kernel's lines to the master; new ones can be made."""
        with ExitStack() as cuts:
            yield lambda: [cuts.enter_context(cut_off(port, RESET)) for port in self._ports()] and None

    def _ports(self) -> list[str]:
        command = ["ss", "-Htnp", "state", "established", "dst", f"{self.cluster.ssh().target.host}:22"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        mine = [line for line in listed if f"pid={self._pid}," in line]
        return [line.split()[2].rpartition(":")[2] for line in mine]

    def kernel_dies(self, source: str) -> None:
        """In the middle of the cell. Another is there afterwards, and nothing that the first one ran on the nodes."""
        before = self._programs()
        self._shell(f"rm -f {BEGUN} {DONE}")
        self.kernel.client.kc.execute(source)
        self._in_the_middle(lambda: os.killpg(self._pid, signal.SIGKILL))
        self._stack.close()
        self.kernel = self._stack.enter_context(kernel_in(self._folder))
        self.runs("%load_ext ppe_jupyter")
        self.runs(f"%ppe_connect {self.cluster.name}")
        self.runs("%remote_jobs")
        until(lambda: not self._programs() - before)

    @property
    def _pid(self) -> int:
        kernel: Any = self.kernel.client.km
        return int(kernel.provisioner.pid)

    def _programs(self) -> Counter[str]:
        """What runs on all nodes, by name."""
        names = [node.private_dns.split(".")[0] for node in self.cluster.nodes]
        return Counter(self._shell("; ".join(f"ssh {name} ps -eo comm=" for name in names)).split())
