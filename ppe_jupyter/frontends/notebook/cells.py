"""The remote cells and their companions: R, Python and shell on the cluster, variables both ways.

Each gets the Desk, the parsed arguments, the cell's body (None for a line), the notebook's variables, and a
function that sets some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import NoSuchCluster, SshError, UsageError
from ...node.sessions.ladder import Rung
from ...node.wire.protocol import MAIN, Wish
from ...remote.sessions.session import PlotOptions, Text
from ..actions import runs
from ..output import Console
from . import background, borrowed, jobs, variables
from .ranks import rank_table
from .teams import gathered, on_ranks, team_cell
from .variables import Names

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ...host import Host
    from ...remote.ranks.team import Language
    from ...remote.sessions.jobs import Job
    from ...remote.sessions.session import RemoteR
    from ..desk import Desk

Arguments = argparse.Namespace
Push = Callable[[dict[str, Any]], None]
Cell = Callable[["Desk", Arguments, "str | None", Names, Push], Any]


def remote_r(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> Any:
    """R. A cell prints as the console does; a line returns the value of its last expression."""
    if on_ranks(arguments):
        _ranks(desk, arguments, cell, names, push, "r")
        return None
    if background.wanted(arguments):
        return _in_background(desk, arguments, cell, names)
    inputs = variables.inputs(arguments.input, names)
    outputs = variables.listed(arguments.output)
    converter = variables.value(arguments.converter, names) if arguments.converter else None
    show = variables.value(arguments.display, names) if arguments.display else None
    result: Any = None
    simplify = not arguments.no_simplify
    code = _code(arguments, cell)
    with _session(desk, arguments) as session, Console(_lines(desk, arguments)) as console:
        _make_ready(session, arguments)
        how: dict[str, Any] = {
            "on_output": console, "on_question": _questions(desk, console), "plots": _plots(arguments),
            "timeout": arguments.timeout,
        }  # fmt: skip
        if converter is not None:
            inputs = borrowed.inputs(inputs, converter)
        wanted = [] if converter is not None else outputs
        if cell is not None and show is None:
            pulled = session.run(code, inputs=inputs, outputs=wanted, simplify=simplify, **how)
        else:
            result = session.eval(code, inputs=inputs, simplify=simplify, **how)
            if show is not None:
                borrowed.show_last(session, show, arguments)
            pulled = session.pull_all(wanted, simplify=simplify)
        if converter is not None:
            pulled = borrowed.outputs(session, outputs, converter)
        push(variables.python_named(pulled))
    silent = cell is not None or arguments.noreturn or arguments.code.rstrip().endswith(";")
    return None if silent else result


def _in_background(desk: Desk, arguments: Arguments, cell: str | None, names: Names) -> Job:
    """R that goes on by itself: its job, and what is to follow it."""
    with _cluster(desk, arguments) as cluster:
        background.check(desk, cluster, arguments)
    inputs = variables.inputs(arguments.input, names)
    with _session(desk, arguments) as session, background.followed(cluster, arguments) as sequel:
        _make_ready(session, arguments)
        job = session.submit(
            _code(arguments, cell),
            print=cell is not None,
            inputs=inputs,
            outputs=variables.listed(arguments.output),
            plots=_plots(arguments),
            **sequel,
        )
    job.console = partial(Console, _lines(desk, arguments))
    job.simplify = not arguments.no_simplify
    return job


def _make_ready(session: RemoteR, arguments: Arguments) -> None:
    session.wish = _wish(arguments)
    if arguments.fresh:
        session.restart()


def remote_py(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """Python on the master, or on MPI ranks."""
    if on_ranks(arguments):
        _ranks(desk, arguments, cell, names, push, "python")
        return
    with _cluster(desk, arguments) as cluster, Console(_lines(desk, arguments)) as console:
        cluster.run_python(_code(arguments, cell), on_output=console, timeout=arguments.timeout)


def _ranks(
    desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push, language: Language
) -> None:
    """R or Python on MPI ranks that keep their variables."""
    task = team_cell(arguments, _code(arguments, cell), language, lambda path: variables.value(path, names))
    with _cluster(desk, arguments) as cluster, Console(_lines(desk, arguments)) as console:
        if arguments.fresh and not task.code.strip():
            cluster.end_ranks(language, arguments.ranks)
            return
        session = cluster.r(arguments.session or MAIN) if task.with_r else None
        found = cluster.run_ranks(
            task,
            on_output=console,
            session=session,
            fresh=bool(arguments.fresh),
            streamed=bool(arguments.stream),
            timeout=arguments.timeout,
        )
    push(variables.python_named(gathered(found, arguments)))


def remote_sh(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """Shell on the master, or on every node."""
    with _cluster(desk, arguments) as cluster, Console(_lines(desk, arguments)) as console:
        cluster.run_shell(
            _code(arguments, cell),
            all_nodes=bool(arguments.all),
            on_output=console,
            timeout=arguments.timeout,
        )


def remote_push(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """Python variables to R."""
    values = {} if arguments.from_r else variables.inputs(arguments.names, names)
    with _session(desk, arguments) as session:
        if arguments.from_r:
            borrowed.push_from_r(
                session, {r_name or name: name for r_name, name in variables.pairs(arguments.names)}
            )
        session.push_all(values, integer64=bool(arguments.integer64))


def remote_pull(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """R variables to Python."""
    with _session(desk, arguments) as session:
        if arguments.to_r:
            borrowed.pull_to_r(session, variables.listed(arguments.names))
        else:
            pulled = session.pull_all(variables.listed(arguments.names), simplify=not arguments.no_simplify)
            push(variables.python_named(pulled))


def remote_interrupt(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """Interrupt what R evaluates, for any client."""
    rung = Rung.RESTART if arguments.restart else Rung.WORKERS if arguments.workers else Rung.NEXT
    with _session(desk, arguments) as session:
        session.interrupt(rung)


def remote_ranks(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> Any:
    """Every MPI rank."""
    with _cluster(desk, arguments) as cluster:
        ranks = cluster.ranks()
        if ranks.silent:
            desk.say(
                f"no answer from {', '.join(ranks.silent)}, whose ranks are not listed; see: %ppe_status"
            )
        return rank_table(ranks)


def remote_kill(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """End a rank."""
    with _cluster(desk, arguments) as cluster:
        ended = cluster.kill_rank(arguments.rank, arguments.of or "R")
        desk.say(f"rank {ended.rank} on {ended.node} was ended ({ended.program}, pid {ended.pid})")


def remote_jobs(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> Any:
    """The session's jobs; the scripts that run there without a client are shown before them."""
    if not (arguments.number or arguments.cancel):
        with _cluster(desk, arguments) as cluster:
            runs.show(desk, cluster)
    return _of_session(jobs.jobs)(desk, arguments, cell, names, push)


def remote_sessions(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> Any:
    """The R sessions."""
    with _cluster(desk, arguments) as cluster:
        return jobs.sessions(cluster, arguments)


@contextmanager
def _cluster(desk: Desk, arguments: Arguments) -> Iterator[Cluster | Host]:
    """The cluster or host meant; if the line to it fails because it is gone, say so and forget it."""
    cluster = desk.target(arguments.cluster)
    if arguments.cluster is None:
        desk.connect(cluster)
    try:
        yield cluster
    except SshError:
        try:
            cluster.refresh()
        except NoSuchCluster:
            desk.forget(cluster.name)
            raise
        raise


@contextmanager
def _session(desk: Desk, arguments: Arguments) -> Iterator[RemoteR]:
    """The R session meant; values that take long to cross are shown."""
    with _cluster(desk, arguments) as cluster:
        session = cluster.r(arguments.session or MAIN)
        try:
            with jobs.transfers_shown(desk, session):
                yield session
        finally:
            session.wish = Wish(0)


def _of_session(act: Callable[[RemoteR, Arguments], Any]) -> Cell:
    """A verb that needs the session and what was typed, and nothing of the notebook's."""

    def cell(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> Any:
        if "lines" in arguments:
            arguments.lines = _lines(desk, arguments)
        with _session(desk, arguments) as session:
            return act(session, arguments)

    return cell


def _wish(arguments: Arguments) -> Wish:
    watch = Wish.WATCH if arguments.watch else Wish(0)
    return watch | Wish.TAKE_OVER if arguments.take_over else watch


def _code(arguments: Arguments, cell: str | None) -> str:
    """What is to run; the magic's own line is a cell's first, as the notebook numbers them."""
    return str(arguments.code) if cell is None else f"{arguments.code}\n{cell}"


def _plots(arguments: Arguments) -> PlotOptions:
    keys = ("width", "height", "units", "res", "pointsize", "bg")
    typed = {key: getattr(arguments, key) for key in keys if getattr(arguments, key) is not None}
    return PlotOptions(**typed, format="png" if arguments.png else "svg")


def _lines(desk: Desk, arguments: Arguments) -> int | None:
    return desk.lines if arguments.lines is None else arguments.lines


def _questions(desk: Desk, console: Console) -> Callable[[], str]:
    """Answers R's questions; if nobody is there, that is said once."""
    told = False

    def answer() -> str:
        nonlocal told
        try:
            return desk.line()
        except UsageError as nobody:
            if not told:
                console(Text("stderr", f"\n[{nobody}]\n"))
            told = True
            return ""

    return answer


CELLS: Mapping[str, Cell] = {
    "remote_r": remote_r,
    "remote_py": remote_py,
    "remote_sh": remote_sh,
    "remote_push": remote_push,
    "remote_pull": remote_pull,
    "remote_interrupt": remote_interrupt,
    "remote_ranks": remote_ranks,
    "remote_kill": remote_kill,
    "remote_jobs": remote_jobs,
    "remote_r_log": _of_session(jobs.log),
    "remote_sessions": remote_sessions,
    "remote_restart": _of_session(jobs.restart),
    "remote_autosave": _of_session(jobs.autosave),
}
