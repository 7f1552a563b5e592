"""The queue of a session's evaluations: what waits for R, what runs, and what came of it.

Requests and results pass through unread. One evaluation runs at a time; the next begins when its result is out.
Text is sent on when it comes, an evaluation's result after its last text. A client may go at any time and come back
for its evaluation: what is whole here runs once, what is not was not begun. Must not know sockets, SSH, how R lives
and dies (life.py), or what values are.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..r.terminal import Printed
from ..wire.pipes import ENOUGH_WAITING
from ..wire.protocol import Header, Kind, Question, Wish, ask, frame, header, json_frame
from .asking import Asking, Request
from .audience import Audience
from .endings import Endings
from .eventlog import EventLog
from .jobs import Job, Jobs, JobState
from .ladder import Rung
from .life import RLife
from .notices import Notices
from .running import Running
from .state import State

COMMIT, ABORT = struct.pack("<i", 1), struct.pack("<i", 0)
PADDING = bytes(2**20)
# How long an evaluation that has not begun waits for its client to come back.
PATIENCE_SECONDS = 600.0


class Evaluations:
    """R and its queue.

    ``on_suspect`` is called when an evaluation has ended that may have left workers in the middle of an MPI call.
    ``evaluations`` counts those that have begun; ``number`` numbers all requests to R.
    """

    def __init__(self, log: EventLog, jobs: Jobs, *, run: Path, hostfile: Path, notices: Notices) -> None:
        self.log = log
        self.jobs = jobs
        self.audience = Audience(log)
        self.evaluations = 0
        self.number = 0
        self.current: Request | None = None
        self.on_suspect: Callable[[], None] = lambda: None
        self._life = RLife(self, run=run, hostfile=hostfile, notices=notices)
        self._running = Running(self, self._life)
        self._endings = Endings(jobs, self.audience)
        self._queue: deque[Request] = deque()
        self._since = 0.0
        self._untaken = 0
        self._objects: int | None = None
        self._last: tuple[str, str, float] | None = None  # who evaluated last: token, name, when

    @property
    def state(self) -> State:
        """What R is doing."""
        return self._life.state

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""
        runs = self.state is State.BUSY and not self._life.stream.ended
        return self.number if runs and self.current and self.current.kind is Kind.EVALUATE else 0

    @property
    def requested(self) -> list[Request]:
        """What runs, and what waits."""
        return [*([self.current] if self.current else []), *self._queue]

    def busy(self) -> dict[str, object]:
        """For whom R works since when, and how far it says it is; nothing if for nobody."""
        request = self.current
        if request is None:
            return {}
        percent = self.log.percent(request.job.number) if request.job else None
        return {"client": request.asker, "since": self._since, "percent": percent}

    # --- What clients ask for

    def submit(self, request: Request, *, first: bool = False) -> None:
        """Queue an evaluation; it begins when those before it have ended. Some questions are for now, or never."""
        for_now = request.kind is Kind.ASK and request.size > len(ask(Question.OBJECTS))
        if for_now and (self.state is not State.IDLE or self._queue):
            if request.client:
                request.client.fail(request.id, "busy", "R is busy")
            return
        first = first or bool(request.wish and request.wish & Wish.TAKE_OVER)
        (self._queue.appendleft if first else self._queue.append)(request)
        if self.state is State.DOWN:
            self._life.start()
            if request not in self._queue:
                return  # it cannot be started, which all were told
        self.ready()
        current = self.current
        if current is request:
            return
        if request.whole and request.kind is Kind.EVALUATE:
            self._accept(request)
        if current is not None and current.kind is Kind.EVALUATE and current.client is not request.client:
            self._wait(request, current)

    def _accept(self, request: Request) -> None:
        """It is whole: from now on it is a job."""
        asker = request.client
        background = bool(request.wish and request.wish & Wish.BACKGROUND)
        request.job = self.jobs.add(request.asker, background=background, key=(request.token, request.id))
        if background and asker is not None:
            request.client = None
            asker.tell(json_frame(Kind.DONE, {"job": request.job.number}, id=request.id))

    def _wait(self, request: Request, current: Request) -> None:
        """Another's evaluation runs: tell whose, show its output or end it as is wished."""
        if request.client is not None:
            request.client.tell(json_frame(Kind.QUEUED, self.busy(), id=request.id))
            if request.wish & Wish.WATCH and current.job is not None:
                self._show(request.client, request.id, current.job)
        if request.wish & Wish.TAKE_OVER:
            self._running.ladder.press()

    def _show(self, client: Asking, id: int, job: Job) -> None:
        self.audience.follow(client, id, job=job.number, after=self.log.last, ends=False)

    def feed(self, request: Request, data: memoryview, left: int) -> bool:
        """More of a large request's body for R; False: wait to be resumed."""
        if self.current is not request or self.state is not State.TAKING:
            return True  # R died meanwhile
        requests = self._life.requests
        requests.write(data)
        if not left:
            self._accept(request)
            self._begin_job(request)
            requests.write(COMMIT)
            self._life.go(State.BUSY)
        self._untaken = left
        return not left or requests.waiting < ENOUGH_WAITING

    def interrupt(self, client: Asking, id: int, rung: Rung = Rung.NEXT) -> None:
        """Interrupt the evaluation that runs, or take one that waits out of the queue."""
        for request in self._queue:
            if id and request.client is client and request.id == id:
                return self._take_back(request)
        mine = self.current is not None and self.current.client is client and self.current.id == id
        if mine and self.current and self.current.kind is Kind.ASK:
            if self.state is State.BUSY and not self._life.stream.ended:
                self._running.signal_r()
        elif mine or not id:
            self._running.ladder.press(rung)
        return None

    def cancel(self, job: Job) -> None:
        """Interrupt it, or take it out of the queue."""
        for request in [each for each in self._queue if each.job is job]:
            self._take_back(request)
        if self.current is not None and self.current.job is job:
            self._running.ladder.press()

    def _take_back(self, request: Request) -> None:
        self._queue.remove(request)
        self._endings.fail(request, "interrupted", "the evaluation was taken back before it began")

    def let_go(self) -> bool:
        """Have whoever waits for the evaluation that runs wait no longer; False if nobody does."""
        request = self.current
        if request is None or request.client is None or request.job is None:
            return False
        client, request.client = request.client, None
        self.audience.drop(client, request.job.number)
        why = f"this cell was let go; R still evaluates it (job {request.job.number} of %remote_jobs)"
        client.fail(request.id, "interrupted", f"{why}: %remote_restart ends it, with R's variables")
        return True

    def answer(self, line: str) -> None:
        """Type a line for R, if it waits for one."""
        self._running.answer(line)

    def take_up(self, client: Asking, id: int, job: Job, *, seen: int) -> None:
        """The client of an evaluation that runs or waits is back; it has ``seen`` that event."""
        request = next(each for each in self.requested if each.job is job)
        request.client = client
        if request is not self.current:
            client.tell(json_frame(Kind.QUEUED, self.busy(), id=id))
            return self.ready()
        self._running.begin()
        self.audience.listen(client)
        self.audience.follow(client, id, job=job.number, after=max(seen, job.first - 1))
        return None

    def gone(self, client: Asking) -> None:
        """The client is gone: what runs for it goes on, what waits does so until it is back."""
        self.audience.leave(client)
        for request in [each for each in self._queue if each.client is client]:
            request.client = None
            if request.job is None or not request.token:
                self._queue.remove(request)
                if request.job is not None:
                    self._endings.close(request.job, Kind.FAILED, b"", state=JobState.LOST)
            else:
                asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._expire, request)
        if self.current is not None and self.current.client is client:
            self.current.client = None
            self._endings.lose(client)
            if self.state is State.TAKING:
                self.requests_drained()
            if self.state is State.BUSY:
                self._life.stream.resume()

    def _expire(self, request: Request) -> None:
        if request in self._queue and request.client is None:
            self._take_back(request)

    def drained(self, client: Asking) -> None:
        """The client can take more."""
        self.audience.drained(client)
        if self.current is not None and self.current.client is client and self.state is State.BUSY:
            self._life.stream.resume()

    # --- To R

    def begins(self) -> None:
        """A fresh R is being started."""
        self._last = self._objects = None
        self._running.forget()

    def ready(self) -> None:
        """Begin what is next, if R is idle."""
        if self.state is not State.IDLE or not self._queue:
            return
        # Those whose clients are away wait for them.
        present = (each for each in self._queue if each.client is not None or each.wish & Wish.BACKGROUND)
        request = next(present, None)
        if request is None:
            return
        self._queue.remove(request)
        self.current = request
        self._since = time.time()
        self.number += 1
        life = self._life
        life.stream.begin(self.number)
        life.go(State.TAKING)
        life.r.took_interrupt()  # what ended without a result
        late = request.kind is Kind.EVALUATE and life.r.forget_interrupt()
        head = header(request.kind, request.size, id=self.number, seq=request.whole + 2 * late)
        if request.whole:
            life.requests.write(head + request.body)
            life.go(State.BUSY)
            if request.kind is Kind.EVALUATE:  # while R is at it
                if request.job is None:
                    self._accept(request)
                self._begin_job(request)
        else:
            life.requests.write(head)
            self._untaken = request.size
            assert request.client is not None
            request.client.resume()
        self._running.begin()

    def _begin_job(self, request: Request) -> None:
        job = request.job
        assert job is not None
        self.evaluations += 1
        self.jobs.begin(job, after=self.log.last)
        if request.client is not None:
            self.audience.listen(request.client)
            self.audience.follow(request.client, request.id, job=job.number, after=self.log.last)
        for each in self._queue:
            if each.wish & Wish.WATCH and each.client is not None:
                self._show(each.client, each.id, job)

    def requests_drained(self) -> None:
        """R can take more of a large request."""
        if self.state is not State.TAKING or self.current is None:
            return
        if self.current.client is not None:
            self.current.client.resume()
            return
        # The client went away in the middle: R gets the rest as zeros, and is told to forget it.
        requests = self._life.requests
        while self._untaken and requests.waiting < ENOUGH_WAITING:
            piece = min(self._untaken, len(PADDING))
            requests.write(memoryview(PADDING)[:piece])
            self._untaken -= piece
        if not self._untaken:
            requests.write(ABORT)
            self.current = None

    # --- From R (the listener of its stream)

    def on_text(self, printed: Printed) -> None:
        """Something was printed."""
        if self.state is State.STARTING and self.current is None:
            return self._life.hear(printed.data)
        self._running.hear(printed.data)
        self._emit(Kind.STDERR if printed.stderr else Kind.STDOUT, printed.data)
        return None

    def on_display(self, body: bytes) -> None:
        """A plot or table."""
        self._emit(Kind.DISPLAY, body)

    def say(self, text: str) -> None:
        """A line for whoever waits for the evaluation."""
        self._emit(Kind.STDERR, f"{text}\n".encode())

    def _emit(self, kind: Kind, body: bytes) -> None:
        current = self.current
        self.audience.output(kind, body, job=current.job.number if current and current.job else 0)

    def on_end(self) -> None:
        """The evaluation's text has come."""
        if self.current is None:  # a request that its client did not finish has no result
            self._life.go(State.IDLE)
            self.ready()

    def on_result(self, head: Header) -> None:
        """The head of its result."""
        request = self.current
        assert request is not None
        self._objects = head.seq
        if self._life.r.took_interrupt() and request.client is not None:
            request.client.tell(frame(Kind.INTERRUPT, id=request.id))
        self._endings.begin(request, head)

    def on_result_piece(self, data: memoryview, left: int) -> None:
        """A piece of it, for the client or to be kept."""
        if self._endings.take(data, left):
            self._life.stream.pause()
        if not left:
            request, self.current = self.current, None
            assert request is not None
            self._endings.end()
            if request.kind is Kind.EVALUATE:
                self._last = (request.token, request.asker, time.time())
            self._life.stream.resume()
            self._life.go(State.IDLE)
            if self._running.disturbed(self.number):
                self.on_suspect()
            self.ready()

    # --- What R does not end

    def fail_current(self, reason: str, message: str, **more: object) -> bool:
        """What R was asked for last ends so; False if there was nothing."""
        request, self.current = self.current, None
        self._endings.abandon()
        if request is not None:
            self._endings.fail(request, reason, message, **more)
        return request is not None

    def fail_all(self, reason: str, message: str) -> None:
        """That, and all that waits."""
        self.fail_current(reason, message)
        while self._queue:
            self._endings.fail(self._queue.popleft(), reason, message)
