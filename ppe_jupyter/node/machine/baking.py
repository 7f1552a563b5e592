"""Takes everything off this node that is its own or its cluster's, so that an image of it is a node image.

Runs as root. The node is no member of a cluster afterwards, and its next boot is a first one. Left alone: installed
software and the user's other files. Must not know who makes the image.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import blocks, sharing, surroundings, way_out

# Below the homes. Of .ppe the Python environment, venv, is kept: it is installed software.
PERSONAL = (
    ".ppe/.[!.]*", ".ppe/[!v]*", ".ssh", ".RData", ".Rhistory", ".bash_history", ".python_history", ".lesshst",
    ".viminfo", ".wget-hsts",
    ".cache", ".config/rstudio", ".local/share/rstudio", ".local/share/jupyter", ".openmpi", ".prte", ".pmix",
    "ompi-hostfile",
    # What opens other doors.
    ".aws", ".azure", ".config/gcloud", ".config/gh", ".docker", ".git-credentials", ".gnupg", ".kube", ".my.cnf",
    ".netrc", ".pgpass", ".pypirc", ".Renviron",
)  # fmt: skip
SYSTEM = (
    "/etc/ssh/ssh_host_*", "/etc/ssh/ppe_fresh_*", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_config.d/ppe.conf",
    "/etc/ppe", "/usr/local/lib/ppe_node", "/usr/local/sbin/ppe-deadman", "/usr/local/sbin/ppe-bootstrap",
    "/var/lib/ppe-node/deadman.json", "/var/lib/ppe-node/step", "/var/lib/ppe-node/extra*",
    "/var/lib/ppe-node/bootstrap", "/var/lib/ppe-node/bootstrap.*", "/var/lib/dhcp/*",
    "/var/lib/systemd/random-seed", "/var/lib/dbus/machine-id", "/var/lib/apt/lists/*", "/var/cache/apt/*.bin",
    "/var/cache/apt/archives/*.deb", "/var/log/journal/*", "/var/log/**/*.gz", "/var/log/**/*.[0-9]",
    "/tmp/*", "/tmp/.[!.]*", "/var/tmp/*",  # noqa: S108  # emptied, not used
)  # fmt: skip
WITH_BLOCKS = ("/etc/hosts", "/etc/R/Rprofile.site")
FSTAB, OURS = Path("/etc/fstab"), re.compile(r"x-ppe\.(volume=|scratch)")
MACHINE_ID = Path("/etc/machine-id")
DEADMAN, DEADMAN_STATUS = "/usr/local/sbin/ppe-deadman", Path("/run/ppe-deadman.json")
STOP_SECONDS = 40.0


def clean(login_user: str) -> None:
    """Clean the node of ``login_user``. Raises OSError, SubprocessError or KeyError (no such user)."""
    homes = [Path(pwd.getpwnam(name).pw_dir) for name in (login_user, "root")]
    agent = homes[0] / ".ppe/node/agent.py"
    if agent.exists():
        command = f"python3 -B {agent} stop"
        subprocess.run(["runuser", "-l", login_user, "-c", command], timeout=STOP_SECONDS, check=False)
    _forget_cluster()
    for pattern in (*SYSTEM, *(str(home / name) for home in homes for name in PERSONAL)):
        for path in map(Path, glob.glob(pattern, recursive=True)):  # noqa: PTH207  # absolute patterns
            _remove(path)
    for name in WITH_BLOCKS:
        blocks.remove(Path(name))
    surroundings.forget()
    sharing.forget()
    way_out.use(None)
    if FSTAB.exists():
        kept = [line for line in FSTAB.read_text().splitlines(keepends=True) if not OURS.search(line)]
        FSTAB.write_text("".join(kept))
    if shutil.which("cloud-init"):
        subprocess.run(["cloud-init", "clean", "--logs"], check=True, capture_output=True)
    MACHINE_ID.write_text("")
    for path in Path("/var/log").rglob("*"):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                os.truncate(path, 0)
    os.sync()


def _forget_cluster() -> None:
    """The timer that runs would take the loss of its cluster for its end: another one begins afresh."""
    try:
        pid = int(json.loads(DEADMAN_STATUS.read_text())["pid"])
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError, KeyError):
        return
    deadline = time.monotonic() + STOP_SECONDS
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    DEADMAN_STATUS.unlink()
    for path in ("/etc/ppe/member.json", "/var/lib/ppe-node/deadman.json"):
        Path(path).unlink(missing_ok=True)
    subprocess.Popen(
        [DEADMAN, "run"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not DEADMAN_STATUS.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
