"""The agent owns the R sessions on the master, whoever comes and goes. Here it is started, asked and ended.

    agent.py start    start it unless it runs, have it look at the cluster's nodes, and wait until R answers
    agent.py status   what it does, as JSON
    agent.py where    R's working directory, as JSON
    agent.py save     save R's workspace for the agent's next start, before the node is stopped or rebooted
    agent.py limits   replace ~/.ppe/limits.json by the JSON on standard input; prints what the watchdog makes of it
    agent.py stop     end it, with R and all workers
    agent.py attach   connect standard input and output to it

It (server.py) listens on a Unix socket that only its user can reach. ``attach`` hands its own descriptors over and then
only waits, so nothing copies the bytes between sshd and the agent. Each line of a client's begins with that: what takes
long to import is imported where it is needed. Standard library only: the folder is copied to a machine and run there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # Nodes that were launched earlier start it so at each boot.
    _folder = Path(__file__).resolve().parent
    sys.path[0] = str(_folder.parent)
    __package__ = _folder.name

from . import whole
from .sessions.state import State
from .wire.protocol import MAIN

HOME = Path.home()
FOLDER = HOME / ".ppe"
SOCKET = FOLDER / "agent.sock"
LIMITS = FOLDER / "limits.json"
# setup.py writes it: ~/ompi-hostfile with a slot more on the master, so that R takes none of the users'.
HOSTFILE = FOLDER / "session-hostfile"
# R may have a large workspace to load.
START_SECONDS = 120.0
# Between an agent that was told to stop and its end.
STOP_SECONDS = 20.0
SAVE_SECONDS = 3600.0


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
    from .lifetime import aftermath
    from .lifetime.limits import Limits

    try:
        wanted = Limits.parse(json.load(sys.stdin))
    except (ValueError, TypeError) as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        return 1
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    whole.write(LIMITS, wanted.dump())
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
        from .server import serve

        serve(FOLDER, SOCKET, hostfile=HOSTFILE)
    return 0


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
