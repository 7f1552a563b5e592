"""Configure: over the one SSH connection to the master, make booted nodes a cluster.

Copies the package's ``node`` folder to the master and runs its setup.py there, which reaches the workers.
Talks JSON lines with it. Must not know EC2.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ..errors import SetupFailed
from ..ssh import Channel, Connection
from .pace import Pace
from .records import Node

FOLDER = "~/.ppe/node"
# A folder that is there as a whole or not at all; an agent that runs from the old one goes on.
UNPACK = (
    f"umask 077 && rm -rf {FOLDER}.new && mkdir -p {FOLDER}.new && tar -xzf - -C {FOLDER}.new && "
    f"rm -rf {FOLDER} && mv {FOLDER}.new {FOLDER}"
)
SETUP = f"python3 {FOLDER}/setup.py"
# How long a read may keep from noticing that the launch was stopped.
PATIENCE_SECONDS = 0.5
# How often to look whether the instances still live.
CHECK_SECONDS = 5.0
STOCK_ONLY = "bootstrap.sh"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What setup.py is told. ``cluster_private_key`` goes to the master's disk and nowhere else."""

    cluster: str
    login_user: str
    subnet_cidr: str
    launch_host_key: str
    cluster_private_key: str
    nodes: Sequence[Node]

    def message(self) -> bytes:
        """The JSON for setup.py's standard input."""
        keys = ("index", "instance_id", "private_ip", "private_dns", "slots", "role")
        return json.dumps(
            {
                "cluster": self.cluster,
                "login_user": self.login_user,
                "subnet_cidr": self.subnet_cidr,
                "launch_host_key": self.launch_host_key,
                "cluster_private_key": self.cluster_private_key,
                "nodes": [{key: getattr(node, key) for key in keys} for node in self.nodes],
            }
        ).encode()


def node_folder() -> bytes:
    """The ``node`` folder as a gzipped tar; without what only stock images need, in user data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for entry in resources.files("ppe_jupyter.node").iterdir():
            if entry.is_file() and entry.name != STOCK_ONLY:
                data = entry.read_bytes()
                info = tarfile.TarInfo(entry.name)
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def bootstrap_script() -> str:
    """bootstrap.sh, which makes a stock image a node."""
    return (resources.files("ppe_jupyter.node") / STOCK_ONLY).read_text(encoding="utf-8")


def configure(
    connection: Connection,
    setup: Setup,
    *,
    report: Callable[[str, int, str], None],
    pace: Pace,
    check: Callable[[], None],
) -> Mapping[str, str]:
    """Run setup.py on the master; return each node's own host key by private address.

    ``report`` gets phase, nodes ready and a message; ``check`` is called now and then meanwhile, and may raise: a
    worker that has ended would be waited for. Raises SetupFailed with what setup.py said.
    """
    connection.run(UNPACK, stdin=node_folder(), timeout=120)
    with connection.popen(SETUP) as channel:
        channel.send_all(setup.message())
        channel.close_write()
        for event in _events(channel, pace, check):
            if event["event"] == "progress":
                report(event["phase"], int(event.get("ready", 0)), str(event.get("message", "")))
            elif event["event"] == "error":
                raise SetupFailed(event["message"], node=event.get("node"))
            elif event["event"] == "done":
                return dict(event["host_keys"])
        status = channel.exit_status()
        stderr = b"".join(iter(channel.recv_stderr, b"")).decode(errors="replace").strip()
    last = "; ".join(stderr.splitlines()[-3:]) or "it printed no error"
    raise SetupFailed(f"{SETUP} on the master ended with status {status}: {last}")


def _events(channel: Channel, pace: Pace, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The events that setup.py prints, one a line; other lines are dropped."""
    channel.settimeout(PATIENCE_SECONDS)
    rest = b""
    checked = pace.elapsed
    while True:
        pace.check()
        if pace.elapsed - checked > CHECK_SECONDS:
            check()
            checked = pace.elapsed
        try:
            block = channel.recv()
        except TimeoutError:
            continue
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b'{"event"'):
                yield json.loads(line)
        if not block:
            return
