"""What setup.py has each node do to itself, as root: end its boot, take an own host key, know the others.

``this_node.py prepare`` waits until cloud-init has ended and makes a fresh host key beside the one that came
with user data; ``this_node.py configure`` puts that key in force and writes names, known hosts, Open MPI's
and R's settings. Between the two setup.py notes the fresh key, so that a setup that is cut off can be
repeated. Each reads a JSON object from standard input and prints one: its answer, or ``{"error": ...}``. Both
are safe to repeat. Runs with the standard library of the node's own Python; knows nothing of SSH to other
nodes.
"""

from __future__ import annotations

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

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")
FRESH_KEY = Path("/etc/ssh/ppe_fresh_ed25519_key")
SLOTS = Path("/etc/ppe/slots")
PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")  # on EC2 one for each instance
# What the R session is loaded with, and where it is written that all ranks are (for Rprofile.site and run_cell).
PATIENCE = Path("/usr/local/lib/ppe-patience.so")
PRELOAD = Path("/etc/ppe/preload")
CLOUD_INIT = Path("/var/lib/cloud")
CLOUD_INIT_LOG = Path("/var/log/cloud-init-output.log")
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


def prepare(task: dict[str, Any]) -> Answer:
    """Wait for the end of the boot and make sure of an own host key: {"host_key": "ssh-ed25519 AAAA", "machine"}.

    Nodes of the same ``machine`` share it.
    """
    _wait_for_boot(float(task["timeout"]))
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
    """Make this node one of the cluster's. ``task``: login_user, subnet_cidr, slots, shared, nodes."""
    user = pwd.getpwnam(task["login_user"])
    _know_names(task["nodes"])
    _know_host_keys(task["nodes"])
    for name, lines in MCA_PARAMETERS.items():
        path = Path(user.pw_dir) / name
        path.parent.mkdir(exist_ok=True)
        _write_block(path, [line.format(cidr=task["subnet_cidr"]) for line in lines])
        for each in (path.parent, path):
            os.chown(each, user.pw_uid, user.pw_gid)
    SLOTS.parent.mkdir(exist_ok=True)
    SLOTS.write_text(f"{task['slots']}\n")
    _be_patient(everyone=task["shared"])
    profile = Path(__file__).with_name("Rprofile.site")
    _write_block(Path("/etc/R/Rprofile.site"), profile.read_text(encoding="utf-8").splitlines())
    _use_fresh_key()
    return {}


def _wait_for_boot(timeout: float) -> None:
    deadline = time.monotonic() + timeout
    finished = CLOUD_INIT / "instance" / "boot-finished"
    while CLOUD_INIT.exists() and not finished.exists():
        if time.monotonic() > deadline:
            raise Unfit(f"cloud-init has not ended after {timeout:.0f} s; it printed last: {_log_end()}")
        time.sleep(0.05)
    missing = [tool for tool in ("R", "mpirun", "ssh-keygen", "ip") if shutil.which(tool) is None]
    if missing:
        lacks = ", ".join(missing)
        raise Unfit(f"its software is incomplete (no {lacks}); cloud-init printed last: {_log_end()}")


def _machine() -> str:
    """What tells apart the real machines: containers have boot ids of their own, but one kernel's boot time."""
    booted = next(
        line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if "btime" in line
    )
    return booted + (PRODUCT_UUID.read_text(encoding="ascii") if PRODUCT_UUID.exists() else "")


def _log_end() -> str:
    try:
        lines = CLOUD_INIT_LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "nothing"
    return " / ".join(line.strip() for line in lines[-3:]) or "nothing"


def _know_names(nodes: Iterable[dict[str, Any]]) -> None:
    """Every node needs every name, or MPI_Init hangs without a word."""
    hosts = Path("/etc/hosts")
    lines = [f"{node['private_ip']} {' '.join(node['names'])}" for node in nodes]
    # Debian gives a machine's own name this address, at which the others would not find it.
    _write_block(hosts, lines, keep=lambda line: not re.match(r"\s*127\.0\.1\.1\s", line))
    for node in nodes:
        for name in node["names"]:
            found = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)})
            if found != [node["private_ip"]]:
                raise Unfit(f"{name} resolves to {', '.join(found)} there, not to {node['private_ip']}")


def _know_host_keys(nodes: Iterable[dict[str, Any]]) -> None:
    lines = [f"{','.join([*node['names'], node['private_ip']])} {node['host_key']}" for node in nodes]
    _write_block(Path("/etc/ssh/ssh_known_hosts"), lines)


def _be_patient(*, everyone: bool) -> None:
    """Have the session wait without polling, and all ranks where nodes share a machine; no compiler, no change."""
    source = Path(__file__).with_name("patience.c")
    new = PATIENCE.with_name(PATIENCE.name + ".new")
    PRELOAD.unlink(missing_ok=True)
    if shutil.which("gcc"):
        _run("gcc", "-O2", "-shared", "-fPIC", "-o", str(new), str(source))
        new.replace(PATIENCE)
        if everyone:
            PRELOAD.write_text(f"{PATIENCE}\n", encoding="ascii")


def _use_fresh_key() -> None:
    if not FRESH_KEY.exists():
        return
    fresh = _public(FRESH_KEY)
    FRESH_KEY.replace(HOST_KEY)
    Path(f"{FRESH_KEY}.pub").replace(f"{HOST_KEY}.pub")
    if Path("/run/systemd/system").exists():
        _run("systemctl", "reload", "ssh")
    else:
        os.kill(int(Path("/run/sshd.pid").read_text()), 1)  # SIGHUP: sshd starts anew, its connections stay.
    deadline = time.monotonic() + 15
    while fresh not in _run("ssh-keyscan", "-T", "2", "-t", "ed25519", "127.0.0.1", check=False):
        if time.monotonic() > deadline:
            raise Unfit("its sshd did not take the fresh host key")
        time.sleep(0.02)


def _public(key: Path) -> str:
    """The public half without its comment, or "" if there is none."""
    try:
        return _words(Path(f"{key}.pub").read_text(encoding="utf-8"))
    except OSError:
        return ""


def _words(public: str) -> str:
    return " ".join(public.split()[:2])


def _write_block(
    path: Path, lines: Iterable[str], *, keep: Callable[[str], bool] = lambda line: True
) -> None:
    """Put ``lines`` into our own block of a file of others'; leave the rest of it that ``keep`` wants."""
    begin, end = "# >>> ppe: written anew by every setup >>>", "# <<< ppe <<<"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    rest = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}\n?", "", old, flags=re.DOTALL)
    kept = [line for line in rest.splitlines() if keep(line)]
    new = path.with_name(path.name + ".ppe-new")
    new.write_text("\n".join([*kept, begin, *lines, end, ""]), encoding="utf-8")
    new.chmod(0o644)
    try:
        new.replace(path)
    except OSError:  # A file that is mounted cannot be replaced.
        path.write_text(new.read_text(encoding="utf-8"), encoding="utf-8")
        new.unlink()


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode != 0:
        raise Unfit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    """Do what the first argument names; answer in one JSON line."""
    action = {"prepare": prepare, "configure": configure}[sys.argv[1]]
    try:
        answer = action(json.load(sys.stdin))
    except (Unfit, OSError, KeyError, ValueError, subprocess.SubprocessError) as exc:
        answer = {"error": str(exc) if isinstance(exc, Unfit) else repr(exc)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
