"""RStudio Server on the master, for the login user alone: started, found again, spoken to over one pair of streams.

    rstudio relay ROOT_PATH    start it unless it runs, and carry connections to it (relay.py)
    rstudio session ARGUMENT…  what it starts as its rsession: R with Open MPI around it, as the agent's R has

It listens on a Unix socket in a folder of the user's own. Nobody logs in, since nobody else gets there. It lives on
when the line is cut, and so do its R sessions. The command line is that of jupyter-rsession-proxy, each argument only
if ``rserver --help`` knows it. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..wire.relay import Pair, Refused, serve
from .lone import LoneR
from .mpirun import mpirun_command

HOME = Path.home()
FOLDER = HOME / ".ppe" / "rstudio"
SOCKET = FOLDER / "rserver.sock"
STATE = FOLDER / "rserver.json"
LOG = FOLDER / "rserver.log"
KEY = FOLDER / "cookie-key"
SESSION = FOLDER / "rsession"
HOSTFILE = HOME / ".ppe" / "session-hostfile"
# Where the Debian packages of RStudio Server and of RStudio have it.
PLACES = ("/usr/lib/rstudio-server/bin", "/usr/lib/rstudio/bin")
START_SECONDS = 40.0
HELP_SECONDS = 20.0
LOG_LINES = 12


class Problem(Exception):
    """Why there is no RStudio Server: ``kind`` is missing, old or failed."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def ensure(root_path: str, *, any_root: bool = False) -> None:
    """Have it run and listen, served from ``root_path`` as the browser sees it. Raises Problem.

    With ``any_root`` one that runs will do: another lab's, which must not be ended in turn. Each request says its own.
    """
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    # rserver makes its data folder writable for everybody, so it is this one that must keep others out.
    FOLDER.chmod(0o700)
    with _alone():
        state = _state()
        if _runs(state.get("pid")) and (any_root or state.get("root_path") == root_path) and _listens():
            return
        _end(state.get("pid"))
        _start(root_path)


def _start(root_path: str) -> None:
    program = _program()
    SOCKET.unlink(missing_ok=True)
    _prepare()
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            [program, *_arguments(_options(program), root_path, program)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=HOME,
            # Its log goes to syslog otherwise, and it ends without a word.
            env={**os.environ, "USER": getpass.getuser(), "RS_LOGGER_TYPE": "stderr"},
            start_new_session=True,
        )
    STATE.write_text(json.dumps({"pid": process.pid, "root_path": root_path, "program": program}))
    deadline = time.monotonic() + START_SECONDS
    while not _listens():
        if process.poll() is not None:
            raise Problem("failed", f"it ended with status {process.returncode}: {_last_words()}")
        if time.monotonic() > deadline:
            _end(process.pid)
            raise Problem("failed", f"it did not listen within {START_SECONDS:.0f} s: {_last_words()}")
        time.sleep(0.05)


def _program() -> str:
    found = shutil.which("rserver") or shutil.which("rserver", path=os.pathsep.join(PLACES))
    if found is None:
        said = Path("/var/lib/ppe-node/rstudio.problem")
        why = said.read_text(encoding="utf-8").strip() if said.exists() else ""
        raise Problem("missing", why or "there is no rserver on this image")
    return found


def _options(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--help"], capture_output=True, text=True, timeout=HELP_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Problem("failed", f"`{program} --help`: {exc}") from None
    known = done.stdout + done.stderr
    for option in ("www-root-path", "www-socket"):
        if f"--{option}" not in known:
            raise Problem("old", f"{program} does not know --{option}")
    return known


def _arguments(known: str, root_path: str, program: str) -> list[str]:
    """As jupyter-rsession-proxy 2.5 has them; rsession-path is ours."""
    wanted = {
        "auth-none": "1",
        "www-frame-origin": "same",
        "www-verify-user-agent": "0",
        "secure-cookie-key-file": str(KEY),
        "server-user": getpass.getuser(),
        "server-daemonize": "0",
        "www-root-path": root_path.rstrip("/") + "/",
        "server-data-dir": str(FOLDER / "data"),
        "database-config-file": str(FOLDER / "database.conf"),
        "www-socket": str(SOCKET),
        "rsession-path": str(SESSION),
    }
    return [f"--{name}={value}" for name, value in wanted.items() if f"--{name}" in known]


def _prepare() -> None:
    """The files that it wants. The key stays the same, so that cookies outlive a restart."""
    if not KEY.exists():
        with os.fdopen(os.open(KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as key:
            key.write(secrets.token_hex(32))
    (FOLDER / "data").mkdir(exist_ok=True)
    (FOLDER / "database.conf").write_text(f"provider=sqlite\ndirectory={FOLDER / 'data'}\n")
    (FOLDER / "database.conf").chmod(0o600)
    SESSION.write_text(
        f'#!/bin/sh\nexec python3 {Path(__file__).resolve().parents[1]} rstudio session "$@"\n'
    )
    SESSION.chmod(0o700)


def session(arguments: list[str]) -> None:
    """Become R's process, under mpirun, so that Rmpi and snow reach every node. Does not return."""
    program = Path(str(_state()["program"])).with_name("rsession")
    run = FOLDER / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    (run / "daemons").unlink(missing_ok=True)  # those of a mpirun that has ended
    LoneR(run, ends=False).forget()
    command = [*mpirun_command(run, HOSTFILE if HOSTFILE.exists() else None), str(program), *arguments]
    os.chdir(HOME)
    # The parent that it looks at is this process, which R's mpirun becomes.
    watch = [sys.executable, str(HOME / ".ppe" / "node"), "lone_r", str(run)]
    none = subprocess.DEVNULL
    subprocess.Popen(watch, stdin=none, stdout=none, stderr=none, start_new_session=True)
    # Its name tells the watchdog that it is no program which works just by being there (activity.py).
    name = "rsession-mpirun" if len(command) > 1 + len(arguments) else command[0]
    os.execvpe(command[0], [name, *command[1:]], {**os.environ, "PPE_RUN": str(run)})  # noqa: S606


def _state() -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(STATE.read_text()))
    return {}


def _runs(pid: object) -> bool:
    with contextlib.suppress(OSError):
        return b"rserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _listens() -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(SOCKET))
        return True
    return False


def _end(pid: object) -> None:
    """End the server, not its R sessions: the next one finds them again."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5.0
        while isinstance(pid, int) and _runs(pid) and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.05)


def _last_words() -> str:
    lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:]).strip() or "it said nothing"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    import fcntl  # clients that ask for PLACES may have none

    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def relay(root_path: str) -> None:
    """Greet with ``{}`` or the problem, and carry connections until standard input ends."""
    try:
        await asyncio.to_thread(ensure, root_path)
    except Problem as problem:
        await serve(_refuse, {"problem": problem.kind, "text": str(problem)})
        return

    async def dial() -> Pair:
        try:
            return await asyncio.open_unix_connection(str(SOCKET))
        except OSError:  # it has died
            try:
                await asyncio.to_thread(ensure, root_path, any_root=True)
            except Problem as problem:
                raise Refused(str(problem)) from None
            return await asyncio.open_unix_connection(str(SOCKET))

    await serve(dial, {})


async def _refuse() -> Pair:
    raise Refused("RStudio Server does not run")


if __name__ == "__main__":
    if sys.argv[1] == "session":
        session(sys.argv[2:])
    asyncio.run(relay(sys.argv[2]))
