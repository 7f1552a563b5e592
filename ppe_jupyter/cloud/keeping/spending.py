"""Spending: what things have cost and when, from what the ledger remembers and what there is now.

What a thing has cost is known at certain moments, its marks; between two of them it is spread evenly. Prices are the
catalog's on-demand ones. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..facts import Identity, Snapshot, Volume
from ..records import ClusterRecord
from .ledger import ENDS, Entry, rates


@dataclass(frozen=True)
class Mark:
    """What a thing had cost at a moment, USD, and costs an hour from then on, by part; None: unknown."""

    time: datetime
    spent: float | None
    rates: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that costs; ``last`` says what and whose it is. The last of its ``marks`` is its end, now, or what is
    known last. ``state`` is "" for what is over or cannot be asked for."""

    last: Entry
    marks: tuple[Mark, ...]
    state: str = ""
    note: str = ""

    def spends(self) -> Iterator[Spend]:
        """The costs between each two marks; if they are unknown after the last, one of nothing says when that was."""
        for one, other in itertools.pairwise(self.marks):
            shares = one.rates or other.rates or {"instances": 1.0}
            rate = sum(shares.values())
            if one.spent is not None and other.spent is not None:
                usd = max(0.0, other.spent - one.spent)
            elif one.rates is not None:
                usd = rate * (other.time - one.time).total_seconds() / 3600
            else:
                continue
            parts = {part: usd * share / rate for part, share in shares.items()} if rate else {"disks": usd}
            yield Spend(self, one.time, other.time, parts)
        if not self.state and self.note:
            yield Spend(self, self.marks[-1].time, self.marks[-1].time, {})

    @property
    def rate(self) -> float:
        """USD an hour now, as far as it is known."""
        return sum((self.marks[-1].rates or {}).values()) if self.state else 0.0


@dataclass(frozen=True)
class Spend:
    """USD by part that a thing cost from ``start`` to ``end``, evenly."""

    item: Item
    start: datetime
    end: datetime
    usd: Mapping[str, float]

    def within(self, start: datetime, end: datetime) -> Spend | None:
        """What of it falls between the two."""
        first, last = max(start, self.start), min(end, self.end)
        if last < first or first == last != self.start:
            return None
        share = (last - first) / (self.end - self.start) if self.end > self.start else 1.0
        return replace(self, start=first, end=last, usd={part: usd * share for part, usd in self.usd.items()})


def items(
    entries: Iterable[Entry],
    *,
    whose: Identity,
    cloud: str,
    now: datetime,
    records: Iterable[ClusterRecord],
    volumes: Iterable[Volume],
    snapshots: Iterable[Snapshot],
) -> list[Item]:
    """Everything that has cost, whether it is over or there now; the rest of the arguments is what EC2 lists here."""
    ours: Any = {"whose": whose, "cloud": cloud, "now": now}
    past: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        past.setdefault(_key(entry), []).append(entry)
    found = []
    for record in records:
        if any(node.state.alive for node in record.nodes):
            entry = Entry.of_cluster("now", record, **ours)
            marks = [*_marks(past.pop(_key(entry), [])), *_marks_of(record), _mark(entry)]
            found.append(_living(entry, marks, record.state.value))
    for volume in volumes:
        entry = Entry.of_storage("now", volume, **ours)
        past.pop(_key(entry), None)
        found.append(_living(entry, [Mark(volume.created, 0.0, entry.rates), _mark(entry)], volume.state))
    for snapshot in snapshots:
        entry = Entry.of_storage("now", snapshot, **ours)
        past.pop(_key(entry), None)
        marks = [Mark(snapshot.created, 0.0, entry.rates), _mark(entry)]
        found.append(_living(entry, marks, "stored", note="at most: blocks never written are free"))
    here = (cloud, whose.account, whose.region)
    found += [_over(events, now, asked=key[:3] == here) for key, events in past.items()]
    return found


def _living(entry: Entry, marks: Sequence[Mark], state: str, note: str = "") -> Item:
    return Item(last=entry, marks=tuple(sorted(marks, key=lambda mark: mark.time)), state=state, note=note)


def _over(events: Sequence[Entry], now: datetime, *, asked: bool) -> Item:
    """What only the ledger knows of; if it tells of no end, what it has cost since then is unknown."""
    last = events[-1]
    note = ""
    if last.event not in ENDS and last.rates:
        most = sum(last.rates.values()) * (now - last.time).total_seconds() / 3600
        # A parked cluster's watchdog does not run.
        if last.budget_usd is not None and last.rates.get("instances"):
            most = min(most, max(0.0, last.budget_usd - (last.spent or 0.0)))
        why = "ended by another client or itself" if asked else "in another account or region"
        note = f"its end is unknown ({why}): at most ${most:.2f} more since {last.time:%Y-%m-%d %H:%M} UTC"
    return Item(last=last, marks=tuple(_marks(events)), note=note)


def _marks(events: Iterable[Entry]) -> list[Mark]:
    return [_mark(entry) for entry in events]


def _mark(entry: Entry) -> Mark:
    return Mark(entry.time, entry.spent, entry.rates)


def _marks_of(record: ClusterRecord) -> Iterator[Mark]:
    """What the tags of a cluster tell of its past: its launch, its last change, and when it stopped by itself."""
    if record.cost is None:
        return
    stopped = next((node.stopped for node in record.nodes if node.role == "master"), None)
    known = rates(record)
    before = known
    if stopped is not None and known is not None and record.cost.usd_per_hour is not None:
        disks = known["disks"] * record.wanted
        before = {"instances": max(0.0, record.cost.usd_per_hour - disks), "disks": disks}
    if record.cost.since > record.launched:
        yield Mark(record.launched, 0.0, before)
    yield Mark(record.cost.since, record.cost.spent_usd, before)
    if stopped is not None and stopped > record.cost.since:
        yield Mark(stopped, record.cost.at(stopped), known)


def _key(entry: Entry) -> tuple[str, ...]:
    return entry.cloud, entry.account, entry.region, entry.kind, entry.id
