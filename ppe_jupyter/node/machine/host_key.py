"""This node's SSH host key: a fresh one, made and put in force in the place of the one that came with user data."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from .unfit import Unfit, run

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")
FRESH_KEY = Path("/etc/ssh/ppe_fresh_ed25519_key")
SSHD_PID = Path("/run/sshd.pid")
RESTART_SECONDS, FRESH_KEY_SECONDS = 1.0, 15.0


def own(launch_key: str) -> str:
    """This node's own public key, made beside the one that came with user data if it has none yet. Raises Unfit."""
    current = _public(HOST_KEY)
    if current and current != _words(launch_key):
        return current
    if not _public(FRESH_KEY):
        FRESH_KEY.unlink(missing_ok=True)
        name = socket.gethostname()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", str(FRESH_KEY))
    return _public(FRESH_KEY)


def use_fresh(name: str) -> None:
    """Put the fresh key in force, if there is one; ``name`` is what this node is known by. Raises Unfit."""
    if not FRESH_KEY.exists():
        return
    FRESH_KEY.replace(HOST_KEY)
    Path(f"{FRESH_KEY}.pub").replace(f"{HOST_KEY}.pub")
    before = _modified(SSHD_PID)
    if Path("/run/systemd/system").exists():
        run("systemctl", "reload-or-restart", "ssh")  # Ubuntu starts it with the first connection
    else:
        os.kill(int(SSHD_PID.read_text()), 1)  # SIGHUP: sshd starts anew, its connections stay.
    began = time.monotonic()
    while time.monotonic() < began + RESTART_SECONDS and _modified(SSHD_PID) in (None, before):
        time.sleep(
            0.005
        )  # it is written when sshd listens; a try that comes too early costs more than waiting
    while not _shows_its_key(name):
        if time.monotonic() > began + FRESH_KEY_SECONDS:
            raise Unfit("its sshd did not take the fresh host key")
        time.sleep(0.02)


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _shows_its_key(name: str) -> bool:
    """Whether sshd has the host key that this node is known by, as ssh says before it would log in."""
    ssh = ["ssh", "-o", "PreferredAuthentications=none", name, "true"]
    return "Permission denied" in subprocess.run(ssh, capture_output=True, text=True, timeout=60).stderr


def _public(key: Path) -> str:
    """The public half without its comment, or "" if there is none."""
    try:
        return _words(Path(f"{key}.pub").read_text(encoding="utf-8"))
    except OSError:
        return ""


def _words(public: str) -> str:
    return " ".join(public.split()[:2])
