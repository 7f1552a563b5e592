"""Real parts for the tests: one local cloud, one manager, one launched cluster for the whole session.

Nothing here can reach AWS: the local cloud is set, AWS_* is dropped and the shared AWS files are /dev/null,
for this process and for every kernel and command that a test starts.

The local cloud has the things of several modules at once: a test looks at its own only, and a switch of the
endpoint's that it leaves behind is put back after its module.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from notebook_kernel import Kernel
    from playwright.sync_api import Page

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.sessions.session import RemoteR
    from ppe_jupyter.settings import Settings

# Two physical cores, cluster placement groups; 3 nodes make 6 slots.
INSTANCE_TYPE = "m5.xlarge"

# The files that take longest, in this order and before all others: if one came last, all would wait for it.
LONGEST = [
    f"test_{room}"
    for room in (
        *("launch", "mpi", "quickstart", "change", "sessions", "watchdog", "notebooks", "labextension"),
        *("transfer", "mpi_faults", "sidebar", "rstudio", "localcloud_volumes", "crash", "agent", "images"),
    )
]

STARTED: list[Endpoint] = []
MADE = pytest.StashKey[str]()

# How long an example takes tells of the machine's load.
hypothesis.settings.register_profile("ppe", deadline=None)
hypothesis.settings.load_profile("ppe")


def pytest_configure(config: pytest.Config) -> None:
    # A runner that was started in the background of a script ignores it, and so would the stop button.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    state = os.environ.get("PPE_STATE_DIR") or config.stash.setdefault(
        MADE, tempfile.mkdtemp(prefix="ppe-test-")
    )
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        state = str(Path(state) / worker)
    for name in [name for name in os.environ if name.startswith(("AWS_", "PPE_"))]:
        del os.environ[name]
    os.environ.update(
        PPE_CLOUD="local",
        PPE_STATE_DIR=state,
        PPE_CONFIG=str(Path(state) / "ppe-config"),
        AWS_SHARED_CREDENTIALS_FILE="/dev/null",
        AWS_CONFIG_FILE="/dev/null",
        AWS_EC2_METADATA_DISABLED="true",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {stem: place for place, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_unconfigure(config: pytest.Config) -> None:
    if made := config.stash.get(MADE, ""):
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def settings() -> Settings:
    from ppe_jupyter import settings

    return settings.load()


@pytest.fixture(scope="session")
def local_cloud(settings: Settings) -> Iterator[Endpoint]:
    """The endpoint of the session's own local cloud; taken down at the end."""
    from ppe_jupyter import localcloud

    localcloud.prepare(settings)
    STARTED.append(localcloud.ensure(settings))
    yield STARTED[-1]
    STARTED.clear()
    localcloud.down(settings)


@pytest.fixture(scope="module", autouse=True)
def switches() -> Iterator[None]:
    """After each module the endpoint's faults and capacities are as at its start."""
    yield
    if STARTED:
        from ppe_jupyter.localcloud import hooks

        hooks.reset(STARTED[-1])


@pytest.fixture(scope="session")
def manager(local_cloud: Endpoint, settings: Settings) -> Manager:
    from ppe_jupyter.manager import Manager

    return Manager(settings)


@pytest.fixture(scope="session")
def cluster(manager: Manager) -> Iterator[Cluster]:
    """Three nodes of two slots each, shared by the session: leave it as you found it."""
    import ppe_jupyter as ppe

    cluster = manager.launch(ppe.ClusterSpec(name="test", nodes=3, instance_type=INSTANCE_TYPE))
    yield cluster
    cluster.terminate()


@pytest.fixture
def r(cluster: Cluster) -> Iterator[RemoteR]:
    """The cluster's R session with an empty workspace."""
    session = cluster.r()
    session.eval("rm(list = ls(all.names = TRUE)); try(ppe.last(), silent = TRUE); invisible(NULL)")
    yield session


@pytest.fixture(scope="module")
def bare_kernel() -> Iterator[Kernel]:
    """A notebook kernel with the extension loaded, and no cluster needed."""
    import nbformat
    from nbclient import NotebookClient
    from notebook_kernel import Kernel

    client = NotebookClient(nbformat.v4.new_notebook(), timeout=120, allow_errors=True)
    with client.setup_kernel():
        kernel = Kernel(client)
        assert kernel.cell("%load_ext ppe_jupyter") == []
        yield kernel


@pytest.fixture
def kernel(bare_kernel: Kernel, r: RemoteR) -> Kernel:
    """With a launched cluster and an empty R workspace."""
    return bare_kernel


@pytest.fixture
def lab(tmp_path: Path, local_cloud: Endpoint) -> Iterator[Callable[[str], str]]:
    """Addresses in a JupyterLab of its own, which serves tmp_path/notebooks, on the tests' local cloud."""
    from browser import jupyterlab

    with jupyterlab(tmp_path) as (_, address):
        yield address


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a headless browser; what a test waits for has a minute."""
    from browser import SOON, browser_page

    with browser_page() as page:
        from playwright.sync_api import expect

        page.set_default_timeout(SOON)
        expect.set_options(timeout=SOON)
        yield page
