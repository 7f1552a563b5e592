"""Jobs: the evaluations of a session, numbered for ever, what became of them, and results that nobody fetched yet.

The list is one JSON object a line, the last one of a number holds; it is bounded, the newest are kept. Small results
are kept in memory, the others by results.py. Nothing is written while a short evaluation runs. Must not know R, nor
clients beyond their names.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import whole
from ..wire.protocol import Kind, header
from .results import Results

KEPT = 1000
# Results up to this size are kept for whoever asked until it asks again, so that a cut line loses none; but no more
# of them all.
SMALL_RESULT = 2**20
ENDINGS_BYTES = 64 * 2**20
WRITE_SECONDS = SHORT_SECONDS = 1.0


class JobState(enum.Enum):
    """What became of it."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LOST = "lost"


@dataclass
class Job:
    """One evaluation. Its events are those of its number from ``first`` to ``last``; times in seconds since 1970.

    ``told``: its result was given to who asked for it. ``trouble``: why it could not be kept. ``key`` is its client's
    token and id. ``ending``: the kind and body of the frame that ended it, if it is kept here. ``sequel``: what
    follows its end, as aftermath.py takes it (``notify``, ``end``), and whether that is to ``discard``.
    """

    number: int
    client: str
    code: str
    background: bool
    key: tuple[str, int] = ("", 0)
    submitted: float = field(default_factory=time.time)
    began: float | None = None
    ended: float | None = None
    state: JobState = JobState.QUEUED
    first: int = 0
    last: int = 0
    told: bool = False
    trouble: str = ""
    ending: tuple[Kind, bytes] | None = None
    sequel: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state not in (JobState.QUEUED, JobState.RUNNING)

    @property
    def matters(self) -> bool:
        """Whether it is written down: what was short, and was waited for, need not outlive the agent."""
        return self.background or not self.over or (self.ended or 0) - (self.began or 0) > SHORT_SECONDS

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        row = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("key", "ending")
        }
        return {**row, "state": self.state.value}


class Jobs:
    """The jobs of a session; ``folder`` is its log's (None: nothing outlives the agent).

    ``results`` has those on the disk. ``on_trouble`` is told what the disk does not take, ``on_over`` of each that
    ends. Numbers go on after ``last``: an agent that was killed may not have written its newest.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        last: int = 0,
        on_trouble: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._on_trouble = on_trouble
        self.results = Results(None if folder is None else folder / "results", on_trouble=self._unkept)
        self.on_over: Callable[[Job], None] = lambda job: None
        self._written = True
        self._jobs: dict[int, Job] = {}
        self._by_key: dict[tuple[str, int], int] = {}
        self._endings: dict[str, Job] = {}  # the last one of each client
        self._ending_bytes = 0
        self._expected: dict[tuple[str, int], dict[str, Any]] = {}
        self._changed: set[int] = set()
        self._lines = 0
        self._writing = False
        self.next = last + 1
        if folder is not None:
            self._read(folder / "jobs.jsonl")
        for job in self._jobs.values():
            if not job.over:  # R ended with the agent that knew them
                job.state = JobState.LOST
                self._changed.add(job.number)

    def expect(self, key: tuple[str, int], sequel: dict[str, Any]) -> None:
        """That is to follow the job which is added next under that key."""
        self._expected[key] = sequel

    def add(self, client: str, *, background: bool, key: tuple[str, int]) -> Job:
        """A new job, queued; its code is told later."""
        job = Job(self.next, client, "", background, key, sequel=self._expected.pop(key, None))
        self.next += 1
        self._jobs[job.number] = job
        self._by_key[key] = job.number
        self._change(job)
        if len(self._jobs) > KEPT:
            old = self._jobs.pop(next(iter(self._jobs)))
            self._by_key.pop(old.key, None)
        return job

    def begin(self, job: Job, *, after: int) -> None:
        """It runs; its events come after that one."""
        job.state, job.began, job.first = JobState.RUNNING, time.time(), after + 1
        self._forget(job.key[0])  # or its client would not ask again
        self._change(job)

    def end(self, job: Job, kind: Kind, body: bytes | None, *, last: int, state: JobState) -> None:
        """It is over; ``body`` None: too large to be kept here."""
        job.state = state
        job.ended, job.last = time.time(), last
        if body is not None:
            self._forget(job.key[0])
            job.ending = (kind, body)
            self._endings[job.key[0]] = job
            self._ending_bytes += len(body)
            while self._ending_bytes > ENDINGS_BYTES:
                self._forget(next(iter(self._endings)))
        self._change(job)
        self.on_over(job)

    def get(self, number: int) -> Job | None:
        """The job of that number, if it is still known."""
        return self._jobs.get(number)

    def find(self, key: tuple[str, int]) -> Job | None:
        """The job that this client knows by that id."""
        return self._jobs.get(self._by_key.get(key, 0))

    def rows(self) -> list[dict[str, Any]]:
        """All that are known, the oldest first."""
        return [job.row() for job in self._jobs.values()]

    def follow(self, job: Job, sequel: dict[str, Any] | None) -> None:
        """That is to follow its end."""
        job.sequel = sequel
        self._change(job)

    def fetched(self, job: Job) -> None:
        """Its result was given to who asked for it."""
        if not job.told:
            job.told = True
            self._change(job)

    @property
    def unfetched(self) -> int:
        """How many are done whose results nobody has; of those that are written down."""
        return sum(job.state is JobState.DONE and job.matters and not job.told for job in self._jobs.values())

    @property
    def discards(self) -> bool:
        """Whether one that is not over is to end the cluster without regard to what was not fetched."""
        return any((job.sequel or {}).get("discard") and not job.over for job in self._jobs.values())

    def close(self) -> None:
        """Write what is not written yet."""
        self._write()

    def keep_small(self, job: Job) -> None:
        """Write the ending that is kept in memory, for clients to come."""
        kind, body = job.ending or (Kind.RESULT, b"")
        file = self.results.begin(job.number, len(body)) if job.ending else None
        if file is not None:
            try:
                file.write(header(kind, len(body), id=job.number) + body)
            except OSError as exc:
                self.results.give_up(job.number, file, exc)
            else:
                self.results.keep(job.number, file)

    def _unkept(self, number: int, exc: OSError) -> None:
        if job := self._jobs.get(number):
            job.trouble = str(exc)
        self._on_trouble(f"the result of job {number} could not be kept on the master's disk: {exc}")

    # --- The list on the disk

    def _forget(self, token: str) -> None:
        job = self._endings.pop(token, None)
        if job is not None and job.ending is not None:
            self._ending_bytes -= len(job.ending[1])
            job.ending = None

    def _change(self, job: Job) -> None:
        self._changed.add(job.number)
        if not self._writing and self._folder is not None:
            self._writing = True
            asyncio.get_running_loop().call_later(WRITE_SECONDS, self._write)

    def _read(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8").splitlines():
                self._lines += 1
                with contextlib.suppress(ValueError, TypeError):
                    row = json.loads(line)
                    job = Job(**{**row, "state": JobState(row["state"]), "key": ("", 0)})
                    self._jobs[job.number] = job
                    self.next = max(self.next, job.number + 1)
        self._jobs = dict(sorted(self._jobs.items())[-KEPT:])

    def _write(self) -> None:
        self._writing = False
        if self._folder is None:
            return
        path = self._folder / "jobs.jsonl"
        changed = [self._jobs[number] for number in sorted(self._changed) if number in self._jobs]
        rows = [job.row() for job in changed if job.matters]
        self._changed.clear()
        if not rows:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lines += len(rows)
            if self._lines > 4 * KEPT:
                rows = [job.row() for job in self._jobs.values() if job.matters]
                self._lines = len(rows)
                whole.write(path, "".join(f"{json.dumps(row)}\n" for row in rows))
            else:
                with path.open("a", encoding="utf-8") as file:
                    file.write("" if self._written else "\n")  # behind what was cut off
                    file.writelines(f"{json.dumps(row)}\n" for row in rows)
            self._written = True
        except OSError as exc:
            self._changed.update(job.number for job in changed)
            if self._written:
                self._written = False
                self._on_trouble(f"the list of jobs cannot be written to {path}: {exc}")
