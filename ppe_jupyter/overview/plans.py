"""Plans: drafted for a review, kept for a while, then carried out as they were reviewed, as an operation.

A view holds a plan's id only. Each plan is carried out once.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ..cloud.spec import ClusterSpec
from ..cloud.spec_file import typed
from ..errors import (
    Forgotten,
    LocalCloudUnavailable,
    NoSuchCluster,
    NothingToDo,
    Occupied,
    SpecError,
    UsageError,
)
from . import losses, magic, pictures

if TYPE_CHECKING:
    from ..cloud.plan import Plan
    from ..cluster import Cluster
    from ..manager import Manager
    from .operations import Operation, Work
    from .pictures import PlanPicture
    from .poller import Poller

KEPT_SECONDS = 900.0
LIMITS = {"idle_hours": float, "max_hours": float, "budget_usd": float, "then": str}
OPTIONS: Mapping[str, Mapping[str, type]] = {
    "reboot": {"node": int, "force": bool},
    "park": {"force": bool},
    "start": {"nodes": int, "force": bool},
    "resize": {"nodes": int, "force": bool},
    "retry": {"choice": str, "force": bool},
    "terminate": {},
    "limit": LIMITS,
}


@dataclass(frozen=True)
class Draft:
    """A plan that was shown, and what carries it out."""

    plan: Plan
    work: Work
    until: float


class Plans:
    """Those of one poller's account and region."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._drafts: dict[str, Draft] = {}
        self._lock = threading.Lock()

    def launch(self, values: Mapping[str, Any]) -> PlanPicture:
        """The plan of launching what the fields of ClusterSpec say. Raises SpecError, CloudError.

        This starts the local cloud, if that is the cloud; while its image is not built, that is begun, and
        LocalCloudUnavailable says so.
        """
        given = {key: value for key, value in values.items() if value is not None}
        fields, problems = typed(given)
        if problems:
            raise SpecError("; ".join(problems), problems=problems)
        spec = ClusterSpec(**fields)
        manager = self._poller.manager
        if not manager.prepared:
            self._prepare(manager)
        plan = manager.plan(spec)

        def work(report: Any, stop: threading.Event) -> None:
            manager.launch(plan, report=report, stop=stop)

        return self._kept(plan, work, magic.launch(spec))

    def change(self, verb: str, cluster: str, options: Mapping[str, Any]) -> PlanPicture:
        """The plan of a verb of OPTIONS on a cluster. Raises UsageError, NoSuchCluster, CloudError, SshError."""
        _check(verb, options)
        given = {key: value for key, value in options.items() if value is not None}
        held = self._poller.cluster(cluster)
        if verb == "limit":
            plan, work = held.plan_limits(**given), _working(lambda report: held.set_limits(**given))
        else:
            plan = held.plan(verb, **given)
            work = _working(lambda report: held.carry_out(plan, report=report))
        lost: list[tuple[str, str]] = []
        if verb == "terminate":
            work = _working(lambda report: self._end(held, report))
            lost = losses.asked(held)[1]
            if (session := held.attached()) is not None:
                session.rest()
        typed_options = {given["choice"]: True} if "choice" in given else given
        return self._kept(plan, work, magic.line(verb, typed_options, words=[cluster]), lost, held)

    def start(self, plan_id: str) -> Operation:
        """Carry out a plan. Raises Forgotten, SpecError for a plan with errors, NothingToDo, Occupied."""
        with self._lock:
            draft = self._drafts.get(plan_id)
            if draft is None or draft.until < time.monotonic():
                raise Forgotten("this plan was carried out, or is too old: plan anew")
            plan = draft.plan
            plan.check()
            if not plan.steps and plan.verb != "limit":
                raise NothingToDo(
                    "; ".join(each.text for each in plan.problems) or f"{plan.name} is so already"
                )
            launches = plan.verb == "launch"
            begun = self._poller.operations.start(plan.verb, plan.name, draft.work, stoppable=launches)
            del self._drafts[plan_id]
        return begun

    def _prepare(self, manager: Manager) -> NoReturn:
        """Building the image takes a minute or more: that is an operation, for which no view should wait."""
        with contextlib.suppress(Occupied):
            self._poller.operations.start("prepare", "", _working(lambda report: manager.local_up()))
        raise LocalCloudUnavailable(
            "the image of the local cloud's nodes is being built, once, which takes some minutes; then plan again"
        )

    def _end(self, cluster: Cluster, report: Any) -> None:
        try:
            cluster.terminate(report=report)
        except NoSuchCluster:  # a launch that was stopped has undone itself meanwhile
            return

    def _kept(
        self,
        plan: Plan,
        work: Work,
        typed: str,
        lost: list[tuple[str, str]] | None = None,
        cluster: Cluster | None = None,
    ) -> PlanPicture:
        manager, now, plan_id = self._poller.manager, time.monotonic(), secrets.token_hex(8)
        with self._lock:
            self._drafts = {key: each for key, each in self._drafts.items() if each.until > now}
            self._drafts[plan_id] = Draft(plan, work, now + KEPT_SECONDS)
        picture = pictures.plan(
            plan, id=plan_id, whose=manager.whose(), free=manager.is_free, magic=typed, losses=lost or ()
        )
        if cluster is not None and not manager.mine(cluster.record):
            foreign = f"{plan.name} is not yours: {cluster.record.owner} launched it"
            picture["problems"].append({"grade": "warning", "text": foreign})
        return picture


def _working(act: Callable[[Any], object]) -> Work:
    def work(report: Any, stop: threading.Event) -> None:
        act(report)

    return work


def _check(verb: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError unless it is a verb with these options, of their kinds."""
    if verb not in OPTIONS:
        raise UsageError(f"{verb!r} cannot be planned; there are: launch, {', '.join(OPTIONS)}")
    for key, value in options.items():
        kind = OPTIONS[verb].get(key)
        if kind is None:
            known = ", ".join(OPTIONS[verb]) or "none"
            raise UsageError(f"{verb} has no option {key!r}; there are: {known}")
        fits = type(value) in (int, float) if kind is float else type(value) is kind
        if value is not None and not fits:
            raise UsageError(f"{verb}: {key} = {value!r} is not of type {kind.__name__}")
