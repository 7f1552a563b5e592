"""What is: clusters and nodes as another client would find them, their states, and progress.

Frozen values only, made from EC2's answers and tags by ``tags``. Pure; knows neither boto3 nor SSH.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

from .. import catalog
from ..errors import CloudError
from .spec import ClusterSpec


class ClusterState(str, Enum):
    """A cluster's state; ``running`` only when every node is configured and R answers."""

    PENDING = "pending"
    CONFIGURING = "configuring"
    RUNNING = "running"
    REBOOTING = "rebooting"
    DEGRADED = "degraded"
    PARKING = "parking"
    PARKED = "parked"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"

    def __str__(self) -> str:
        return self.value


_S = ClusterState
TRANSITIONS: dict[ClusterState, frozenset[ClusterState]] = {
    _S.PENDING: frozenset({_S.CONFIGURING, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.CONFIGURING: frozenset({_S.RUNNING, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.RUNNING: frozenset({_S.CONFIGURING, _S.REBOOTING, _S.PARKING, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.REBOOTING: frozenset({_S.RUNNING, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.DEGRADED: frozenset({_S.CONFIGURING, _S.RUNNING, _S.REBOOTING, _S.PARKING, _S.SHUTTING_DOWN}),
    _S.PARKING: frozenset({_S.PARKED, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.PARKED: frozenset({_S.PENDING, _S.SHUTTING_DOWN}),
    _S.SHUTTING_DOWN: frozenset({_S.TERMINATED}),
    _S.TERMINATED: frozenset(),
}


class InstanceState(str, Enum):
    """EC2's instance states (user guide, ec2-instance-lifecycle)."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"

    def __str__(self) -> str:
        return self.value

    @property
    def alive(self) -> bool:
        """Whether the instance still exists or is coming to exist."""
        return self not in (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)

    @property
    def computes(self) -> bool:
        """Whether the instance itself, not only its disk, is paid for."""
        return self in (InstanceState.PENDING, InstanceState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Node:
    """One instance of a cluster. Addresses are "" while unknown; ``host_key`` is "ssh-ed25519 AAAA…".

    ``reason`` says why it ended or stopped, ``configured`` whether setting it up has ended well, ``was_configured``
    whether it ever did: then its disk may hold what nothing else does. ``price`` is what the instance alone costs, USD
    per hour, as it was known at its launch (None: unknown).
    """

    instance_id: str
    index: int
    role: str
    state: InstanceState
    private_ip: str
    private_dns: str
    public_ip: str
    public_dns: str
    instance_type: str
    zone: str
    subnet_id: str
    slots: int
    launched: datetime
    host_key: str
    launch_host_key: str = ""
    spot: bool = False
    price: float | None = None
    configured: bool = False
    was_configured: bool = False
    reason: str = ""
    stopped: datetime | None = None

    @property
    def address(self) -> str:
        """Where a client outside reaches it."""
        return self.public_ip or self.private_ip

    @property
    def up(self) -> bool:
        """Whether it runs and was configured."""
        return self.state is InstanceState.RUNNING and self.configured


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a cluster had cost at one moment, USD, and what it cost an hour from then on (None: unknown)."""

    spent_usd: float
    usd_per_hour: float | None
    since: datetime

    def at(self, now: datetime) -> float | None:
        """USD until ``now`` at that rate."""
        if self.usd_per_hour is None:
            return None
        return self.spent_usd + self.usd_per_hour * max(0.0, (now - self.since).total_seconds()) / 3600


@dataclass(frozen=True, kw_only=True)
class ClusterRecord:
    """A cluster as its tags tell it; nodes in order of index.

    A node that has ended is among them only while nothing has taken its place. ``usd_per_hour`` is what nodes,
    disks and addresses cost on EC2 now (None: a price is unknown). ``spec`` is None when its tag was damaged.
    ``busy_until``: a client may be at work on it till then, and cleanup keeps its hands off. ``troubles`` has a
    line for each node that is not as it should be. ``guests`` are those whom its owner has let in.
    """

    name: str
    state: ClusterState
    nodes: tuple[Node, ...]
    usd_per_hour: float | None
    launched: datetime
    owner: str
    slots: int
    login_user: str
    key_name: str
    spec: ClusterSpec | None
    busy_until: datetime | None
    launch: str = ""
    cost: Cost | None = None
    troubles: tuple[str, ...] = ()
    guests: tuple[str, ...] = ()

    @property
    def master(self) -> Node:
        """The node that clients talk to. Raises CloudError when it is gone."""
        for node in self.nodes:
            if node.role == "master" and node.state.alive:
                return node
        raise CloudError(
            f"cluster {self.name!r} has lost its master; let another node take its place with: "
            f"%ppe_retry {self.name}; or remove the rest with: %ppe_terminate {self.name}"
        )

    @property
    def workers(self) -> tuple[Node, ...]:
        """The other nodes."""
        return tuple(node for node in self.nodes if node.role != "master")

    @property
    def wanted(self) -> int:
        """How many nodes it is to have."""
        return self.spec.nodes if self.spec else len(self.nodes)

    def cost_so_far(self, now: datetime) -> float | None:
        """USD since launch at EC2's prices, parked times included, or None if a price is unknown.

        A cluster that parked itself told nobody: from its master's stop on only the disk is paid for.
        """
        if self.cost is None:
            return None
        stopped = next((node.stopped for node in self.nodes if node.role == "master"), None)
        if stopped is None or stopped <= self.cost.since or self.usd_per_hour is None:
            return self.cost.at(now)
        until = self.cost.at(stopped)
        later = Cost(spent_usd=until or 0.0, usd_per_hour=self.usd_per_hour, since=stopped)
        return None if until is None else later.at(now)


@dataclass(frozen=True)
class Progress:
    """How far a launch or another change is: ``ready`` of ``total`` (nodes) in ``phase``, ``elapsed`` seconds."""

    phase: str
    ready: int
    total: int
    elapsed: float
    message: str = ""
    unit: Literal["nodes", "%"] = "nodes"


def cluster_state(nodes: Iterable[Node], *, tagged: Iterable[str], expected: int, busy: bool) -> ClusterState:
    """The state of a cluster from its nodes and their ``ppe:state`` tags.

    ``expected`` is the number of nodes asked for; ``busy`` whether a client may be at work on it.
    """
    nodes, tags = list(nodes), set(tagged)
    alive = [node for node in nodes if node.state.alive]
    if not alive:
        gone = all(node.state is InstanceState.TERMINATED for node in nodes)
        return _S.TERMINATED if gone else _S.SHUTTING_DOWN
    master = next((node.state for node in alive if node.role == "master"), None)
    if master is InstanceState.STOPPED and len(alive) == 1:
        return _S.PARKED
    if master in (InstanceState.STOPPED, InstanceState.STOPPING) or (busy and _S.PARKING.value in tags):
        return _S.PARKING
    if busy and _S.REBOOTING.value in tags:
        return _S.REBOOTING
    all_run = len(alive) >= expected and all(node.state is InstanceState.RUNNING for node in alive)
    if all_run and all(node.configured for node in alive):
        return _S.RUNNING
    if busy and not all(node.configured for node in alive):
        return _S.CONFIGURING if all_run else _S.PENDING
    return _S.DEGRADED


def troubles(nodes: Iterable[Node], *, expected: int) -> tuple[str, ...]:
    """A line for each node that is not as it should be."""
    found = {node.index: node for node in nodes}
    lines = []
    for index in sorted({*found, *range(expected)}):
        node = found.get(index)
        if node is None:
            lines.append(f"node {index} is gone, or never was")
        elif not node.up:
            state = str(node.state) if node.state is not InstanceState.RUNNING else "not configured"
            lines.append(
                f"node {index} ({node.instance_id}) is {state}{': ' * bool(node.reason)}{node.reason}"
            )
    return tuple(lines)


def advice(record: ClusterRecord) -> str:
    """What its state means for whoever would use it, and which verb helps; "" if it runs."""
    name, state = record.name, record.state
    if state in (_S.PARKED, _S.PARKING):
        return f"it is {state}; bring it back with: %ppe_start {name}"
    if state is _S.DEGRADED:
        return f"it is degraded; mend it with: %ppe_retry {name}"
    if state in (_S.PENDING, _S.CONFIGURING, _S.REBOOTING):
        until = f", until {record.busy_until:%H:%M} UTC at most" if record.busy_until else ""
        return f"a client is at work on it{until}; if that client is dead: %ppe_retry {name} --force"
    return f"it is {state}" if state is not _S.RUNNING else ""


def named_nodes(indices: Sequence[int]) -> str:
    """Nodes as a message has them."""
    return f"node{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def besides(names: Sequence[str]) -> str:
    """How a message goes on that there is no cluster of some name."""
    return f"; there are: {', '.join(names)}" if names else ", nor any other; launch one with: %ppe_launch"


def usd_per_hour(nodes: Iterable[Node], *, root_gb: int, root_type: str) -> float | None:
    """What these nodes cost an hour now, a stopped one its disk; None if a price is unknown."""
    total = 0.0
    for node in nodes:
        if node.state.alive:
            total += catalog.disk_usd_per_hour(root_gb, root_type)
        if node.state.computes:
            if node.price is None:
                return None
            total += node.price + (catalog.USD_PER_HOUR_PUBLIC_IPV4 if node.public_ip else 0.0)
    return total
