"""Scripts that go on without a client: started on a cluster of their own or one that runs, watched, fetched, listed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NothingToDo, PpeError, RunFailed, UsageError
from ..overview import losses
from ..runs import Run, Runs, Then, script_of
from ..verbs.clusters import LAUNCHING
from . import changes
from .files import Bar
from .output import Console
from .owners import agree_if_foreign
from .tables import Table, local_time, table

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..host import Host
    from ..remote.watchdog import Losses
    from .desk import Desk

Arguments = argparse.Namespace
# What has computed is said to compute for a minute more (node/activity.py), the script too.
COMPUTING, COOLING_SECONDS = "processes ", 75.0


def run(desk: Desk, arguments: Arguments) -> Table | None:
    """Start a script and watch it; or watch, stop or list those that there are."""
    if arguments.watch or arguments.stop:
        cluster = desk.cluster(arguments.cluster, arguments)
        found = _found(cluster, arguments.script)
        if arguments.stop:
            if found.state != "running":
                raise NothingToDo(f"{found.name} is over: {found.state}")
            found.stop()
            desk.say(f"{found.name} is being ended; the cluster stays")
        else:
            _watch(desk, arguments, cluster, found)
        return None
    if not arguments.script:
        return run_table(desk.cluster(arguments.cluster, arguments).runs())
    chosen, own = _cluster(desk, arguments)
    if chosen is not None:
        _start(desk, arguments, chosen, own=own)
    return None


def _start(desk: Desk, arguments: Arguments, cluster: Cluster, *, own: bool) -> None:
    then: Then = arguments.end or ("park" if own else "nothing")
    started = cluster.run(
        arguments.script,
        *arguments.rest,
        files=arguments.files,
        ranks=arguments.ranks,
        fetch=arguments.fetch,
        store=arguments.to if _to_s3(arguments) else "",
        then=then,
        discard=bool(arguments.discard),
        notify=arguments.notify,
        own=own,
    )
    desk.say(f"{started.name} runs on {cluster.name}; {_plan(cluster, started)}")
    if arguments.no_watch:
        desk.say(_how(desk, cluster, started))
    else:
        _watch(desk, arguments, cluster, started)


def _to_s3(arguments: Arguments) -> bool:
    return (arguments.to or "").startswith("s3://")


def run_table(found: Sequence[Run]) -> Table:
    """A row for each run, the newest first."""
    if not found:
        raise NothingToDo("no script was run there")
    return table(
        [
            {
                "run": each.name,
                "state": each.known_state,
                "status": each.status,
                "client": each.client,
                "begun": local_time(each.began),
                "seconds": each.seconds,
                "then": each.then,
                "fetched": "yes" if each.fetched else "",
            }
            for each in reversed(found)
        ]
    )


def show(desk: Desk, cluster: Cluster | Host) -> None:
    """The runs there, if there are some; a host has none."""
    if isinstance(cluster, Runs) and (found := cluster.runs()):
        desk.show(run_table(found))


def _cluster(desk: Desk, arguments: Arguments) -> tuple[Cluster | None, bool]:
    """Where to run it, and whether that was launched for it; what cannot be is said before it costs anything."""
    script_of(arguments.script, ranks=arguments.ranks)
    check_discard(arguments)
    if missing := [
        each for each in arguments.files if not list(Path().glob(each)) and not Path(each).exists()
    ]:
        raise UsageError(f"there is no {', '.join(missing)} to send along")
    topics = [arguments.to] if _to_s3(arguments) else []
    topics += [each for each in arguments.notify if each.removeprefix("sns:").startswith("arn:")]
    typed = [name for name in LAUNCHING if getattr(arguments, name) not in (None, [])]
    if arguments.cluster or (desk.keep and desk.connected is not None and not typed):
        if typed:
            raise UsageError(f"--cluster is one that runs; {', '.join(typed)}: for one that is launched")
        cluster = desk.cluster(arguments.cluster, arguments)
        agree_if_foreign(desk, arguments, cluster.record, f"Run {arguments.script} on {cluster.name}")
        return cluster, False
    if topics and not (arguments.instance_profile or arguments.spec):
        raise UsageError(f"{topics[0]}: for that the master needs an --instance-profile")
    wanted = {**vars(arguments), "then": "terminate" if arguments.discard else None, "save": None}
    before = {each.name for each in desk.manager(arguments).clusters()}
    changes.launch(desk, Arguments(**wanted, no_wait=None))
    if arguments.dry_run:
        return None, True
    cluster = desk.cluster(None, arguments)
    return cluster, cluster.name not in before


def _found(cluster: Cluster, name: str | None) -> Run:
    """The run of that name, else the last one."""
    if name is not None:
        return cluster.find_run(name)
    found = cluster.runs()
    if not found:
        raise NothingToDo(f"no script was run on {cluster.name}")
    return found[-1]


def _watch(desk: Desk, arguments: Arguments, cluster: Cluster, run: Run) -> None:
    """Show it to its end, fetch its results, and say what becomes of the cluster. Raises RunFailed."""
    try:
        with Console(desk.lines, elsewhere=f"{run.folder}/output.log there has them, ") as console:
            run.watch(console, at_end=lambda: _end(desk, arguments, cluster, run))
    except KeyboardInterrupt:
        desk.say(f"{run.name} goes on; {_how(desk, cluster, run)}")
        raise
    if run.state != "done":
        said = f"{run.name} {'has failed' if run.state == 'failed' else f'is {run.state}'}"
        status = run.status or 1
        raise RunFailed(f"{said}, with status {status}", command=run.script, status=status, stderr="")


def _end(desk: Desk, arguments: Arguments, cluster: Cluster, run: Run) -> None:
    """While the master waits for it: fetch, and terminate what may be."""
    took = f" after {run.seconds:.1f} s" if run.seconds is not None else ""
    desk.say(f"{run.name}: {run.state}{took}")
    missing: list[str] = []
    if run.store and run.fetched:
        desk.say(f"its results are in {run.store}")
    elif run.fetch_patterns or run.then == "terminate":
        to = Path(run.name if _to_s3(arguments) else arguments.to or run.name).expanduser()
        with desk.progress(f"results of {run.name}") as report:
            done, missing = run.fetch(to, on_progress=Bar(report))
        desk.say(f"{done} → {done.base}")
    if missing:
        desk.notice("warning", f"{run.name} has left nothing that {', '.join(missing)} matches")
    if not run.ends_cluster:
        for trouble in run.refresh().troubles:
            desk.notice("warning", trouble)
        return
    if run.then == "terminate" and not run.discard:
        if not (why := _why_kept(cluster, run, missing)):
            name = cluster.name
            desk.forget(name, arguments)
            desk.manager(arguments).terminate(name)
            desk.say(f"{name} is terminated; nothing of it is left")
            return
        desk.notice("warning", f"{cluster.name} parks itself instead of being terminated, since {why}")
        return
    verb = "terminates" if run.then == "terminate" else "parks"
    desk.say(f"{cluster.name} {verb} itself, once nothing else works there")


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
        jobs = [each for each in lost.jobs if run.name not in each]
        if run.own:
            jobs = [each for each in jobs if not each.startswith(COMPUTING)]
        if not any(each.startswith(COMPUTING) for each in jobs) or time.monotonic() > deadline:
            break
        time.sleep(COOLING_SECONDS / 10)
    lost = replace(lost, jobs=tuple(jobs))
    if run.own:
        return replace(lost, files=(), more_files=0, more_bytes=0)
    return replace(
        lost, files=tuple(each for each in lost.files if not each[0].startswith(f"runs/{run.name}/"))
    )


def _plan(cluster: Cluster, run: Run) -> str:
    """What is to happen when it is over."""
    results = f"its results are stored in {run.store}, and " * bool(run.store) or (
        f"its results ({', '.join(run.fetch_patterns)}) are fetched if this client is here then, and "
        * bool(run.fetch_patterns)
    )
    words = {
        "nothing": f"{cluster.name} stays",
        "park": f"{cluster.name} is parked, which keeps its disk",
        "terminate": f"{cluster.name} is terminated; without this client, or if it fails, it is parked",
    }
    last = (
        f"{cluster.name} terminates itself, with all that was not fetched" if run.discard else words[run.then]
    )
    return f"when it is over, {results}{last}"


def _how(desk: Desk, cluster: Cluster, run: Run) -> str:
    sign = desk.sign
    return (
        f"watch it with: {sign}run --watch {run.name} --cluster {cluster.name}; "
        f"end it with: {sign}run --stop {run.name} --cluster {cluster.name}"
    )


def check_discard(arguments: Arguments) -> None:
    """Raise UsageError if nothing is to be terminated."""
    if arguments.discard and arguments.end != "terminate":
        raise UsageError("--discard is for --then terminate")


def follow_up(cluster: Any, arguments: Arguments) -> dict[str, Any]:
    """What was typed to follow a background job, for ``Job.follow_up``; the cluster is made ready for it."""
    check_discard(arguments)
    then = arguments.end or "nothing"
    if then != "nothing":
        cluster.prepare_end(then, discard=bool(arguments.discard))
    return {"notify": list(arguments.notify), "end": then != "nothing"}
