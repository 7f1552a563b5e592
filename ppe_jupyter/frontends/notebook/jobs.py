"""R's sessions as a whole: their jobs, logs, restarts and saving, shown and asked for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ...cloud.records import Progress
from ...errors import NothingToDo
from ...node.files.arrivals import size_text
from ...node.wire.protocol import Kind, parse_json
from ...remote.sessions.jobs import Job
from ..output import Console
from ..tables import Table, age, local_time, table

if TYPE_CHECKING:
    from ...remote.sessions.session import RemoteR
    from ...sessions import Sessions
    from ..desk import Desk

# Of the jobs that have ended, those that took so long or are so young are listed.
LONG_SECONDS = 1.0
YOUNG_SECONDS = 600.0
# Of the log, if nothing says from where on.
LAST_EVENTS = 100


def jobs(session: RemoteR, arguments: argparse.Namespace) -> Table | None:
    """The table of jobs; or one of them, shown until it ends."""
    if arguments.cancel:
        session.job(arguments.cancel).cancel()
        return None
    if arguments.number:
        show(session.job(arguments.number), arguments.lines)
        return None
    found = [job for job in session.jobs() if arguments.all or _matters(job)]
    if not found:
        raise NothingToDo("nothing was evaluated lately (--all lists what was before)")
    return job_table(found)


def show(job: Job, lines: int | None = None) -> None:
    """Its state, its output, and how it ended."""
    print(f"job {job.number} of {job.client}: {job.code}")
    with suppress(KeyboardInterrupt), Console(lines) as console:
        job.watch(console)
    took = f", {job.seconds:.1f} s" if job.status and job.seconds is not None else ""
    print(f"{job.status}{took}")


def _matters(job: Job) -> bool:
    young = time.time() - job.submitted.timestamp() < YOUNG_SECONDS
    return young or job.background or job.seconds is None or job.seconds >= LONG_SECONDS


def job_table(found: Sequence[Job]) -> Table:
    """A row for each job, the newest first."""
    rows = [
        {
            "job": job.number,
            "state": job.state,
            "code": job.code[:60],
            "client": job.client,
            "begun": local_time(job.began) if job.began else "",
            "seconds": None if job.seconds is None else round(job.seconds, 3),
            "background": "yes" if job.background else "",
            "then": "the cluster ends" if job.ends_cluster else "",
        }
        for job in reversed(found)
    ]
    return table(rows)


def log(session: RemoteR, arguments: argparse.Namespace) -> None:
    """What was printed and drawn, and, to follow it, what will be; the end only, if nothing says from where on."""
    if arguments.keep:
        session.command({"do": "keep", "bytes": arguments.keep * 2**20})
        return
    live = bool(arguments.follow)
    since = max(0, (arguments.since or 0) - 1)
    if arguments.since is None and arguments.job is None:
        since = max(0, session.last_event() - LAST_EVENTS)
        if since:
            print(f"(from event {since + 1} on; --since 0: from the beginning)")
    try:
        with Console(arguments.lines, elsewhere="") as console:
            kind, body = session.follow(arguments.job or 0, since=since, live=live, on_output=console)
    except KeyboardInterrupt:
        return
    if kind is Kind.DONE and not live:
        last = parse_json(bytes(body)).get("last")
        print(f"(event {last} is the last one)")


def sessions(cluster: Sessions, arguments: argparse.Namespace) -> Table:
    """The table of sessions."""
    if arguments.close:
        cluster.close_session(arguments.close)
    rows = [
        {
            "session": row["name"],
            "state": row["state"],
            "age": age(_time(row["since"])),
            "objects": row["objects"],
            "waiting": row["waiting"],
            "last used by": row["client"],
            "at": local_time(_time(row["used"])) if row["used"] else "",
        }
        for row in cluster.sessions()
    ]
    return table(rows)


def restart(session: RemoteR, arguments: argparse.Namespace) -> None:
    """A fresh R, with what was saved if that is wished."""
    restore = arguments.restore
    if restore == "":
        restore = session.command({"do": "autosave"})["path"]
    count = session.restart(restore=restore)
    print(f"R is fresh{f'; {count} objects from {restore} are loaded' if restore else ''}")


def autosave(session: RemoteR, arguments: argparse.Namespace) -> None:
    """Change and say what holds."""
    wish: dict[str, Any] = {"do": "autosave", "minutes": arguments.minutes, "path": arguments.file}
    now = session.command(wish)
    saved = now["saved"]
    last = (
        f"last {local_time(_time(saved['time']))}: {saved['objects']} objects, {size_text(saved['bytes'])}"
        if saved
        else "not yet"
    )
    if now["minutes"]:
        print(f"R's workspace is saved every {now['minutes']:g} minutes to {now['path']} ({last})")
    else:
        before = f" ({last}, to {now['path']})" if saved else ""
        print(f"R's workspace is not saved at intervals{before}")


@contextmanager
def transfers_shown(desk: Desk, session: RemoteR) -> Iterator[None]:
    """A bar for values that take longer than a second to cross."""
    began = time.monotonic()
    with desk.progress("values") as report:

        def show(up: bool, done: int, total: int) -> None:
            message = f"{size_text(done)} of {size_text(total)}"
            report(
                Progress(
                    "to R" if up else "from R",
                    100 * done // total,
                    100,
                    time.monotonic() - began,
                    message,
                    unit="%",
                )
            )

        session.on_progress = show
        try:
            yield
        finally:
            session.on_progress = None


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc)
