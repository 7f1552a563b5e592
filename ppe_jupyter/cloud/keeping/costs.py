"""Costs: the table of what was spent, by cluster, month, owner or tag.

From the ledger for what is over, from EC2 for what there is, and from Cost Explorer if asked, which alone knows what
AWS bills, with discounts, taxes and traffic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ...errors import CloudError, UsageError
from ..context import Context
from ..records import ClusterRecord
from ..tags import CLUSTER, OWNER
from .ledger import Entry, Ledger
from .spending import Item, Spend, items

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("instances", "disks", "addresses", "snapshots")
# Cost Explorer keeps the current month and the 13 before it.
MOST_DAYS_BACK = 390
UNTAGGED = "(not tagged)"
KEYS: Mapping[str, Callable[[Spend], str]] = {
    "cluster": lambda spend: spend.item.last.name,
    "owner": lambda spend: spend.item.last.owner or UNTAGGED,
    "month": lambda spend: f"{spend.start:%Y-%m}",
    "kind": lambda spend: spend.item.last.kind,
    "type": lambda spend: spend.item.last.instance_type or spend.item.last.kind,
    "region": lambda spend: spend.item.last.region,
    "account": lambda spend: spend.item.last.account,
}
# What Cost Explorer can group by, beside the user's tags.
TAGS = {"cluster": CLUSTER, "owner": OWNER}


class Costs:
    """The costs of one account and region, and of what the ledger knows besides."""

    def __init__(self, context: Context, ledger: Ledger) -> None:
        self._context = context
        self._ledger = ledger

    def table(
        self,
        records: Iterable[ClusterRecord],
        *,
        month: str | None = None,
        by: str | None = None,
        explorer: bool = False,
    ) -> pd.DataFrame:
        """USD a row for each cluster, volume and snapshot, or for each ``by``: a name of KEYS or a tag's key.

        ``records`` are all clusters that EC2 lists; ``month`` is such as 2026-05, in UTC as AWS bills. ``explorer``
        asks Cost Explorer too, for one cent. ``attrs["notes"]`` has lines to be shown below. Raises UsageError.
        """
        now = self._context.now()
        first, end = month_of(month) if month else (None, now)
        by = by or "cluster"
        found = self._items(records, now)
        spends = [spend for item in found for spend in item.spends()]
        start = first or min((spend.start for spend in spends), default=now)
        notes = ["The local cloud is free: shown is what EC2 would have charged."] * (
            self._context.settings.cloud == "local"
        )
        billed: Mapping[str, float] | None = None
        if explorer and (by not in KEYS or by in TAGS):
            billed, note = self._billed(TAGS.get(by, by), start, min(end, now))
            notes.append(note)
        elif explorer:
            notes.append(f"Cost Explorer is not asked by {by}: only by cluster, owner or a tag.")
        frame = table(found, start=start, end=end, by=by, billed=billed)
        frame.attrs["notes"] = tuple(notes)
        return frame

    def _items(self, records: Iterable[ClusterRecord], now: datetime) -> list[Item]:
        ec2 = self._context.ec2
        return items(
            self._ledger.entries(),
            whose=ec2.identity(),
            cloud=self._context.settings.cloud,
            now=now,
            records=records,
            volumes=[each for each in ec2.volumes() if OWNER in each.tags and not each.ends_with_instance],
            snapshots=ec2.snapshots(),
        )

    def _billed(self, tag: str, start: datetime, end: datetime) -> tuple[Mapping[str, float], str]:
        """What Cost Explorer says by that tag, and what to say about it."""
        day = timedelta(days=1)
        last = (end - timedelta(microseconds=1)).date()
        first = max(start.date(), last - MOST_DAYS_BACK * day)
        try:
            billed = self._context.ec2.billed(tag, start=first, end=last + day)
        except CloudError as exc:
            return {}, f"Cost Explorer cannot be asked: {exc}"
        if not any(billed):
            where = "Billing, Cost allocation tags"
            return billed, f"AWS bills by the tag {tag} only from when it is activated there: {where}."
        return billed, f"Billed: Cost Explorer by the tag {tag}, for all of the account, up to a day late."


def table(
    found: Iterable[Item],
    *,
    start: datetime,
    end: datetime,
    by: str,
    billed: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The costs from ``start`` to ``end``, grouped. ``billed`` is what AWS has billed for each group."""
    import pandas as pd

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in found:
        for spend in _spends(item, start, end, monthly=by == "month"):
            last = item.last
            key = KEYS[by](spend) if by in KEYS else last.tags.get(by, UNTAGGED)
            row = rows.setdefault((key, _where(last)), _row(by, key, _where(last)))
            for part, usd in spend.usd.items():
                row[part] += usd
                row["USD"] += usd
            row["items"][last.id] = item
    for row in rows.values():
        about = row.pop("items").values()
        row["USD/h now"] = sum(item.rate for item in about)
        row["state"] = ", ".join(dict.fromkeys(item.state or "ended" for item in about))
        row["note"] = "; ".join(dict.fromkeys(item.note for item in about if item.note))
    for key, usd in (billed or {}).items():
        mine = next((row for (name, where), row in rows.items() if name == (key or UNTAGGED)), None)
        if mine is None:
            mine = rows[key, "AWS"] = _row(by, key or UNTAGGED, "AWS") | {"note": "not in the ledger"}
        mine["billed USD"] = usd
    columns = [
        by,
        "where",
        *PARTS,
        "USD",
        *(["billed USD"] if billed is not None else []),
        "USD/h now",
        "state",
    ]
    frame: pd.DataFrame = pd.DataFrame(list(rows.values()), columns=[*columns, "note"]).set_index(by)
    return frame


def month_of(text: str) -> tuple[datetime, datetime]:
    """The first moment of a month such as 2026-05 and that of the next, UTC. Raises UsageError."""
    found = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])", text)
    if found is None:
        raise UsageError(f"{text!r} is not a month such as 2026-05")
    start = datetime(int(found[1]), int(found[2]), 1, tzinfo=timezone.utc)
    return start, _next_month(start)


def _next_month(time: datetime) -> datetime:
    start = time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (start + timedelta(days=32)).replace(day=1)


def _spends(item: Item, start: datetime, end: datetime, *, monthly: bool) -> Iterator[Spend]:
    """The item's costs in that time; cut where months end if ``monthly``."""
    for spend in item.spends():
        inside = spend.within(start, end)
        while inside is not None:
            border = min(_next_month(inside.start), inside.end) if monthly else inside.end
            piece, rest = inside.within(inside.start, border), inside.within(border, inside.end)
            assert piece is not None
            yield piece
            inside = rest if border < inside.end else None


def _row(by: str, key: str, where: str) -> dict[str, Any]:
    return {by: key, "where": where, **dict.fromkeys(PARTS, 0.0), "USD": 0.0, "items": {}}


def _where(last: Entry) -> str:
    return "local cloud: free" if last.cloud == "local" else f"{last.account} {last.region}"
