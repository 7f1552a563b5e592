"""The agent: owns the R sessions on the master, whoever comes and goes.

    agent.py start    start it unless it runs, have it look at the cluster's nodes, and wait until R answers
    agent.py status   what it does, as JSON
    agent.py where    R's working directory, as JSON
    agent.py save     save R's workspace for the agent's next start, before the node is stopped or rebooted
    agent.py limits   replace ~/.ppe/limits.json by the JSON on standard input; prints what the watchdog makes of it
    agent.py stop     end it, with R and all workers
    agent.py attach   connect standard input and output to it

It listens on a Unix socket that only its user can reach. ``attach`` hands its own descriptors over and then only
waits, so nothing copies the bytes between sshd and the agent. Standard library only: the folder is copied to
a machine and run there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Nodes that were launched earlier start it so at each boot.
    _folder = Path(__file__).resolve().parent
    sys.path[0] = str(_folder.parent)
    __package__ = _folder.name

from .lifetime import aftermath
from .lifetime.limits import Limits
from .machine import way_out
from .runs.lost_work import LostWork
from .sessions.clients import Client
from .sessions.life import State
from .sessions.named import Sessions
from .sessions.workspace import NotSaved
from .watchdog import Watchdog
from .wire.protocol import MAIN

HOME = Path.home()
FOLDER = HOME / ".ppe"
SOCKET = FOLDER / "agent.sock"
LIMITS = FOLDER / "limits.json"
# setup.py writes it: ~/ompi-hostfile with a slot more on the master, so that R takes none of the users'.
HOSTFILE = FOLDER / "session-hostfile"
# The longest has the name of a run.
COMMAND_BYTES = 512
# R may have a large workspace to load.
START_SECONDS = 120.0
# Between an agent that was told to stop and its end.
STOP_SECONDS = 20.0
SAVE_SECONDS = 3600.0


class Agent:
    """The listening socket and the session behind it."""

    def __init__(self) -> None:
        self._sessions = Sessions(FOLDER, HOSTFILE)
        self._watchdog = Watchdog(self._sessions, self._sessions, FOLDER)
        self._lost_work: LostWork | None = None
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until told to stop."""
        SOCKET.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o077)
        listener.bind(str(SOCKET))
        os.umask(before)  # R's too: what it writes is the user's
        listener.listen(64)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_reader(listener, self._accept, listener)
        self._sessions.why_ended = self._watchdog.why_ended()
        self._sessions.start()
        self._watchdog.start()
        self._lost_work = LostWork(self._sessions, end=not self._sessions.why_ended)
        led_out = asyncio.ensure_future(self._lead_out())
        following = asyncio.ensure_future(self._lost_work.follow())
        await self._stopped.wait()
        following.cancel()
        await led_out
        await loop.run_in_executor(None, way_out.stop)
        SOCKET.unlink(missing_ok=True)
        self._watchdog.stop()
        await self._sessions.stop()

    async def _lead_out(self) -> None:
        try:
            why = await asyncio.get_running_loop().run_in_executor(None, way_out.start)
        except OSError as exc:
            why = str(exc)
        if why:
            text = f"Workers without a way out cannot install packages: the proxy does not start: {why}"
            self._sessions.notices.tell("warning", text, topic="way out")

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            control, _ = listener.accept()
            control.setblocking(False)
            asyncio.get_running_loop().add_reader(control, self._command, control)

    def _command(self, control: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(control)
        try:
            command, descriptors, _, _ = socket.recv_fds(control, COMMAND_BYTES, 2)
        except OSError:
            command, descriptors = b"", []
        if command == b"attach" and len(descriptors) == 2:
            Client(self._sessions, control, (descriptors[0], descriptors[1]))
            return
        for descriptor in descriptors:
            os.close(descriptor)
        word, _, about = command.partition(b" ")
        answers: dict[bytes, Callable[[], Awaitable[dict[str, Any]]]] = {
            b"status": self._status, b"save": self._save, b"limits": self._limits, b"refresh": self._refresh,
            b"end": lambda: self._ask_for_end(about.decode(errors="replace")),
            b"where": lambda: self._sessions.where(about.decode(errors="replace") or MAIN),
        }  # fmt: skip
        if word in answers:
            task = asyncio.ensure_future(self._answer(control, answers[word]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        if command == b"stop":
            self._stopped.set()
        control.close()

    async def _answer(self, control: socket.socket, ask: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(control, json.dumps(await ask()).encode())
        control.close()

    async def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            **await self._sessions.status(),
            "watchdog": self._watchdog.status(),
        }

    async def _save(self) -> dict[str, Any]:
        try:
            return {"saved": True, **await self._sessions.save()}
        except (NotSaved, OSError) as exc:
            return {"saved": False, "error": str(exc)}

    async def _ask_for_end(self, job: str) -> dict[str, Any]:
        """After that job; it has written that, unless the disk is full."""
        asked = aftermath.asked_end()
        if asked is None or job not in asked.jobs:
            aftermath.ask_for_end(f"{job} has ended", job)
        return await self._woken()

    async def _limits(self) -> dict[str, Any]:
        aftermath.forget_end()  # whoever sets limits says how long the cluster is to live
        return await self._woken()

    async def _woken(self) -> dict[str, Any]:
        self._watchdog.wake()
        return self._watchdog.status()

    async def _refresh(self) -> dict[str, Any]:
        if self._lost_work:
            self._lost_work.set_up()
        self._watchdog.wake()
        return {"lost": await self._sessions.refresh()}


def _connect() -> socket.socket | None:
    """A connection to the running agent, or None."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(SOCKET))
    except OSError:
        connection.close()
        return None
    return connection


def ask(command: str, *, wait: float = 30.0) -> dict[str, Any]:
    """The agent's answer within ``wait`` seconds; {} if it does not run."""
    connection = _connect()
    if connection is None:
        return {}
    with connection:
        connection.settimeout(wait)
        connection.send(command.encode())
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    return dict(json.loads(answer)) if answer else {}


def status() -> int:
    """Say what the agent does; {} if it does not run."""
    print(json.dumps(ask("status")))  # noqa: T201
    return 0


def where(session: str) -> int:
    """Say where the R of that session is; {} if it does not run."""
    print(json.dumps(ask(f"where {session}")))  # noqa: T201
    return 0


def save() -> int:
    """Save R's workspace and say what was saved; 0 if it was."""
    answer = ask("save", wait=SAVE_SECONDS) or {"saved": False, "error": "the agent does not run"}
    print(json.dumps(answer))  # noqa: T201
    return 0 if answer["saved"] else 1


def limits() -> int:
    """Put other limits in force; 0 if they are."""
    try:
        wanted = Limits.parse(json.load(sys.stdin))
    except (ValueError, TypeError) as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        return 1
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    new = LIMITS.with_suffix(".new")
    new.write_text(wanted.dump(), encoding="utf-8")
    new.replace(LIMITS)
    aftermath.forget_end()  # where no agent runs
    print(json.dumps(ask("limits")))  # noqa: T201
    return 0


def start(*, wait: float) -> int:
    """Start the agent, or tell the running one to look at the nodes; 0 when R answers within ``wait`` seconds."""
    server = None
    if not ask("refresh"):
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        with (FOLDER / "agent.log").open("ab") as log:
            command = [sys.executable, str(Path(__file__).resolve()), "serve"]
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=HOME, start_new_session=True
            )
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        answer = ask("status").get("r", {"state": State.STARTING.value})
        if answer["state"] == State.DOWN.value:
            print(answer["trouble"], file=sys.stderr)  # noqa: T201
            return 1
        if answer["state"] != State.STARTING.value:
            return 0
        if (
            server is not None and server.poll()
        ):  # such as when our files were being replaced: 0 is "another one runs"
            print(f"the agent ended with status {server.poll()}; see {FOLDER}/agent.log", file=sys.stderr)  # noqa: T201
            return 1
        time.sleep(0.02)
    if wait:
        print(f"R did not answer within {wait:g} s; see {FOLDER}/agent.log", file=sys.stderr)  # noqa: T201
    return 1 if wait else 0


def attach() -> int:
    """Hand standard input and output to the agent and wait until it lets go of them."""
    connection = _connect()
    if connection is None:
        start(wait=0)
        deadline = time.monotonic() + 10
        while connection is None and time.monotonic() < deadline:
            time.sleep(0.01)
            connection = _connect()
    if connection is None:
        print(f"the agent does not start; see {FOLDER}/agent.log", file=sys.stderr)  # noqa: T201
        return 1
    socket.send_fds(connection, [b"attach"], [0, 1])
    while connection.recv(64):
        pass
    return 0


def serve() -> int:
    """Be the agent; 0 at once if another one is."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    with (FOLDER / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0
        asyncio.run(_serve())
    return 0


async def _serve() -> None:
    await Agent().serve()


def stop() -> int:
    """End the agent and wait for it."""
    connection = _connect()
    if connection is not None:
        connection.send(b"stop")
        deadline = time.monotonic() + STOP_SECONDS
        with (FOLDER / "agent.lock").open("w") as lock:
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return 0
                time.sleep(0.02)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status."""
    parser = argparse.ArgumentParser(prog="agent.py", description="the owner of the R session")
    actions: dict[str, Callable[[], int]] = {
        "start": lambda: start(wait=START_SECONDS), "status": status, "save": save, "limits": limits,
        "where": lambda: where(given.session), "stop": stop, "attach": attach, "serve": serve,
    }  # fmt: skip
    parser.add_argument("command", choices=list(actions))
    parser.add_argument("session", nargs="?", default=MAIN)
    given = parser.parse_args(arguments)
    return actions[given.command]()


if __name__ == "__main__":
    sys.exit(main())
