"""Manager: the composition root; with Cluster the only API that front ends use.

Starts the local cloud when it is the chosen one, and hands its endpoint to ``cloud``. Notes in the ledger what was
done. Holds no truth of its own. Knows nothing of magics, widgets or terminals.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import catalog, settings
from .cloud.account import Account
from .cloud.changing import cleanup
from .cloud.changing.cleanup import Orphan
from .cloud.context import Context
from .cloud.ec2 import EC2
from .cloud.facts import Snapshot, Volume
from .cloud.keeping.images import ImageInfo
from .cloud.launching.removal import Removed, terminate
from .cloud.lock import Lock
from .cloud.pace import IGNORE, Report
from .cloud.plan import Plan
from .cloud.records import ClusterRecord, ClusterState
from .cloud.spec import ClusterSpec
from .cluster import Cluster
from .errors import CloudError, LocalCloudUnavailable, NoSuchCluster

if TYPE_CHECKING:
    import pandas as pd

    from . import localcloud


class Manager:
    """Clusters of one account and region, or of the local cloud.

    ``report`` receives a line of text while the local cloud is prepared (its image is built once).
    Creating a Manager contacts nothing.
    """

    def __init__(
        self, chosen: settings.Settings | None = None, *, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self.settings = chosen or settings.load()
        self._report = report

    # -- clusters ---------------------------------------------------------------------------------------

    def whose(self) -> str:
        """Whose money a launch spends: the first line of every review and status."""
        return "local cloud: free" if self.is_free else self._account.survey.whose()

    def credentials(self) -> str:
        """Which of boto3's sources the credentials are from; never a secret."""
        return "the local cloud's own" if self.is_free else self._ec2.credentials()

    @property
    def is_free(self) -> bool:
        """Whether it is the local cloud: then prices are what EC2 would charge."""
        return self.settings.cloud == "local"

    @property
    def is_stale(self) -> bool:
        """Whether the local cloud that it has talked to was taken down since."""
        endpoint = vars(self).get("_endpoint")  # not yet there: nothing was contacted
        return endpoint is not None and self._local.known(self.settings) != endpoint

    def plan(self, spec: ClusterSpec, *, dry_run: bool = False, lock: Lock | None = None) -> Plan:
        """What launching ``spec`` would create, its price and its problems; nothing is created in the cloud.

        ``dry_run`` asks EC2 besides whether the credentials allow it all. With a ``lock`` it is from an image that has
        its software; once the cluster runs, ``Cluster.satisfy`` makes sure of that.
        """
        if self.is_free:
            self._local.prepare(self.settings, report=self._report)
        existing = self._account.clusters.find()
        return self._account.survey.plan(spec, existing=existing, dry_run=dry_run, lock=lock)

    def launch(
        self,
        spec: ClusterSpec | Plan,
        *,
        report: Report = IGNORE,
        wait: bool = True,
        stop: threading.Event | None = None,
    ) -> Cluster:
        """Launch a cluster; one that runs already under the same name and specification is returned as it is.

        A node that does not come up leaves the cluster degraded: ``record.troubles`` say why. Raises SpecError for
        what cannot be launched, CapacityError, LaunchFailed; then nothing is left, or the error names it. Setting
        ``stop`` undoes the launch as a Ctrl-C does, and LaunchFailed says so. RStudio Server comes last, and not
        without ``wait``; a Ctrl-C then leaves the cluster without it.
        """
        began = time.monotonic()
        plan = self.plan(spec) if isinstance(spec, ClusterSpec) else spec
        record = self._account.clusters.launch(plan, report=report, wait=wait, stop=stop)
        if plan.existing is None:
            self._account.note("launch", record)
        cluster = Cluster(self._account, record)
        if plan.spec.rstudio and wait:
            cluster.add_rstudio(report=report, began=began)
        return cluster

    def clusters(self) -> list[Cluster]:
        """Every cluster that has not been terminated, whoever launched it; the newest first."""
        found = self._account.clusters.find()
        self._account.note_ends(found)
        return [
            Cluster(self._account, self._account.settled(record))
            for record in found
            if record.state is not ClusterState.TERMINATED
        ]

    def cluster(self, name: str | None = None) -> Cluster:
        """The cluster of that name; without a name the sole running one. Raises NoSuchCluster."""
        if name is not None:
            return Cluster(self._account, self._account.settled(self._account.clusters.get(name)))
        found = self.clusters()
        running = [each for each in found if each.state in (ClusterState.RUNNING, ClusterState.DEGRADED)]
        if len(running) == 1:
            return running[0]
        names = ", ".join(f"{cluster.name} ({cluster.state})" for cluster in found)
        if running:
            raise NoSuchCluster(f"several clusters run; name one (in a cell with --cluster NAME) of: {names}")
        raise NoSuchCluster(
            f"no cluster is running; there are: {names}"
            if found
            else "there is no cluster; launch one with: %ppe_launch"
        )

    def terminate(self, name: str, *, report: Report = IGNORE) -> None:
        """End the cluster and remove all that was made for it. Safe to repeat.

        Raises NoSuchCluster when nothing has or had that name, NothingToDo when it is gone already, CloudError naming
        what could not be removed.
        """
        record = next((each for each in self._account.clusters.find() if each.name == name), None)
        terminate(self._account.context, name, report=report)
        if record is not None:
            self._account.note("terminate", record)

    def mine(self, record: ClusterRecord) -> bool:
        """Whether this user launched it."""
        return self._account.mine(record)

    def foreign_remains(self, name: str) -> str:
        """Who launched what is left of a cluster without instances, if that was somebody else; else ""."""
        return self._account.foreign_remains(name)

    # -- what outlives clusters -------------------------------------------------------------------------

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

    # -- the local cloud --------------------------------------------------------------------------------

    def local_up(self) -> localcloud.Status:
        """Start the local cloud, building its image if there is none."""
        self._local.prepare(self.settings, report=self._report)
        self._local.ensure(self.settings, report=self._report)
        return self.local_status()

    @property
    def prepared(self) -> bool:
        """Whether a launch need not wait until the local cloud's image is built."""
        return not self.is_free or self._local.prepared(self.settings)

    def local_status(self) -> localcloud.Status:
        """Whether the local cloud runs, where, and with how many nodes."""
        status: localcloud.Status = self._local.status(self.settings)
        return status

    def local_down(self) -> None:
        """End the local cloud with every cluster and volume in it."""
        if self.local_status().running:
            with contextlib.suppress(CloudError):
                for record in self._account.clusters.find():
                    if record.state is not ClusterState.TERMINATED:
                        self._account.note("terminate", record)
                stored: list[Volume | Snapshot] = [*self._account.volumes.list(), *self._ec2.snapshots()]
                for each in stored:
                    self._account.note_deleted(each)
        self._local.down(self.settings)

    # -- parts ------------------------------------------------------------------------------------------

    @cached_property
    def _local(self) -> ModuleType:
        """The local cloud, which needs Linux; a client of AWS does without."""
        if sys.platform != "linux":
            raise LocalCloudUnavailable(
                "the local cloud runs on Linux only; use AWS (%ppe_config cloud aws), or a Linux machine's JupyterLab"
            )
        from . import localcloud

        return localcloud

    @cached_property
    def _endpoint(self) -> localcloud.Endpoint | None:
        return self._local.ensure(self.settings, report=self._report) if self.is_free else None

    @cached_property
    def _ec2(self) -> EC2:
        endpoint = self._endpoint
        if endpoint is None:
            return EC2(self.settings)
        return EC2(
            self.settings,
            endpoint_url=endpoint.url,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            region=endpoint.region,
        )

    @cached_property
    def _account(self) -> Account:
        return self._over(self._ec2, self.settings)

    def _over(self, ec2: EC2, chosen: settings.Settings) -> Account:
        return Account(Context(ec2=ec2, settings=chosen, caller_address=self._caller_address))

    def _everywhere(self) -> list[Account]:
        if self.is_free:
            return [self._account]
        return [self._in(region) for region in self._ec2.regions()]

    def _in(self, region: str) -> Account:
        """The same account in another region; the local cloud has one only."""
        if self.is_free or region == self._ec2.region:
            return self._account
        chosen = replace(self.settings, region=region)
        return self._over(EC2(chosen), chosen)

    def _caller_address(self) -> str:
        """This machine's address as the nodes see it."""
        if self._endpoint is not None:
            return self._endpoint.caller_address
        url = self.settings.caller_url
        try:
            with urllib.request.urlopen(url, timeout=self.settings.connect_timeout) as answer:  # noqa: S310
                return str(answer.read(64).decode("ascii").strip())
        except (OSError, ValueError) as exc:
            raise CloudError(
                f"cannot find out this machine's public address from {url} ({exc}); give it with --from CIDR"
            ) from exc
