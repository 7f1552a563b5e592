"""The agent: owns the R session on the master, whoever comes and goes.

    agent.py start    start it unless it runs, and wait until R answers
    agent.py status   what it does, as JSON
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
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Run as a file: the folder is the package, whatever its name.
    _folder = Path(__file__).resolve().parent
    sys.path[0] = str(_folder.parent)
    __package__ = _folder.name

from .clients import Client
from .rsession import RSession, State

HOME = Path.home()
FOLDER = HOME / ".ppe"
SOCKET = FOLDER / "agent.sock"
START_SECONDS = 60.0


class Agent:
    """The listening socket and the session behind it."""

    def __init__(self) -> None:
        # setup.py writes it: ~/ompi-hostfile with a slot more on the master, so that R takes none of the users'.
        self._session = RSession(
            run=FOLDER / "run", hostfile=FOLDER / "session-hostfile", workers=FOLDER / "slaves.json"
        )
        self._stopped = asyncio.Event()

    async def serve(self) -> None:
        """Serve until told to stop."""
        SOCKET.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        os.umask(0o077)
        listener.bind(str(SOCKET))
        listener.listen(64)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_reader(listener, self._accept, listener)
        self._session.start()
        await self._stopped.wait()
        SOCKET.unlink(missing_ok=True)
        await self._session.stop()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            control, _ = listener.accept()
            control.setblocking(False)
            asyncio.get_running_loop().add_reader(control, self._command, control)

    def _command(self, control: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(control)
        try:
            command, descriptors, _, _ = socket.recv_fds(control, 64, 2)
        except OSError:
            command, descriptors = b"", []
        if command == b"attach" and len(descriptors) == 2:
            Client(self._session, control, (descriptors[0], descriptors[1]))
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if command == b"status":
            with contextlib.suppress(OSError):
                control.send(json.dumps({"pid": os.getpid(), **self._session.welcome()}).encode())
        elif command == b"stop":
            self._stopped.set()
        control.close()


def _connect() -> socket.socket | None:
    """A connection to the running agent, or None."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(SOCKET))
    except OSError:
        connection.close()
        return None
    return connection


def status() -> dict[str, Any]:
    """What the agent does; {} if it does not run."""
    connection = _connect()
    if connection is None:
        return {}
    with connection:
        connection.send(b"status")
        answer = connection.recv(2**16)
    return dict(json.loads(answer)) if answer else {}


def start(*, wait: float) -> int:
    """Start the agent unless it runs; 0 when R answers within ``wait`` seconds."""
    if _connect() is None:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        with (FOLDER / "agent.log").open("ab") as log:
            command = [sys.executable, str(Path(__file__).resolve()), "serve"]
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=HOME, start_new_session=True
            )
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        answer = status().get("r", {"state": State.STARTING.value})
        if answer["state"] == State.DOWN.value:
            print(answer["trouble"], file=sys.stderr)  # noqa: T201
            return 1
        if answer["state"] != State.STARTING.value:
            return 0
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
        deadline = time.monotonic() + 20
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
    parser.add_argument("command", choices=["start", "status", "stop", "attach", "serve"])
    command = parser.parse_args(arguments).command
    if command == "status":
        print(json.dumps(status()))  # noqa: T201
        return 0
    return {"start": lambda: start(wait=START_SECONDS), "stop": stop, "attach": attach, "serve": serve}[
        command
    ]()


if __name__ == "__main__":
    sys.exit(main())
