"""The R session: one R, the evaluations that wait for it, and what came of them.

Requests and results pass through unread. One evaluation runs at a time; the next begins when its result is out.
Text is sent on when it comes, an evaluation's result after its last text. R's death ends the running
evaluation with a frame that says so, and a fresh R is started. Must not know sockets, SSH or what values are.
"""

from __future__ import annotations

import asyncio
import enum
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from . import ranks
from .audience import Audience
from .clients import WHOLE_REQUEST, Client, Request
from .pipes import ENOUGH_WAITING, Outlet
from .protocol import VERSION, Header, Kind, Question, ask, header, json_frame, parse_json
from .rprocess import RProcess
from .rstream import RStream
from .terminal import Printed
from .watch import Watch

COMMIT, ABORT = struct.pack("<i", 1), struct.pack("<i", 0)
CRASH_MENU, EXIT_WITHOUT_SAVING = b"\n4: exit R saving workspace\nSelection: ", "3"
PADDING = bytes(2**20)


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

    ``evaluations`` counts those that have begun. ``on_started`` is told what R has loaded when it is ready: the
    number of objects, None if there was nothing, or R's words if it could not.
    """

    def __init__(self, *, run: Path, hostfile: Path, workers: Path) -> None:
        self.state = State.DOWN
        self.trouble = ""
        self.evaluations = 0
        self.on_started: Callable[[object], None] = lambda restored: None
        self._audience = Audience()
        self.notices = self._audience.notices
        self._saving = False
        self._stopping = False
        self._run = run
        self._hostfile = hostfile
        self._workers = workers
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._since = 0.0
        self._number = 0
        self._restarters: list[tuple[Client, int]] = []
        self._version = ""
        self._watch = Watch(self, workers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._replaced: RProcess | None = None

    # --- R's life

    def start(self) -> None:
        """Start R; evaluations wait until it is ready."""
        self._go(State.STARTING)
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
        await self._r.end()

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
        how = (
            "R crashed"
            if r.crashed
            else "R has quit"
            if r.quits
            else "R was ended by a signal or by MPI_Abort"
        )
        self._replace("died", f"{how}. A fresh R session was started; the variables are gone")

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
            "first": self._audience.log.first,
            "last": self._audience.log.last,
            "r": {"state": self.state.value, "version": self._version, "trouble": self.trouble},
            "busy": self._busy(),
            "notices": self.notices.recent(),
        }

    def joined(self, client: Client) -> None:
        """The client has said hello: notices go to it from now on."""
        self._audience.join(client)

    @property
    def pid(self) -> int | None:
        """R's process, once it is ready."""
        return self._r.pid if self.state is not State.DOWN else None

    def working(self) -> list[str]:
        """The evaluations that run or wait, in words."""
        requests = [self._current, *self._queue]
        return [
            f"R evaluates for {each.client.name if each.client else 'a client that is gone'}"
            for each in requests
            if each is not None and each.kind is Kind.EVALUATE
        ]

    def _busy(self) -> dict[str, object]:
        request = self._current
        if request is None:
            return {}
        name = request.client.name if request.client else "a client that is gone"
        return {"client": name, "since": self._since}

    def submit(self, request: Request) -> None:
        """Queue an evaluation; it begins when those before it have ended. Some questions are for now, or never."""
        for_now = request.kind is Kind.ASK and request.size > len(ask(Question.OBJECTS))
        if for_now and (self.state is not State.IDLE or self._queue):
            if request.client:
                request.client.fail(request.id, "busy", "R is busy")
            return
        if self.state is State.DOWN:
            self.start()
        self._queue.append(request)
        current = self._current
        waits = current is not None and current.kind is Kind.EVALUATE and current.client is not request.client
        if waits and request.client:
            request.client.tell(json_frame(Kind.QUEUED, self._busy(), id=request.id))
        self._next()

    def feed(self, request: Request, data: memoryview, left: int) -> bool:
        """More of a large request's body for R; False: wait to be resumed."""
        if self._current is not request:
            return True  # R died meanwhile
        self._requests.write(data)
        if not left:
            self._requests.write(COMMIT)
            self._go(State.BUSY)
        self._untaken = left
        return self._requests.waiting < ENOUGH_WAITING

    def interrupt(self, client: Client, id: int) -> None:
        """Interrupt the evaluation that runs, or take one that waits out of the queue."""
        for request in self._queue:
            if id and request.client is client and request.id == id:
                self._queue.remove(request)
                client.fail(id, "interrupted", "the evaluation was taken back before it began")
                return
        mine = self._current is not None and self._current.client is client and self._current.id == id
        if self.state is State.BUSY and not self._stream.ended and (mine or not id):
            ignored = self._r.ignores_interrupt()
            self._r.interrupt()
            # The child's end may be seen before this second look.
            if ignored or self._r.ignores_interrupt():
                asyncio.get_running_loop().call_later(0.02, self._interrupt_again, self._number)

    def _interrupt_again(self, number: int) -> None:
        """system() ignores the signal that ended its child: once it is over, R needs one of its own."""
        if self.state is not State.BUSY or self._stream.ended or number != self._number:
            return
        if self._r.ignores_interrupt():
            asyncio.get_running_loop().call_later(0.02, self._interrupt_again, number)
        else:
            self._r.interrupt()

    def restart(self, client: Client, id: int) -> None:
        """End R with its variables and start it anew; the client hears when it is ready."""
        self._restarters.append((client, id))
        if self.state is State.DOWN:
            self.start()
        elif self.state not in (State.STARTING, State.RESCUED):
            self._replace("restarted", "R was restarted; the variables are gone")

    def replay(self, client: Client, id: int, since: int) -> None:
        """Send the events after ``since`` that the log still has."""
        self._audience.replay(client, id, since)

    def answer(self, line: str) -> None:
        """Type a line for R, if it waits for one."""
        if self.state is State.BUSY and self._asked:
            self._asked = False
            self._r.answer(line.split("\n", 1)[0])

    def gone(self, client: Client) -> None:
        """The client is gone: what it waits for is dropped, what runs for it goes on."""
        self._audience.leave(client)
        self._queue = deque(request for request in self._queue if request.client is not client)
        if self._current is not None and self._current.client is client:
            self._current.client = None
            if self.state is State.TAKING:
                self._requests_drained()
            if self.state is State.BUSY:
                self._stream.resume()

    def drained(self, client: Client) -> None:
        """The client can take more of its result."""
        if self._current is not None and self._current.client is client and self.state is State.BUSY:
            self._stream.resume()

    # --- To R

    def _next(self) -> None:
        if self.state is not State.IDLE or not self._queue:
            return
        request = self._current = self._queue.popleft()
        if request.kind is Kind.EVALUATE:
            self._audience.listen(request.client)
            self.evaluations += 1
        self._since = time.time()
        self._number += 1
        self._stream.begin(self._number)
        self._asked = False
        self._go(State.TAKING)
        head = header(request.kind, request.size, id=self._number, seq=request.whole)
        if request.whole:
            self._requests.write(head + request.body)
            self._go(State.BUSY)
        else:
            self._requests.write(head)
            self._untaken = request.size
            assert request.client is not None
            request.client.resume()
        self._watch.begin()

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
            client.tell(json_frame(Kind.DONE, {}, id=id, seq=self._audience.log.last))
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
        id = current.id if current is not None and current.kind is Kind.EVALUATE else 0
        self._audience.output(kind, body, id=id)

    def on_end(self) -> None:
        """The evaluation's text has come."""
        if self._current is None:  # a request that its client did not finish has no result
            self._go(State.IDLE)
            self._next()

    def on_result(self, head: Header) -> None:
        """The head of its result."""
        self._result_kind = head.kind
        self._unlogged = bytearray()
        # Goes out with the first piece: two packets would cost the client twice the time of one.
        id = self._current.id if self._current else 0
        self._result_head = header(head.kind, head.size, id=id, seq=self._audience.log.last)
        self._audience.begin_result(self._current.client if self._current else None)

    def on_result_piece(self, data: memoryview, left: int) -> None:
        """A piece of it, for the client, or small enough for the log if there is none."""
        client = self._current.client if self._current else None
        if client is not None:
            client.send(self._result_head + data if self._result_head else data)
            self._result_head = b""
            if client.waiting > ENOUGH_WAITING:
                self._stream.pause()
        elif len(self._unlogged) + len(data) + left <= WHOLE_REQUEST:
            self._unlogged += data
            if not left:
                self._audience.log.append(self._result_kind, bytes(self._unlogged))
        if not left:
            self._current = None
            self._audience.end_result()
            self._stream.resume()
            self._go(State.IDLE)
            self._next()

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
        elif self._current and self._current.client:
            self._asked = True
            self._current.client.tell(json_frame(Kind.QUESTION, {}, id=self._current.id))

    async def waits_in_mpi(self) -> bool:
        """Whether R is in an MPI call that waits."""
        return self._r.pid is not None and await ranks.waits(self._r.pid)

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

    def renew(self, message: str) -> None:
        """Start R anew; it finds the workspace that it has saved. Only for an idle R."""
        self._replace("restarted", message)

    async def save_and_restart(self, saved: Callable[[], None]) -> bool:
        """End the evaluation that runs: R saves its workspace and starts anew with it; ``saved`` is called between.

        False if R did not save: it hangs, or the evaluation has ended by itself.
        """
        r = self._r
        self._saving = True
        done = await r.save_and_quit(still=lambda: self.evaluating() > 0)
        self._saving = False
        if done:
            saved()
        if done or r.ended:
            self._replace("restarted", "The evaluation was ended, to save the workspace: the cluster stops")
        return done

    # --- Small things

    def _fail_current(self, reason: str, message: str, **more: object) -> None:
        request, self._current = self._current, None
        self._audience.end_result()
        if request is not None:
            self._fail(request, reason, message, **more)

    def _fail(self, request: Request, reason: str, message: str, **more: object) -> None:
        if request.kind is Kind.EVALUATE:
            self._audience.log.append(Kind.STDERR, f"{message}\n".encode())
        if request.client is not None:
            request.client.fail(request.id, reason, message, **more)
            request.client.resume()  # the rest of a large request is read, and dropped

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
