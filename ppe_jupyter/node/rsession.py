"""The R session: one R, the evaluations that wait for it, and what came of them.

Requests and results pass through unread. One evaluation runs at a time; the next begins when its result is out.
Text is sent on when it comes, an evaluation's result after its last text. R's death ends the running
evaluation with a frame that says so, and a fresh R is started. A client may go at any time and come back for its
evaluation: what is whole here runs once, what is not was not begun. Must not know sockets, SSH or what values are.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
import signal
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from . import ranks
from .audience import Audience
from .clients import Asking, Client, Request
from .endings import Endings
from .eventlog import LOG_BYTES, EventLog
from .jobs import Job, Jobs, JobState
from .ladder import Ladder, Rung
from .notices import Notices
from .pipes import ENOUGH_WAITING, Outlet
from .protocol import VERSION, Header, Kind, Question, Wish, ask, header, json_frame, parse_json
from .rprocess import RProcess
from .rstream import RStream
from .terminal import Printed
from .watch import Watch

COMMIT, ABORT = struct.pack("<i", 1), struct.pack("<i", 0)
CRASH_MENU, EXIT_WITHOUT_SAVING = b"\n4: exit R saving workspace\nSelection: ", "3"
PADDING = bytes(2**20)
# The agent's own name: it ends with R.
AGENT = f"{os.getpid()} {time.time()}"
# How long an evaluation that has not begun waits for its client to come back.
PATIENCE_SECONDS = 600.0


class State(enum.Enum):
    """What R is doing. See TRANSITIONS."""

    STARTING = "starting"
    IDLE = "idle"
    TAKING = "taking a request"
    BUSY = "busy"
    RESCUED = "being rescued"
    DOWN = "down"


TRANSITIONS = {
    State.STARTING: {State.IDLE, State.STARTING, State.DOWN},
    State.IDLE: {State.TAKING, State.STARTING},
    State.TAKING: {State.BUSY, State.STARTING, State.IDLE},
    State.BUSY: {State.IDLE, State.STARTING, State.RESCUED},
    State.RESCUED: {State.STARTING},
    State.DOWN: {State.STARTING},
}


class RSession:
    """R and its queue. ``start`` it in a running event loop.

    ``on_suspect`` is called when an evaluation has ended that may have left workers in the middle of an MPI call.
    ``evaluations`` counts those that have begun. ``on_started`` is told what R has loaded when it is ready: the
    number of objects, None if there was nothing, or R's words if it could not.
    """

    def __init__(self, name: str, *, run: Path, hostfile: Path, log: Path | None, notices: Notices) -> None:
        self.name = name
        self.state = State.DOWN
        self.trouble = ""
        self.evaluations = 0
        self.on_started: Callable[[object], None] = lambda restored: None
        self.on_suspect: Callable[[], None] = lambda: None
        self.on_command: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = _no_command
        self.notices = notices
        self.log = EventLog(
            log, limit=LOG_BYTES, on_trouble=lambda text: notices.tell("error", text, topic="log")
        )
        self.jobs = Jobs(log, last=self.log.last_job)
        self.audience = Audience(self.log)
        self._endings = Endings(self.jobs, self.audience)
        self._saving = False
        self._stopping = False
        self._run = run
        self._hostfile = hostfile
        self._workers = run / "slaves.json"
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._since = 0.0
        self._number = 0
        self._objects: int | None = None
        self._started = time.time()
        self._last: tuple[str, str, float] | None = None  # who evaluated last: token, name, when
        self._restarters: list[tuple[Client, int]] = []
        self._version = ""
        self._watch = Watch(self, self._workers)
        self._ladder = Ladder(self)
        self._suspect = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._replaced: RProcess | None = None

    # --- R's life

    def start(self) -> None:
        """Start R; evaluations wait until it is ready."""
        self._go(State.STARTING)
        self._started = time.time()
        self._last = None
        self._objects = None
        for path in (self._workers, self._run / "daemons"):  # they ended with the R that had them
            path.unlink(missing_ok=True)
        self._startup = b""
        self._tail = b""
        self._asked = False
        self._r = r = RProcess(run=self._run, hostfile=self._hostfile if self._hostfile.exists() else None)
        self._stream = RStream(r, self)
        self._requests = Outlet(r.requests, on_drain=self._requests_drained, on_broken=lambda: None)
        r.watch(lambda: self._died(r))

    async def stop(self) -> None:
        """End R and all that belongs to it, for good."""
        self._stopping = True
        self._detach()
        self._fail_current("died", "the session was ended")
        while self._queue:
            self._fail(self._queue.popleft(), "died", "the session was ended")
        await self._r.end()
        self.log.close()
        self.jobs.close()

    def _go(self, state: State) -> None:
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state

    def _detach(self) -> None:
        self._stream.close()
        self._requests.close()

    def _died(self, r: RProcess) -> None:
        """R is gone, or what should have started it is."""
        if self._saving or self._stopping or r is not self._r or r is self._replaced:
            return
        if self.state in (State.DOWN, State.RESCUED):
            return
        self._stream.drain()
        if self.state is State.STARTING and r.pid is None:
            self._replaced = r
            self._spawn(self._start_failed(r))
            return
        idle = self._current is None
        how = (
            "R crashed"
            if r.crashed
            else "R has quit"
            if r.quits
            else "R was ended by a signal or by MPI_Abort"
        )
        message = f"{how}. A fresh R session was started; the variables are gone"
        self._replace("died", message)
        if idle:
            self.notices.tell("error", message, topic="died")

    async def _start_failed(self, r: RProcess) -> None:
        self._detach()
        self._go(State.DOWN)
        await r.end()
        said = (self._startup + r.log.read_bytes()).decode(errors="replace").strip()
        self.trouble = f"R does not start: {said[-2000:] or 'it printed nothing'}"
        self._fail_current("died", self.trouble)
        while self._queue:
            self._fail(self._queue.popleft(), "died", self.trouble)

    def _replace(self, reason: str, message: str, **more: object) -> None:
        """End what is left of R, tell whoever waits for it, and start a fresh one."""
        self._detach()
        # Both R and its mpirun are watched, and each end is told: one of them starts a fresh R.
        old = self._replaced = self._r
        self._fail_current(reason, message, **more)
        if self.state is not State.STARTING:
            self._go(State.STARTING)

        async def renew() -> None:
            await old.end()
            if not self._stopping:
                self.start()

        self._spawn(renew())

    # --- What clients ask for

    def welcome(self) -> dict[str, object]:
        """What a new client is told, and ``status`` shows."""
        return {
            "version": VERSION,
            "agent": AGENT,
            "session": self.name,
            "first": self.log.first,
            "last": self.log.last,
            "r": {"state": self.state.value, "version": self._version, "trouble": self.trouble},
            "busy": self._busy(),
            "past": self._past(),
            "notices": self.notices.recent(),
        }

    def row(self) -> dict[str, Any]:
        """It in short, for a list of sessions."""
        evaluations = sum(
            each is not None and each.kind is Kind.EVALUATE for each in (self._current, *self._queue)
        )
        return {
            "state": self.state.value,
            "since": self._started,
            "pid": self.pid,
            "waiting": evaluations,
            "objects": self._objects,
            "client": self._last[1] if self._last else "",
            "used": self._last[2] if self._last else None,
        }

    def _past(self) -> dict[str, object]:
        """When R was started, and who used it last; nothing if nobody did."""
        if self._last is None:
            return {}
        token, name, when = self._last
        return {
            "since": self._started,
            "token": token,
            "client": name,
            "used": when,
            "objects": self._objects,
        }

    def joined(self, client: Client) -> None:
        """The client has said hello: notices go to it from now on."""
        self.audience.join(client)

    @property
    def pid(self) -> int | None:
        """R's process, once it is ready."""
        return self._r.pid if self.state is not State.DOWN else None

    def working(self) -> list[str]:
        """The evaluations that run or wait, in words."""
        requests = [self._current, *self._queue]
        return [f"R evaluates for {_asker(each)}" for each in requests if each and each.kind is Kind.EVALUATE]

    def _busy(self) -> dict[str, object]:
        request = self._current
        return {} if request is None else {"client": _asker(request), "since": self._since}

    def submit(self, request: Request, *, first: bool = False) -> None:
        """Queue an evaluation; it begins when those before it have ended. Some questions are for now, or never."""
        for_now = request.kind is Kind.ASK and request.size > len(ask(Question.OBJECTS))
        if for_now and (self.state is not State.IDLE or self._queue):
            if request.client:
                request.client.fail(request.id, "busy", "R is busy")
            return
        if self.state is State.DOWN:
            self.start()
        first = first or bool(request.wish and request.wish & Wish.TAKE_OVER)
        (self._queue.appendleft if first else self._queue.append)(request)
        self._next()
        current = self._current
        if current is request:
            return
        if request.whole and request.kind is Kind.EVALUATE:
            self._accept(request)
        if current is not None and current.kind is Kind.EVALUATE and current.client is not request.client:
            self._wait(request, current)

    def _accept(self, request: Request) -> None:
        """It is whole: from now on it is a job."""
        asker = request.client
        name = asker.name if asker else "a client that is gone"
        background = bool(request.wish and request.wish & Wish.BACKGROUND)
        request.job = self.jobs.add(name, background=background, key=(request.token, request.id))
        if background and asker is not None:
            request.client = None
            asker.tell(json_frame(Kind.DONE, {"job": request.job.number}, id=request.id))

    def label(self, client: Client, id: int, code: str) -> None:
        """The first line of the code of an evaluation that has been asked for."""
        job = self.jobs.find((client.token, id))
        if job is not None:
            job.code = code

    def _wait(self, request: Request, current: Request) -> None:
        """Another's evaluation runs: tell whose, show its output or end it as is wished."""
        if request.client is not None:
            request.client.tell(json_frame(Kind.QUEUED, self._busy(), id=request.id))
            if request.wish & Wish.WATCH and current.job is not None:
                self._show(request.client, request.id, current.job)
        if request.wish & Wish.TAKE_OVER:
            self._ladder.press()

    def _show(self, client: Asking, id: int, job: Job) -> None:
        self.audience.follow(client, id, job=job.number, after=self.log.last, ends=False)

    def resume(self, client: Client, id: int, seen: int) -> None:
        """Go on with an evaluation that was asked for over a line that was cut."""
        job = self.jobs.find((client.token, id)) if client.token else None
        if job is None:
            client.fail(id, "unknown", "it did not come whole, so it was not begun")
        elif job.background:
            client.tell(json_frame(Kind.DONE, {"job": job.number}, id=id))
        elif job.over:
            self._endings.tell(client, id, job, after=seen)
        else:
            request = next(
                each for each in (self._current, *self._queue) if each is not None and each.job is job
            )
            request.client = client
            if request is not self._current:
                client.tell(json_frame(Kind.QUEUED, self._busy(), id=id))
                return self._next()
            self._asked = False
            self.audience.listen(client)
            self.audience.follow(client, id, job=job.number, after=max(seen, job.first - 1))
        return None

    def follow(self, client: Client, id: int, since: int, wish: dict[str, Any]) -> None:
        """Send a job's events, or the log's, and what comes yet if it is to be ``live``."""
        number, live = int(wish.get("job") or 0), bool(wish.get("live"))
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

    def command(self, client: Client, id: int, wish: dict[str, Any]) -> None:
        """Do what else there is to do: list jobs, end one, and what ``on_command`` can."""

        async def answer() -> None:
            try:
                client.tell(json_frame(Kind.DONE, await self._do(wish), id=id, seq=self.log.last))
            except (ValueError, OSError) as exc:
                client.fail(id, "command", str(exc))

        self._spawn(answer())

    async def _do(self, wish: dict[str, Any]) -> dict[str, Any]:
        if wish.get("do") == "jobs":
            return {"jobs": self.jobs.rows()}
        if wish.get("do") == "cancel":
            job = self.jobs.get(int(wish.get("job", 0)))
            if job is None:
                raise ValueError(f"there is no job {wish.get('job')} (any more); see %remote_jobs")
            self._cancel(job)
            return {"job": job.row()}
        return await self.on_command(wish)

    def _cancel(self, job: Job) -> None:
        for request in [each for each in self._queue if each.job is job]:
            self._take_back(request)
        if self._current is not None and self._current.job is job:
            self._ladder.press()

    def _take_back(self, request: Request) -> None:
        self._queue.remove(request)
        self._fail(request, "interrupted", "the evaluation was taken back before it began")

    def feed(self, request: Request, data: memoryview, left: int) -> bool:
        """More of a large request's body for R; False: wait to be resumed."""
        if self._current is not request:
            return True  # R died meanwhile
        self._requests.write(data)
        if not left:
            self._accept(request)
            self._begin_job(request)
            self._requests.write(COMMIT)
            self._go(State.BUSY)
        self._untaken = left
        return not left or self._requests.waiting < ENOUGH_WAITING

    def interrupt(self, client: Client, id: int, rung: Rung = Rung.NEXT) -> None:
        """Interrupt the evaluation that runs, or take one that waits out of the queue."""
        for request in self._queue:
            if id and request.client is client and request.id == id:
                return self._take_back(request)
        mine = self._current is not None and self._current.client is client and self._current.id == id
        if mine and self._current and self._current.kind is Kind.ASK:
            if self.state is State.BUSY and not self._stream.ended:
                self.signal_r()
        elif mine or not id:
            self._ladder.press(rung)
        return None

    def signal_r(self) -> None:
        """SIGINT to R's process group."""
        ignored = self._r.ignores_interrupt()
        self._r.interrupt()
        # The child's end may be seen before this second look.
        if ignored or self._r.ignores_interrupt():
            asyncio.get_running_loop().call_later(0.02, self._interrupt_again, self._number)

    def count_workers(self) -> int:
        """How many MPI workers R has."""
        return len(ranks.listed(self._workers))

    async def signal_workers(self) -> None:
        """SIGINT to all of them."""
        await ranks.signal_all(self._workers, signal.SIGINT)

    def say(self, text: str) -> None:
        """A line for whoever waits for the evaluation."""
        self._emit(Kind.STDERR, f"{text}\n".encode())

    def _interrupt_again(self, number: int) -> None:
        """system() ignores the signal that ended its child: once it is over, R needs one of its own."""
        if self.state is not State.BUSY or self._stream.ended or number != self._number:
            return
        if self._r.ignores_interrupt():
            asyncio.get_running_loop().call_later(0.02, self._interrupt_again, number)
        else:
            self._r.interrupt()

    def restart(self, client: Client, id: int, restore: str | None) -> None:
        """End R with its variables and start it anew, with those in the file ``restore`` if one is named.

        The client hears when it is ready.
        """
        if restore is not None:
            path = Path.home() / Path(restore).expanduser()
            if self.state is State.STARTING or not path.is_file():
                why = (
                    "R is just starting; try again"
                    if path.is_file()
                    else f"there is no file {path} on the master"
                )
                return client.fail(id, "restore", why)
            link = self._run / "workspace.RData"
            link.unlink(missing_ok=True)
            link.symlink_to(path)  # R removes the link when it has loaded it
        self._restarters.append((client, id))
        if self.state is State.DOWN:
            self.start()
        elif self.state not in (State.STARTING, State.RESCUED):
            self._replace("restarted", "R was restarted; the variables are gone")
        return None

    def answer(self, line: str) -> None:
        """Type a line for R, if it waits for one."""
        if self.state is State.BUSY and self._asked:
            self._asked = False
            self._r.answer(line.split("\n", 1)[0])

    def gone(self, client: Client) -> None:
        """The client is gone: what runs for it goes on, what waits does so until it is back."""
        self.audience.leave(client)
        for request in [each for each in self._queue if each.client is client]:
            request.client = None
            if request.job is None or not request.token:
                self._queue.remove(request)
                self._end_job(request, Kind.FAILED, b"", JobState.LOST)
            else:
                asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._expire, request)
        if self._current is not None and self._current.client is client:
            self._current.client = None
            self._endings.lose(client)
            if self.state is State.TAKING:
                self._requests_drained()
            if self.state is State.BUSY:
                self._stream.resume()

    def _expire(self, request: Request) -> None:
        if request in self._queue and request.client is None:
            self._take_back(request)

    def drained(self, client: Client) -> None:
        """The client can take more."""
        self.audience.drained(client)
        if self._current is not None and self._current.client is client and self.state is State.BUSY:
            self._stream.resume()

    # --- To R

    def _next(self) -> None:
        if self.state is not State.IDLE or not self._queue:
            return
        # Those whose clients are away wait for them.
        present = (each for each in self._queue if each.client is not None or each.wish & Wish.BACKGROUND)
        request = next(present, None)
        if request is None:
            return
        self._queue.remove(request)
        self._current = request
        self._since = time.time()
        self._number += 1
        self._stream.begin(self._number)
        self._asked = False
        self._go(State.TAKING)
        head = header(request.kind, request.size, id=self._number, seq=request.whole)
        if request.whole:
            self._requests.write(head + request.body)
            self._go(State.BUSY)
            if request.kind is Kind.EVALUATE:  # while R is at it
                if request.job is None:
                    self._accept(request)
                self._begin_job(request)
        else:
            self._requests.write(head)
            self._untaken = request.size
            assert request.client is not None
            request.client.resume()
        self._watch.begin()

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

    def _requests_drained(self) -> None:
        if self.state is not State.TAKING or self._current is None:
            return
        if self._current.client is not None:
            self._current.client.resume()
            return
        # The client went away in the middle: R gets the rest as zeros, and is told to forget it.
        while self._untaken and self._requests.waiting < ENOUGH_WAITING:
            piece = min(self._untaken, len(PADDING))
            self._requests.write(memoryview(PADDING)[:piece])
            self._untaken -= piece
        if not self._untaken:
            self._requests.write(ABORT)
            self._current = None

    # --- From R (the listener of its stream)

    def on_ready(self, body: bytes) -> None:
        """The evaluator runs: at R's start, or again after a jump to R's top level."""
        told = parse_json(body)
        if self._r.pid is None:
            r = self._r
            r.pid, self._version = told["pid"], told["version"]
            r.watch(lambda: self._died(r))
            self.on_started(told["restored"])
        for client, id in self._restarters:
            client.tell(json_frame(Kind.DONE, {"restored": told["restored"]}, id=id, seq=self.log.last))
        self._restarters.clear()
        self._fail_current("aborted", "the evaluation jumped to R's top level; the session lives")
        self._go(State.IDLE)
        self._next()

    def on_text(self, printed: Printed) -> None:
        """Something was printed."""
        if self.state is State.STARTING and self._current is None:
            self._startup = (self._startup + printed.data)[-4096:]
            return
        self._tail = (self._tail + printed.data)[-256:]
        self._emit(Kind.STDERR if printed.stderr else Kind.STDOUT, printed.data)

    def on_display(self, body: bytes) -> None:
        """A plot or table."""
        self._emit(Kind.DISPLAY, body)

    def _emit(self, kind: Kind, body: bytes) -> None:
        current = self._current
        self.audience.output(kind, body, job=current.job.number if current and current.job else 0)

    def on_end(self) -> None:
        """The evaluation's text has come."""
        if self._current is None:  # a request that its client did not finish has no result
            self._go(State.IDLE)
            self._next()

    def on_result(self, head: Header) -> None:
        """The head of its result."""
        assert self._current is not None
        self._objects = head.seq
        self._endings.begin(self._current, head)

    def on_result_piece(self, data: memoryview, left: int) -> None:
        """A piece of it, for the client or to be kept."""
        if self._endings.take(data, left):
            self._stream.pause()
        if not left:
            request, self._current = self._current, None
            assert request is not None
            self._endings.end()
            self._used_by(request)
            self._stream.resume()
            self._go(State.IDLE)
            if self._number in (self._ladder.pressed, self._suspect):
                self.on_suspect()
            self._next()

    def _used_by(self, request: Request) -> None:
        if request.kind is Kind.EVALUATE:
            self._last = (request.token, _asker(request), time.time())

    def on_prompt(self) -> None:
        """R is at its own top level: at its start, or because the evaluation jumped there."""
        if self._r.entered and self.state is State.STARTING:
            self._died(self._r)
        elif self.state is not State.RESCUED:
            if self.state is not State.STARTING:
                self._go(State.STARTING)
            self._r.enter()

    def on_garbage(self) -> None:
        """The pipe has something else than the evaluator's frames."""
        self._replace("died", "R wrote into the pipe to its agent. A fresh R session was started")

    def on_quit(self) -> None:
        """R ends by itself."""
        self._r.quits = True

    # --- While R evaluates for long (what its watch does)

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""
        runs = self.state is State.BUSY and not self._stream.ended
        return self._number if runs and self._current and self._current.kind is Kind.EVALUATE else 0

    def look_for_question(self) -> None:
        """Ask the client, if R waits for a line of input."""
        if self._asked or not self._r.waits_for_input():
            return
        self._stream.catch_up()  # it may wait at its own prompt: an answer to that would be a command
        if not self.evaluating():
            return
        if self._tail.endswith(CRASH_MENU):
            # R's own handler of a segfault asks what to do. There is one good answer: end.
            self._r.crashed = True
            self._r.answer(EXIT_WITHOUT_SAVING)
        elif self._current and self._current.wish & Wish.BACKGROUND:
            self._r.answer("")
        elif self._current and self._current.client:
            self._asked = True
            self._current.client.tell(json_frame(Kind.QUESTION, {}, id=self._current.id))

    async def waits_in_mpi(self) -> bool:
        """Whether R is in an MPI call that waits."""
        return self._r.pid is not None and await ranks.waits(self._r.pid)

    def name_lost(self, lost: list[ranks.Worker], fate: str) -> Path:
        """Have R's MPI calls end with an error that names them; the file that is there until one has."""
        self._suspect = self._number
        word = self._run / "lost"
        more = f" ({len(lost)} workers in all)" if len(lost) > 1 else ""
        new = word.with_suffix(".new")
        new.write_text(f"{lost[0]} was {fate}{more}", encoding="utf-8")
        return new.replace(word)

    async def rescue(self, lost: ranks.Worker) -> None:
        """End an evaluation that can never end: save the workspace, restart R, say which worker is lost."""
        self._go(State.RESCUED)
        kept = (
            "the variables were saved and loaded again; start workers anew"
            if await self._r.save_and_quit()
            else "the variables are gone, because R could not save them"
        )
        self._replace(
            "rank",
            f"{lost} was lost during an MPI call, which can never end. R was restarted: {kept}",
            rank=lost.rank,
            node=lost.host,
        )

    async def restart_with_workspace(self) -> bool:
        """Save, restart R and load again, which ends the evaluation; False if R cannot save."""
        return await self._save_and_restart("R was restarted: its variables were saved and loaded again")

    def renew(self, message: str) -> None:
        """Start R anew; it finds the workspace that it has saved. Only for an idle R."""
        self._replace("restarted", message)

    async def save_and_restart(self, saved: Callable[[], None]) -> bool:
        """End the evaluation that runs: R saves its workspace and starts anew with it; ``saved`` is called between.

        False if R did not save: it hangs, or the evaluation has ended by itself.
        """
        return await self._save_and_restart(
            "The evaluation was ended, to save the workspace: the cluster stops", saved
        )

    async def _save_and_restart(self, message: str, saved: Callable[[], None] = lambda: None) -> bool:
        r = self._r
        self._saving = True
        done = await r.save_and_quit(still=lambda: self.evaluating() > 0)
        self._saving = False
        if done:
            saved()
        if done or r.ended:
            lost = "R ended while it saved its workspace: the variables are gone"
            self._replace("restarted", message if done else lost)
        return done

    # --- Small things

    def _fail_current(self, reason: str, message: str, **more: object) -> None:
        request, self._current = self._current, None
        self._endings.abandon()
        if request is not None:
            self._fail(request, reason, message, **more)

    def _fail(self, request: Request, reason: str, message: str, **more: object) -> None:
        told = {"reason": reason, "message": message, **more}
        if request.job is not None:
            body = json.dumps(told, ensure_ascii=False).encode()
            state = JobState.INTERRUPTED if reason in ("interrupted", "aborted") else JobState.FAILED
            self._end_job(request, Kind.FAILED, body, state)
            self.audience.note(Kind.STDERR, f"{message}\n".encode(), job=request.job.number)
        if request.client is not None:
            if not (request.job and request.job.began):
                request.client.fail(request.id, reason, message, **more)
            request.client.resume()  # the rest of a large request is read, and dropped

    def _end_job(self, request: Request, kind: Kind, body: bytes, state: JobState) -> None:
        if request.job is not None:
            self._endings.close(request.job, kind, body, state=state)

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _asker(request: Request) -> str:
    if request.job is not None:
        return request.job.client
    return request.client.name if request.client else "a client that is gone"


async def _no_command(wish: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(f"there is nothing such as {wish.get('do')!r}")
