"""R's life in a session: its start, its ends, and the fresh R after each.

R's death ends the running evaluation with a frame that says so, and a fresh R is started. What waits was meant for the
variables: it ends too, unless a fresh R has them. Whoever asked for a restart hears when R is ready, or why it is not.
Must not know the queue of evaluations, nor clients beyond those who asked for a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..r.process import RProcess
from ..r.stream import Listener, RStream
from ..wire.pipes import Outlet
from ..wire.protocol import Kind, json_frame, parse_json
from .asking import Asking
from .eventlog import EventLog
from .notices import Notices
from .state import TRANSITIONS, State


class Served(Listener, Protocol):
    """Who needs R, and hears what it says."""

    log: EventLog

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""

    def begins(self) -> None:
        """A fresh R is being started: what was known of the one before holds no more."""

    def ready(self) -> None:
        """R takes requests."""

    def fail_current(self, reason: str, message: str, **more: object) -> bool:
        """What R was asked for last ends so; False if there was nothing."""

    def fail_all(self, reason: str, message: str) -> None:
        """That, and all that waits."""

    def requests_drained(self) -> None:
        """R can take more of a large request."""


class RLife:
    """R, again and again. ``start`` it in a running event loop.

    ``r``, ``stream`` and ``requests`` are the present R's. ``on_started`` is told what R has loaded when it is ready:
    the number of objects, None if there was nothing, or R's words if it could not. ``workers`` is the file that lists
    R's MPI workers.
    """

    r: RProcess
    stream: RStream
    requests: Outlet

    def __init__(self, served: Served, *, run: Path, hostfile: Path, notices: Notices) -> None:
        self.state = State.DOWN
        self.trouble = ""
        self.version = ""
        self.started = time.time()
        self.on_started: Callable[[object], None] = lambda restored: None
        self.run = run
        self.workers = run / "slaves.json"
        self._served = served
        self._hostfile = hostfile
        self._notices = notices
        self._startup = b""
        self._saving = False
        self._stopping = False
        self._restarters: list[tuple[Asking, int]] = []
        self._replaced: RProcess | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """R's process, once it is ready."""
        return self.r.pid if self.state is not State.DOWN else None

    def go(self, state: State) -> None:
        """R does something else now."""
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state

    def start(self) -> None:
        """Start R; evaluations wait until it is ready."""
        self.go(State.STARTING)
        self.started = time.time()
        self._served.begins()
        for path in (self.workers, self.run / "daemons"):  # they ended with the R that had them
            path.unlink(missing_ok=True)
        self._startup = b""
        try:
            r = RProcess(run=self.run, hostfile=self._hostfile if self._hostfile.exists() else None)
        except OSError as exc:  # such as a full disk
            self.go(State.DOWN)
            return self._give_up(str(exc))
        self.r = r
        self.stream = RStream(r, self, self._served)
        self.requests = Outlet(r.requests, on_drain=self._served.requests_drained, on_broken=lambda: None)
        r.watch(lambda: self._died(r))
        return None

    async def stop(self) -> None:
        """End R and all that belongs to it, for good."""
        self._stopping = True
        self._served.fail_all("died", "the session was ended")
        if hasattr(self, "r"):
            self._detach()
            await self.r.end()

    def hear(self, text: bytes) -> None:
        """What R prints while it starts."""
        self._startup = (self._startup + text)[-4096:]

    # --- Its ends

    def replace(self, reason: str, message: str, *, kept: bool = False, **more: object) -> bool:
        """End what is left of R, tell whoever needs it, and start a fresh one; False if nothing ran.

        ``kept``: the fresh one has the variables.
        """
        self._detach()
        # Both R and its mpirun are watched, and each end is told: one of them starts a fresh R.
        old = self._replaced = self.r
        ran = self._served.fail_current(reason, message, **more)
        if not kept:
            self._served.fail_all("died", f"{message}; this waited, and was not begun")
        if self.state is not State.STARTING:
            self.go(State.STARTING)
        self._spawn(self._renew(old))
        return ran

    async def _renew(self, old: RProcess) -> None:
        await old.end()
        if not self._stopping:
            self.start()

    def restart(self, client: Asking, id: int, restore: str | None) -> None:
        """End R with its variables and start it anew, with those in the file ``restore`` if one is named.

        The client hears when it is ready.
        """
        if restore is not None:
            try:
                self._give(restore)
            except (OSError, ValueError, RuntimeError) as exc:  # expanduser() raises the last one
                return client.fail(id, "restore", f"{exc}; R goes on as it was")
        self._restarters.append((client, id))
        if self.state is State.DOWN:
            self.start()
        elif self.state not in (State.STARTING, State.RESCUED):
            self.replace("restarted", "R was restarted; the variables are gone")
        return None

    def _give(self, file: str) -> None:
        """Have the R that starts next load that. Raises OSError, ValueError, RuntimeError."""
        path = Path.home() / Path(file).expanduser()
        if not path.is_file():
            raise ValueError(f"there is no file {path} on the master")
        if self.state is State.STARTING:
            raise ValueError("R is just starting; try again")
        link = self.run / "workspace.RData"
        link.unlink(missing_ok=True)
        link.symlink_to(path)  # R removes the link when it has loaded it

    async def save_and_restart(self, message: str, saved: Callable[[], None] = lambda: None) -> bool:
        """End the evaluation that runs: R saves its workspace and starts anew with it; ``saved`` is called between.

        False if R did not save: it hangs, or the evaluation has ended by itself.
        """
        r = self.r
        self._saving = True
        try:
            done = await r.save_and_quit(still=lambda: self._served.evaluating() > 0)
        finally:
            self._saving = False
        try:
            if done:
                saved()
        finally:
            if done or r.ended:
                lost = "R ended while it saved its workspace: the variables are gone"
                self.replace("restarted", message if done else lost, kept=done)
        return done

    def _died(self, r: RProcess) -> None:
        """R is gone, or what should have started it is."""
        if self._saving or self._stopping or r is not self.r or r is self._replaced:
            return
        if self.state in (State.DOWN, State.RESCUED):
            return
        self.stream.drain()
        if self.state is State.STARTING and r.pid is None:
            self._replaced = r
            self._spawn(self._start_failed(r))
            return
        self._replaced = r
        self._detach()
        if self.state is not State.STARTING:
            self.go(State.STARTING)
        self._spawn(self._mourn(r))

    async def _mourn(self, r: RProcess) -> None:
        """Say how R ended, and start a fresh one."""
        if r.crashed or r.quits:
            how = "R crashed" if r.crashed else "R has quit"
        else:
            memory = await r.killed_for_memory()
            how = f"R was killed: {memory}" if memory else "R was ended by a signal or by MPI_Abort"
        if self._stopping:
            return
        message = f"{how}. A fresh R session was started; the variables are gone"
        if not self.replace("died", message):
            self._notices.tell("error", message, topic="died")

    async def _start_failed(self, r: RProcess) -> None:
        self._detach()
        self.go(State.DOWN)
        await r.end()
        said = (self._startup + r.log.read_bytes()).decode(errors="replace").strip()
        self._give_up(said[-2000:] or "it printed nothing")

    def _give_up(self, why: str) -> None:
        """R cannot be started: tell all who wait for it."""
        self.trouble = f"R does not start: {why}"
        restarters, self._restarters = self._restarters, []
        for client, id in restarters:
            client.fail(id, "died", self.trouble)
        self._served.fail_all("died", self.trouble)

    def _detach(self) -> None:
        self.stream.close()
        self.requests.close()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- What R says of itself

    def on_ready(self, body: bytes) -> None:
        """The evaluator runs: at R's start, or again after a jump to R's top level."""
        told = parse_json(body)
        if self.r.pid is None:
            r = self.r
            r.pid, self.version = told["pid"], told["version"]
            r.watch(lambda: self._died(r))
            self.on_started(told["restored"])
        for client, id in self._restarters:
            done = {"restored": told["restored"]}
            client.tell(json_frame(Kind.DONE, done, id=id, seq=self._served.log.last))
        self._restarters.clear()
        self._served.fail_current("aborted", "the evaluation jumped to R's top level; the session lives")
        self.go(State.IDLE)
        self._served.ready()

    def on_prompt(self) -> None:
        """R is at its own top level: at its start, or because the evaluation jumped there."""
        if self.r.entered and self.state is State.STARTING:
            self._died(self.r)
        elif self.state is not State.RESCUED:
            if self.state is not State.STARTING:
                self.go(State.STARTING)
            self.r.enter()

    def on_garbage(self) -> None:
        """The pipe has something else than the evaluator's frames."""
        self.replace("died", "R wrote into the pipe to its agent. A fresh R session was started")

    def on_quit(self) -> None:
        """R ends by itself."""
        self.r.quits = True
