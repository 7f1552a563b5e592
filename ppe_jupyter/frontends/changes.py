"""The verbs that launch, change and end clusters: a review, a question, then the work.

What is free needs no question, unless it would lose something or is somebody else's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cloud import lock_file
from ..cloud.records import ClusterState
from ..errors import CloudError, NothingToDo, PpeError, UsageError
from ..node.wire.protocol import MAIN
from ..overview import losses
from ..overview.pictures import UP
from . import locks, views
from .owners import agree_if_foreign, foreign_owner
from .specs import typed_spec
from .tables import Sheet, dollars

if TYPE_CHECKING:
    from ..cloud.lock import Lock
    from ..cloud.plan import Plan
    from ..cluster import Cluster
    from ..manager import Manager
    from .desk import Desk

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
        from ..cloud import spec_file

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
    _agree(desk, manager, arguments, f"Launch {plan.name} {_price(plan)} ({manager.whose()})?")
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
    _agree(desk, manager, arguments, question, always=bool(owner))


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


def terminate(desk: Desk, arguments: Arguments) -> None:
    """End clusters, after saying what would be lost with them."""
    manager = desk.manager(arguments)
    names = _names(desk, manager, arguments)
    known = {each.name for each in manager.clusters()}
    # All is asked before anything is ended: the ends take a while.
    decided = {name: _decision(desk, manager, arguments, name, known=name in known) for name in names}
    _end_all(desk, manager, arguments, decided)


def _end_all(desk: Desk, manager: Manager, arguments: Arguments, decided: Mapping[str, str]) -> None:
    """End or park each as it was decided; one that cannot be ended does not keep the others, which cost."""
    failed: dict[str, PpeError] = {}
    for number, (name, end) in enumerate(decided.items()):
        try:
            if end == "park":
                cluster = desk.cluster(name, arguments)
                plan = cluster.plan("park")
                plan.check()
                _carry_out(desk, cluster, plan)
            else:
                _end(desk, manager, arguments, name)
        except KeyboardInterrupt:
            left = " ".join([*failed, *list(decided)[number:]])
            desk.say(f"these may not have ended; see that they do with: {desk.sign}terminate {left}")
            raise
        except NothingToDo as nothing:
            desk.say(str(nothing))
        except PpeError as error:
            failed[name] = error
    if len(decided) == 1 and failed:
        raise failed[name]
    if failed:
        said = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise CloudError(f"{len(failed)} of {len(decided)} clusters did not end: {said}")


def _end(desk: Desk, manager: Manager, arguments: Arguments, name: str) -> None:
    desk.forget(name, arguments)
    with desk.progress(f"terminating {name}") as report:
        manager.terminate(name, report=report)
    desk.say(f"{name} is terminated; nothing of it is left")


def _names(desk: Desk, manager: Manager, arguments: Arguments) -> list[str]:
    if not arguments.all:
        return arguments.names or [desk.any_cluster(None, arguments).name]
    if arguments.names:
        raise UsageError("either names or --all")
    everyone = bool(arguments.everyone)
    names = [each.name for each in manager.clusters() if everyone or manager.mine(each.record)]
    if not names:
        raise NothingToDo("there is no cluster" if everyone else "there is no cluster of yours")
    return names


def _decision(desk: Desk, manager: Manager, arguments: Arguments, name: str, *, known: bool) -> str:
    """``terminate``, ``park`` or nothing, as the user says. Somebody else's needs more than --yes."""
    whose = manager.whose()
    question = f"Terminate {name} ({whose})?"
    if not known:  # what may be left of a launch that died
        if not (owner := manager.foreign_remains(name)):
            return _agreed(desk, manager, arguments, question)
        desk.show(Sheet([("pays", whose), ("warning", f"{name} is not yours: {owner} launched it")]))
        if arguments.yes and arguments.everyone:
            return "terminate"
        return desk.choose(question, ["terminate"], instead="--yes --everyone")
    cluster = desk.cluster(name, arguments).refresh()
    foreign = not manager.mine(cluster.record)
    while True:
        lost, rows = losses.asked(cluster)
        if foreign:
            rows.insert(0, ("warning", f"{name} is not yours: {cluster.record.owner} launched it"))
        if not rows:
            return _agreed(desk, manager, arguments, question)
        desk.show(Sheet([("pays", whose), ("cluster", views.summary(cluster)), *rows]))
        if arguments.yes and (arguments.everyone or not foreign):
            return "terminate"
        unpulled = lost.unpulled if lost else {}
        choices = [
            "terminate",
            *(["park"] if cluster.state in UP else []),
            *(["pull"] if desk.keep and unpulled else []),
        ]
        instead = "--yes --everyone" if foreign else "--yes"
        chosen = desk.choose(question, choices, instead=instead)
        if chosen != "pull":
            return chosen
        assert desk.keep is not None
        for session, found in unpulled.items():
            # In one variable of its own, so that none of the notebook's is overwritten.
            kept = re.sub(r"\W", "_", f"{name if session == MAIN else f'{name}_{session}'}_objects")
            desk.keep({kept: {each: cluster.r(session).pull(each) for each, _ in found}})
            desk.say(f"{', '.join(each for each, _ in found)}: in the dict {kept} now")


def _agreed(desk: Desk, manager: Manager, arguments: Arguments, question: str) -> str:
    _agree(desk, manager, arguments, question)
    return "terminate"


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
    _agree(desk, manager, arguments, question, always=bool(owner))
    _carry_out(desk, cluster, plan)
    return True


def _carry_out(desk: Desk, cluster: Cluster, plan: Plan) -> None:
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


def _agree(
    desk: Desk, manager: Manager, arguments: Arguments, question: str, *, always: bool = False
) -> None:
    """Raise NothingToDo unless the user agrees; what is free needs no question."""
    free = manager.is_free and not always
    desk.agree(question, unless=free or arguments.yes)
