"""An EBS volume on this node: found, given a file system if it has none, mounted now and at each boot; or unmounted.

Runs as root, sent by the client for each use (``python3 - JSON``): ``{"act": "mount", volume_id, device, mount,
format, user}`` or ``{"act": "unmount", volume_id, device, force}``; prints one JSON object, the answer or
``{"error": ...}``. Safe to repeat. A volume that holds anything that blkid or wipefs knows is never formatted.
What is kept mounted is a line of /etc/fstab that names the volume. Standard library only; knows nothing of EC2.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FSTAB = Path("/etc/fstab")
BY_ID = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}"
FILE_SYSTEMS = ("ext4", "xfs")
DEVICE_SECONDS = 60.0
MOST_USERS = 8

Answer = dict[str, Any]


class Refused(Exception):
    """It is not done; ``str()`` says why."""


def mount(task: dict[str, Any]) -> Answer:
    """Mount the volume at task["mount"], if that is not "": {device, file_system, formatted, mounted}."""
    device = _wait_for_device(task["volume_id"], task["device"])
    answer: Answer = {"device": device, "file_system": "", "formatted": False, "mounted": ""}
    wanted, directory = task["format"], task["mount"]
    if wanted not in (None, *FILE_SYSTEMS):
        raise Refused(f"there is no --format {wanted}, only {' and '.join(FILE_SYSTEMS)}")
    mounted = _has_place(device, directory) if directory else True
    found = signature(device)
    if wanted and not found:
        _format(device, wanted)
        answer["formatted"], found = True, signature(device)
    kind = answer["file_system"] = found.get("TYPE", "")
    if found and found.get("USAGE") != "filesystem":
        raise Refused(f"it has {_said(found)}, which cannot be mounted as it is; nothing on it was changed")
    if wanted and kind != wanted:
        raise Refused(f"it has {_said(found)} and is never formatted anew; leave --format out to mount it")
    if directory:
        if not found:
            raise Refused("it has no file system; give it one with --format ext4")
        if not mounted:
            run("mount", device, directory)
        if wanted and {each.name for each in Path(directory).iterdir()} <= {"lost+found"}:
            user = pwd.getpwnam(task["user"])
            os.chown(directory, user.pw_uid, user.pw_gid)
        options = f"defaults,nofail,x-ppe.volume={task['volume_id']}"
        _keep(task["volume_id"], f"UUID={found['UUID']} {directory} {kind} {options} 0 2")
        answer["mounted"] = directory
    return answer


def unmount(task: dict[str, Any]) -> Answer:
    """Unmount the volume wherever it is mounted, lazily if task["force"]: {unmounted: [directory]}."""
    device = _device(task["volume_id"], task["device"])
    directories = sorted(mounted_at(device), reverse=True) if device else []
    if "/" in directories:
        raise Refused("it is the root disk")
    for directory in directories:
        done = run("umount", *(["-l"] if task["force"] else []), directory, check=False)
        if done.returncode:
            users = ", ".join(_users(Path(directory).stat().st_dev))
            reason = f"{users} use it; end that, or add --force" if users else done.stderr.strip()
            raise Refused(f"{directory} cannot be unmounted: {reason}")
    _keep(task["volume_id"], None)
    return {"unmounted": directories}


def _wait_for_device(volume_id: str, device: str) -> str:
    deadline = time.monotonic() + DEVICE_SECONDS
    while not (found := _device(volume_id, device)):
        if time.monotonic() > deadline:
            raise Refused(f"no device has appeared for it within {DEVICE_SECONDS:.0f} s")
        time.sleep(0.1)
    return found


def _device(volume_id: str, device: str) -> str:
    """The block device: by the NVMe serial number, which is the volume's id; without NVMe by the name asked for.

    User guide, nvme-ebs-volumes and device_naming: /dev/sdf may show as /dev/xvdf.
    """
    serial = volume_id.replace("-", "")
    names = [BY_ID.format(serial=serial)]
    for each in Path("/sys/block").glob("nvme*"):
        told = each / "device" / "serial"
        if told.exists() and told.read_text(encoding="ascii").strip() == serial:
            names.append(f"/dev/{each.name}")
    names += [f"/dev/xvd{device[-1]}", device]
    for name in names:
        if Path(name).is_block_device():
            return os.path.realpath(name)
    return ""


def signature(device: str) -> dict[str, str]:
    """What blkid and wipefs find on the device; nothing at all only if both find nothing."""
    probed = run("blkid", "-p", "-o", "export", device, check=False)
    if probed.returncode not in (0, 2):
        raise Refused(f"what is on it is unclear ({probed.stderr.strip() or 'several signatures'})")
    found = dict(line.split("=", 1) for line in probed.stdout.splitlines() if "=" in line)
    found.pop("DEVNAME", None)
    parts = list(Path("/sys/class/block", Path(device).name).glob(f"{Path(device).name}*/partition"))
    if not found and (parts or run("wipefs", "-n", "--noheadings", device).stdout.strip()):
        return {"TYPE": "something that blkid does not know"}
    return found


def _said(found: dict[str, str]) -> str:
    return f"a partition table ({found['PTTYPE']})" if "PTTYPE" in found else found["TYPE"]


def _format(device: str, kind: str) -> None:
    """Make a file system on an empty device that nothing uses. Neither command is given its force option."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))  # EBUSY while it is in use (open(2))
    except OSError as exc:
        raise Refused(f"{device} is in use: {exc.strerror}") from exc
    if found := signature(device):
        raise Refused(f"it has {_said(found)} now")
    run(f"mkfs.{kind}", "-q", device)


def _has_place(device: str, directory: str) -> bool:
    """Whether it is mounted there already; else that is an empty directory now."""
    there = mounted_at(device)
    if there:
        if there != [directory]:
            raise Refused(f"it is mounted at {there[0]} already")
        return True
    Path(directory).mkdir(parents=True, exist_ok=True)
    if os.path.realpath(directory) != os.path.normpath(directory):
        raise Refused(f"{directory} is a link to {os.path.realpath(directory)}")
    if os.path.ismount(directory) or any(Path(directory).iterdir()):
        raise Refused(f"{directory} is not empty: what is there would be hidden; name another directory")
    return False


def mounted_at(device: str) -> list[str]:
    """Where the device or a partition of it is mounted."""
    name = Path(device).name
    numbers = {number(Path(device).stat().st_rdev)}
    numbers |= {path.read_text().strip() for path in Path("/sys/class/block", name).glob(f"{name}*/dev")}
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return [
        re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), row[4]) for row in rows if row[2] in numbers
    ]


def number(device: int) -> str:
    """As sysfs and mountinfo write it."""
    return f"{os.major(device)}:{os.minor(device)}"


def _users(device: int) -> Iterator[str]:
    """Processes with a file, directory or mapping there, such as ``R (1234, admin)``."""
    found = [each for each in Path("/proc").iterdir() if each.name.isdigit() and _uses(each, device)]
    for process in found[:MOST_USERS]:
        try:
            owner = pwd.getpwuid(process.stat().st_uid).pw_name
            yield f"{(process / 'comm').read_text(encoding='utf-8').strip()} ({process.name}, {owner})"
        except (OSError, KeyError):
            continue
    if len(found) > MOST_USERS:
        yield f"{len(found) - MOST_USERS} more"


def _uses(process: Path, device: int) -> bool:
    try:
        files = [process / "cwd", process / "root", process / "exe", *(process / "fd").iterdir()]
        mapped = {line.split()[3] for line in (process / "maps").read_text("utf-8", "replace").splitlines()}
    except OSError:
        return False
    # As /proc/PID/maps prints it: hexadecimal, two digits at least.
    return (
        any(_on(path, device) for path in files) or f"{os.major(device):02x}:{os.minor(device):02x}" in mapped
    )


def _on(path: Path, device: int) -> bool:
    try:
        return path.stat().st_dev == device
    except OSError:
        return False


def _keep(volume_id: str, line: str | None) -> None:
    """Put our line for the volume into fstab in place of an older one; None: no line."""
    old = FSTAB.read_text(encoding="utf-8").splitlines() if FSTAB.exists() else []
    rest = [each for each in old if f"x-ppe.volume={volume_id}" not in each]
    new = FSTAB.with_name("fstab.ppe-new")
    new.write_text("".join(f"{each}\n" for each in [*rest, *([line] if line else [])]), encoding="utf-8")
    new.chmod(0o644)
    new.replace(FSTAB)
    if Path("/run/systemd/system").exists():
        run("systemctl", "daemon-reload")


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command that has ended. Raises Refused."""
    if shutil.which(command[0]) is None:
        raise Refused(f"the node has no {command[0]}; install e2fsprogs, xfsprogs and util-linux there")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise Refused(f"`{' '.join(command)}` ended with status {done.returncode}: {done.stderr.strip()}")
    return done


def main(arguments: Sequence[str]) -> int:
    """Do what the task says; answer in one JSON line."""
    task = json.loads(arguments[0])
    try:
        answer = {"mount": mount, "unmount": unmount}[task["act"]](task)
    except (Refused, OSError, KeyError, ValueError) as exc:
        answer = {"error": str(exc) if isinstance(exc, Refused) else repr(exc)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
