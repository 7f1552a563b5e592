"""Pictures: clusters, plans and failures as JSON for whoever shows them: the panel, the sidebar, any browser.

Pure functions of the manager's values; all keys are always there. Times are ISO 8601 in UTC, with a Z. Money is USD,
null if unknown. No secret is ever in a picture, nor anything that a view alone could want, such as words for a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypedDict

from ..cloud.plan import Grade
from ..cloud.records import ClusterState, advice
from .problems import Problem as Problem
from .problems import problem as problem

if TYPE_CHECKING:
    from ..cloud.plan import Plan
    from ..cloud.records import ClusterRecord, Node
    from ..settings import Settings

_S = ClusterState
UP = (_S.RUNNING, _S.DEGRADED)  # there is a master to talk to
BETWEEN = (_S.PENDING, _S.CONFIGURING, _S.REBOOTING, _S.PARKING, _S.SHUTTING_DOWN)
ACTIONS: dict[ClusterState, tuple[str, ...]] = {
    _S.PENDING: ("terminate",),
    _S.CONFIGURING: ("terminate",),
    _S.RUNNING: ("connect", "rstudio", "reboot", "resize", "limit", "park", "terminate"),
    _S.REBOOTING: ("terminate",),
    _S.DEGRADED: ("connect", "rstudio", "retry", "reboot", "limit", "park", "terminate"),
    _S.PARKING: ("terminate",),
    _S.PARKED: ("start", "limit", "terminate"),
    _S.SHUTTING_DOWN: (),
    _S.TERMINATED: (),
}


class NodePicture(TypedDict):
    """One node; addresses are "" while unknown, ``reason`` says why it ended."""

    index: int
    role: str
    state: str
    up: bool
    slots: int
    type: str
    zone: str
    spot: bool
    private_ip: str
    private_dns: str
    public_ip: str
    public_dns: str
    instance_id: str
    launched: str
    reason: str


class ProgressPicture(TypedDict):
    """How far something is: ``ready`` of ``total`` in ``unit``, ``elapsed`` in seconds."""

    phase: str
    ready: int
    total: int
    unit: str
    message: str
    elapsed: float


class OperationPicture(ProgressPicture):
    """A launch or change that this process carries out."""

    id: str
    verb: str
    cluster: str
    state: str
    started: str
    problem: Problem | None


class ClusterPicture(TypedDict):
    """One cluster; ``actions`` are the verbs that make sense now, ``operation`` the id of the one that runs on it.

    The limits are as in ``ClusterSpec``: null, and 0 idle hours, are no limit.
    """

    name: str
    state: str
    nodes_up: int
    nodes_wanted: int
    slots: int
    type: str
    zone: str
    launched: str
    owner: str
    mine: bool
    spot: bool
    usd_per_hour: float | None
    usd_so_far: float | None
    idle_hours: float | None
    max_hours: float | None
    budget_usd: float | None
    then: str | None
    deadline: str | None
    troubles: list[str]
    advice: str
    actions: list[str]
    operation: str | None
    nodes: list[NodePicture]
    connect: str
    ssh: str | None


class Overview(TypedDict):
    """All clusters of an account and region. With a ``problem`` the rest is what was last known.

    ``version`` changes when anything else does but ``at``; ``preparing`` what the local cloud is being prepared by.
    """

    version: str
    whose: str
    free: bool
    cloud: str
    up: bool
    region: str | None
    profile: str | None
    at: str
    preparing: str
    problem: Problem | None
    usd_per_hour: float | None
    usd_so_far: float | None
    max_usd_per_hour: float | None
    max_nodes: int | None
    clusters: list[ClusterPicture]
    operations: list[OperationPicture]


class Remark(TypedDict):
    """What is wrong with a plan, or to be known: ``grade`` is error, warning or info."""

    grade: str
    text: str


class PlanPicture(TypedDict):
    """A plan for review. ``rows`` are (label, text), ``losses`` too: what exists nowhere else.

    ``costs``: more money is spent than now; ``destroys``: something goes for good. ``magic`` would do the same.
    """

    plan: str
    verb: str
    cluster: str
    ok: bool
    rows: list[tuple[str, str]]
    problems: list[Remark]
    usd_per_hour: float | None
    losses: list[tuple[str, str]]
    destroys: bool
    costs: bool
    magic: str


def instant(time: datetime) -> str:
    """A time as the pictures have it."""
    return time.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def cluster(
    record: ClusterRecord,
    *,
    now: datetime,
    mine: bool,
    ssh: str | None = None,
    operation: str | None = None,
) -> ClusterPicture:
    """One cluster as it was found; ``ssh`` is the command line that opens a shell on its master."""
    living = [node for node in record.nodes if node.state.alive]
    spec = record.spec
    return {
        "name": record.name,
        "state": str(record.state),
        "nodes_up": sum(node.up for node in living),
        "nodes_wanted": record.wanted,
        "slots": record.slots,
        "type": _each(node.instance_type for node in living),
        "zone": _each(node.zone for node in living),
        "launched": instant(record.launched),
        "owner": record.owner,
        "mine": mine,
        "spot": any(node.spot for node in living),
        "usd_per_hour": _rounded(record.usd_per_hour, 4),
        "usd_so_far": _rounded(record.cost_so_far(now), 2),
        "idle_hours": spec.idle_hours if spec else None,
        "max_hours": spec.max_hours if spec else None,
        "budget_usd": spec.budget_usd if spec else None,
        "then": spec.then if spec else None,
        "deadline": _deadline(record),
        "troubles": list(record.troubles) if record.state is _S.DEGRADED else [],
        "advice": advice(record),
        "actions": [each for each in ACTIONS[record.state] if not operation or each == "terminate"],
        "operation": operation,
        "nodes": [node(each) for each in record.nodes],
        "connect": f"%ppe_connect {record.name}",
        "ssh": ssh if record.state in UP else None,
    }


def node(node: Node) -> NodePicture:
    """One node."""
    return {
        "index": node.index,
        "role": node.role,
        "state": str(node.state),
        "up": node.up,
        "slots": node.slots,
        "type": node.instance_type,
        "zone": node.zone,
        "spot": node.spot,
        "private_ip": node.private_ip,
        "private_dns": node.private_dns,
        "public_ip": node.public_ip,
        "public_dns": node.public_dns,
        "instance_id": node.instance_id,
        "launched": instant(node.launched),
        "reason": node.reason,
    }


def overview(
    settings: Settings,
    clusters: Sequence[ClusterPicture],
    operations: Sequence[OperationPicture],
    *,
    version: str,
    whose: str,
    up: bool,
    at: datetime,
    preparing: str = "",
    problem: Problem | None = None,
) -> Overview:
    """What there is; ``up`` is false while the local cloud is down."""
    return {
        "version": version,
        "whose": whose,
        "free": settings.cloud == "local",
        "cloud": settings.cloud,
        "up": up,
        "region": settings.region,
        "profile": settings.profile,
        "at": instant(at),
        "preparing": preparing,
        "problem": problem,
        "usd_per_hour": _sum(each["usd_per_hour"] for each in clusters),
        "usd_so_far": _sum(each["usd_so_far"] for each in clusters),
        "max_usd_per_hour": settings.max_usd_per_hour,
        "max_nodes": settings.max_nodes,
        "clusters": list(clusters),
        "operations": list(operations),
    }


def plan(
    plan: Plan,
    *,
    id: str,
    whose: str,
    free: bool,
    magic: str,
    losses: Sequence[tuple[str, str]] = (),
) -> PlanPicture:
    """A plan for review, beginning with who pays."""
    grades = [grade.value for grade in Grade]
    before = plan.existing.usd_per_hour if plan.existing and plan.verb != "launch" else 0.0
    after = plan.usd_per_hour
    dearer = after is None or before is None or after > before
    ends = [str(step) for step in plan.steps if type(step).__name__ == "TerminateInstances"]
    return {
        "plan": id,
        "verb": plan.verb,
        "cluster": plan.name,
        "ok": not plan.errors,
        "rows": [("pays", whose), *(row for row in plan.rows() if row[0] not in grades)],
        "problems": [
            {"grade": each.grade.value, "text": each.text}
            for each in sorted(plan.problems, key=lambda each: grades.index(each.grade.value))
        ],
        "usd_per_hour": _rounded(after, 4),
        "losses": list(losses),
        "destroys": plan.verb == "terminate" or bool(ends or losses),
        "costs": not free and (bool(plan.warnings) if plan.verb == "limit" else bool(plan.steps) and dearer),
        "magic": magic,
    }


def _each(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def _deadline(record: ClusterRecord) -> str | None:
    """When --max-hours ends it; EC2's launch time of the master is that of its last start."""
    master = next((node for node in record.nodes if node.role == "master"), None)
    if record.spec is None or record.spec.max_hours is None or master is None or record.state is _S.PARKED:
        return None
    return instant(master.launched + timedelta(hours=record.spec.max_hours))


def _rounded(usd: float | None, digits: int) -> float | None:
    return None if usd is None else round(usd, digits)


def _sum(parts: Iterable[float | None]) -> float | None:
    found = list(parts)
    return None if None in found else round(sum(each for each in found if each is not None), 4)
