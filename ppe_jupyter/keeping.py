"""Keeping: what outlives clusters: images, volumes, costs, and what is left over. The part of Manager for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import catalog
from .accounts import Accounts
from .cloud.changing import cleanup
from .cloud.changing.cleanup import Orphan
from .cloud.facts import Snapshot, Volume
from .cloud.keeping.images import ImageInfo
from .cloud.launching.removal import Removed
from .cloud.pace import IGNORE, Report
from .errors import CloudError

if TYPE_CHECKING:
    import pandas as pd


class Keeping(Accounts):
    """What an account has beside clusters, and may have."""

    def types(self, **filters: Any) -> pd.DataFrame:
        """Instance types, a row each, prices in USD per hour, memory in GB; ``catalog.table`` says which filters.

        The shipped ones when the cloud cannot be asked: ``attrs["source"]`` of the table says which, and of when.
        """
        try:
            return self._account.survey.types(**filters)
        except CloudError as exc:
            return catalog.table(**filters, source=f"{catalog.shipped()} ({exc})")

    def instance_type(self, name: str) -> catalog.InstanceType | None:
        """One type as EC2 knows it, or as shipped when that cannot be asked; None if there is no such type."""
        try:
            return self._ec2.instance_type(name)
        except CloudError:
            return catalog.instance_types().get(name)

    def images(self) -> Sequence[ImageInfo]:
        """The user's own node images, and the stock ones."""
        if self.is_free:
            self._local.prepare(self.settings, report=self._report)
        return self._account.images.list()

    def delete_image(self, image_id: str) -> None:
        """Delete an image of the user's own with its snapshots."""
        for snapshot in self._account.images.delete(image_id):
            self._account.note_deleted(snapshot)

    def choices(self) -> dict[str, list[Any]]:
        """What a launch can name: zones and key_pairs by name, security_groups by id and name."""
        groups = self._ec2.all_security_groups()
        return {
            "zones": sorted({subnet.zone for subnet in self._ec2.subnets()}),
            "key_pairs": self._ec2.key_pairs(),
            "security_groups": [{"id": id, "name": name} for id, name in groups.items()],
        }

    def volumes(self) -> Sequence[Volume]:
        """Every EBS volume of the region but root disks."""
        return self._account.volumes.list()

    def create_volume(
        self, *, gb: int, zone: str, tags: Mapping[str, str] | None = None, encrypted: bool = True
    ) -> str:
        """Create an empty volume and return its id."""
        volume_id = self._account.volumes.create(gb=gb, zone=zone, tags=tags, encrypted=encrypted)
        self._account.note("create", self._account.volumes.get(volume_id))
        return volume_id

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume with all that is on it; SpecError while it is attached."""
        volume = self._account.volumes.get(volume_id)
        self._account.volumes.delete(volume_id)
        self._account.note_deleted(volume)

    def orphans(
        self, *, images: bool = False, everyone: bool = False, force: bool = False, all_regions: bool = False
    ) -> list[Orphan]:
        """What was made by this package and nothing uses any more; the user's own unless ``everyone``.

        ``force`` takes clients that say they are at work for dead.
        """
        flags = {"images": images, "everyone": everyone, "force": force}
        if not all_regions:
            return cleanup.orphans(self._account.context, **flags)
        found: list[Orphan] = []
        for account in self._everywhere():
            try:
                found += cleanup.orphans(account.context, **flags)
            except CloudError as exc:  # many organizations forbid all regions but some
                self._report(f"{account.context.ec2.region} is not searched: {exc}")
        return found

    def clean_up(self, orphans: Sequence[Orphan], *, report: Report = IGNORE) -> Removed:
        """Remove these; the answer says what could not be removed, and why."""
        removed = []
        for region in dict.fromkeys(orphan.region for orphan in orphans):
            there = [orphan for orphan in orphans if orphan.region == region]
            account = self._in(region)
            data: dict[str, Volume | Snapshot] = {each.volume_id: each for each in account.volumes.list()}
            if any(orphan.kind == "snapshot" for orphan in there):
                data |= {each.snapshot_id: each for each in account.context.ec2.snapshots()}
            removed.append(cleanup.clean_up(account.context, there, report=report))
            for orphan in there:
                if orphan.id in data and orphan.id not in removed[-1].leftovers:
                    account.note_deleted(data[orphan.id])
            ended = {orphan.cluster for orphan in there if orphan.kind == "instance"}
            for record in account.clusters.find() if ended else ():
                if record.name in ended:
                    account.note_end(record)
        leftovers = {what: why for each in removed for what, why in each.leftovers.items()}
        return Removed(sum(each.found for each in removed), leftovers)

    def costs(
        self, *, month: str | None = None, by: str | None = None, explorer: bool = False
    ) -> pd.DataFrame:
        """What was spent, USD (``Costs.table``); ``explorer`` asks AWS's Cost Explorer too, for one cent."""
        records = self._account.clusters.find()
        self._account.note_ends(records)
        return self._account.costs.table(records, month=month, by=by, explorer=explorer)
