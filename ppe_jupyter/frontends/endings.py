"""What a client does when a run is over: it fetches the results, and terminates the cluster if that was asked for.

Only for whoever started the run: with others the results would be in the wrong place, and the cluster gone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import person
from ..errors import PpeError
from ..overview import losses
from ..remote.s3 import is_s3
from ..runs import Run
from .files import Bar

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..remote.watchdog import Losses
    from .desk import Desk

Arguments = argparse.Namespace
# What has computed is said to compute for a minute more (node/activity.py), the script too; and a watcher whose line
# was cut is one for a minute more.
COMPUTING, COOLING_SECONDS = "processes ", 75.0


def conclude(desk: Desk, arguments: Arguments, cluster: Cluster, run: Run) -> None:
    """While the master waits for it: fetch, and terminate what may be."""
    took = f" after {run.seconds:.1f} s" if run.seconds is not None else ""
    desk.say(f"{run.name}: {run.state}{took}")
    ours = is_ours(desk, arguments, cluster, run)
    missing = _fetch(desk, arguments, run, note=ours)
    # Until then the master is not free to go, and does not know what it could not do.
    for trouble in run.wait_for_sequel().troubles:
        desk.notice("warning", trouble)
    if not run.ends_cluster:
        return
    if run.then == "terminate" and not run.discard:
        why = (
            _why_kept(cluster, run, missing)
            if ours
            else f"that is for {run.client}, who has started {run.name}"
        )
        if not why:
            name = cluster.name
            desk.forget(name, arguments)
            desk.manager(arguments).terminate(name)
            desk.say(f"{name} is terminated; nothing of it is left")
            return
        desk.notice("warning", f"{cluster.name} parks itself instead of being terminated, since {why}")
        return
    verb = "terminates" if run.then == "terminate" else "parks"
    desk.say(f"{cluster.name} {verb} itself, once nothing else works there")


def is_ours(desk: Desk, arguments: Arguments, cluster: Cluster, run: Run) -> bool:
    """Whether this user started it, from whatever machine."""
    if run.client == person.client():
        return True
    return desk.manager(arguments).mine(cluster.record) and (run.own or run.user == person.os_user())


def _fetch(desk: Desk, arguments: Arguments, run: Run, *, note: bool) -> list[str]:
    """Its results, if there are to be some; the patterns that nothing matches."""
    if run.store and run.fetched:
        desk.say(f"its results are in {run.store}")
        return []
    if not (run.fetch_patterns or run.then == "terminate"):
        return []
    named = "" if is_s3(arguments.to or "") else arguments.to
    with desk.progress(f"results of {run.name}") as report:
        done, missing = run.fetch(Path(named or run.name).expanduser(), note=note, on_progress=Bar(report))
    desk.say(f"{done} → {done.base}")
    if missing:
        desk.notice("warning", f"{run.name} has left nothing that {', '.join(missing)} matches")
    return missing


def _why_kept(cluster: Cluster, run: Run, missing: Sequence[str]) -> str:
    """Why a cluster is not terminated after all, or ""."""
    if run.state == "failed":
        return f"{run.script} has failed"
    if missing:
        return "results are missing"
    try:
        lost = _lost_besides(cluster, run)
    except (PpeError, TimeoutError) as error:
        return f"it cannot be asked what it holds: {error}"
    said = "; ".join(text for _, text in losses.rows(lost))
    return f"more would be lost with it: {said}" if lost.any else ""


def _lost_besides(cluster: Cluster, run: Run) -> Losses:
    """What would be lost besides the run's; of a cluster that was launched for it no file is somebody else's."""
    deadline = time.monotonic() + COOLING_SECONDS
    while True:
        lost = cluster.losses()
        jobs = others(run, lost.jobs)
        passing = [each for each in jobs if each.startswith(COMPUTING) or each == run.watcher]
        if not passing or time.monotonic() > deadline:
            break
        time.sleep(COOLING_SECONDS / 10)
    lost = replace(lost, jobs=tuple(jobs))
    if run.own:
        return replace(lost, files=(), more_files=0, more_bytes=0)
    return replace(
        lost, files=tuple(each for each in lost.files if not each[0].startswith(f"runs/{run.name}/"))
    )


def others(run: Run, jobs: Sequence[str]) -> list[str]:
    """What works there besides the run and this client, who watches it."""
    watchers = [each for each in jobs if each == run.watcher]
    rest = [each for each in jobs if each not in (run.watcher, f"the run {run.name}")]
    return [each for each in rest if not (run.own and each.startswith(COMPUTING))] + watchers[1:]
