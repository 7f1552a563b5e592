"""The image's cache: keyed by content, and safe when builds race, are killed or run out of disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from localcloud_nodes import until

from ppe_jupyter import errors
from ppe_jupyter.localcloud import image

HANG = """
echo "ppe test: mounted"
mkdir -p "$1/proc" && mount -t proc proc "$1/proc"
exec sleep 1000
"""
QUICK = """
echo "ppe test: building"
mkdir -p "$1" && touch "$1/made"
"""


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to put another build.sh in."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "bootstrap.sh").write_text("true\n")
    (folder / "build.sh").write_text(QUICK)
    monkeypatch.setattr(image, "HERE", folder)
    monkeypatch.setattr(image, "BOOTSTRAP", folder / "bootstrap.sh")
    return folder


def test_the_key_follows_the_content(recipe: Path) -> None:
    first = image.current_key()
    assert image.current_key() == first
    (recipe / "bootstrap.sh").write_text("false\n")
    assert image.current_key() != first


def test_the_stock_image_is_one_of_its_own(recipe: Path, tmp_path: Path) -> None:
    (recipe / "build.sh").write_text('mkdir -p "$1" && echo "$#" > "$1/arguments"')
    assert image.find_stock(tmp_path) is None
    stock = image.ensure_stock(tmp_path, report=lambda line: None)
    node = image.ensure(tmp_path, report=lambda line: None)
    assert [(each.rootfs / "arguments").read_text() for each in (stock, node)] == ["3\n", "4\n"]
    (recipe / "bootstrap.sh").write_text("false\n")
    assert image.find_stock(tmp_path) == stock, "bootstrap.sh is not in it"
    assert image.find(tmp_path) is None


def test_builds_that_race_build_once(recipe: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    threads = [
        threading.Thread(target=image.ensure, args=(tmp_path,), kwargs={"report": lines.append})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines.count("ppe test: building") == 1
    found = image.find(tmp_path)
    assert found is not None and (found.rootfs / "made").exists()


def test_a_killed_build_leaves_no_mount_and_the_next_cleans_up(recipe: Path, tmp_path: Path) -> None:
    (recipe / "build.sh").write_text(HANG)
    code = (
        "import sys, pathlib\nfrom ppe_jupyter.localcloud import image\n"
        f"image.HERE = pathlib.Path({str(recipe)!r})\nimage.BOOTSTRAP = image.HERE / 'bootstrap.sh'\n"
        f"image.ensure(pathlib.Path({str(tmp_path)!r}), report=lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "ppe test: mounted\n"
        os.kill(build.pid, signal.SIGKILL)
    assert list((tmp_path / "images").glob(".building-*"))
    until(lambda: str(tmp_path / "images") not in subprocess.getoutput("ps -ewwo args"))
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    (recipe / "build.sh").write_text(QUICK)
    image.ensure(tmp_path, report=lambda line: None)
    assert not list((tmp_path / "images").glob(".building-*"))


def test_a_failure_says_why_and_leaves_no_image(recipe: Path, tmp_path: Path) -> None:
    (recipe / "build.sh").write_text("echo 'cp: /x: No space left on device'; echo more; exit 1")
    with pytest.raises(errors.LocalCloudUnavailable, match=r"build\.log has it all.*No space left on device"):
        image.ensure(tmp_path, report=lambda line: None)
    assert image.find(tmp_path) is None
    assert not list((tmp_path / "images").glob(".building-*"))


def test_a_full_disk_is_said_before_the_build(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9))
    with pytest.raises(errors.LocalCloudUnavailable, match=r"needs 2\.5 GB, but .* has 1\.0 GB free"):
        image.ensure(tmp_path, report=lambda line: None)


def test_old_images_go_but_not_one_in_use(recipe: Path, tmp_path: Path) -> None:
    first = image.ensure(tmp_path, report=lambda line: None)
    config = tmp_path / "clouds/a/instances/i-1/config"
    config.parent.mkdir(parents=True)
    config.write_text(f"lxc.rootfs.path = overlay:{first.rootfs}:/upper\n")
    names = []
    for version in range(image.KEPT_IMAGES + 1):
        (recipe / "bootstrap.sh").write_text(f"echo {version}\n")
        names.append(image.ensure(tmp_path, report=lambda line: None).name)
    kept = [built.name for built in image.find_all(tmp_path)]
    assert kept == [first.name, *names[1:]]
