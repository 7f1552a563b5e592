"""Orphans: everything of ours that no living cluster uses, in one region, found by its tags.

A cluster lives while it runs, is parked, is degraded and was once configured, or while a client may be at work on
it. What is somebody else's is left out unless asked for. A data volume is of a kind of its own, since its user may
keep it for the next cluster: a new one, or one that a living cluster wants, is left out. Changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ... import catalog
from ...errors import PpeError
from .. import tagged, tags
from ..access import rule_description
from ..context import Context
from ..facts import Instance
from ..records import ClusterRecord, ClusterState, InstanceState, Node

# Since its creation: EC2 does not tell when a volume was used last.
STALE = timedelta(days=7)
KINDS = (
    *("instance", "security group", "placement group", "volume", "data volume", "image", "snapshot"),
    *("SSH rule", "key pair", "mark"),
)


@dataclass(frozen=True)
class Orphan:
    """One thing that nothing uses any more. ``kind`` is one of KINDS; ``usd_per_hour`` is None when it is unknown.

    ``name`` is what a person calls it, ``cluster`` what it was made for ("" if for none), ``why`` why it is listed.
    """

    kind: str
    id: str
    name: str
    cluster: str
    owner: str
    region: str
    usd_per_hour: float | None
    why: str


def same_owner(one: str, other: str) -> bool:
    """Whether two owner tags are of the same OS user and STS identity, on whatever machine.

    The session's name in an assumed role's ARN changes with each sign-in.
    """
    return _person(one) == _person(other)


def orphans(
    context: Context, *, images: bool = False, everyone: bool = False, force: bool = False
) -> list[Orphan]:
    """What nothing uses, in the order of removal; images and snapshots only with ``images``.

    Others' only with ``everyone``. ``force`` takes every client that says it is at work for dead.
    """
    found = _Search(context, force=force)
    kinds = [found.instances, found.groups, found.placements, found.volumes]
    kinds += [found.images, found.snapshots] if images else []
    mine = context.owner()
    return [
        orphan
        for kind in [*kinds, found.ssh_rules, found.key_pairs, found.marks]
        for orphan in kind()
        if everyone or same_owner(orphan.owner, mine)
    ]


class _Search:
    """What there is in the region, and which of it lives."""

    def __init__(self, context: Context, *, force: bool) -> None:
        self._context = context
        self._ec2 = context.ec2
        self._force = force
        self._now = context.now()
        self._all = [each for each in self._ec2.our_instances() if each.state is not InstanceState.TERMINATED]
        self._by_id = {each.instance_id: each for each in self._all}
        records = tagged.clusters(self._all, now=self._now)
        self._living = {(each.name, each.launch): each for each in records if self._lives(each)}
        self._groups = self._ec2.our_security_groups()

    def instances(self) -> Iterator[Orphan]:
        """Of launches and resizes that died, of bakes that did, and those that another has replaced."""
        for each in self._all:
            if each.state.alive and (why := self._why_unused(each)):
                price = _float(each.tags.get(tags.PRICE, "")) if each.state.computes else 0.0
                yield self._orphan("instance", each.instance_id, each.tags, why, price)

    def groups(self) -> Iterator[Orphan]:
        """Security groups."""
        for group_id, found in self._groups.items():
            if self._is_left(found):
                yield self._orphan("security group", group_id, found, "its cluster is gone")

    def placements(self) -> Iterator[Orphan]:
        """Placement groups; a launch may have left one in a zone that had no capacity."""
        used = {each.placement_group for each in self._all}
        for name, found in self._ec2.our_placement_groups().items():
            living = self._living.get(_launch(found))
            if self._is_left(found):
                yield self._orphan("placement group", name, found, "its cluster is gone")
            elif living and name not in used and not self._busy(living.busy_until):
                yield self._orphan("placement group", name, found, "no instance is in it")

    def volumes(self) -> Iterator[Orphan]:
        """Disks that an instance has left behind, and data volumes that nobody uses."""
        wanted = {
            volume_id
            for record in self._living.values()
            if record.spec
            for volume_id, _ in record.spec.mounts()
        }
        for each in self._ec2.volumes():
            if tags.OWNER not in each.tags or each.state not in ("available", "error"):
                continue
            price = catalog.disk_usd_per_hour(each.gb, catalog.priced_as(each.kind))
            if each.tags.get(tags.MADE) == "volume":
                if each.volume_id not in wanted and self._now - each.created > STALE:
                    why = f"a data volume of {each.gb} GB, made {each.created:%Y-%m-%d}, attached to nothing"
                    yield self._orphan(
                        "data volume", each.volume_id, each.tags, f"{why}; its data go too", price
                    )
            elif not self._busy_with(each.tags):
                yield self._orphan("volume", each.volume_id, each.tags, "its instance is gone", price)

    def images(self) -> Iterator[Orphan]:
        """Images that we baked and no instance was launched from."""
        used = {each.image_id for each in self._all}
        for each in self._ec2.own_images():
            if tags.OWNER in each.tags and each.image_id not in used and not self._busy_with(each.tags):
                yield self._orphan("image", each.image_id, each.tags, "no instance uses it", 0.0)

    def snapshots(self) -> Iterator[Orphan]:
        """Snapshots of which no image is left, or only one that is an orphan too."""
        going = {orphan.id for orphan in self.images()}
        needed = {
            snapshot_id
            for image in self._ec2.own_images()
            if image.image_id not in going
            for snapshot_id in image.snapshot_ids
        }
        for each in self._ec2.snapshots():
            if each.snapshot_id not in needed and not self._busy_with(each.tags):
                price = catalog.snapshot_usd_per_hour(each.gb)
                yield self._orphan("snapshot", each.snapshot_id, each.tags, "no image needs it", price)

    def ssh_rules(self) -> Iterator[Orphan]:
        """What lets this client's former addresses into its living clusters."""
        try:
            address = ipaddress.IPv4Address(self._context.caller_address())
        except (PpeError, ValueError):
            return
        description = rule_description(given=False)
        for group_id, found in self._groups.items():
            if _launch(found) not in self._living:
                continue
            for rule in self._ec2.ssh_rules([group_id]):
                if rule.description == description and address not in ipaddress.IPv4Network(rule.cidr):
                    why = f"your address is {address} now"
                    yield self._orphan("SSH rule", f"{group_id} {rule.cidr}", found, why, 0.0)

    def key_pairs(self) -> Iterator[Orphan]:
        """Key pairs that we imported; the private halves stay where they are, and are imported again when needed."""
        used = {each.key_name for each in self._all if not self._why_unused(each)}
        launching = not self._force and any(self._busy_with(found) for found in self._groups.values())
        for name, found in self._ec2.our_key_pairs().items():
            if name not in used and not launching:
                yield self._orphan("key pair", name, found, "no instance needs it", 0.0)

    def marks(self) -> Iterator[Orphan]:
        """Living clusters on which a client was at work that is taken for dead."""
        for record in self._living.values():
            if self._force and record.busy_until and self._now < record.busy_until:
                why = f"says that a client is at work on it till {record.busy_until:%H:%M} UTC"
                yield Orphan(
                    "mark", record.name, record.name, record.name, record.owner, self._ec2.region, 0.0, why
                )

    # -- what lives ---------------------------------------------------------------------------------------

    def _lives(self, record: ClusterRecord) -> bool:
        if record.state in (ClusterState.TERMINATED, ClusterState.SHUTTING_DOWN):
            return False
        return self._busy(record.busy_until) or any(self._ran(node) for node in record.nodes)

    def _ran(self, node: Node) -> bool:
        """Whether it lives and was ever configured, be it before the cluster was parked."""
        found = self._by_id.get(node.instance_id)
        return found is not None and node.state.alive and tagged.was_configured(found.tags)

    def _why_unused(self, instance: Instance) -> str:
        """Why no living cluster uses that instance, or ""."""
        if tags.CLUSTER not in instance.tags:
            return "" if self._busy_with(instance.tags) else "what it was launched for has ended half-way"
        record = self._living.get(_launch(instance.tags))
        if record is None:
            return "" if self._busy_with(instance.tags) else "its launch has ended half-way"
        if self._busy(record.busy_until):
            return ""
        node = next((each for each in record.nodes if each.instance_id == instance.instance_id), None)
        if node is None:
            return "another one has taken its place"
        size = self._size(record)
        if size is not None and node.index >= size:
            return f"a resize of {record.name} to {size} nodes, or from as many, has ended half-way"
        return ""

    def _size(self, record: ClusterRecord) -> int | None:
        """How many nodes the cluster has by those that were configured; one that is half-way there may say more."""
        ran = [self._by_id[node.instance_id] for node in record.nodes if self._ran(node)]
        latest = max(ran, key=lambda each: each.tags.get(tags.BUSY_UNTIL, ""), default=None)
        spec = tagged.spec_of(latest.tags) if latest else None
        return spec.nodes if spec else None

    def _is_left(self, found: Mapping[str, str]) -> bool:
        return _launch(found) not in self._living and not self._busy_with(found)

    def _busy_with(self, found: Mapping[str, str]) -> bool:
        return self._busy(tagged.busy_until_of(found))

    def _busy(self, until: datetime | None) -> bool:
        return until is not None and self._now < until and not self._force

    def _orphan(
        self, kind: str, id_: str, found: Mapping[str, str], why: str, usd_per_hour: float | None = 0.0
    ) -> Orphan:
        return Orphan(
            kind=kind,
            id=id_,
            name=found.get("Name", id_),
            cluster=found.get(tags.CLUSTER, ""),
            owner=found.get(tags.OWNER, ""),
            region=self._ec2.region,
            usd_per_hour=usd_per_hour,
            why=why,
        )


def _launch(found: Mapping[str, str]) -> tuple[str, str]:
    return found.get(tags.CLUSTER, ""), found.get(tags.LAUNCH, "")


def _person(owner: str) -> tuple[str, str]:
    where, _, arn = owner.partition(" ")
    return where.partition("@")[0], re.sub(r"(:assumed-role/[^/]+)/.*", r"\1", arn)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
