"""Ledger: what this user did with clusters and volumes, one line of JSON each, in a file that only grows.

History, never truth: what exists is in EC2, but its tags vanish with it, and what it has cost is asked for later. Other
clients have ledgers of their own. Knows nothing of how costs are reckoned.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from ... import catalog
from ..facts import Identity, Snapshot, Volume
from ..records import ClusterRecord
from ..tagged import user_tags
from ..tags import OWNER

FILE = "ledger.jsonl"
# What ends a thing: from then on it costs nothing.
ENDS = ("terminate", "delete")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One event. ``id`` is a cluster's launch or a resource's id, ``kind`` cluster, volume, snapshot or bake (the copy
    that an image is made of), ``cloud`` local or aws.

    ``spent`` is what it had cost until then, USD; ``rates`` what it costs an hour from then on, by part (instances,
    disks, addresses, snapshots). None: unknown. ``budget_usd`` is what ends a cluster that nobody else does.
    """

    time: datetime
    event: str
    kind: str
    id: str
    name: str
    cloud: str
    account: str
    region: str
    owner: str
    spent: float | None
    rates: Mapping[str, float] | None
    nodes: int = 0
    instance_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    budget_usd: float | None = None

    @classmethod
    def of_cluster(
        cls, event: str, record: ClusterRecord, *, whose: Identity, cloud: str, now: datetime
    ) -> Entry:
        """What has just been done with a cluster; ``record`` is as it is afterwards, or was last before its end."""
        return cls(
            time=now,
            event=event,
            kind="cluster",
            id=record.launch,
            name=record.name,
            cloud=cloud,
            account=whose.account,
            region=whose.region,
            owner=record.owner,
            spent=record.cost_so_far(now),
            rates=rates(record)
            if event not in ENDS and any(node.state.alive for node in record.nodes)
            else {},
            nodes=len(record.nodes),
            instance_type=record.spec.instance_type if record.spec else "",
            tags=dict(record.spec.tags) if record.spec else {},
            budget_usd=record.spec.budget_usd if record.spec and record.spec.then == "terminate" else None,
        )

    @classmethod
    def of_storage(
        cls, event: str, what: Volume | Snapshot, *, whose: Identity, cloud: str, now: datetime
    ) -> Entry:
        """A volume, or a snapshot, which stores an image, was made or is deleted."""
        if isinstance(what, Volume):
            kind, id = "volume", what.volume_id
            rates = {"disks": catalog.disk_usd_per_hour(what.gb, catalog.priced_as(what.kind))}
        else:
            kind, id = "snapshot", what.snapshot_id
            rates = {"snapshots": catalog.snapshot_usd_per_hour(what.gb)}
        return cls.of_resource(
            event,
            kind=kind,
            id=id,
            created=what.created,
            rates=rates,
            all_tags=what.tags,
            whose=whose,
            cloud=cloud,
            now=now,
        )

    @classmethod
    def of_resource(
        cls,
        event: str,
        *,
        kind: str,
        id: str,
        created: datetime,
        rates: Mapping[str, float],
        all_tags: Mapping[str, str],
        whose: Identity,
        cloud: str,
        now: datetime,
    ) -> Entry:
        """An event of what costs the same from its creation on."""
        hours = max(0.0, (now - created).total_seconds() / 3600)
        return cls(
            time=now,
            event=event,
            kind=kind,
            id=id,
            name=all_tags.get("Name", id),
            cloud=cloud,
            account=whose.account,
            region=whose.region,
            owner=all_tags.get(OWNER, ""),
            spent=hours * sum(rates.values()),
            rates={} if event in ENDS else rates,
            tags=user_tags(all_tags),
        )


class Ledger:
    """The ledger of one user on one machine."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE

    def record(self, entry: Entry) -> None:
        """Append an entry, whole even when others append meanwhile; history that cannot be written stops nothing."""
        line = json.dumps({**asdict(entry), "time": entry.time.isoformat(timespec="seconds")})
        # The newline before it ends a line that was cut off.
        data = f"\n{line}\n".encode()
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(file, data)
            finally:
                os.close(file)

    def entries(self) -> list[Entry]:
        """All that can be read, in the order of time; damaged lines are passed over."""
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        return sorted(filter(None, map(_entry, lines)), key=lambda entry: entry.time)


def rates(record: ClusterRecord) -> dict[str, float] | None:
    """What a cluster costs an hour now, by part; None if a price is unknown."""
    computing = [node for node in record.nodes if node.state.computes]
    if record.usd_per_hour is None or any(node.price is None for node in computing):
        return None
    instances = sum(node.price or 0.0 for node in computing)
    addresses = sum(catalog.USD_PER_HOUR_PUBLIC_IPV4 for node in computing if node.public_ip)
    disks = record.usd_per_hour - instances - addresses
    return {"instances": instances, "disks": max(0.0, disks), "addresses": addresses}


def _entry(line: str) -> Entry | None:
    try:
        fields = json.loads(line)
        entry = Entry(**{**fields, "time": datetime.fromisoformat(fields["time"])})
        numbers = [entry.spent or 0.0, entry.budget_usd or 0.0, *(entry.rates or {}).values()]
        return entry if entry.time.tzinfo and all(type(each) in (int, float) for each in numbers) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
