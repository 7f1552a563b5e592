"""Scripts that go on without a client: started on a cluster of their own or one that runs, watched, fetched, listed."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import NothingToDo, RemoteError, RunFailed, SshError, UsageError
from ...remote.files.s3 import is_s3
from ...runs import Run, Runs, Then, check_discard, script_of
from ...verbs.clusters import LAUNCHING
from ..output import Console
from ..owners import agree_if_foreign
from ..tables import Table, local_time, table
from . import changes, endings

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ...host import Host
    from ..desk import Desk

Arguments = argparse.Namespace


def run(desk: Desk, arguments: Arguments) -> Table | None:
    """Start a script and watch it; or watch, stop or list those that there are."""
    if arguments.watch or arguments.stop:
        cluster = desk.cluster(arguments.cluster, arguments)
        found = _found(cluster, arguments.script)
        if arguments.stop:
            _stop(desk, arguments, cluster, found)
        else:
            _watch(desk, arguments, cluster, found)
        return None
    if not arguments.script:
        return run_table(desk.cluster(arguments.cluster, arguments).runs())
    chosen, own = _cluster(desk, arguments)
    if chosen is not None:
        _start(desk, arguments, chosen, own=own)
    return None


def _stop(desk: Desk, arguments: Arguments, cluster: Cluster, run: Run) -> None:
    """End it, and what it has made of the cluster's limits."""
    if run.state != "running":
        raise NothingToDo(f"{run.name} is over: {run.state}")
    agree_if_foreign(desk, arguments, cluster.record, f"End {run.name} on {cluster.name}")
    run.stop()
    limits = ""
    if run.discard:
        cluster.prepare_end("park")
        limits = ", and is parked at its limits instead of terminated"
    desk.say(f"{run.name} is being ended; {cluster.name} stays{limits}")


def _start(desk: Desk, arguments: Arguments, cluster: Cluster, *, own: bool) -> None:
    try:
        started = cluster.run(
            arguments.script,
            *arguments.rest,
            files=arguments.files,
            ranks=arguments.ranks,
            fetch=arguments.fetch,
            store=_store(arguments),
            then=_then(arguments, own=own),
            discard=bool(arguments.discard),
            notify=arguments.notify,
            own=own,
        )
    except BaseException:
        if own:
            desk.notice(
                "warning",
                f"{cluster.name} was launched for {arguments.script}, and runs on without it; "
                f"end it with: {desk.sign}terminate {cluster.name}",
            )
        raise
    desk.say(f"{started.name} runs on {cluster.name}; {_plan(cluster, arguments, own=own)}")
    if arguments.no_watch:
        desk.say(_how(desk, cluster, started))
    else:
        _watch(desk, arguments, cluster, started)


def _store(arguments: Arguments) -> str:
    """Where in S3 the master is to take the results, or ""."""
    return arguments.to if is_s3(arguments.to or "") else ""


def _then(arguments: Arguments, *, own: bool) -> Then:
    then: Then = arguments.end or ("park" if own else "nothing")
    return then


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
                "seconds": None if each.seconds is None else round(each.seconds, 1),
                "then": each.then,
                "fetched": "yes" if each.fetched else "",
            }
            for each in reversed(found)
        ]
    )


def show(desk: Desk, cluster: Cluster | Host) -> None:
    """The runs there, if there are some; a host has none. That they cannot be asked for is said only."""
    try:
        found = cluster.runs() if isinstance(cluster, Runs) else []
    except SshError:
        raise
    except (RemoteError, TimeoutError) as exc:
        desk.notice("warning", f"scripts that run there are not listed: {exc}")
        return
    if found:
        desk.show(run_table(found))


def _cluster(desk: Desk, arguments: Arguments) -> tuple[Cluster | None, bool]:
    """Where to run it, and whether that was launched for it; what cannot be is said before it costs anything."""
    script_of(arguments.script, ranks=arguments.ranks)
    check_discard(arguments.end, discard=bool(arguments.discard))
    if missing := [each for each in arguments.files if not _is_there(os.path.expanduser(each))]:  # noqa: PTH111
        raise UsageError(f"there is no {', '.join(missing)} to send along")
    topics = [_store(arguments)] if _store(arguments) else []
    topics += [each for each in arguments.notify if each.removeprefix("sns:").startswith("arn:")]
    names = [each.attribute for each in LAUNCHING]
    typed = [name for name in names if getattr(arguments, name) not in (None, [])]
    if arguments.cluster or (desk.keep and desk.connected is not None and not typed):
        if typed:
            raise UsageError(f"--cluster is one that runs; {', '.join(typed)}: for one that is launched")
        cluster = desk.cluster(arguments.cluster, arguments)
        if arguments.dry_run:
            plan = _plan(cluster, arguments, own=False)
            desk.say(f"{arguments.script} would run on {cluster.name}; {plan}")
            return None, False
        end = f", and {arguments.end} it then" if _then(arguments, own=False) != "nothing" else ""
        agree_if_foreign(desk, arguments, cluster.record, f"Run {arguments.script} on {cluster.name}{end}")
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


def _is_there(path: str) -> bool:
    return os.path.lexists(path) or bool(glob.glob(path, recursive=True))  # noqa: PTH207  # of an absolute one, too


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
            run.watch(console, at_end=lambda: endings.conclude(desk, arguments, cluster, run))
    except KeyboardInterrupt:
        if run.known_state == "running":
            desk.say(f"{run.name} goes on; {_how(desk, cluster, run)}")
        else:
            desk.say(f"{run.name} is over; what it left is still there: {_again(desk, cluster, run)}")
        raise
    if run.state != "done":
        said = f"{run.name} {'has failed' if run.state == 'failed' else f'is {run.state}'}"
        status = run.status or 1
        raise RunFailed(f"{said}, with status {status}", command=run.script, status=status, stderr="")


def _plan(cluster: Cluster, arguments: Arguments, *, own: bool) -> str:
    """What is to happen when it is over."""
    results = f"its results are stored in {_store(arguments)}, and " * bool(_store(arguments)) or (
        f"its results ({', '.join(arguments.fetch)}) are fetched if this client is here then, and "
        * bool(arguments.fetch)
    )
    words = {
        "nothing": f"{cluster.name} stays",
        "park": f"{cluster.name} is parked, which keeps its disk",
        "terminate": f"{cluster.name} is terminated; without this client, or if it fails, it is parked",
    }
    last = words[_then(arguments, own=own)]
    if _store(arguments) and arguments.end == "terminate":
        last = f"{cluster.name} is terminated, or parked, if they are not or more would be lost"
    if arguments.discard:
        last = (
            f"{cluster.name} terminates itself, with all that was not fetched; from now on at its limits, too"
        )
    return f"when it is over, {results}{last}"


def _how(desk: Desk, cluster: Cluster, run: Run) -> str:
    again = _again(desk, cluster, run)
    return f"{again}; end it with: {desk.sign}run --stop {run.name} --cluster {cluster.name}"


def _again(desk: Desk, cluster: Cluster, run: Run) -> str:
    return f"watch it with: {desk.sign}run --watch {run.name} --cluster {cluster.name}"
