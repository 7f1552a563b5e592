"""Configure: over the one SSH connection to the master, make booted nodes a cluster.

Copies the package's ``node`` folder to the master and runs its setup.py there, which reaches the workers.
Talks JSON lines with it. Must not know EC2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..delivery import FOLDER, deliver
from ..errors import SetupFailed
from ..settings import Settings
from ..ssh import Channel, Connection
from .pace import Pace, Report
from .records import ClusterRecord, Node, Progress
from .spec import ClusterSpec

# A setup that was cut off may still wait for a node; two at a time would undo each other's work.
PID = "~/.ppe/setup.pid"
SETUP = (
    # After a reboot the number noted before it may be this shell's own.
    f'{{ old=$(cat {PID}); [ "$old" != $$ ] && grep -qxz setup /proc/$old/cmdline && kill $old; }} 2>/dev/null; '
    f"echo $$ > {PID}; exec python3 {FOLDER} setup"
)
# How long a read may keep from noticing that the launch was stopped.
PATIENCE_SECONDS = 0.5
# A master that is rebooted is silent for as long as that may take; its workers are to wait for it.
LEAST_SILENCE_SECONDS, SPARE_SECONDS = 600.0, 120.0
WARN_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What setup.py is told. ``cluster_private_key`` goes to the master's disk (None: it is there already).

    ``limits`` are the watchdog's (``limits``), ``packages`` the extra ones by kind; ``cran_url`` is the repository of R
    packages, if it is not the usual one. A worker that does not answer for ``patience_seconds`` is left out; if its
    first boot ``installs`` software, it has an hour for that besides. ``shared`` is how they have ~/shared.
    """

    cluster: str
    login_user: str
    subnet_cidr: str
    cluster_private_key: str | None
    nodes: Sequence[Node]
    limits: Mapping[str, Any]
    patience_seconds: float
    installs: bool = False
    packages: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cran_url: str | None = None
    shared: Mapping[str, str] = field(default_factory=lambda: {"kind": "nfs"})
    silence_seconds: float = LEAST_SILENCE_SECONDS

    def message(self) -> bytes:
        """The JSON for setup.py's standard input."""
        keys = ["index", "instance_id", "private_ip", "private_dns", "slots", "role"]
        keys += ["launch_host_key", "host_key", "configured"]
        master = next(node for node in self.nodes if node.role == "master")
        return json.dumps(
            {
                "cluster": self.cluster,
                "login_user": self.login_user,
                "subnet_cidr": self.subnet_cidr,
                "launch_host_key": master.launch_host_key,
                "cluster_private_key": self.cluster_private_key,
                "nodes": [
                    # What the tags tell of a node that was never configured is the launch's key.
                    {key: getattr(node, key) for key in keys}
                    | ({"host_key": node.host_key} if node.host_key != node.launch_host_key else {})
                    for node in self.nodes
                ],
                "limits": dict(self.limits),
                "silence_seconds": self.silence_seconds,
                "patience_seconds": self.patience_seconds,
                "installs": self.installs,
                "cran_url": self.cran_url,
                "packages": {kind: list(names) for kind, names in self.packages.items()},
                "shared": dict(self.shared),
                "private": any(node.role != "master" and not node.public_ip for node in self.nodes),
            }
        ).encode()


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What setup.py did: host keys by private address, versions of the software, and who is left out and why."""

    host_keys: Mapping[str, str]
    versions: Mapping[str, str]
    lost: Mapping[str, str]


def silence_seconds(settings: Settings) -> float:
    """So long do nodes wait for a master that says nothing: longer than this client would for its boot."""
    return max(LEAST_SILENCE_SECONDS, settings.boot_timeout + SPARE_SECONDS)


def shared(spec: ClusterSpec, *, local: bool, region: str) -> dict[str, str]:
    """How nodes have ~/shared, as node/machine/sharing.py wants to know it; the ``local`` cloud mounts it itself."""
    if spec.efs:
        return {"kind": "efs", "address": f"{spec.efs}.efs.{region}.amazonaws.com"}
    return {"kind": "bind" if local else "nfs"}


def limits(spec: ClusterSpec, record: ClusterRecord, *, settings: Settings, now: datetime) -> dict[str, Any]:
    """What the watchdog of the cluster keeps: the spec's limits, reckoned from what it has cost and costs."""
    idle = settings.idle_hours if spec.idle_hours is None else spec.idle_hours
    # A cluster that was parked and started again has its hours anew, whatever EC2 still lists of its past.
    since = min((node.launched for node in record.nodes if node.state.alive), default=record.launched)
    deadline = None if spec.max_hours is None else since.timestamp() + 3600 * spec.max_hours
    return {
        "idle_seconds": 3600 * idle or None,
        "deadline": deadline,
        "budget_usd": spec.budget_usd,
        "usd_per_hour": record.usd_per_hour,
        "spent_usd": record.cost_so_far(now) or 0.0,
        "since": now.timestamp(),
        "then": spec.then,
        "warn_seconds": WARN_SECONDS,
    }


def configure(
    connection: Connection,
    setup: Setup,
    *,
    report: Callable[[str, int, str], None],
    pace: Pace,
    check: Callable[[], None],
    note_keys: Callable[[Mapping[str, str]], None] = lambda host_keys: None,
) -> SetUp:
    """Run setup.py on the master.

    ``report`` gets phase, nodes ready and a message; ``check`` is called every moment meanwhile, and may raise: a
    worker that has ended would be waited for. ``note_keys`` gets the host keys by private address just before they
    take the place of the launch's. Raises SetupFailed with what setup.py said, ConnectionLost.
    """
    deliver(connection)
    for event in run_setup(connection, SETUP, setup.message(), pace=pace, check=check):
        if event["event"] == "progress":
            report(event["phase"], int(event.get("ready", 0)), str(event.get("message", "")))
        elif event["event"] == "host_keys":
            note_keys(event["host_keys"])
        done = event
    return SetUp(host_keys=done["host_keys"], versions=done.get("versions", {}), lost=done.get("lost", {}))


def run_setup(
    connection: Connection,
    command: str,
    task: bytes,
    *,
    pace: Pace,
    check: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """Run setup.py on the master and yield its events, ``done`` the last. Raises SetupFailed with what it said."""
    with connection.popen(command) as channel:
        channel.send_all(task)
        channel.close_write()
        for event in _events(channel, pace, check):
            if event["event"] == "error":
                raise SetupFailed(event["message"], node=event.get("node"))
            yield event
            if event["event"] == "done":
                return
        status = channel.exit_status()
        stderr = b"".join(iter(channel.recv_stderr, b"")).decode(errors="replace").strip()
    last = "; ".join(stderr.splitlines()[-3:]) or "it printed no error"
    raise SetupFailed(f"setup.py on the master ended with status {status}: {last}")


def run_to_end(
    connection: Connection, command: str, task: bytes, *, report: Report, pace: Pace
) -> dict[str, Any]:
    """Run setup.py, or what speaks as it does, and report its progress; its last event. Raises as ``run_setup``."""
    for event in run_setup(connection, command, task, pace=pace):
        if event["event"] == "progress":
            ready, total = int(event.get("ready", 0)), int(event.get("total", 0))
            report(Progress(event["phase"], ready, total, pace.elapsed, str(event.get("message", ""))))
    return event


def _events(channel: Channel, pace: Pace, check: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The events that setup.py prints, one a line; other lines are dropped."""
    channel.settimeout(PATIENCE_SECONDS)
    rest = b""
    while True:
        pace.check()
        check()
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
