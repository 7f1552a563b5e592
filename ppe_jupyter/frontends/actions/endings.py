"""What a client says and does when a run is over: it fetches the results, and words what becomes of the cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...overview import losses
from ...remote.files.s3 import is_s3
from ...runs import Conclusion, Run
from .files import Bar

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ..desk import Desk

Arguments = argparse.Namespace


def conclude(desk: Desk, arguments: Arguments, cluster: Cluster, run: Run) -> None:
    """While the master waits for it: fetch, and have the cluster end that may."""
    took = f" after {run.seconds:.1f} s" if run.seconds is not None else ""
    desk.say(f"{run.name}: {run.state}{took}")
    missing = _fetch(desk, arguments, run, note=cluster.concludes(run))
    # Until then the master is not free to go, and does not know what it could not do.
    for trouble in run.wait_for_sequel().troubles:
        desk.notice("warning", trouble)
    found = cluster.conclude(run, missing=missing)
    if found.fate == "terminated":
        desk.forget(cluster.name, arguments)
    if found.fate != "stays":
        _tell(desk, cluster.name, found)


def _tell(desk: Desk, name: str, found: Conclusion) -> None:
    if found.why:
        held = f": {'; '.join(text for _, text in losses.rows(found.lost))}" if found.lost else ""
        text = f"{name} parks itself instead of being terminated, since {found.why}{held}"
        desk.notice("warning", text)
    elif found.fate == "terminated":
        desk.say(f"{name} is terminated; nothing of it is left")
    else:
        desk.say(f"{name} {found.fate} itself, once nothing else works there")


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
