"""Mounts an attached volume inside a container from outside, since nothing in there may mount. Run by volumes.py.

A process of its own, because it enters the container's mount namespace; all that it takes from in there are
path names, resolved by the kernel under the container's root. The file system is made into a mount in a private
namespace where the device has the name that the container knows, and then moved in. Only the container's own
root and its volumes can be mounted upon, so that nothing hides or uncovers what LXC has mounted. Whoever is root
in a container writes what the kernel's file system reads here: as on any machine with a USB port.
System call numbers are the same on x86_64 and arm64 (from 424 on they are on all).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import stat
import struct
import sys
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, OPENAT2 = 429, 430, 431, 432, 437
CLONE_NEWNS = 0x20000
MS_PRIVATE_EVERYWHERE = 1 << 18 | 1 << 14  # MS_PRIVATE | MS_REC
SET_FLAG, SET_STRING, CREATE = 0, 1, 6  # of fsconfig(2)
FROM_EMPTY_PATH, TO_EMPTY_PATH = 0x4, 0x40
NO_MAGICLINKS, NO_SYMLINKS = 0x02, 0x04  # of openat2(2)
DETACH, NOFOLLOW = 2, 8  # of umount2(2)
SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4
AT_FDCWD = -100
ATTRIBUTES = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 0x10, "nodiratime": 0x80}  # of fsmount(2)


def main() -> None:
    """Do what the one argument, in JSON, says; print ``{"error": …}``, empty if all went well.

    It ends without Python's own farewell and reports of errors, which could import from the container.
    """
    wish = json.loads(sys.argv[1])
    error = ""
    try:
        if wish.pop("what") == "mount":
            mount(**wish)
        else:
            umount(**wish)
    except OSError as exc:
        error = exc.strerror or str(exc)
    except BaseException as exc:
        error = f"{type(exc).__name__}: {exc}"
    sys.stdout.write(json.dumps({"error": error}))
    sys.stdout.flush()
    os._exit(0)


def _enter(namespace: int) -> None:
    """From here on every path is the container's, so nothing may be imported any more."""
    for ways in (sys.path, sys.meta_path, sys.path_hooks):
        ways.clear()
    _call("setns", namespace, CLONE_NEWNS)


def mount(
    namespace: int, target: str, devices: list[int], *, device: int, name: str, type: str, options: list[str]
) -> None:
    """Mount the device on a directory. ``devices`` are the numbers of all of the container's volumes."""
    ready = _detached_mount(device, name, type, options)
    _enter(namespace)
    place = _open(target, os.O_PATH | os.O_DIRECTORY, NO_MAGICLINKS)
    if os.fstat(place).st_dev not in (Path("/").stat().st_dev, *devices):
        raise OSError(0, "a volume can be mounted on a directory of the root disk or of a volume only")
    _syscall(MOVE_MOUNT, ready, b"", place, b"", FROM_EMPTY_PATH | TO_EMPTY_PATH)


def _detached_mount(device: int, name: str, type: str, options: list[str]) -> int:
    """A mount that is nowhere yet. In the private /dev, it gets the source that df and fuser will show."""
    _call("unshare", CLONE_NEWNS)
    _call("mount", b"none", b"/", None, MS_PRIVATE_EVERYWHERE, None)
    _call("mount", b"none", b"/dev", b"tmpfs", 0, None)
    os.mknod(f"/dev/{name}", stat.S_IFBLK | 0o600, device)
    context = _syscall(FSOPEN, type.encode(), 1)
    try:
        _syscall(FSCONFIG, context, SET_STRING, b"source", f"/dev/{name}".encode(), 0)
        if "ro" in options:
            _syscall(FSCONFIG, context, SET_FLAG, b"ro", None, 0)
        _syscall(FSCONFIG, context, CREATE, None, None, 0)
    except OSError as exc:
        reason = ""
        with contextlib.suppress(OSError):  # ENODATA: the kernel gives no reason
            reason = f" ({os.read(context, 4096).decode(errors='replace').strip()[2:]})"
        raise OSError(exc.errno, f"{exc.strerror}{reason}") from exc
    attributes = ATTRIBUTES["nosuid"] | ATTRIBUTES["nodev"] | int("ro" in options)
    for option in options:
        attributes |= ATTRIBUTES.get(option, 0)
    return _syscall(FSMOUNT, context, 1, attributes)


def umount(
    namespace: int, target: str, devices: list[int], *, lazy: bool = False, forced: bool = False
) -> None:
    """Unmount a volume. ``forced``: as if the disk were pulled out, whoever uses it.

    umount2(2) takes a path: it is one name in a directory that is held open, where only a volume can be mounted.
    """
    descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    _enter(namespace)
    place = _open(target, os.O_RDONLY | os.O_DIRECTORY, NO_MAGICLINKS)
    parent, _, name = os.readlink(str(place), dir_fd=descriptors).rpartition("/")
    folder = _open(parent or "/", os.O_PATH | os.O_DIRECTORY, NO_MAGICLINKS | NO_SYMLINKS)
    if not name or os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev not in devices:
        raise OSError(0, "not a mounted volume")
    if forced:
        with contextlib.suppress(OSError):
            fcntl.ioctl(place, SHUTDOWN, struct.pack("I", 1))
    os.close(place)
    os.fchdir(folder)
    _call("umount2", name.encode(), NOFOLLOW | (DETACH if lazy or forced else 0))


def _open(path: str, flags: int, resolve: int) -> int:
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return _syscall(OPENAT2, AT_FDCWD, path.encode(), how, len(how))


def _syscall(number: int, *arguments: Any) -> int:
    return _call("syscall", number, *arguments)


def _call(function: str, *arguments: Any) -> int:
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = LIBC[function](*words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


if __name__ == "__main__":
    main()
