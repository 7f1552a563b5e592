"""The remote cells and their companions: R, Python and shell on the cluster, variables both ways.

Each gets the Desk, the parsed arguments, the cell's body (None for a line), the notebook's variables, and a
function that sets some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import NoSuchCluster, SshError, UsageError
from ..node.ladder import Rung
from ..node.protocol import MAIN, Wish
from ..remote.session import PlotOptions, Text
from . import borrowed, jobs, runs
from .output import Console
from .ranks import rank_table
from .teams import gathered, on_ranks, team_cell

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..host import Host
    from ..remote.session import RemoteR
    from ..remote.team import Language
    from .desk import Desk

Arguments = argparse.Namespace
Names = Mapping[str, Any]
Push = Callable[[dict[str, Any]], None]
Cell = Callable[["Desk", Arguments, "str | None", Names, Push], Any]


def remote_r(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> Any:
    """R. A cell prints as the console does; a line returns the value of its last expression."""
    if on_ranks(arguments):
        _ranks(desk, arguments, cell, names, push, "r")
        return None
    followed = _check_sequel(desk, arguments)
    inputs = _inputs(arguments.input, names)
    outputs = _listed(arguments.output)
    converter = _value(arguments.converter, names) if arguments.converter else None
    show = _value(arguments.display, names) if arguments.display else None
    result: Any = None
    simplify = not arguments.no_simplify
    with _session(desk, arguments) as session, Console(_lines(desk, arguments)) as console:
        session.wish = _wish(arguments)
        if arguments.fresh:
            session.restart()
        if arguments.background:
            code, plots = _code(arguments, cell), _plots(arguments)
            job = session.submit(code, print=cell is not None, inputs=inputs, outputs=outputs, plots=plots)
            job.console, job.simplify = partial(Console, _lines(desk, arguments)), simplify
            if followed:
                runs.follow_up(desk, desk.target(arguments.cluster), job, arguments)
            return job
        how: dict[str, Any] = {
            "on_output": console, "on_question": _questions(desk, console), "plots": _plots(arguments),
            "timeout": arguments.timeout,
        }  # fmt: skip
        if converter is not None:
            inputs = borrowed.inputs(inputs, converter)
        wanted = [] if converter is not None else outputs
        if cell is not None and show is None:
            pulled = session.run(
                _code(arguments, cell), inputs=inputs, outputs=wanted, simplify=simplify, **how
            )
        else:
            result = session.eval(_code(arguments, cell), inputs=inputs, simplify=simplify, **how)
            if show is not None:
                borrowed.show_last(session, show, arguments)
            pulled = session.pull_all(wanted, simplify=simplify)
        if converter is not None:
            pulled = borrowed.outputs(session, outputs, converter)
        push({_python_name(name): value for name, value in pulled.items()})
    silent = cell is not None or arguments.noreturn or arguments.code.rstrip().endswith(";")
    return None if silent else result


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
    task = team_cell(arguments, _code(arguments, cell), language, lambda path: _value(path, names))
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
    push({_python_name(name): value for name, value in gathered(found, arguments).items()})


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
    values = {} if arguments.from_r else _inputs(arguments.names, names)
    with _session(desk, arguments) as session:
        if arguments.from_r:
            borrowed.push_from_r(session, {r_name or name: name for r_name, name in _pairs(arguments.names)})
        session.push_all(values, integer64=bool(arguments.integer64))


def remote_pull(desk: Desk, arguments: Arguments, cell: str | None, names: Names, push: Push) -> None:
    """R variables to Python."""
    with _session(desk, arguments) as session:
        if arguments.to_r:
            borrowed.pull_to_r(session, _listed(arguments.names))
        else:
            pulled = session.pull_all(_listed(arguments.names), simplify=not arguments.no_simplify)
            push({_python_name(name): value for name, value in pulled.items()})


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


def _check_sequel(desk: Desk, arguments: Arguments) -> bool:
    """Whether something follows a background job. Raises UsageError for what needs somebody who waits, or nobody."""
    words = {"then": arguments.end, "discard": arguments.discard, "notify": arguments.notify}
    typed = [f"--{word}" for word, value in words.items() if value]
    if not arguments.background:
        if typed:
            raise UsageError(f"{' and '.join(typed)}: only with --background")
        return False
    _check_background(arguments)
    if typed:
        with _cluster(desk, arguments) as cluster:
            runs.check_sequel(desk, cluster, arguments)
    return bool(typed)


def _check_background(arguments: Arguments) -> None:
    """Raise UsageError for what needs somebody who waits."""
    waiting = {
        "--timeout": arguments.timeout,
        "--converter": arguments.converter,
        "--display": arguments.display,
    }
    if typed := [option for option, value in waiting.items() if value is not None]:
        raise UsageError(f"{' and '.join(typed)}: not with --background, where nobody waits for the end")


def _wish(arguments: Arguments) -> Wish:
    watch = Wish.WATCH if arguments.watch else Wish(0)
    return watch | Wish.TAKE_OVER if arguments.take_over else watch


def _code(arguments: Arguments, cell: str | None) -> str:
    """What is to run; the magic's own line is a cell's first, as the notebook numbers them."""
    return str(arguments.code) if cell is None else f"{arguments.code}\n{cell}"


def _listed(names: Iterable[str]) -> list[str]:
    """``a,b`` and ``a b`` and both: the names."""
    return [name for each in names for name in each.split(",") if name]


def _inputs(listed: Iterable[str], names: Names) -> dict[str, Any]:
    """The values to send, by their names in R: ``a``, ``module.value``, or ``name_in_r=a``."""
    return {r_name or name: _value(name, names) for r_name, name in _pairs(listed)}


def _pairs(listed: Iterable[str]) -> list[tuple[str, str]]:
    parts = [each.rpartition("=") for each in _listed(listed)]
    return [(r_name, name) for r_name, _, name in parts]


def _value(path: str, names: Names) -> Any:
    name, *attributes = path.split(".")
    if name not in names:
        raise UsageError(f"there is no Python variable {name!r} to send to R")
    value = names[name]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise UsageError(f"Python's {name} has no attribute {attribute!r} to send to R")
        value = getattr(value, attribute)
    return value


def _python_name(name: str) -> str:
    return name.replace(".", "_")


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
