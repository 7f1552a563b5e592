"""What a node does to itself, as root, when setup.py or the client says so.

    prepare     wait for the end of the boot, and make a fresh host key beside the one that came with user data
    configure   put that key in force, and write names, known hosts, Open MPI's and R's settings, membership
    install     extra software of the distribution (packages.py)
    clean       make it ready for an image (baking.py)

Between the first two setup.py notes the fresh key, so that a setup that is cut off can be repeated. Each reads a JSON
object from its argument or standard input and prints JSON lines:
``{"progress": text}``, at last its answer or ``{"error": text}``.
All are safe to repeat. Runs with the standard library of the node's own Python; knows nothing of SSH to other nodes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file: the folder is the package, whatever its name. Root leaves no files of its own there.
    sys.dont_write_bytecode = True
    _folder = Path(__file__).resolve().parent
    sys.path[0] = str(_folder.parent)
    __package__ = _folder.name

from . import baking, blocks, guests, packages, surroundings

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")
FRESH_KEY = Path("/etc/ssh/ppe_fresh_ed25519_key")
SSHD_PID = Path("/run/sshd.pid")
SLOTS = Path("/etc/ppe/slots")
MEMBER = Path("/etc/ppe/member.json")  # deadman.py's
PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")  # on EC2 one for each instance
# What the R session is loaded with, and where it is written that all ranks are (for Rprofile.site and run_cell).
PATIENCE = Path("/usr/local/lib/ppe-patience.so")
PRELOAD = Path("/etc/ppe/preload")
CLOUD_INIT = Path("/var/lib/cloud")
CLOUD_INIT_STATUS = Path("/run/cloud-init/status.json")
CLOUD_INIT_LOG = Path("/var/log/cloud-init-output.log")
# User data's: which script runs now, what each prints, how it ended.
SCRIPTS = Path("/var/lib/ppe-node")
SCRIPT_NAMES = {"bootstrap": "the installation of R and Open MPI", "extra": "your own bootstrap script"}
LOG_LINES = 8
SAY_SECONDS = 1.0
DEADMAN_SECONDS = 10.0
RESTART_SECONDS, FRESH_KEY_SECONDS = 1.0, 15.0
# How this cluster's nodes are reached from one another, by mpirun and by everything of ours.
SSH_CONFIG = Path("/etc/ssh/ssh_config.d/ppe.conf")
SSH_SETTINGS = (
    "BatchMode yes",
    "StrictHostKeyChecking yes",
    "HostKeyAlgorithms ssh-ed25519",
    "ConnectTimeout 10",
    "LogLevel ERROR",
    # The default, sntrup761, takes 70 ms of a core for each connection.
    "KexAlgorithms ^curve25519-sha256",
)
# Names of Open MPI 4, then of PRRTE and PMIx, which Open MPI 5 brings. A docker bridge on a node would hang
# MPI if it were not told which network is the cluster's. Nodes beyond 64 would be started from workers,
# which cannot reach each other. Yielding lets a session that waits for its workers share its core with
# them.
MCA_PARAMETERS = {
    ".openmpi/mca-params.conf": (
        "btl_tcp_if_include = {cidr}",
        "oob_tcp_if_include = {cidr}",
        "plm_rsh_no_tree_spawn = 1",
        "mpi_yield_when_idle = 1",
        "pml = ob1",
    ),
    ".prte/mca-params.conf": ("prte_if_include = {cidr}", "plm_ssh_no_tree_spawn = 1"),
    ".pmix/mca-params.conf": ("ptl_base_if_include = {cidr}",),
}

Answer = dict[str, Any]


class Unfit(Exception):
    """This node cannot become part of the cluster; ``str()`` says why."""


class Progress:
    """Tells what is done now, not too often."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = ""

    @property
    def due(self) -> bool:
        """Whether the next line would be told."""
        return time.monotonic() >= self._next

    def say(self, text: str) -> None:
        """One line."""
        if self.due and text != self._last:
            self._last, self._next = text, time.monotonic() + SAY_SECONDS
            _print({"progress": text})


def prepare(task: dict[str, Any]) -> Answer:
    """Wait for the end of the boot and make sure of an own host key: {"host_key": "ssh-ed25519 AAAA", "machine"}.

    Nodes of the same ``machine`` share it.
    """
    _wait_for_boot(float(task["timeout"]), Progress())
    machine = _machine()
    current = _public(HOST_KEY)
    if current and current != _words(task["launch_host_key"]):
        return {"host_key": current, "machine": machine}
    if not _public(FRESH_KEY):
        FRESH_KEY.unlink(missing_ok=True)
        name = socket.gethostname()
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", str(FRESH_KEY))
    return {"host_key": _public(FRESH_KEY), "machine": machine}


def configure(task: dict[str, Any]) -> Answer:
    """Make this node one of the cluster's.

    ``task``: login_user, subnet_cidr, slots, shared, nodes, member, shim, cran_url.
    """
    user = pwd.getpwnam(task["login_user"])
    making = surroundings.begin(user, task.get("cran_url"))
    _know_names(task["nodes"])
    _know_host_keys(task["nodes"])
    for name, lines in MCA_PARAMETERS.items():
        path = Path(user.pw_dir) / name
        path.parent.mkdir(exist_ok=True)
        blocks.write(path, [line.format(cidr=task["subnet_cidr"]) for line in lines])
        for each in (path.parent, path):
            os.chown(each, user.pw_uid, user.pw_gid)
    guests.let_in(task["guests"], home=Path(user.pw_dir), owner=(user.pw_uid, user.pw_gid))
    SLOTS.parent.mkdir(exist_ok=True)
    SLOTS.write_text(f"{task['slots']}\n")
    _be_patient(base64.b64decode(task["shim"]), everyone=task["shared"])
    profile = Path(__file__).with_name("Rprofile.site")
    blocks.write(Path("/etc/R/Rprofile.site"), profile.read_text(encoding="utf-8").splitlines())
    _use_fresh_key(task["member"]["name"])
    blocks.replace(MEMBER, json.dumps(task["member"]), mode=0o600)
    _be_armed()
    if why := surroundings.finish(making):
        raise Unfit(f"the Python environment could not be made: {why}")
    return {}


def install(task: dict[str, Any]) -> Answer:
    """Install ``apt`` and ``r`` packages of the distribution: {"missing": those of R that it does not have}."""
    if "cran_url" in task:
        surroundings.use_cran(task.pop("cran_url"))
    return {"missing": packages.install(task, Progress().say)}


def clean(task: dict[str, Any]) -> Answer:
    """Take off what is this node's own; ``login_user`` is who used sudo, if it is not told."""
    baking.clean(task.get("login_user") or os.environ["SUDO_USER"])
    return {}


def ssh_settings(hosts: Iterable[str], *more: str) -> str:
    """A section of an ssh_config: how nodes are reached, with a host key that is known and no question."""
    lines = "".join(f"    {line}\n" for line in (*SSH_SETTINGS, *more))
    return f"Host {' '.join(hosts)}\n{lines}"


def _wait_for_boot(timeout: float, progress: Progress) -> None:
    deadline = time.monotonic() + timeout
    finished = CLOUD_INIT / "instance" / "boot-finished"
    while CLOUD_INIT.exists() and not finished.exists():
        if time.monotonic() > deadline:
            step, log = _step()
            raise Unfit(f"{step} has not ended after {timeout:.0f} s; it printed last: {_end(log)}")
        if progress.due:
            step, log = _step()
            progress.say(f"{step}: {_end(log, lines=1)}")
        time.sleep(0.05)
    for name, title in SCRIPT_NAMES.items():
        status = SCRIPTS / f"{name}.status"
        if status.exists() and status.read_text().strip() != "0":
            log = SCRIPTS / f"{name}.log"
            raise Unfit(
                f"{title} ended with status {status.read_text().strip()} (log: {log} there): {_end(log)}"
            )
    missing = [tool for tool in ("R", "mpirun", "ssh-keygen", "ip") if shutil.which(tool) is None]
    if missing:
        lacks, log = ", ".join(missing), CLOUD_INIT_LOG
        raise Unfit(f"its software is incomplete (no {lacks}); cloud-init printed last: {_end(log)}")


def _step() -> tuple[str, Path]:
    """What the boot is at, and where that prints."""
    with contextlib.suppress(OSError, KeyError):
        name = (SCRIPTS / "step").read_text().strip()
        return SCRIPT_NAMES[name], SCRIPTS / f"{name}.log"
    with contextlib.suppress(OSError, ValueError, KeyError):
        stage = json.loads(CLOUD_INIT_STATUS.read_text())["v1"]["stage"]
        return f"cloud-init ({stage})" if stage else "cloud-init", CLOUD_INIT_LOG
    return "cloud-init", CLOUD_INIT_LOG


def _end(log: Path, *, lines: int = LOG_LINES) -> str:
    try:
        found = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "nothing"
    return " / ".join([line.strip() for line in found if line.strip()][-lines:]) or "nothing"


def _machine() -> str:
    """What tells apart the real machines: containers have boot ids of their own, but one kernel's boot time."""
    booted = next(
        line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if "btime" in line
    )
    return booted + (PRODUCT_UUID.read_text(encoding="ascii") if PRODUCT_UUID.exists() else "")


def _know_names(nodes: Iterable[dict[str, Any]]) -> None:
    """Every node needs every name, or MPI_Init hangs without a word."""
    hosts = Path("/etc/hosts")
    lines = [f"{node['private_ip']} {' '.join(node['names'])}" for node in nodes]
    # Debian gives a machine's own name this address, at which the others would not find it.
    blocks.write(hosts, lines, keep=lambda line: not re.match(r"\s*127\.0\.1\.1\s", line))
    for node in nodes:
        for name in node["names"]:
            found = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)})
            if found != [node["private_ip"]]:
                raise Unfit(f"{name} resolves to {', '.join(found)} there, not to {node['private_ip']}")


def _know_host_keys(nodes: Iterable[dict[str, Any]]) -> None:
    lines = [f"{','.join([*node['names'], node['private_ip']])} {node['host_key']}" for node in nodes]
    blocks.write(Path("/etc/ssh/ssh_known_hosts"), lines)
    SSH_CONFIG.parent.mkdir(exist_ok=True)
    blocks.replace(
        SSH_CONFIG, ssh_settings(name for node in nodes for name in [*node["names"], node["private_ip"]])
    )


def _be_patient(compiled: bytes, *, everyone: bool) -> None:
    """Have R wait without polling and be interruptible, and all ranks nap where nodes share a machine.

    With the master's compiled shim; a node on which it does not load, or without one, does without.
    """
    import ctypes  # as long as all of this file's own, and only needed here

    PRELOAD.unlink(missing_ok=True)
    new = PATIENCE.with_name(PATIENCE.name + ".new")
    new.write_bytes(compiled)
    try:
        ctypes.CDLL(str(new))
    except OSError:
        new.unlink()
        PATIENCE.unlink(missing_ok=True)
        return
    new.replace(PATIENCE)
    if everyone:
        PRELOAD.write_text(f"{PATIENCE}\n", encoding="ascii")


def _use_fresh_key(name: str) -> None:
    """Put it in force; ``name`` is what this node is known by."""
    if not FRESH_KEY.exists():
        return
    FRESH_KEY.replace(HOST_KEY)
    Path(f"{FRESH_KEY}.pub").replace(f"{HOST_KEY}.pub")
    before = _modified(SSHD_PID)
    if Path("/run/systemd/system").exists():
        _run("systemctl", "reload-or-restart", "ssh")  # Ubuntu starts it with the first connection
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


def _be_armed() -> None:
    """No node is ready whose dead-man timer does not run."""
    deadline = time.monotonic() + DEADMAN_SECONDS
    while not _is_armed():
        if time.monotonic() > deadline:
            raise Unfit("its dead-man timer does not run, so nothing would end it if the master were lost")
        time.sleep(0.1)


def _is_armed() -> bool:
    """As deadman.py's ``status`` says, whose start takes longer than all else here."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return Path("/proc", str(json.loads(baking.DEADMAN_STATUS.read_text())["pid"])).exists()
    return False


def _public(key: Path) -> str:
    """The public half without its comment, or "" if there is none."""
    try:
        return _words(Path(f"{key}.pub").read_text(encoding="utf-8"))
    except OSError:
        return ""


def _words(public: str) -> str:
    return " ".join(public.split()[:2])


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode != 0:
        raise Unfit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _print(line: Answer) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


ACTIONS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "prepare": prepare, "configure": configure, "install": install, "clean": clean,
}  # fmt: skip


def main() -> int:
    """Do what the first argument names; answer in a JSON line."""
    action, *told = sys.argv[1:]
    try:
        answer = ACTIONS[action](json.loads(told[0] if told else sys.stdin.read() or "{}"))
    except (Unfit, packages.NotInstalled) as exc:
        answer = {"error": str(exc)}
    except (OSError, KeyError, ValueError, subprocess.SubprocessError) as exc:
        answer = {"error": repr(exc)}
    _print(answer)
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
