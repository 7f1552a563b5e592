"""plan_limits: a cluster's record and other limits for it become the plan of setting them.

Pure. What lets the cluster cost or lose more than before is a warning, what cannot be kept an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from ...errors import CloudError
from ..bill import NO_LIMIT, hours, is_limited
from ..plan import Grade, Plan, Problem
from ..records import ClusterRecord
from ..spec import ClusterSpec


def plan_limits(
    record: ClusterRecord,
    now: datetime,
    *,
    usual_idle_hours: float,
    idle_hours: float | None = None,
    max_hours: float | None = None,
    budget_usd: float | None = None,
    then: str | None = None,
) -> Plan:
    """The plan of changing those limits that are given; 0 is no limit.

    ``usual_idle_hours`` holds for a cluster whose specification leaves it open. Raises SpecError for what makes no
    sense, CloudError when the specification cannot be read.
    """
    if record.spec is None:
        raise CloudError(f"the specification of {record.name!r} cannot be read from its tags: launch anew")
    old = record.spec
    if old.idle_hours is None:
        old = replace(old, idle_hours=usual_idle_hours)
    new = replace(
        old,
        idle_hours=old.idle_hours if idle_hours is None else idle_hours,
        max_hours=old.max_hours if max_hours is None else max_hours or None,
        budget_usd=old.budget_usd if budget_usd is None else budget_usd or None,
        then=old.then if then is None else then,
    )
    return Plan(
        verb="limit",
        spec=new,
        name=record.name,
        owner=record.owner,
        steps=(),
        usd_per_hour=record.usd_per_hour,
        problems=tuple(_problems(record, old, new, now)),
        existing=record,
        slots=max((each.slots for each in record.nodes), default=1),
        key_name=record.key_name,
    )


def _problems(record: ClusterRecord, old: ClusterSpec, new: ClusterSpec, now: datetime) -> Iterator[Problem]:
    if new.then == "park" != old.then and record.master.spot:
        yield Problem(Grade.ERROR, "its master is a spot instance, which cannot be stopped, only terminated")
    budget = new.budget_usd if new.budget_usd != old.budget_usd else None
    if budget and record.usd_per_hour is None:
        yield Problem(
            Grade.ERROR, "the budget cannot be watched, since the price is unknown: set --max-hours instead"
        )
    if looser := ", ".join(_looser(old, new)):
        yield Problem(Grade.WARNING, f"it may run longer, and cost more: {looser}")
    if not is_limited(new):
        yield Problem(Grade.WARNING, NO_LIMIT)
    if new.then == "terminate" != old.then:
        yield Problem(Grade.WARNING, "a limit ends it for good then, with home and results on its disk")
    spent = record.cost_so_far(now)
    if budget and spent is not None and spent >= budget:
        yield Problem(Grade.WARNING, f"${spent:,.2f} are spent already: the limit is reached at once")


def _looser(old: ClusterSpec, new: ClusterSpec) -> Iterator[str]:
    """Each limit that comes later than before, or never."""
    for name, words in (("idle_hours", "idle"), ("max_hours", "max-hours"), ("budget_usd", "budget")):
        was, will = (getattr(spec, name) or math.inf for spec in (old, new))
        if will > was:
            say = (lambda usd: f"${usd:,.2f}") if name == "budget_usd" else hours
            yield f"{words} {say(was)} → {'off' if will == math.inf else say(will)}"
