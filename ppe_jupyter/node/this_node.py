"""What a node does to itself, as root, when setup.py or the client says so.

    prepare     wait for the end of the boot, and make a fresh host key beside the one that came with user data
    configure   put that key in force, and write names, known hosts, Open MPI's and R's settings, membership
    share       ~/shared, where it needs more than a link (sharing.py)
    way_out     whether it reaches package sources, or that it is to go by the master's proxy (way_out.py)
    install     extra software of the distribution (packages.py)
    pin         the distribution's software in given versions (pinned.py)
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
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import machine
from .machine import baking, blocks, boot, host_key, packages, pinned, scratch, sharing, surroundings, way_out
from .machine.ssh_config import ssh_settings
from .machine.unfit import Unfit
from .r.patience import be_patient
from .setting_up import guests

SLOTS = Path("/etc/ppe/slots")
MEMBER = Path("/etc/ppe/member.json")  # deadman.py's
PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")  # on EC2 one for each instance
DEADMAN_SECONDS = 10.0
# By it nodes reach one another: mpirun, and everything of ours.
SSH_CONFIG = Path("/etc/ssh/ssh_config.d/ppe.conf")
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


def prepare(task: dict[str, Any]) -> Answer:
    """Wait for the end of the boot and make sure of an own host key: {"host_key": "ssh-ed25519 AAAA", "machine"}.

    Nodes of the same ``machine`` share it.
    """
    boot.wait(float(task["timeout"]), boot.Progress(_progress))
    return {"host_key": host_key.own(task["launch_host_key"]), "machine": _machine()}


def configure(task: dict[str, Any]) -> Answer:
    """Make this node one of the cluster's: {"note"}, as ``share`` has it.

    ``task``: login_user, subnet_cidr, slots, shared (the machine), share (~/shared), nodes, member, shim, cran_url.
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
    be_patient(base64.b64decode(task["shim"]), everyone=task["shared"])
    profile = Path(__file__).parent / "r" / "Rprofile.site"
    blocks.write(Path("/etc/R/Rprofile.site"), profile.read_text(encoding="utf-8").splitlines())
    host_key.use_fresh(task["member"]["name"])
    scratch.make(boot.Progress(_progress).say)
    answer = {}
    if task["share"]["kind"] == "bind":
        answer = share({"shared": task["share"], "login_user": task["login_user"]})
    blocks.replace(MEMBER, json.dumps(task["member"]), mode=0o600)
    _be_armed()
    if why := surroundings.finish(making):
        raise Unfit(f"the Python environment could not be made: {why}")
    return answer


def share(task: dict[str, Any]) -> Answer:
    """Have ~/shared, as ``shared`` says: {"note": why it is not seen there, or ""}."""
    return {"note": sharing.share(task["shared"], task["login_user"], boot.Progress(_progress).say)}


def find_way_out(task: dict[str, Any]) -> Answer:
    """Whether one of ``hosts`` is reached: {"out"}; or, told a ``proxy`` (None: no longer), go by it."""
    if "proxy" in task:
        way_out.use(task["proxy"])
        return {}
    return {"out": way_out.exists(task["hosts"])}


def install(task: dict[str, Any]) -> Answer:
    """Install ``apt`` and ``r`` packages of the distribution: {"missing": those of R that it does not have}."""
    if "cran_url" in task:
        surroundings.use_cran(task.pop("cran_url"))
    return {"missing": packages.install(task, boot.Progress(_progress).say)}


def pin(task: dict[str, Any]) -> Answer:
    """Packages of the distribution in the versions ``pins``: {"refused": why, by name}; ``snapshot``: an archive.

    Notes the ``lock`` that wants them; should this node be the master once, its clients read it.
    """
    blocks.replace(Path(machine.LOCK), task["lock"])
    say = boot.Progress(_progress).say
    return {"refused": pinned.of_distribution(task["pins"], task["snapshot"], say) if task["pins"] else {}}


def clean(task: dict[str, Any]) -> Answer:
    """Take off what is this node's own; ``login_user`` is who used sudo, if it is not told."""
    baking.clean(task.get("login_user") or os.environ["SUDO_USER"])
    return {}


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


def _progress(text: str) -> None:
    _print({"progress": text})


def _print(line: Answer) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


ACTIONS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "prepare": prepare, "configure": configure, "share": share, "way_out": find_way_out, "install": install,
    "pin": pin, "clean": clean,
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
