"""Account: one account and region, with all that finds, changes and notes what is in it. What ``manager`` and
``cluster`` use of this room."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import CloudError
from . import tags
from .changing.cleanup import same_owner
from .context import Context
from .facts import Instance, Snapshot, Volume
from .keeping.costs import Costs
from .keeping.images import ImageStore
from .keeping.ledger import ENDS, Entry, Ledger
from .keeping.volumes import Volumes
from .launching.clusters import Clusters
from .planning.survey import Survey
from .records import ClusterRecord, ClusterState

if TYPE_CHECKING:
    from .changing.change import Changes


class Account:
    """The parts of the room over one context; each is made when it is first wanted."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._ended: set[str] = set()  # launches whose end was looked for in the ledger

    @property
    def is_free(self) -> bool:
        """Whether it is the local cloud: then prices are what EC2 would charge."""
        return self.context.settings.cloud == "local"

    def mine(self, record: ClusterRecord) -> bool:
        """Whether this user launched it."""
        return same_owner(record.owner, self.context.owner())

    def foreign_remains(self, name: str) -> str:
        """Who launched what is left of a cluster without instances, if that was somebody else; else ""."""
        ec2, me = self.context.ec2, self.context.owner()
        left = [*ec2.our_security_groups().values(), *ec2.our_placement_groups().values()]
        owners = {each.get(tags.OWNER, "") for each in left if each.get(tags.CLUSTER) == name}
        return next((owner for owner in sorted(owners) if not same_owner(owner, me)), "")

    def settled(self, record: ClusterRecord) -> ClusterRecord:
        """The record with what it has cost, also of a cluster that has parked itself; as it is if EC2 refuses that."""
        try:
            return self.changes.settle(record)
        except CloudError:
            return record

    def note(
        self, event: str, what: ClusterRecord | Volume | Snapshot, *, at: datetime | None = None
    ) -> None:
        """Into the ledger, as of now or then; that EC2 cannot be asked whose it is stops nothing."""
        with contextlib.suppress(CloudError):
            context = self.context
            noted: dict[str, Any] = {"cloud": context.settings.cloud, "now": at or context.now()}
            noted["whose"] = context.ec2.identity()
            if isinstance(what, ClusterRecord):
                self._ledger.record(Entry.of_cluster(event, what, **noted))
            else:
                self._ledger.record(Entry.of_storage(event, what, **noted))

    def note_deleted(self, what: Volume | Snapshot) -> None:
        """Into the ledger, from its creation on, which may have been another client's doing."""
        self.note("create", what, at=what.created)
        self.note("delete", what)

    def note_ends(self, records: Iterable[ClusterRecord]) -> None:
        """Into the ledger: that clusters in it have ended by themselves, or by another client's doing."""
        over = [each for each in records if each.state is ClusterState.TERMINATED]
        over = [each for each in over if each.launch not in self._ended]
        if not over:
            return
        last = {entry.id: entry.event for entry in self._ledger.entries()}
        for record in over:
            self._ended.add(record.launch)
            if last.get(record.launch, ENDS[0]) not in ENDS:
                self.note("terminate", record, at=self.changes.ended(record))

    def note_copy(self, copy: Instance, usd_per_hour: float | None) -> None:
        """Into the ledger: what the instance has cost that an image was made of."""
        if usd_per_hour is None:
            return
        with contextlib.suppress(CloudError):
            whose, cloud = self.context.ec2.identity(), self.context.settings.cloud
            ends = {"launch": copy.launched, "terminate": copy.stopped or self.context.now()}
            for event, now in ends.items():
                entry = Entry.of_resource(
                    event,
                    kind="bake",
                    id=copy.instance_id,
                    created=copy.launched,
                    rates={"instances": usd_per_hour},
                    all_tags=copy.tags,
                    whose=whose,
                    cloud=cloud,
                    now=now,
                )
                self._ledger.record(entry)

    def note_end(self, record: ClusterRecord) -> None:
        """Into the ledger, from its launch on: that the cluster has ended, or what of it goes on to cost."""
        self.note("launch", record, at=record.launched)
        alive = any(node.state.alive for node in record.nodes)
        self.note("cleanup" if alive else "terminate", record)

    @cached_property
    def clusters(self) -> Clusters:
        """What launches, finds and connects to clusters."""
        return Clusters(self.context, on_failure=self.note_end)

    @cached_property
    def changes(self) -> Changes:
        """What changes clusters."""
        from .changing.change import Changes

        return Changes(self.context, self.clusters)

    @cached_property
    def survey(self) -> Survey:
        """What asks the account before a launch."""
        return Survey(self.context)

    @cached_property
    def images(self) -> ImageStore:
        """Machine images."""
        return ImageStore(self.context, on_copy=self.note_copy)

    @cached_property
    def volumes(self) -> Volumes:
        """EBS volumes."""
        return Volumes(self.context)

    @cached_property
    def costs(self) -> Costs:
        """What was spent."""
        return Costs(self.context, self._ledger)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self.context.settings.state_dir)
