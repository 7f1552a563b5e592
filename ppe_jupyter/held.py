"""What the parts of Cluster have in common: a record and the account that it is in, beside the connection."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TypeVar

from .cloud.account import Account
from .cloud.records import ClusterRecord, ClusterState, Node
from .sessions import Sessions

T = TypeVar("T", bound="Held")


class Held(Sessions):
    """A cluster as its user holds it: EC2's answer at one moment, ``record``."""

    def __init__(self, account: Account, record: ClusterRecord) -> None:
        super().__init__()
        self._account = account
        self.record = record

    @property
    def name(self) -> str:
        """Its name, unique in the account and region."""
        return self.record.name

    @property
    def state(self) -> ClusterState:
        """Its state when it was last asked for (``refresh``)."""
        return self.record.state

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes, the master first."""
        return self.record.nodes

    @property
    def master(self) -> Node:
        """The node that R runs on."""
        return self.record.master

    @property
    def is_free(self) -> bool:
        """Whether it is the local cloud's: then the costs are what EC2 would charge."""
        return self._account.is_free

    @property
    def mine(self) -> bool:
        """Whether this user launched it."""
        return self._account.mine(self.record)

    @property
    def cost_so_far(self) -> float | None:
        """USD since launch at on-demand prices; None if a price is unknown."""
        return self.record.cost_so_far(datetime.now(timezone.utc))

    def refresh(self: T) -> T:
        """Ask EC2 for its present state."""
        self.record = self._account.settled(self._account.clusters.get(self.name))
        return self
