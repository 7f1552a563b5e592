"""What is: clusters and nodes as another client would find them, their states, and progress.

Frozen values only, made from EC2's answers and tags by ``clusters``. Pure; knows neither boto3 nor SSH.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from ..errors import CloudError
from .spec import ClusterSpec


class ClusterState(str, Enum):
    """A cluster's state; ``running`` only when every node is configured and R answers."""

    PENDING = "pending"
    CONFIGURING = "configuring"
    RUNNING = "running"
    DEGRADED = "degraded"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"

    def __str__(self) -> str:
        return self.value


_S = ClusterState
TRANSITIONS: dict[ClusterState, frozenset[ClusterState]] = {
    _S.PENDING: frozenset({_S.CONFIGURING, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.CONFIGURING: frozenset({_S.RUNNING, _S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.RUNNING: frozenset({_S.DEGRADED, _S.SHUTTING_DOWN}),
    _S.DEGRADED: frozenset({_S.RUNNING, _S.SHUTTING_DOWN}),
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


@dataclass(frozen=True, kw_only=True)
class Node:
    """One instance of a cluster. Addresses are "" while unknown; ``host_key`` is "ssh-ed25519 AAAA…"."""

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
    slots: int
    launched: datetime
    host_key: str

    @property
    def address(self) -> str:
        """Where a client outside reaches it."""
        return self.public_ip or self.private_ip


@dataclass(frozen=True, kw_only=True)
class ClusterRecord:
    """A cluster as its tags tell it; nodes in order of index, the master first.

    ``usd_per_hour`` is what all its nodes, disks and addresses cost on EC2 (None: the price is unknown).
    ``spec`` is None when the tag was damaged. ``launching_until``: cleanup keeps its hands off till then.
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
    launching_until: datetime | None

    @property
    def master(self) -> Node:
        """The node that clients talk to. Raises CloudError when it is gone."""
        for node in self.nodes:
            if node.role == "master" and node.state.alive:
                return node
        raise CloudError(
            f"cluster {self.name!r} has lost its master; remove the rest with: %ppe_terminate {self.name}"
        )

    def cost_so_far(self, now: datetime) -> float | None:
        """USD since launch at EC2's prices, or None if the price is unknown."""
        if self.usd_per_hour is None:
            return None
        return self.usd_per_hour * max(0.0, (now - self.launched).total_seconds()) / 3600


@dataclass(frozen=True)
class Progress:
    """How far a launch or termination is: ``ready`` of ``total`` nodes in ``phase``, ``elapsed`` seconds."""

    phase: str
    ready: int
    total: int
    elapsed: float
    message: str = ""


def cluster_state(
    *, instances: Iterable[InstanceState], tagged: Iterable[str], expected: int, launching: bool
) -> ClusterState:
    """The state of a cluster from its instances' states and their ``ppe:state`` tags.

    ``expected`` is the number of nodes asked for; ``launching`` whether a client may still be at work on it.
    """
    states = list(instances)
    alive = [state for state in states if state.alive]
    if not alive:
        gone = not states or all(state is InstanceState.TERMINATED for state in states)
        return _S.TERMINATED if gone else _S.SHUTTING_DOWN
    tags = set(tagged)
    all_run = len(states) >= expected and all(state is InstanceState.RUNNING for state in states)
    if all_run and tags == {_S.RUNNING.value}:
        return _S.RUNNING
    if launching and _S.RUNNING.value not in tags:
        return _S.CONFIGURING if all_run else _S.PENDING
    return _S.DEGRADED
