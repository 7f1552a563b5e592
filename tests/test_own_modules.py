"""Modules of the user's own that change while ranks have them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from localcloud_nodes import until
from test_team import run

from ppe_jupyter.node.ranks.own_modules import OwnModules

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster

OTHERS = "$(sed 1d ompi-hostfile | cut -d' ' -f1)"
UPLOAD = f"cat > mine_again.py; for node in {OTHERS}; do scp -q mine_again.py $node:; done"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (".", ".ppe", "v/site-packages"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.syspath_prepend(tmp_path / folder)
    return tmp_path


def test_only_the_users_own_modules_are_read_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        home / "one_of_mine.py",
        home / ".ppe" / "one_of_ours.py",
        home / "v/site-packages/one_packaged.py",
    ]
    for file in files:
        file.write_text("value = 1\n")
    modules = OwnModules()
    for file in files:
        monkeypatch.setitem(sys.modules, file.stem, importlib.import_module(file.stem))
    assert modules.changed() == []

    def changed() -> list[str]:  # the clock of files is a few milliseconds behind
        for file in files:
            file.write_text("value = 2  # another length\n")
        return modules.changed()

    assert until(changed) == ["one_of_mine"]
    assert modules.changed() == [], "it was told"
    modules.forget()
    assert [importlib.import_module(file.stem).value for file in files] == [2, 1, 1]
    files[0].unlink()
    assert modules.changed() == []


def test_a_map_calls_what_was_uploaded_last(cluster: Cluster) -> None:
    def value(i: int) -> str:
        import mine_again  # type: ignore[import-not-found]

        return str(mine_again.value)

    for text in ("one", "another"):
        cluster.ssh().run(UPLOAD, stdin=f"value = {text!r}\n".encode())
        assert set(cluster.map(value, range(12), progress=False)) == {text}


@pytest.mark.slow
def test_ranks_that_keep_an_old_module_say_so(cluster: Cluster) -> None:
    cluster.ssh().run(UPLOAD, stdin=b"value = 1\n")
    run(cluster, "import mine_again")
    cluster.ssh().run(UPLOAD, stdin=b"value = 'new'\n")
    told = run(cluster, "print(mine_again.value)")
    assert told.count("mine_again: changed since these ranks imported it; %%remote_py --fresh") == 1
    assert run(cluster, "print(mine_again.value)") == "1\n1\n"
