"""The watchdog: ends the cluster when it is idle, over its time or over its budget, with warning and without loss.

Runs in the agent, on the master. Every few seconds it looks who works and what the limits come to (limits.py);
before the end it warns the attached clients twice, saves R's workspace, tells the workers to shut down and shuts
the master down. What a shutdown means, to stop or to terminate, EC2's InstanceInitiatedShutdownBehavior says. As long
as it runs, it tells all nodes that they are wanted: without that each ends itself (deadman.py). Must not know EC2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .lifetime import activity, aftermath, shutdown
from .lifetime.limits import Limits, Verdict, in_words, judge, load
from .lifetime.pulse import Pulse
from .sessions.notices import Notices
from .sessions.workspace import NotSaved

T = TypeVar("T")
TICK_SECONDS = 10.0
# The nodes' own deadline is so much later than the watchdog's, which has a workspace to save.
HARD_SECONDS = 900.0
RETRY_SECONDS = 30.0
# Idle clients look for notices every second.
FAREWELL_SECONDS = 2.0
# A run or a job after which the cluster is to end is over for so long: somebody may have come to look.
LINGER_SECONDS = 30.0
# A worker says every 10 s that it computes.
WORK_SECONDS = 30.0
THEN = {"park": "parked", "terminate": "terminated"}


class Session(Protocol):
    """What the watchdog needs of the R sessions."""

    notices: Notices

    @property
    def evaluations(self) -> int:
        """How many have begun."""

    @property
    def pids(self) -> list[int]:
        """R's processes."""

    def working(self) -> list[str]:
        """The evaluations that run or wait, in words."""


class Saver(Protocol):
    """What saves the workspace."""

    def save(self) -> Awaitable[dict[str, Any]]:
        """Save it. Raises NotSaved."""

    def discard(self) -> None:
        """It need not have been saved."""


class Watchdog:
    """Start it in a running event loop. ``folder`` is ~/.ppe."""

    def __init__(self, session: Session, saver: Saver, folder: Path) -> None:
        self._session = session
        self._saver = saver
        self._folder = folder
        self._path = folder / "limits.json"
        self._ended = folder / "ended.json"
        self._pulse = Pulse(folder / "beacon.json", on_notice=self._heard)
        self._limits = Limits()
        self._trouble = ""
        self._armed = self._worked = time.time()
        self._others: list[str] = []  # who works outside of the session
        self._workers: dict[
            str, tuple[float, float]
        ] = {}  # when a node said that it computes, and how much of a core
        self._evaluations = 0
        self._meter = activity.Meter()
        self._warned = 0
        self._ending = False
        self._spot: dict[str, dict[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Watch from now on."""
        self._task = asyncio.ensure_future(self._watch())

    def stop(self) -> None:
        """Watch no more; the nodes then end themselves after a while."""
        if self._task is not None:
            self._task.cancel()
        self._pulse.close()

    def wake(self) -> None:
        """The limits are others now: look at once."""
        self._load()
        self._look()
        self._wake.set()

    def why_ended(self) -> str:
        """Why the cluster ended in its earlier life, once; "" if it did not end by itself."""
        try:
            why = str(json.loads(self._ended.read_text(encoding="utf-8"))["why"])
        except (OSError, ValueError, KeyError):
            return ""
        self._ended.unlink()
        return why

    def status(self) -> dict[str, Any]:
        """When it acts, and why; all times in seconds since 1970."""
        verdict = self._verdict()
        return {
            "acts_at": verdict.at,
            "why": verdict.why,
            "then": self._limits.then,
            "idle_since": None if self._working() else self._worked,
            "working": self._working(),
            "spent_usd": self._limits.spent(time.time()),
            "trouble": self._trouble,
            "notices": self._session.notices.recent(),
            "spot": list(self._spot.values()),
        }

    async def _watch(self) -> None:
        while True:
            self._load()
            self._look()
            self._pulse.beat(self._hard_deadline())
            verdict = self._verdict()
            if verdict.at is not None and verdict.at <= time.time():
                await self._end(verdict.why)
                verdict = self._verdict()
            self._warn(verdict)
            self._wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._pause(verdict))

    def _pause(self, verdict: Verdict) -> float:
        """Seconds until the next look: soon enough to be on time, and for the nodes' patience."""
        return max(0.2, min(TICK_SECONDS, self._pulse.pause, verdict.next_event(time.time())))

    def _load(self) -> None:
        try:
            self._limits = load(self._path)
            self._trouble = ""
        except (OSError, ValueError, TypeError) as exc:  # the old ones hold
            self._trouble = f"{self._path}: {exc}"

    def _look(self) -> None:
        found = activity.outside(activity.processes(os.getuid()), agent=os.getpid(), r=self._session.pids)
        share = self._meter.share(found, now=time.monotonic())
        self._others = activity.programs(found, busy=activity.keepers_at_work(self._folder / "run"))
        if share > activity.WORKING_SHARE:
            self._others.append(f"processes outside of R use {share:.0%} of a core")
        for name, (told, share) in self._workers.items():
            if told > time.time() - WORK_SECONDS:
                self._others.append(f"processes on {name} use {share:.0%} of a core")
        if self._working() or self._session.evaluations != self._evaluations:
            self._evaluations = self._session.evaluations
            self._worked = time.time()

    def _working(self) -> list[str]:
        return [*self._session.working(), *self._others]

    def _verdict(self) -> Verdict:
        idle_since = None if self._working() else self._worked
        verdict = judge(self._limits, idle_since=idle_since, armed=self._armed)
        asked = aftermath.asked_end()
        if asked is None or idle_since is None:
            return verdict
        end = Verdict(max(idle_since, asked.since, self._armed) + LINGER_SECONDS, asked.why, LINGER_SECONDS)
        return verdict if verdict.at is not None and verdict.at < (end.at or 0.0) else end

    def _hard_deadline(self) -> float | None:
        deadline = self._limits.deadline
        earliest = self._armed + self._limits.warn_seconds
        return None if deadline is None else max(deadline, earliest) + HARD_SECONDS

    def _warn(self, verdict: Verdict) -> None:
        due = verdict.warnings_due(time.time())
        if due > self._warned and verdict.at is not None:
            left = in_words(max(1.0, verdict.at - time.time()))
            self._session.notices.tell(
                "warning",
                f"In {left} this cluster is {THEN[self._limits.then]}, because {verdict.why}. R's workspace is saved"
                " before. It goes on if its limits are changed (%ppe_limit), or, if it is idle, when something runs.",
                topic="end",
            )
        elif not due and self._warned:
            text = "The cluster goes on: it works again, or its limits were changed."
            self._session.notices.tell("info", text, topic="end", keep=False)
        self._warned = due

    async def _end(self, why: str) -> None:
        """Save, and shut everything down; returns only if the limits have changed meanwhile."""
        tell, what = self._session.notices.tell, THEN[self._limits.then]
        tell(
            "warning",
            f"The cluster is {what} now, because {why}. R's workspace is being saved"
            f"{'; %ppe_start brings it back' * (self._limits.then == 'park')}.",
            topic="end",
        )
        await self._patiently(self._save())
        why, terminates = await self._terminates(why)
        if self._goes_on():
            if terminates and (kept := await self._patiently(shutdown.terminates(self._folder, ()))):
                self._cannot_stop(kept)
            self._saver.discard()
            return
        with contextlib.suppress(OSError):  # a full disk is no reason to run on
            self._ended.write_text(json.dumps({"why": why, "time": time.time()}), encoding="utf-8")
        self._ending = True
        aftermath.forget_end()
        shutdown.say_on_console(spent_usd=self._limits.spent(time.time()) or 0.0)
        await asyncio.sleep(FAREWELL_SECONDS)
        while True:
            self._pulse.end(f"the cluster is {THEN['terminate'] if terminates else what}: {why}")
            if refused := await shutdown.shut_down():
                tell("error", f"{refused}. It is tried again.")
            await asyncio.sleep(RETRY_SECONDS)

    async def _terminates(self, why: str) -> tuple[str, bool]:
        """Whether what is stored elsewhere lets the end be the termination; why it ends, and why not so."""
        asked = aftermath.asked_end()
        if not (asked and asked.stored) or self._limits.then == "terminate" or self._goes_on():
            return why, False
        kept = await self._patiently(shutdown.terminates(self._folder, asked.jobs))
        tell = self._session.notices.tell
        if kept:
            tell("warning", f"It is not terminated, since {kept}.", topic="termination")
            if shutdown.in_doubt(kept) and (
                fault := await self._patiently(shutdown.terminates(self._folder, ()))
            ):
                self._cannot_stop(fault)
        else:
            tell(
                "warning",
                "It is terminated: its results are stored, and nothing else would be lost.",
                topic="end",
            )
        return f"{why}; it is not terminated, since {kept}" if kept else why, not kept

    def _cannot_stop(self, why: str) -> None:
        text = f"The cluster's next end terminates it, unless %ppe_park parks it. It could not be made to stop: {why}"
        self._session.notices.tell("error", text, topic="termination")

    async def _patiently(self, work: Awaitable[T]) -> T:
        """What it comes to; until then nobody may end this node."""
        task = asyncio.ensure_future(work)
        while not task.done():
            self._pulse.beat(None)
            await asyncio.wait({task}, timeout=self._pulse.pause)
        return task.result()

    def _goes_on(self) -> bool:
        """Whether the cluster need not end yet, as it is now."""
        self._load()
        self._look()
        return (self._verdict().at or time.time() + 1) > time.time()

    async def _save(self) -> None:
        try:
            await self._saver.save()
        except (NotSaved, OSError) as exc:
            self._session.notices.tell("error", f"R's workspace could not be saved: {exc}")

    def _heard(self, message: dict[str, Any]) -> None:
        """A node tells something."""
        name = message["name"]
        if message["event"] == "spot":
            text = (
                f"EC2 will {message['action']} the spot node {name} at {message['time']}: an MPI program that runs"
                " there fails then. Save what you need; %ppe_retry replaces the node."
            )
            # It is repeated, since a datagram may be lost.
            if self._spot.get(name, {}).get("text") != text:
                spot = {"node": name, "action": message["action"], "time": message["time"], "text": text}
                self._spot[name] = spot
                self._session.notices.tell("warning", text)
        elif message["event"] == "work":
            self._workers[name] = (time.time(), message["share"])
        elif message["event"] == "shutdown" and not self._ending:
            self._session.notices.tell("error", f"Node {name} has shut itself down: {message['why']}.")
