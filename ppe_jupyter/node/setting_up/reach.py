"""Reaches the nodes from the master, all at once: commands over OpenSSH's ssh, whose host keys are verified from the
first packet. Must not know what the commands are for, nor EC2.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..machine.ssh_config import ssh_settings

MOST_AT_ONCE = 32
RETRY_SECONDS = 0.25
SPARE_SECONDS = 10.0  # for a node to say what it has waited for in vain
FOLDER = Path.home() / ".ppe"
NODE_FOLDER = FOLDER / "node"
SSH_CONFIG = FOLDER / "ssh-config"
KNOWN_HOSTS = FOLDER / "known-hosts"
CLUSTER_KEY = Path.home() / ".ssh" / "id_ed25519"
# Without "site": it takes a quarter of Python's start, several times on each node.
THIS_NODE = "sudo -n python3 -BSE ~/.ppe/node this_node"
# Two masters may copy at once, when one was just given up: configure.py does the same.
UNPACK = (
    "umask 077 && mkdir -p ~/.ppe && new=$(mktemp -d ~/.ppe/node.XXXXXX) && trap 'rm -rf $new' EXIT && "
    'tar -xf - -C $new && flock ~/.ppe sh -c "rm -rf ~/.ppe/node && mv $new ~/.ppe/node"'
)

Json = dict[str, Any]
Say = Callable[[str], None]


class NodeFailed(Exception):
    """It has failed; ``node`` is the private address of the node at which, if it was one."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


class Stranger(NodeFailed):
    """Another machine answers at a node's address: not to be passed over."""


@dataclass(frozen=True)
class Node:
    """One machine of the cluster. ``host_key`` is its own, if one was made; ``configured``: it shows that one only."""

    index: int
    instance_id: str
    private_ip: str
    private_dns: str
    slots: int
    role: str
    launch_host_key: str = ""
    host_key: str = ""
    configured: bool = False

    @property
    def name(self) -> str:
        """The host name: what MPI, the hostfile and ``hostname`` on the node call it."""
        return self.private_dns.split(".")[0]

    @property
    def is_master(self) -> bool:
        """Whether this process runs there."""
        return self.role == "master"

    def describe(self, message: str) -> str:
        """A message that names this node."""
        return f"node {self.index} ({self.name}, {self.private_ip}): {message}"

    def failed(self, message: str) -> NodeFailed:
        """The error that names this node."""
        return NodeFailed(self.describe(message), self.private_ip)


def write_ssh_config() -> None:
    """How the master reaches workers that do not know each other yet: with the cluster's key."""
    more = (
        f"IdentityFile {CLUSTER_KEY}",
        f"UserKnownHostsFile {KNOWN_HOSTS}",
        "GlobalKnownHostsFile /dev/null",
    )
    SSH_CONFIG.write_text(ssh_settings("*", *more), encoding="utf-8")


def everywhere(
    nodes: Sequence[Node], act: Callable[[Node], Json], *, done: Callable[[int], None], patient: bool = False
) -> tuple[dict[str, Json], dict[str, NodeFailed]]:
    """Act on all nodes at once: answers, and what failed, by address; ``done`` gets the number of answers.

    Raises NodeFailed as soon as it fails at the master, unless ``patient``, or a stranger answers.
    """
    answers: dict[str, Json] = {}
    failed: dict[str, NodeFailed] = {}
    done(0)
    pool = ThreadPoolExecutor(max_workers=MOST_AT_ONCE)
    pending = {pool.submit(act, node): node for node in nodes}
    try:
        for future in as_completed(pending):
            node = pending[future]
            try:
                answers[node.private_ip] = future.result()
                done(len(answers))
            except NodeFailed as exc:
                if (node.is_master and not patient) or isinstance(exc, Stranger):
                    raise
                failed[node.private_ip] = exc
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return answers, failed


def software() -> bytes:
    """The folder of this file as a tar; with __pycache__: root, who runs it on the other nodes, writes none."""
    archive = ["tar", "-C", str(NODE_FOLDER), "-cf", "-", "."]
    return subprocess.run(archive, capture_output=True, check=True).stdout


def prepare(node: Node, launch_host_key: str, tar: bytes, *, deadline: float, say: Say) -> Json:
    """Have the software on the node too, and run its ``prepare``, in one connection; its answer."""

    def text(left: float) -> str:
        task = json.dumps({"launch_host_key": launch_host_key, "timeout": max(1.0, left - SPARE_SECONDS)})
        run = f"{THIS_NODE} prepare {shlex.quote(task)}"
        return run if node.is_master else f"( {UNPACK} ) && {run}"

    return _answer(node, "prepare", text, b"" if node.is_master else tar, deadline, say)


def ask(
    node: Node, action: str, task: Mapping[str, Any], *, deadline: float, say: Say = lambda text: None
) -> Json:
    """Run this_node.py there; its answer. ``say`` gets its progress."""
    return _answer(
        node, action, lambda left: f"{THIS_NODE} {action}", json.dumps(task).encode(), deadline, say
    )


def _answer(
    node: Node, action: str, text: Callable[[float], str], stdin: bytes, deadline: float, say: Say
) -> Json:
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        if line.startswith('{"progress"'):
            say(json.loads(line)["progress"])

    command(node, text, stdin, deadline=deadline, hear=hear)
    try:
        answer: Json = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise node.failed(f"{action} gave no answer: {' '.join(lines)[-300:]!r}") from None
    if "error" in answer:
        raise node.failed(answer["error"])
    return answer


def command(
    node: Node,
    text: str | Callable[[float], str],
    stdin: bytes = b"",
    *,
    deadline: float,
    hear: Say = lambda line: None,
) -> None:
    """Run a shell command on a node, waiting until its sshd lets us in; ``hear`` gets the lines that it prints.

    ``deadline`` is by time.monotonic; a ``text`` that depends on how many seconds are left is made anew for each try.
    Raises NodeFailed.
    """
    make = text if callable(text) else lambda left: text
    shell = ["sh", "-c"] if node.is_master else ["ssh", "-F", str(SSH_CONFIG), node.private_ip]
    words, error = make(0.0), "no answer"
    while (left := deadline - time.monotonic()) > 0:
        argv = [*shell, words := make(left)]
        status, printed, error = _run(argv, stdin, left, hear)
        if status != 255 or node.is_master:
            break
        if "verification failed" in error or "IDENTIFICATION HAS CHANGED" in error:
            why = "it shows a host key that it was not launched with; nothing was sent to it"
            raise Stranger(node.describe(why), node.private_ip)
        time.sleep(RETRY_SECONDS)
    else:
        raise node.failed(f"no answer in time to `{words[:60]}`: {error}")
    if time.monotonic() >= deadline:
        raise node.failed(f"no end in time of `{words[:60]}`")
    if status != 0 and not printed:
        raise node.failed(f"`{words}` ended with status {status}: {error}")


def _run(argv: Sequence[str], stdin: bytes, seconds: float, hear: Say) -> tuple[int, bool, str]:
    """Status, whether it printed, and standard error; it is killed after so many seconds."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            try:
                process.stdin.write(stdin)
                process.stdin.close()
            except BrokenPipeError:
                pass
            printed = _pass_on(process.stdout, hear)
            status = process.wait()
        finally:
            timer.cancel()
        errors.seek(0)
        return status, printed, errors.read().decode(errors="replace").strip()


def _pass_on(stream: Iterable[bytes], hear: Say) -> bool:
    printed = False
    for line in stream:
        printed = True
        hear(line.decode(errors="replace").rstrip("\n"))
    return printed
