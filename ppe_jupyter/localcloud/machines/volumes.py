"""EBS volumes: sparse files that outlive instances, and the disks that they are in a container.

A volume at a running container is a loop device that its device group allows, named as Nitro instances name
EBS volumes (https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html): /dev/nvme1n1 and on, with a
link in /dev/disk/by-id. One lock for each container keeps mounting and detaching apart. Knows nothing of records.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import network
from .container import Container, Disk
from .mounting import ATTRIBUTES

GIB = 1 << 30
MOUNT_SECONDS = 60.0
FILE_SYSTEMS = ("ext4", "ext3", "ext2")  # mkfs.xfs and mkfs.btrfs would need sys_admin
IDLE_OPTIONS = {
    "defaults",
    "rw",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "relatime",
    "discard",
    "errors=remount-ro",
}
NO_FILE_SYSTEM = "wrong fs type, bad option, bad superblock on /dev/{}, missing codepage or helper program"


@dataclass(frozen=True)
class Wish:
    """What the record says of a volume at an instance; ``device`` is its name there, such as nvme1n1."""

    volume_id: str
    device: str
    leaving: bool = False
    forced: bool = False


class Volumes:
    """The files of one local cloud's volumes, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, volume_id: str, gib: int) -> None:
        """An empty volume, which takes no space until it is written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file(volume_id).open("xb") as file:
            file.truncate(gib * GIB)

    def delete(self, volume_id: str) -> None:
        """Remove what it holds; safe to repeat."""
        self._file(volume_id).unlink(missing_ok=True)

    def open(self, wish: Wish) -> Disk:
        """Its loop device, the one it has if there is one. Raises LocalCloudUnavailable."""
        file = str(self._file(wish.volume_id))
        loop = network.run("losetup", "--find", "--show", "--nooverlap", file).strip()
        number = Path(loop).stat().st_rdev
        return Disk(wish.volume_id, wish.device, loop, (os.major(number), os.minor(number)))

    def _file(self, volume_id: str) -> Path:
        return self._folder / f"{volume_id}.img"


def sweep(folder: Path) -> None:
    """Free the loop devices of every volume under ``folder``: those of a daemon that is dead."""
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if path.read_text().startswith(f"{folder}/"):
                _free(f"/dev/{path.parts[3]}")


def _free(loop: str) -> None:
    """Let it go, at once or with the last user's end."""
    subprocess.run(["losetup", "--detach", loop], capture_output=True, check=False)


class Disks:
    """The volumes of one container."""

    def __init__(self, container: Container, volumes: Volumes) -> None:
        self._container, self._volumes = container, volumes
        self._lock = threading.Lock()
        self._plugged: dict[str, Disk] = {}

    def prepare(self, wishes: Iterable[Wish]) -> list[Disk]:
        """Those that it starts with."""
        with self._lock:
            self._plugged = {wish.volume_id: self._volumes.open(wish) for wish in wishes if not wish.leaving}
            return list(self._plugged.values())

    def release(self) -> None:
        """It has ended, and its mounts with it."""
        with self._lock:
            for disk in self._plugged.values():
                _free(disk.loop)
            self._plugged.clear()

    def replug(self) -> None:
        """It has (re)started: its device group allows no volume yet."""
        with self._lock:
            for disk in self._plugged.values():
                self._plug(disk)

    def settle(self, wish: Wish) -> str:
        """Plug a volume in, or pull it out unless it is mounted: the attachment's state then, as EC2 has it."""
        with self._lock:
            disk = self._plugged.get(wish.volume_id)
            if not wish.leaving:
                if disk is None:
                    disk = self._volumes.open(wish)
                    try:
                        self._plug(disk)
                    except Exception:
                        _free(disk.loop)
                        raise
                    self._plugged[wish.volume_id] = disk
                    self._container.write_hook(self._plugged.values())
                return "attached"
            if disk is not None:
                places = self._places(disk)
                if places and not wish.forced:
                    return "busy"
                for place in reversed(places):
                    self._ask("umount", target=place, forced=True)
                del self._plugged[wish.volume_id]
                self._container.write_hook(self._plugged.values())
                self._unplug(disk)
            return "detached"

    def mount(self, *, source: str, target: str, type: str, options: str) -> str:
        """Mount a volume, named by its device, UUID= or LABEL=, at a path inside; why not, or an empty string."""
        chosen = [word for word in options.split(",") if word and word not in IDLE_OPTIONS]
        unknown = [word for word in chosen if word not in (*ATTRIBUTES, "ro") and not word.startswith("x-")]
        if unknown:
            return f"the local cloud cannot mount with the option {unknown[0]}"
        with self._lock:
            for disk in self._plugged.values():
                facts = _file_system(disk)
                if source in (disk.name, f"UUID={facts.get('UUID')}", f"LABEL={facts.get('LABEL')}"):
                    break
            else:
                return f"special device {source} does not exist"
            kind = facts.get("TYPE", "")
            if kind not in FILE_SYSTEMS or type not in ("auto", kind):
                return NO_FILE_SYSTEM.format(disk.name)
            where = {"device": os.makedev(*disk.number), "name": disk.name}
            return self._ask("mount", target=target, type=kind, options=chosen, **where)

    def umount(self, *, target: str, lazy: bool) -> str:
        """Unmount a volume by the path inside; why not, or an empty string."""
        with self._lock:
            return self._ask("umount", target=target, lazy=lazy)

    def _ask(self, what: str, **wish: Any) -> str:
        devices = [os.makedev(*disk.number) for disk in self._plugged.values()]
        with self._container.process() as process:
            namespace = os.open("ns/mnt", os.O_RDONLY, dir_fd=process)
            try:
                words = {"what": what, "namespace": namespace, "devices": devices, **wish}
                done = subprocess.run(
                    [sys.executable, "-m", f"{__package__}.mounting", json.dumps(words)], pass_fds=[namespace],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOUNT_SECONDS, check=True,
                )  # fmt: skip
            finally:
                os.close(namespace)
        error: str = json.loads(done.stdout)["error"]
        return error

    def _places(self, disk: Disk) -> list[str]:
        """Where it is mounted inside, oldest first."""
        with contextlib.suppress(ProcessLookupError), self._container.process() as process:
            rows = [line.split() for line in _read("mountinfo", process).splitlines()]
            paths = [row[4] for row in rows if row[2] == "{}:{}".format(*disk.number)]
            return [path.encode().decode("unicode_escape").encode("latin-1").decode() for path in paths]
        return []

    def _plug(self, disk: Disk) -> None:
        """Into the running container; the hook does it at a restart."""
        with contextlib.suppress(ProcessLookupError), self._container.process() as process:
            with _names(disk, process) as ((dev, name), (by_id, link)):
                _unlink(name, dev)
                os.mknod(name, stat.S_IFBLK | 0o660, os.makedev(*disk.number), dir_fd=dev)
                _unlink(link, by_id)
                os.symlink(f"../../{name}", link, dir_fd=by_id)
            self._container.set_device("allow", disk)

    def _unplug(self, disk: Disk) -> None:
        with contextlib.suppress(ProcessLookupError), self._container.process() as process:
            self._container.set_device("deny", disk)
            with _names(disk, process) as names:
                for folder, name in names:
                    _unlink(name, folder)
        _free(disk.loop)


@contextlib.contextmanager
def _names(disk: Disk, process: int) -> Iterator[list[tuple[int, str]]]:
    """Its names in the container's /dev, each with its directory, opened without following a link made inside."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with contextlib.ExitStack() as opened:
        folders = [os.open("root/dev", flags, dir_fd=process)]
        opened.callback(os.close, folders[0])
        for step in ("disk", "by-id"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(step, dir_fd=folders[-1])
            folders.append(os.open(step, flags, dir_fd=folders[-1]))
            opened.callback(os.close, folders[-1])
        yield [(folders[0], disk.name), (folders[-1], disk.link)]


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _file_system(disk: Disk) -> dict[str, str]:
    """What blkid finds on it."""
    command = ["blkid", "--probe", "--output", "export", disk.loop]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _read(name: str, process: int) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=process)) as file:
        return file.read()
