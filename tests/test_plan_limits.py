"""plan_limits: what other limits come to, and what is to be thought about before they are set."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from test_plan_change import NOW, PARKED, SPEC, cluster, node, said

from ppe_jupyter.cloud.plan import Plan
from ppe_jupyter.cloud.planning.plan_limits import plan_limits
from ppe_jupyter.cloud.records import ClusterRecord
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import CloudError, SpecError

LIMITED = replace(SPEC, idle_hours=2.0, max_hours=8.0, budget_usd=20.0)


def plan(spec: ClusterSpec | None = LIMITED, record: ClusterRecord | None = None, **given: Any) -> Plan:
    record = record or cluster()
    return plan_limits(replace(record, spec=spec), NOW, usual_idle_hours=2.0, **given)


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"idle_hours": 1.0, "max_hours": 8.0, "budget_usd": 10.0}, ""),
        ({"budget_usd": 40.0}, r"run longer, and cost more: budget \$20.00 → \$40.00$"),
        ({"budget_usd": 0}, r"cost more: budget \$20.00 → off$"),
        ({"idle_hours": 0, "max_hours": 12}, "idle 2 h → off, max-hours 8 h → 12 h$"),
        ({"idle_hours": 0, "max_hours": 0, "budget_usd": 0}, "no limit is set: it runs, and costs, until"),
        ({"then": "terminate"}, "for good then, with home and results"),
        ({"then": "park"}, ""),
        ({"budget_usd": 0.5}, r"\$1.00 are spent already: the limit is reached at once"),
    ],
)
def test_what_may_cost_or_lose_more_is_warned_of(given: dict[str, Any], warning: str) -> None:
    made = plan(**given)
    assert not made.errors
    assert bool(made.warnings) is bool(warning) and re.search(warning, said(made, "warning"))


def test_what_is_not_given_stays() -> None:
    assert plan(then="terminate").spec == replace(LIMITED, then="terminate")
    assert plan(max_hours=0).spec == replace(LIMITED, max_hours=None)
    # The settings' idle time holds for a cluster that leaves it open.
    assert plan(SPEC, idle_hours=1.0).warnings == []
    assert "idle 2 h → 3 h" in said(plan(SPEC, idle_hours=3.0), "warning")


def test_the_review_says_what_ends_it() -> None:
    shown = dict(plan(LIMITED, budget_usd=0, idle_hours=0).rows())
    assert shown["limit"] == "parked 8 h after its launch or last start"


@pytest.mark.parametrize(
    ("record", "spec", "given", "reason"),
    [
        (replace(cluster(), usd_per_hour=None), SPEC, {"budget_usd": 5.0}, "set --max-hours instead"),
        (
            cluster(node(0, spot=True)),
            replace(SPEC, then="terminate"),
            {"then": "park"},
            "spot instance, which cannot be stopped",
        ),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(
    record: ClusterRecord, spec: ClusterSpec, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SpecError, match=f"limit is not possible.*{reason}"):
        plan(spec, record, **given).check()


def test_a_cluster_without_a_specification_has_no_limits_to_change() -> None:
    with pytest.raises(CloudError, match="launch anew"):
        plan(None, budget_usd=5.0)


def test_a_parked_cluster_can_have_a_budget_again() -> None:
    spent = replace(PARKED, spec=replace(SPEC, budget_usd=0.5))
    later = plan_limits(spent, NOW + timedelta(days=1), usual_idle_hours=2.0, budget_usd=50.0)
    assert not later.errors and "budget $0.50 → $50.00" in later.warnings[0]
