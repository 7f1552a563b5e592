"""The R session: one R and the evaluations that wait for it, as clients and the agent see it.

What is asked of it beside evaluations: how it is, its jobs and its log, a fresh R. Must not know sockets, SSH or what
values are.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..lifetime import aftermath
from ..wire.protocol import MAIN, VERSION, Kind, ProtocolError, json_frame
from .asking import Asking
from .evaluations import Evaluations
from .eventlog import LOG_BYTES, EventLog
from .jobs import Job, Jobs, JobState
from .notices import Notices

# The agent's own name: it ends with R.
AGENT = f"{os.getpid()} {time.time()}"


class RSession(Evaluations):
    """``start`` it in a running event loop.

    ``on_started`` is told what R has loaded when it is ready: the number of objects, None if there was nothing, or R's
    words if it could not. ``on_command`` does what this does not know.
    """

    def __init__(self, name: str, *, run: Path, hostfile: Path, log: Path | None, notices: Notices) -> None:
        events = EventLog(
            log, limit=LOG_BYTES, on_trouble=lambda text: notices.tell("error", text, topic="log")
        )
        jobs = Jobs(
            log,
            last=events.last_job,
            on_trouble=lambda text: notices.tell("error", text, topic=f"jobs {name}"),
        )
        jobs.on_over = self._follow_up
        super().__init__(events, jobs, run=run, hostfile=hostfile, notices=notices)
        self.name = name
        self.notices = notices
        self.on_started: Callable[[object], None] = lambda restored: None
        self.on_command: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = _no_command
        self._life.on_started = lambda restored: self.on_started(restored)
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: list[str] = []

    def start(self) -> None:
        """Start R; evaluations wait until it is ready."""
        self._life.start()

    async def stop(self) -> None:
        """End R and all that belongs to it, for good."""
        await self._life.stop()
        self.log.close()
        self.jobs.close()

    # --- How it is

    @property
    def pid(self) -> int | None:
        """R's process, once it is ready."""
        return self._life.pid

    def welcome(self) -> dict[str, object]:
        """What a new client is told, and ``status`` shows."""
        r = {"state": self.state.value, "version": self._life.version, "trouble": self._life.trouble}
        return {
            "version": VERSION,
            "agent": AGENT,
            "session": self.name,
            "first": self.log.first,
            "last": self.log.last,
            "r": r,
            "busy": self.busy(),
            "past": self._past(),
            "notices": self.notices.recent(),
        }

    def _past(self) -> dict[str, object]:
        """When R was started, and who used it last; nothing if nobody did."""
        if self._last is None:
            return {}
        token, name, when = self._last
        return {
            "since": self._life.started,
            "token": token,
            "client": name,
            "used": when,
            "objects": self._objects,
        }

    def row(self) -> dict[str, Any]:
        """It in short, for a list of sessions."""
        return {
            "state": self.state.value,
            "since": self._life.started,
            "pid": self.pid,
            "waiting": sum(each.kind is Kind.EVALUATE for each in self.requested),
            "discards": self.jobs.discards,
            "objects": self._objects,
            "unfetched": self.jobs.unfetched,
            "client": self._last[1] if self._last else "",
            "used": self._last[2] if self._last else None,
        }

    def working(self) -> list[str]:
        """The evaluations that run or wait, in words."""
        evaluations = [
            f"R evaluates for {each.asker}" for each in self.requested if each.kind is Kind.EVALUATE
        ]
        return [*evaluations, *(f"what follows {name}" for name in self._following)]

    # --- What clients ask for beside evaluations

    def joined(self, client: Asking) -> None:
        """The client has said hello: notices go to it from now on."""
        self.audience.join(client)

    def label(self, client: Asking, id: int, code: str) -> None:
        """The first line of the code of an evaluation that has been asked for."""
        job = self.jobs.find((client.token, id))
        if job is not None:
            job.code = code

    def expect(self, client: Asking, id: int, sequel: dict[str, Any]) -> None:
        """That is to follow an evaluation which comes next."""
        self.jobs.expect((client.token, id), _sequel(sequel))

    def resume(self, client: Asking, id: int, seen: int) -> None:
        """Go on with an evaluation that was asked for over a line that was cut."""
        job = self.jobs.find((client.token, id)) if client.token else None
        if job is None:
            client.fail(id, "unknown", "it did not come whole, so it was not begun")
        elif job.background:
            client.tell(json_frame(Kind.DONE, {"job": job.number}, id=id))
        elif job.over:
            self._endings.tell(client, id, job, after=seen)
        else:
            self.take_up(client, id, job, seen=seen)

    def follow(self, client: Asking, id: int, since: int, wish: dict[str, Any]) -> None:
        """Send a job's events, or the log's, and what comes yet if it is to be ``live``."""
        number, live = _number(wish), bool(wish.get("live"))
        job = self.jobs.get(number)
        if number and job is None:
            client.fail(id, "job", f"there is no job {number} (any more); see %remote_jobs")
        elif job is not None and job.over and live:
            self._endings.tell(client, id, job, after=since, quiet=bool(wish.get("quiet")))
        else:
            until = None if live else self.log.last
            before = job.first - 1 if job is not None and job.first else self.log.last if job else 0
            quiet = bool(wish.get("quiet"))
            how = {"job": number, "after": max(since, before), "until": until, "quiet": quiet}
            follower = self.audience.follow(client, id, **how)
            if not live:
                told = {"first": self.log.first, "last": self.log.last, "job": job.row() if job else None}
                self.audience.end_one(follower, [json_frame(Kind.DONE, told, id=id, seq=self.log.last)])

    def command(self, client: Asking, id: int, wish: dict[str, Any]) -> None:
        """Do what else there is to do: list jobs, end one, and what ``on_command`` can."""

        async def answer() -> None:
            try:
                client.tell(json_frame(Kind.DONE, await self._do(wish), id=id, seq=self.log.last))
            except Exception as exc:  # whoever wishes what cannot be hears so
                client.fail(id, "command", str(exc))

        task = asyncio.ensure_future(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, wish: dict[str, Any]) -> dict[str, Any]:
        if wish.get("do") == "jobs":
            return {"jobs": self.jobs.rows()}
        if wish.get("do") in ("cancel", "follow up"):
            job = self.jobs.get(_number(wish))
            if job is None:
                raise ValueError(f"there is no job {wish.get('job')} (any more); see %remote_jobs")
            if wish["do"] == "cancel":
                self.cancel(job)
            else:
                self.jobs.follow(job, _sequel(wish))
                if job.over:
                    self._follow_up(job)
            return {"job": job.row()}
        return await self.on_command(wish)

    def follow_lost(self, *, end: bool) -> None:
        """Do what is to follow the jobs that were lost with an earlier agent; ``end``: the cluster's end too."""
        for number in [row["number"] for row in self.jobs.rows() if row["state"] == JobState.LOST.value]:
            if job := self.jobs.get(number):
                self._follow_up(job, end=end)

    def _follow_up(self, job: Job, *, end: bool = True) -> None:
        """Do what is to follow the end of a job, once; whoever interrupts it does not want the cluster's end."""
        if (sequel := job.sequel) is None:
            return
        self.jobs.follow(job, None)
        of = "" if self.name == MAIN else f" of session {self.name}"
        name = f"job {job.number}{of}"
        end = end and sequel["end"] and job.state is not JobState.INTERRUPTED
        how = {"status": job.state.value, "notify": sequel["notify"], "end": end, "folder": Path.home()}

        async def follow() -> None:
            self._following.append(name)
            try:
                for trouble in await asyncio.to_thread(partial(aftermath.follow, job=name, **how)):
                    self.notices.tell("error", f"{name} has ended, and {trouble}")
            finally:
                self._following.remove(name)

        task = asyncio.ensure_future(follow())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def restart(self, client: Asking, id: int, restore: str | None) -> None:
        """End R and start it anew, with the variables in the file ``restore`` if one is named."""
        self._life.restart(client, id, restore)

    # --- What the agent asks for

    def renew(self, message: str) -> None:
        """Start R anew; it finds the workspace that it has saved. Only for an idle R."""
        self._life.replace("restarted", message, kept=True)

    async def save_and_restart(self, saved: Callable[[], None]) -> bool:
        """End the evaluation that runs: R saves its workspace and starts anew with it; ``saved`` is called between.

        False if R did not save: it hangs, or the evaluation has ended by itself.
        """
        return await self._life.save_and_restart(
            "The evaluation was ended, to save the workspace: the cluster stops", saved
        )


def _number(wish: dict[str, Any]) -> int:
    """The number of the job that it is about, 0 for none. Raises ProtocolError."""
    number = wish.get("job") or 0
    if not isinstance(number, int):
        raise ProtocolError(f"a job has a whole number, not {number!r}")
    return number


def _sequel(wish: dict[str, Any]) -> dict[str, Any]:
    flags = {name: bool(wish.get(name)) for name in ("end", "discard")}
    return {"notify": [str(each) for each in wish["notify"]], **flags}


async def _no_command(wish: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(f"there is nothing such as {wish.get('do')!r}")
