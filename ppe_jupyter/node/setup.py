"""Makes booted nodes a cluster. Runs on the master, as the login user, at launch and whenever nodes change.

Reads one JSON object: cluster, login_user, subnet_cidr, launch_host_key, cluster_private_key, nodes (the
master first; index, instance_id, private_ip, private_dns, slots, role). Prints JSON lines: ``progress``
(phase, ready, total), then ``done`` (host_keys by address, versions) or ``error`` (message, node). Reaches
every worker in parallel with OpenSSH's ssh, whose host keys are verified from the first packet; ends only
when ``mpirun`` over all nodes and the R session have answered. Safe to repeat, also after it was cut off.
Runs with the standard library of the master's own Python and must not know EC2.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BOOT_SECONDS = 900.0
CONFIGURE_SECONDS = 120.0
MPIRUN_SECONDS = 60.0
MOST_AT_ONCE = 32
HOME = Path.home()
OURS = HOME / ".ppe"
NODE_FOLDER = OURS / "node"
CLUSTER_KEY = HOME / ".ssh" / "id_ed25519"
# Which key each node has or is to have: a setup that was cut off goes on with them.
HOST_KEYS = OURS / "host-keys.json"
KNOWN_HOSTS = OURS / "known-hosts"
HOSTFILE = HOME / "ompi-hostfile"
SESSION_HOSTFILE = OURS / "session-hostfile"
CLUSTER = OURS / "cluster.json"
THIS_NODE = "sudo -n python3 ~/.ppe/node/this_node.py"
UNPACK = "umask 077 && rm -rf ~/.ppe/node.new && mkdir -p ~/.ppe/node.new && tar -xf - -C ~/.ppe/node.new"
UNPACK += " && rm -rf ~/.ppe/node && mv ~/.ppe/node.new ~/.ppe/node"
HELLO = "import socket; from mpi4py import MPI; names = MPI.COMM_WORLD.allgather(socket.gethostname()); "
HELLO += "MPI.COMM_WORLD.rank or print(*names)"


class NodeFailed(Exception):
    """Setting up has failed; ``node`` is the private address of the node at which, if it was one."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


@dataclass(frozen=True)
class Node:
    """One machine of the cluster."""

    index: int
    instance_id: str
    private_ip: str
    private_dns: str
    slots: int
    role: str

    @property
    def name(self) -> str:
        """The host name: what MPI, the hostfile and ``hostname`` on the node call it."""
        return self.private_dns.split(".")[0]

    @property
    def is_master(self) -> bool:
        """Whether this process runs there."""
        return self.index == 0

    def failed(self, message: str) -> NodeFailed:
        """The error that names this node."""
        return NodeFailed(f"node {self.index} ({self.name}, {self.private_ip}): {message}", self.private_ip)


def emit(event: str, **fields: Any) -> None:
    """One event for whoever started us."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def set_up(task: Mapping[str, Any]) -> None:
    """Do all of it; the last event is ``done``. Raises NodeFailed."""
    nodes = [Node(**{key: each[key] for key in Node.__dataclass_fields__}) for each in task["nodes"]]
    launch_key = " ".join(task["launch_host_key"].split()[:2])
    _write(CLUSTER_KEY, task["cluster_private_key"], mode=0o600)
    keys = _own_host_keys(nodes)
    _expect_host_keys(nodes, launch_key, keys)

    prepare = {"launch_host_key": launch_key, "timeout": BOOT_SECONDS}
    answers = _everywhere(nodes, "booting", lambda node: _prepare(node, prepare))
    keys = {node.instance_id: answers[node.private_ip]["host_key"] for node in nodes}
    _write(HOST_KEYS, json.dumps(keys))
    _expect_host_keys(nodes, launch_key, keys)

    known = [
        {
            "private_ip": node.private_ip,
            "names": [node.private_dns, node.name],
            "host_key": keys[node.instance_id],
        }
        for node in nodes
    ]
    shared = len({answer["machine"] for answer in answers.values()}) < len(nodes)
    common = {
        "login_user": task["login_user"],
        "subnet_cidr": task["subnet_cidr"],
        "nodes": known,
        "shared": shared,
    }
    _everywhere(nodes, "configuring", lambda node: _configure(node, {**common, "slots": node.slots}))
    _expect_host_keys(nodes, None, keys)
    _write_hostfiles(nodes)

    versions: dict[str, str] = {}
    reading = threading.Thread(target=lambda: versions.update(_versions()))
    reading.start()
    _check_mpi(nodes)
    reading.join()
    emit("progress", phase="starting R", ready=len(nodes), total=len(nodes))
    _start_r()
    _write(CLUSTER, json.dumps({"cluster": task["cluster"], "nodes": [asdict(node) for node in nodes]}))
    emit("done", host_keys={node.private_ip: keys[node.instance_id] for node in nodes}, versions=versions)


def _everywhere(
    nodes: Sequence[Node], phase: str, act: Callable[[Node], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Act on all nodes at once; their answers by address. The first that fails ends it."""
    emit("progress", phase=phase, ready=0, total=len(nodes))
    answers: dict[str, dict[str, Any]] = {}
    pool = ThreadPoolExecutor(max_workers=MOST_AT_ONCE)
    pending = {pool.submit(act, node): node for node in nodes}
    try:
        for future in as_completed(pending):
            answers[pending[future].private_ip] = future.result()
            emit("progress", phase=phase, ready=len(answers), total=len(nodes))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return answers


def _prepare(node: Node, task: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the node's software there and wait for its boot; it may only be coming up."""
    deadline = time.monotonic() + BOOT_SECONDS
    if not node.is_master:
        tar = subprocess.run(
            ["tar", "-C", str(NODE_FOLDER), "-cf", "-", "."], capture_output=True, check=True
        )
        _on(node, UNPACK, tar.stdout, deadline)
    return _ask(node, "prepare", task, deadline)


def _configure(node: Node, task: Mapping[str, Any]) -> dict[str, Any]:
    return _ask(node, "configure", task, time.monotonic() + CONFIGURE_SECONDS)


def _ask(node: Node, action: str, task: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Run this_node.py there; its answer."""
    output = _on(node, f"{THIS_NODE} {action}", json.dumps(task).encode(), deadline)
    try:
        answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise node.failed(f"{action} gave no answer: {output.decode(errors='replace')[-300:]!r}") from None
    if "error" in answer:
        raise node.failed(answer["error"])
    return answer


def _on(node: Node, command: str, stdin: bytes, deadline: float) -> bytes:
    """Run a shell command on a node, waiting until its sshd lets us in; its standard output."""
    argv = ["sh", "-c", command] if node.is_master else [*ssh_command(), node.private_ip, command]
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise node.failed(f"no answer in time to: {command}")
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, timeout=left)
        except subprocess.TimeoutExpired:
            continue
        error = done.stderr.decode(errors="replace").strip()
        if done.returncode != 255 or node.is_master:
            break
        if "verification failed" in error or "IDENTIFICATION HAS CHANGED" in error:
            raise node.failed("it shows a host key that it was not launched with; nothing was sent to it")
        if time.monotonic() > deadline - 1:
            raise node.failed(f"SSH does not get in: {error}")
        time.sleep(0.25)
    if done.returncode != 0 and not done.stdout.strip():
        raise node.failed(f"`{command}` ended with status {done.returncode}: {error}")
    return done.stdout


def ssh_command() -> list[str]:
    """How the master reaches a worker: with the cluster's key, a host key that we know, and no question."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(KNOWN_HOSTS),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlgorithms": "ssh-ed25519",
        "ConnectTimeout": "10",
        "LogLevel": "ERROR",
    }
    arguments = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return ["ssh", "-i", str(CLUSTER_KEY), *arguments]


def _own_host_keys(nodes: Sequence[Node]) -> dict[str, str]:
    """Keys that an earlier setup has noted, by instance."""
    try:
        noted = json.loads(HOST_KEYS.read_text())
    except (OSError, ValueError):
        return {}
    return {node.instance_id: noted[node.instance_id] for node in nodes if node.instance_id in noted}


def _expect_host_keys(nodes: Sequence[Node], launch_key: str | None, keys: Mapping[str, str]) -> None:
    """Write which keys the nodes may show now: the launch's until theirs is in force everywhere."""
    known = [f"{node.private_ip} {keys[node.instance_id]}\n" for node in nodes if node.instance_id in keys]
    finished = (
        {node["instance_id"] for node in json.loads(CLUSTER.read_text())["nodes"]}
        if CLUSTER.exists()
        else set()
    )
    fresh = [f"{node.private_ip} {launch_key}\n" for node in nodes if node.instance_id not in finished]
    _write(KNOWN_HOSTS, "".join(known + (fresh if launch_key else [])))


def _write_hostfiles(nodes: Sequence[Node]) -> None:
    """The users' hostfile; the session's has one slot more, so that R itself takes none of theirs."""
    _write(HOSTFILE, "".join(f"{node.name} slots={node.slots}\n" for node in nodes), mode=0o644)
    _write(SESSION_HOSTFILE, "".join(f"{node.name} slots={node.slots + node.is_master}\n" for node in nodes))


def _check_mpi(nodes: Sequence[Node]) -> None:
    """One rank on every node must be able to tell all others its name."""
    emit("progress", phase="checking MPI", ready=0, total=len(nodes))
    command = ["mpirun", "--hostfile", str(HOSTFILE), "-np", str(len(nodes)), "--map-by", "ppr:1:node"]
    command += ["--bind-to", "none", "python3", "-c", HELLO]
    output, error = _within(MPIRUN_SECONDS, command)
    answered = set(output.split()[-len(nodes) :])
    for node in nodes:
        if node.name not in answered:
            raise node.failed(
                f"no rank of `{shlex.join(command[:8])}` answered from there: {error or output}"
            )
    emit("progress", phase="checking MPI", ready=len(nodes), total=len(nodes))


def _within(seconds: float, command: Sequence[str]) -> tuple[str, str]:
    """Standard output and the end of standard error; all its processes are ended when the time is over."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=HOME
    )
    try:
        output, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, error = process.communicate()
        error += f"\nno end within {seconds:.0f} s"
    return output, " / ".join(line for line in error.splitlines()[-6:] if line.strip(" -"))


def _versions() -> dict[str, str]:
    """Versions of what matters to the user's results."""
    r = 'cat(as.character(getRversion()), as.character(packageVersion("Rmpi")))'
    found = _within(30, ["Rscript", "--vanilla", "-e", r])[0].split()
    mpi = _within(30, ["mpirun", "--version"])[0].split()
    return {
        "R": found[0] if found else "",
        "Open MPI": mpi[3] if len(mpi) > 3 else "",
        "Rmpi": found[1] if len(found) > 1 else "",
    }


def _start_r() -> None:
    """Start the agent, whose ``start`` ends when R answers."""
    agent = ["python3", str(NODE_FOLDER / "agent.py"), "start"]
    done = subprocess.run(agent, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NodeFailed(f"the R session did not start: {(done.stderr or done.stdout).strip()}")


def _write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def main() -> int:
    """Set up; 0 if the cluster runs."""
    try:
        set_up(json.load(sys.stdin))
    except NodeFailed as exc:
        emit("error", message=str(exc), node=exc.node)
    except Exception as exc:
        emit("error", message=f"setting up the master failed: {exc!r}", node=None)
    else:
        return 0
    return 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Threads that still wait for other nodes must not keep a setup that has failed.
    os._exit(status)
