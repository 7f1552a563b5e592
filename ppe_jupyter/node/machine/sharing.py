"""~/shared: the same folder on every node, mounted at PLACE. Runs as root on each node.

How is the task's ``shared``: {"kind": "bind"}, it is mounted from outside already; {"kind": "nfs"}, a folder on the
master's disk, exported to ``members`` and mounted from ``server``, both private addresses; {"kind": "efs"}, the file
system of Amazon EFS at ``address``. Members only may mount the master's folder; root among them is nobody there. A
file system that is away holds up whoever reads it, but neither a node's boot nor its end. Safe to repeat.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import blocks, packages
from .unfit import Unfit

PLACE = Path("/srv/shared")
TOLD = Path("/etc/ppe/shared.json")
FSTAB = Path("/etc/fstab")
MARK = "x-ppe.shared"
EXPORTS = Path("/etc/exports.d/ppe.exports")
SERVER_CONF = Path("/etc/nfs.conf.d/ppe.conf")
# systemd.mount(5); the name is PLACE's (systemd-escape).
UNIT_CONF = Path("/etc/systemd/system/srv-shared.mount.d/ppe.conf")
MOUNT_SECONDS = 90.0
# exports(5): what a write answers is on the disk. nfs(5): hard, since soft mounts can lose data in silence.
EXPORTED = "rw,sync,no_subtree_check"
# A boot goes on without the mount, and each try to mount or unmount has an end (systemd.mount(5)).
PATIENT = f"_netdev,nofail,x-systemd.mount-timeout=30,{MARK}"
OPTIONS = {
    "nfs": f"nfsvers=4.2,hard,timeo=600,retrans=2,{PATIENT}",
    # As https://docs.aws.amazon.com/efs/latest/ug/mounting-fs-mount-cmd-general.html recommends.
    "efs": f"nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,{PATIENT}",
}

Shared = Mapping[str, Any]
Run = Callable[[Sequence[str]], str]


def share(shared: Shared, login_user: str, say: Callable[[str], None], *, run: Run | None = None) -> str:
    """Have ~/shared on this node; why the user's programs do not see it there, or "".

    Raises Unfit, OSError, packages.NotInstalled.
    """
    run, kind = run or _run, shared["kind"]
    serves = kind == "nfs" and shared["serves"]
    line = fstab(shared) if kind in OPTIONS and not serves else ""
    if not (kind in OPTIONS and _is_mounted(line.partition(" ")[0], run)):
        PLACE.mkdir(parents=True, exist_ok=True)
    if serves:
        _serve(shared, say, run)
    elif line:
        _mount(line, say, run)
    user = pwd.getpwnam(login_user)
    if kind != "nfs" or serves:
        owner = PLACE.stat().st_uid
        if owner != user.pw_uid and (owner == 0 or kind != "efs"):  # EFS may be other machines' too
            os.chown(PLACE, user.pw_uid, user.pw_gid)
    TOLD.parent.mkdir(exist_ok=True)
    blocks.replace(TOLD, json.dumps({"kind": shared["kind"]}))
    link = Path(user.pw_dir) / PLACE.name
    if link.is_symlink() and link.readlink() == PLACE:
        return ""
    if link.is_symlink() or link.exists():  # the user's own stays
        return f"{link} is not the cluster's {PLACE} there, but your own: what is written there stays on that node"
    link.symlink_to(PLACE)
    os.lchown(link, user.pw_uid, user.pw_gid)
    return ""


def forget() -> None:
    """Take off what makes this node a member, for an image of it."""
    for path in (EXPORTS, SERVER_CONF, UNIT_CONF):
        path.unlink(missing_ok=True)
    if FSTAB.exists():
        _keep(None)


def ending_with_the_cluster() -> list[str]:
    """Where ~/shared is on the master, if that is a file system of its own which ends with the nodes."""
    try:
        kind = json.loads(TOLD.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError):
        return []
    return [str(PLACE)] if kind == "bind" else []


def exports(members: Sequence[str]) -> str:
    """The line of exports(5) that lets these addresses, and nobody else, mount the folder."""
    return " ".join([str(PLACE), *(f"{member}({EXPORTED})" for member in members)]) + "\n"


def fstab(shared: Shared) -> str:
    """The line of fstab(5)."""
    source = f"{shared['server']}:{PLACE}" if shared["kind"] == "nfs" else f"{shared['address']}:/"
    return f"{source} {PLACE} nfs4 {OPTIONS[shared['kind']]} 0 0"


def _is_mounted(source: str, run: Run) -> bool:
    """Whether a file system is mounted there, after another server's has been taken off.

    That may be dead, and whoever asks for as much as the owner of its folder would wait for ever.
    """
    there = _source()
    if ":" in there and there != source:
        run(["umount", "-l", str(PLACE)])
        return False
    return bool(there)


def _serve(shared: Shared, say: Callable[[str], None], run: Run) -> None:
    """Export the master's folder; with nobody to export it to, nothing is installed or listens."""
    if FSTAB.exists() and MARK in FSTAB.read_text(encoding="utf-8"):  # it was another master's worker
        _keep(None)
        run(["systemctl", "daemon-reload"])
    if not shared["members"]:
        if EXPORTS.exists():
            EXPORTS.unlink()
            run(["exportfs", "-ra"])
        return
    _have("exportfs", "nfs-kernel-server", say, run)
    EXPORTS.parent.mkdir(exist_ok=True)
    blocks.replace(EXPORTS, exports(shared["members"]))
    wanted = f"[nfsd]\nvers3 = n\nhost = {shared['server']}\n"  # version 4 needs port 2049 only
    if not SERVER_CONF.exists() or SERVER_CONF.read_text(encoding="utf-8") != wanted:
        SERVER_CONF.parent.mkdir(parents=True, exist_ok=True)
        blocks.replace(SERVER_CONF, wanted)
        run(["systemctl", "enable", "nfs-kernel-server"])
        run(["systemctl", "restart", "nfs-kernel-server"])
    run(["exportfs", "-ra"])


def _mount(line: str, say: Callable[[str], None], run: Run) -> None:
    _have("mount.nfs4", "nfs-common", say, run)
    _keep(line)
    # A node that shuts down when its master has gone must not wait for it.
    UNIT_CONF.parent.mkdir(parents=True, exist_ok=True)
    blocks.replace(UNIT_CONF, "[Mount]\nLazyUnmount=yes\nForceUnmount=yes\n")
    run(["systemctl", "daemon-reload"])
    if _source() != line.split()[0]:
        run(["mount", str(PLACE)])


def _have(command: str, package: str, say: Callable[[str], None], run: Run) -> None:
    if shutil.which(command, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        packages.install({"apt": [package]}, say)
        # It comes along, listens on all addresses, and version 4 does without it (nfs.systemd(7)).
        run(["systemctl", "mask", "--now", "rpcbind.socket", "rpcbind.service"])


def _keep(line: str | None) -> None:
    """Our line of fstab in place of an older one; None: no line."""
    old = FSTAB.read_text(encoding="utf-8").splitlines() if FSTAB.exists() else []
    kept = [each for each in old if MARK not in each]
    blocks.replace(FSTAB, "".join(f"{each}\n" for each in [*kept, *([line] if line else [])]))


def _source() -> str:
    """What is mounted there, or ""."""
    rows = [each.split() for each in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    return next((row[0] for row in reversed(rows) if row[1] == str(PLACE)), "")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unfit(f"~/shared: `{' '.join(command)}`: {exc}") from exc
    if done.returncode:
        said = done.stderr.strip() or f"status {done.returncode}"
        raise Unfit(f"~/shared: `{' '.join(command)}`: {said}")
    return done.stdout
