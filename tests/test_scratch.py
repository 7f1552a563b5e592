"""/scratch on instance store: which disks are taken, on loop devices in place of NVMe ones."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ppe_jupyter.node.machine import scratch

Disk = Callable[..., str]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Makes an NVMe disk of a model, empty, and known to the code under test; its device file."""
    if os.geteuid():
        pytest.skip("loop devices are root's")
    dev, block, loops = tmp_path / "dev", tmp_path / "sys", []
    dev.mkdir()
    monkeypatch.setattr(scratch, "DEV", dev)
    monkeypatch.setattr(scratch, "SYS_BLOCK", block)
    monkeypatch.setattr(scratch, "FSTAB", tmp_path / "fstab")
    monkeypatch.setattr(scratch, "PLACE", tmp_path / "scratch")

    def make(name: str, model: str = scratch.MODEL, *, number: str = "") -> str:
        file = tmp_path / f"{name}.img"
        with file.open("wb") as opened:
            opened.truncate(32 << 20)
        command = ["losetup", "--find", "--show", str(file)]
        loop = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        loops.append(loop)
        device = Path(loop).stat().st_rdev
        os.mknod(dev / name, stat.S_IFBLK | 0o600, device)
        (block / name / "device").mkdir(parents=True)
        (block / name / "device" / "model").write_text(f"{model}   \n")
        (block / name / "dev").write_text(number or f"{os.major(device)}:{os.minor(device)}\n")
        return str(dev / name)

    yield make
    subprocess.run(["umount", str(tmp_path / "scratch")], capture_output=True, check=False)
    for loop in loops:
        subprocess.run(["losetup", "--detach", loop], check=True)


def quiet(text: str) -> None:
    """Nobody listens."""


def test_an_empty_disk_of_the_instance_is_formatted_once_and_mounted(disk: Disk) -> None:
    device = disk("nvme1n1")
    disk("nvme0n1", "Amazon Elastic Block Store")
    assert scratch.instance_store() == [device]
    assert scratch.make(quiet)
    assert scratch.make(quiet)
    place = scratch.PLACE
    assert stat.S_IMODE(place.stat().st_mode) == 0o1777
    assert scratch.FSTAB.read_text().split()[:3] == ["LABEL=ppe-scratch", str(place), "ext4"]
    (place / "kept").write_text("over a reboot")
    subprocess.run(["umount", str(place)], check=True)
    scratch.make(quiet)
    assert (place / "kept").read_text() == "over a reboot"


def test_a_disk_with_anything_on_it_is_left_alone(disk: Disk) -> None:
    device = disk("nvme1n1")
    subprocess.run(["mkfs.ext4", "-q", "-L", "mine", device], check=True)
    before = Path(device).read_bytes()
    assert not scratch.make(quiet)
    assert Path(device).read_bytes() == before
    assert stat.S_IMODE(scratch.PLACE.stat().st_mode) == 0o1777


def test_without_the_tools_it_is_on_the_root_disk(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk("nvme1n1")
    monkeypatch.setattr(scratch.volume.shutil, "which", lambda command: None)
    said: list[str] = []
    assert not scratch.make(said.append)
    assert said == [f"{scratch.PLACE} is on the root disk: {said[0].partition(': ')[2]}"]
    assert "the node has no blkid" in said[0]


def test_without_mdadm_it_is_the_first_disk(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    first = disk("nvme1n1")
    disk("nvme2n1")
    find = scratch.shutil.which
    monkeypatch.setattr(
        scratch.shutil,
        "which",
        lambda command, path=None: None if command == "mdadm" else find(command, path=path),
    )
    said: list[str] = []
    assert scratch.make(said.append)
    assert "is one of 2 disks" in said[0] and said[1] == f"formatting {first} for {scratch.PLACE}"


def test_a_disk_that_is_mounted_or_only_the_hosts_is_not_taken(disk: Disk, tmp_path: Path) -> None:
    mounted = disk("nvme1n1")
    subprocess.run(["mkfs.ext4", "-q", "-L", scratch.LABEL, mounted], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", mounted, str(elsewhere)], check=True)
    try:
        # In a container sysfs tells of the host's disks, whose names other devices may have.
        disk("nvme2n1", number="259:7\n")
        assert scratch.instance_store() == []
    finally:
        subprocess.run(["umount", str(elsewhere)], check=True)
