"""Extra software on all nodes of a cluster, for setup.py: the distribution's by each node, the user's by the master.

What comes from CRAN and PyPI is built once, on the master, and copied to the workers (own_packages.py), so it is the
same everywhere. Must not know EC2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..machine import own_packages, packages, surroundings
from ..whole import write
from . import reach
from .master import read
from .phase import Json, Phase, emit
from .reach import FOLDER, Node, NodeFailed

SECONDS = 3600.0
LOOK_SECONDS = 60.0
PACKAGES = FOLDER / "packages.json"
VERSIONS = "exec python3 ~/.ppe/node own_packages versions"

Wanted = Mapping[str, Sequence[str]]


def install(nodes: Sequence[Node], task: Mapping[str, Any]) -> None:
    """Install ``apt``, ``r`` and ``python`` packages on these nodes, and on those that come later.

    ``cran_url``, unless it is null, is the repository from now on.

    The event ``done`` has by the nodes' numbers ``versions`` of the wanted packages, by kind, and ``failed``: why, of
    nodes where that did not succeed; ``kept``, whether later nodes get them, as they do if the master has them;
    ``notes`` tell what was copied to workers. Raises NodeFailed.
    """
    if not nodes:
        raise NodeFailed("this machine is not the master of a cluster that is set up")
    task = {**task, "cran_url": task.get("cran_url") or surroundings.cran()}
    wanted: Wanted = {kind: task.get(kind, ()) for kind in packages.NAMES}
    phase = Phase("installing", nodes, len(nodes))
    answers, failed = phase.run(partial(of_distribution, task), patient=True)
    of_user(missing(answers), wanted["python"], phase)
    notes = list(own_packages.share())
    found, silent = Phase("looking", nodes, len(nodes)).run(partial(_versions, wanted), patient=True)
    failed = {**silent, **failed}
    kept = nodes[0].private_ip not in failed  # the others have them by the next setup
    if kept:
        write(PACKAGES, json.dumps(with_earlier(wanted)))
    by_address = {node.private_ip: node for node in nodes}
    why = {
        each.index: str(failed[at]).removeprefix(each.describe(""))
        for at, each in by_address.items()
        if at in failed
    }
    versions = {each.index: found[at] for at, each in by_address.items() if at in found}
    emit("done", versions=versions, failed=why, kept=kept, notes=notes)


def of_distribution(task: Mapping[str, Any], node: Node, say: reach.Say) -> Json:
    """Install there what the distribution has; {"missing": names of R packages that it has not}."""
    own = own_packages.installed()["r"]  # not asked for in vain at each setup
    wanted = {**task, "r": [name for name in task.get("r", ()) if name not in own]}
    return reach.ask(node, "install", wanted, deadline=time.monotonic() + SECONDS, say=say)


def missing(answers: Mapping[str, Json]) -> list[str]:
    """R packages that the distribution lacks, by what nodes have answered."""
    return sorted({name for answer in answers.values() for name in answer["missing"]})


def again(r: Sequence[str], python: Sequence[str], before: Wanted, phase: Phase) -> None:
    """The same in a setup, for which the packages of an earlier one, ``before``, need no source any more.

    Those that are there stay in whatever version; of others that cannot be had again is told.
    """
    old_r, old_python = (frozenset(before.get(kind, ())) for kind in ("r", "python"))
    of_user(
        [each for each in r if each not in old_r], [each for each in python if each not in old_python], phase
    )
    there = own_packages.installed()["python"]
    gone = [
        each
        for each in python
        if each in old_python and own_packages.normal(own_packages.distribution(each)) not in there
    ]
    try:
        of_user([each for each in r if each in old_r], gone, phase)
    except NodeFailed as exc:
        phase.warn(str(exc))


def of_user(r: Sequence[str], python: Sequence[str], phase: Phase) -> None:
    """Install on this master packages of CRAN and PyPI. Raises NodeFailed."""
    there = own_packages.installed()["python"]
    # pip takes a second to say so
    python = [each for each in python if own_packages.normal(each) not in there]
    if not (r or python):
        return
    master = phase.nodes[0]
    try:
        packages.install_own(r, python, partial(phase.say, master))
    except packages.NotInstalled as exc:
        raise master.failed(str(exc)) from None


def with_earlier(wanted: Wanted) -> dict[str, list[str]]:
    """These packages and those that were installed before, for nodes that come new; {} if there are none."""
    before = read(PACKAGES)
    kinds = {
        kind: dict.fromkeys([*before.get(kind, ()), *wanted.get(kind, ())]) for kind in {*before, *wanted}
    }
    return {kind: list(names) for kind, names in kinds.items() if names}


def _versions(wanted: Wanted, node: Node, say: reach.Say) -> Json:
    lines: list[str] = []
    task = json.dumps(wanted).encode()
    reach.command(node, VERSIONS, task, deadline=time.monotonic() + LOOK_SECONDS, hear=lines.append)
    answer: Json = json.loads(lines[-1])
    return answer
