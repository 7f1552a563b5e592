"""/scratch: the fastest disk that this node has, for what need not outlive it. Runs as root.

Instance store where the type has it: NVMe disks that call themselves so and are empty, or were formatted here before;
several become one by striping (mdadm). They keep their data over a reboot, fstab mounts them then, and lose it when
the instance stops: the setup that follows its start formats them again. Never touched: EBS volumes, whatever they
hold, and disks with partitions, with any signature that is not ours, or that are mounted. Else a folder on the root
disk, which everybody may write to, as /tmp. Safe to repeat.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from . import blocks, volume

PLACE = Path("/scratch")
# User guide, instance-store-volumes and nvme-ebs-volumes: the models are this and "Amazon Elastic Block Store".
MODEL = "Amazon EC2 NVMe Instance Storage"
LABEL = "ppe-scratch"
ARRAY = "/dev/md/ppe-scratch"
SYS_BLOCK, DEV = Path("/sys/block"), Path("/dev")
FSTAB = Path("/etc/fstab")
MARK = "x-ppe.scratch"
EVERYBODYS = 0o1777  # as /tmp: whoever made a file may delete it


def make(say: Callable[[str], None]) -> bool:
    """Have /scratch; whether it is a disk of its own. Raises OSError."""
    PLACE.mkdir(exist_ok=True)
    if not PLACE.is_mount() and (disks := instance_store()):
        try:
            if device := _one_of(disks, say):
                _keep(f"LABEL={LABEL} {PLACE} ext4 defaults,noatime,nofail,{MARK} 0 2")
                volume.run("mount", "-o", "noatime", device, str(PLACE))
        except volume.Refused as exc:  # no reason to do without the node
            say(f"{PLACE} is on the root disk: {exc}")
    PLACE.chmod(EVERYBODYS)
    return PLACE.is_mount()


def instance_store() -> list[str]:
    """The device files of this node's own NVMe disks that may be used, in order."""
    found = []
    for each in sorted(SYS_BLOCK.glob("nvme*")):
        model, device = each / "device" / "model", DEV / each.name
        if not model.exists() or model.read_text(encoding="ascii").strip() != MODEL:
            continue
        # In a container sysfs is the host's, and a device file of that name another disk.
        number = (each / "dev").read_text(encoding="ascii").strip()
        if not device.is_block_device() or volume.number(device.stat().st_rdev) != number:
            continue
        if not volume.mounted_at(str(device)):
            found.append(str(device))
    return found


def _one_of(disks: list[str], say: Callable[[str], None]) -> str:
    """One formatted device of the empty ones; "" if there is none that may be used."""
    signatures = {disk: volume.signature(disk) for disk in disks}
    ours = [disk for disk, found in signatures.items() if found.get("LABEL") == LABEL]
    if ours:
        return ours[0]
    empty = [disk for disk, found in signatures.items() if not found]
    if Path(ARRAY).exists():
        return ARRAY if volume.signature(ARRAY).get("LABEL") == LABEL else ""
    if not empty:
        return ""
    device = empty[0] if len(empty) == 1 else _striped(empty, say)
    say(f"formatting {device} for {PLACE}")
    # Without initializing all of it first: that would take minutes.
    volume.run("mkfs.ext4", "-q", "-L", LABEL, "-E", "lazy_itable_init=1,nodiscard", device)
    return device


def _striped(disks: list[str], say: Callable[[str], None]) -> str:
    # An older image's node has none, and to install it may take longer than a launch waits.
    if shutil.which("mdadm", path="/usr/sbin:/sbin") is None:
        say(f"{PLACE} is one of {len(disks)} disks: there is no mdadm to stripe them")
        return disks[0]
    count = str(len(disks))
    volume.run("mdadm", "--create", ARRAY, "--run", "--level=0", f"--raid-devices={count}", *disks)
    return ARRAY


def _keep(line: str) -> None:
    old = FSTAB.read_text(encoding="utf-8").splitlines() if FSTAB.exists() else []
    blocks.replace(FSTAB, "".join(f"{each}\n" for each in [*(x for x in old if MARK not in x), line]))
