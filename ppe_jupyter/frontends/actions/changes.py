"""The verbs that launch and change clusters: a review, a question, then the work.

What is free needs no question, unless it would lose something or is somebody else's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cloud import lock_file
from ...cloud.records import ClusterState
from ...errors import NothingToDo, UsageError
from .. import views
from ..owners import agree_if_foreign, foreign_owner
from ..tables import Sheet, dollars
from . import locks
from .specs import typed_spec

if TYPE_CHECKING:
    from ...cloud.lock import Lock
    from ...cloud.plan import Plan
    from ...cluster import Cluster
    from ...manager import Manager
    from ..desk import Desk

Arguments = argparse.Namespace
WAYS = ("wait", "replace", "drop")
DOING = {
    "reboot": "rebooting",
    "park": "parking",
    "start": "starting",
    "resize": "resizing",
    "retry": "mending",
}


def launch(desk: Desk, arguments: Arguments) -> None:
    """Plan, review, ask, launch; the new cluster becomes the connected one."""
    manager = desk.manager(arguments)
    spec, lock = typed_spec(arguments), locks.wanted(arguments)
    plan = manager.plan(spec, dry_run=bool(arguments.dry_run), lock=lock)
    runs = plan.existing is not None and not plan.errors and not plan.steps
    if not runs or arguments.dry_run:
        desk.show(views.review(manager.whose(), plan))
    if arguments.save:
        from ...cloud import spec_file

        spec_file.save(spec, Path(arguments.save).expanduser())
        desk.say(
            f"the specification is in {arguments.save}; use it with: {desk.sign}launch --spec {arguments.save}"
        )
    plan.check()
    if arguments.dry_run:
        desk.say(f"a dry run: nothing was {'launched or installed' if spec.rstudio else 'launched'}")
        return
    if runs:
        if lock and plan.existing:
            agree_if_foreign(desk, arguments, plan.existing, f"Install the lock's packages on {plan.name}")
        _use(desk, arguments, plan)
        _after_launch(desk, arguments, plan, lock)
        return
    agree(desk, manager, arguments, f"Launch {plan.name} {_price(plan)} ({manager.whose()})?")
    with desk.progress(f"launching {plan.name}") as report:
        cluster = manager.launch(plan, report=report, wait=not arguments.no_wait)
    if arguments.no_wait:
        desk.say(f"{cluster.name} is being launched; see how it goes with: {desk.sign}status {cluster.name}")
        if spec.rstudio:
            desk.say(f"once it runs, install RStudio Server with: %ppe_rstudio {cluster.name} --install")
        if arguments.save:
            desk.say(
                f"once it runs, write its lock with: {desk.sign}session_info --lock {_lock_of(arguments)}"
            )
        return
    desk.connect(cluster, arguments)
    _tell(desk, cluster, "connected to " if desk.keep else "")
    _after_launch(desk, arguments, plan, lock)


def _after_launch(desk: Desk, arguments: Arguments, plan: Plan, lock: Lock | None) -> None:
    """The software of the lock, and a new lock of what there is."""
    if not (lock or arguments.save):
        return
    cluster = desk.cluster(plan.name, arguments)
    if lock:
        locks.satisfy(desk, cluster, lock)
    if arguments.save:
        locks.save(desk, cluster, _lock_of(arguments))


def _lock_of(arguments: Arguments) -> Path:
    return lock_file.beside(Path(arguments.save).expanduser())


def _use(desk: Desk, arguments: Arguments, plan: Plan) -> None:
    """Connect to what runs already, with RStudio Server if that is wanted."""
    manager = desk.manager(arguments)
    assert plan.existing is not None
    if plan.spec.rstudio:
        agree_if_foreign(desk, arguments, plan.existing, f"Install RStudio Server on {plan.name}")
        desk.say(f"installing RStudio Server on {plan.name}'s master, unless it is there")
    cluster = manager.launch(plan)
    desk.connect(cluster, arguments)
    _tell(desk, cluster, f"{manager.whose()}; {'connected to ' if desk.keep else ''}")


def reboot(desk: Desk, arguments: Arguments) -> None:
    """All nodes, or one."""
    cluster = desk.any_cluster(arguments.name, arguments)
    _change(desk, arguments, cluster, "reboot", node=arguments.node)


def park(desk: Desk, arguments: Arguments) -> None:
    """Workers gone, master stopped."""
    cluster = desk.any_cluster(arguments.name, arguments)
    _change(desk, arguments, cluster, "park")


def start(desk: Desk, arguments: Arguments) -> None:
    """A parked cluster comes back, and becomes the connected one."""
    cluster = desk.any_cluster(arguments.name, arguments)
    if _change(desk, arguments, cluster, "start", nodes=arguments.nodes):
        desk.connect(cluster, arguments)


def resize(desk: Desk, arguments: Arguments) -> None:
    """More nodes, or fewer."""
    cluster = desk.any_cluster(arguments.name, arguments)
    _change(desk, arguments, cluster, "resize", nodes=arguments.nodes)


def limit(desk: Desk, arguments: Arguments) -> None:
    """Other limits for the watchdog."""
    cluster = desk.any_cluster(arguments.name, arguments)
    names = ("idle_hours", "max_hours", "budget_usd", "then")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if given:
        _agree_on_limits(desk, arguments, cluster, cluster.plan_limits(**given))
        cluster.set_limits(**given)
    if given and cluster.state is ClusterState.PARKED:
        desk.say(
            f"{cluster.name} is parked; that holds from its next start on: {desk.sign}start {cluster.name}"
        )
        return
    desk.show(views.limits(desk.manager(arguments).whose(), cluster))


def _agree_on_limits(desk: Desk, arguments: Arguments, cluster: Cluster, plan: Plan) -> None:
    """Ask, if that may cost or lose more than before, or is somebody else's."""
    manager = desk.manager(arguments)
    owner = foreign_owner(manager, cluster.record)
    if not (owner or plan.problems):
        return
    desk.show(views.review(manager.whose(), plan))
    plan.check()
    question = f"Set these limits of {cluster.name}{owner} ({manager.whose()})?"
    agree(desk, manager, arguments, question, always=bool(owner))


def retry(desk: Desk, arguments: Arguments) -> None:
    """Wait for what is lost, replace it or drop it."""
    typed = [way for way in WAYS if getattr(arguments, way)]
    if len(typed) > 1:
        raise UsageError(f"one of --{' and --'.join(typed)} only")
    cluster = desk.any_cluster(arguments.name, arguments)
    if cluster.state is not ClusterState.DEGRADED:  # nothing to choose from
        typed = typed or ["wait"]
    if not typed:
        rows = [("warning", text) for text in cluster.record.troubles]
        desk.show(Sheet([("pays", desk.manager(arguments).whose()), *rows]))
        ask = f"What to do with {cluster.name}?"
        typed = [desk.choose(ask, WAYS, instead="--wait, --replace or --drop")]
    _change(desk, arguments, cluster, "retry", choice=typed[0])


def _change(desk: Desk, arguments: Arguments, cluster: Cluster, verb: str, **options: Any) -> bool:
    """Plan, review, ask, carry out; whether it was more than a dry run."""
    manager = desk.manager(arguments)
    plan = cluster.plan(verb, force=bool(arguments.force), **options)
    if not plan.steps and not plan.errors:
        raise NothingToDo("; ".join(each.text for each in plan.problems))
    desk.show(views.review(manager.whose(), plan))
    plan.check()
    if arguments.dry_run:
        desk.say("a dry run: nothing was changed")
        return False
    owner = foreign_owner(manager, cluster.record)
    question = f"{verb.capitalize()} {cluster.name}{owner}, then {_price(plan)} ({manager.whose()})?"
    agree(desk, manager, arguments, question, always=bool(owner))
    carry_out(desk, cluster, plan)
    return True


def carry_out(desk: Desk, cluster: Cluster, plan: Plan) -> None:
    """Do it, and tell what the cluster is then."""
    with desk.progress(f"{DOING[plan.verb]} {cluster.name}") as report:
        cluster.carry_out(plan, report=report)
    _tell(desk, cluster)


def _tell(desk: Desk, cluster: Cluster, how: str = "") -> None:
    desk.say(f"{how}{views.summary(cluster)}")
    for trouble in views.troubles(cluster):
        desk.notice("warning", trouble)


def _price(plan: Plan) -> str:
    return (
        "for an unknown price" if plan.usd_per_hour is None else f"for {dollars(plan.usd_per_hour)} an hour"
    )


def agree(desk: Desk, manager: Manager, arguments: Arguments, question: str, *, always: bool = False) -> None:
    """Raise NothingToDo unless the user agrees; what is free needs no question."""
    free = manager.is_free and not always
    desk.agree(question, unless=free or arguments.yes)
