"""A cluster that is had again by its lock, typed in full, with archives that have gone on meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archives import Archives, served

from ppe_jupyter.cloud import lock_file
from ppe_jupyter.cloud.software import KINDS, Version

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.manager import Manager

# The versions on a node: Debian's, R's and Python's.
HAS = """echo has $(cat /usr/share/ppetiny) $(Rscript -e 'cat(as.character(packageVersion("ppetiny")))') \\
  $(~/.ppe/venv/bin/python -c 'import importlib.metadata as m; print(m.version("ppetiny"))')"""


@pytest.fixture
def archives(manager: Manager, bare_kernel: Kernel, tmp_path: Path) -> Iterator[Archives]:
    """Archives that the notebook's settings name; its cells have time to launch and to install."""
    bare_kernel.client.timeout = 900
    with served(tmp_path / "archives", manager._caller_address()) as found:
        settings = {"cran_url": f"{found.url}/cran", "debian_snapshot": f"{found.url}/debian/then"}
        for name, value in settings.items():
            bare_kernel.cell(f"%ppe_config {name} {value}")
        yield found
        for name in settings:
            bare_kernel.cell(f"%ppe_config {name} ''")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two launches, installing three times
def test_a_cluster_is_had_again_by_its_lock_and_so_are_nodes_that_come_later(
    manager: Manager, bare_kernel: Kernel, archives: Archives, tmp_path: Path
) -> None:
    def shown(line: str) -> str:
        return str(bare_kernel.cell(line))

    def there() -> list[str]:
        return re.findall(r"has (.*)", bare_kernel.cell(f"%%remote_sh --all --cluster story\n{HAS}").stdout)

    archives.debian("now", "1.0")
    archives.cran("1.0")
    archives.pypi("1.0")
    (script := tmp_path / "boot.sh").write_text(archives.bootstrap)
    spec, lock = tmp_path / "story.toml", tmp_path / "story.lock.toml"
    try:
        shown(f"%ppe_launch story --nodes 2 --type m5.large --bootstrap {script} --save {spec}")
        shown("%ppe_install --apt ppetiny --r ppetiny --py ppetiny")
        shown(f"%ppe_session_info --lock {lock}")
        noted = lock_file.load(lock).packages
        assert [noted[kind]["ppetiny"] for kind in KINDS] == [
            Version("1.0", "Debian"), Version("1.0", "CRAN"), Version("1.0", "PyPI"),
        ]  # fmt: skip
        shown("%ppe_terminate story --yes")

        archives.debian("now", "2.0")
        archives.debian("then", "1.0")
        archives.cran("1.0", "2.0")
        archives.pypi("1.0", "2.0")
        assert "has the software of its lock" in shown(f"%ppe_launch --spec {spec} --locked")
        assert there() == ["1.0 1.0 1.0"] * 2
        shown("%ppe_resize story --nodes 3 --yes")
        assert there() == ["1.0 1.0 1.0"] * 3

        archives.debian("then")
        archives.pypi("2.0")
        shown("%ppe_resize story --nodes 2 --yes")
        said = shown("%ppe_resize story --nodes 3 --yes")
        assert "apt ppetiny: wanted 1.0, there is none on node 2 (apt has 2.0)" in said
    finally:
        manager.terminate("story")
