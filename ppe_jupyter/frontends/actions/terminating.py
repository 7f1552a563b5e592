"""Ending clusters: what would be lost is told, and whoever decides may park them or fetch it instead."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...errors import CloudError, NothingToDo, PpeError, UsageError
from ...node.wire.protocol import MAIN
from ...overview import losses
from ...overview.pictures import UP
from .. import views
from ..tables import Sheet
from .changes import agree, carry_out

if TYPE_CHECKING:
    from ...manager import Manager
    from ..desk import Desk

Arguments = argparse.Namespace


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
                carry_out(desk, cluster, plan)
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
    agree(desk, manager, arguments, question)
    return "terminate"
