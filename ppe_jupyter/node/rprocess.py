"""One R process, from its start under mpirun to its end.

R has three ways to us: a terminal for text, and two named pipes for requests and results (Open MPI closes
descriptors that it does not know). R is not our child but mpirun's, and mpirun may outlive it: what counts is R's own
pid, which it tells when it is ready. Must not know what goes over the ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

from .terminal import Mark, marker_text
from .this_node import PATIENCE

ROOMS = ("columns", "plots", "displays", "workspace", "assistance", "evaluation", "evaluator")
EVALUATOR = [f"{room}.R" for room in ROOMS]
PIPE_BYTES = 2**20
RESCUE_SECONDS = 10.0
F_SETPIPE_SZ = 1031
# read() of the console waits in select(1, …) without a time-out: x86_64 and arm64, old and new call.
SELECT_CALLS = {"23", "270", "72"}


class RProcess:
    """R, started by the constructor.

    ``entered``: it was told to load the evaluator. ``quits``: it said that it ends; ``crashed``: after a segfault.
    """

    def __init__(self, *, run: Path, hostfile: Path | None) -> None:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.word = secrets.token_hex(8)
        self.pid: int | None = None
        self.entered = False
        self.quits = False
        self.crashed = False
        self.requests = _pipe(run / "requests")
        self.results = _pipe(run / "results")
        for name in ("saving", "lost"):
            (run / name).unlink(missing_ok=True)
        self._run = run
        self.terminal, self._terminal_slave = os.openpty()
        os.set_blocking(self.terminal, False)
        _make_plain(self._terminal_slave)
        self.log = run / "mpirun.log"
        self.process = self._start(hostfile)
        # R makes these two at its top level only; base takes values for them, but no new names.
        self._type("stop(); .Last.value")
        self._type(f'options(prompt = "{_escaped(marker_text(self.word, Mark.PROMPT))}\\a", continue = "+ ")')

    def _start(self, hostfile: Path | None) -> subprocess.Popen[bytes]:
        terminal = os.ttyname(self._terminal_slave)
        environment = {
            **os.environ,
            "PPE_RUN": str(self._run),
            "PPE_TERMINAL": terminal,
            "PPE_MARKER": f"\x1b]ppe;{self.word};",
            "TERM": "xterm-256color",
            "PAGER": "cat",
        }
        environment.setdefault("LANG", "C.UTF-8")
        where = shlex.quote(terminal)
        # R is what this shell becomes, under the same pid.
        preload = f"PPE_SESSION=$$ LD_PRELOAD={PATIENCE} " if hostfile and PATIENCE.exists() else ""
        r = f"{preload}exec R --no-readline --interactive --quiet --no-save --no-restore <{where} >{where} 2>&1"
        command = [*_mpirun(self._run, hostfile), "sh", "-c", r]
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=Path.home(),
                start_new_session=True,
            )

    def enter(self) -> None:
        """Tell R, which is at its prompt, to load the evaluator."""
        self.entered = True
        folder = str(Path(__file__).resolve().parent)
        files = ", ".join(json.dumps(f"{folder}/{name}") for name in EVALUATOR)
        # The parent is not baseenv(): methods that the user has defined would not be found from there.
        self._type(
            f"(function(e) {{ for (f in c({files})) sys.source(f, e); e$serve() }})"
            "(new.env(parent = .BaseNamespaceEnv))"
        )

    def answer(self, line: str) -> None:
        """Type a line into R's standard input."""
        self._type(line)

    def _type(self, line: str) -> None:
        os.write(self.terminal, line.encode() + b"\n")

    def interrupt(self) -> None:
        """SIGINT to R and its children. Only for an R that evaluates."""
        self._signal(signal.SIGINT)

    def ignores_interrupt(self) -> bool:
        """Whether R ignores SIGINT just now, as it does while system() waits for a child."""
        mask = next((line for line in self._proc("status").splitlines() if line.startswith("SigIgn:")), "")
        return bool(int(mask.split()[1], 16) & 1 << (signal.SIGINT - 1)) if mask else False

    def waits_for_input(self) -> bool:
        """Whether R waits for a line of standard input: readline(), menu(), browser()."""
        call = self._proc("syscall").split()
        return len(call) > 5 and call[0] in SELECT_CALLS and call[1] == "0x1" and call[5] == "0x0"

    @property
    def ended(self) -> bool:
        """Whether R's process is no more."""
        return self._proc("stat").rpartition(")")[2].split()[:1] in ([], ["Z"])

    async def save_and_quit(self, *, still: Callable[[], bool] = lambda: True) -> bool:
        """Have R write its workspace and quit, wherever it hangs (evaluator.R's rescue); True if it did.

        An R that does not evaluate user's code ignores it: wait for it only while ``still()``.
        """
        assert self.pid is not None
        saving = self._run / "saving"
        saving.touch()
        workspace, begun = self._run / "workspace.RData", self._run / "workspace.RDataTmp"
        begun.unlink(missing_ok=True)
        deadline = time.monotonic() + RESCUE_SECONDS
        while not workspace.exists() and time.monotonic() < deadline and not self.ended:
            if begun.exists():
                deadline = time.monotonic() + RESCUE_SECONDS
            elif not still():
                break
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGUSR1)
            await asyncio.sleep(0.05)
        saving.unlink()
        return workspace.exists()

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call back when R ends (before it told its pid: when what started it ends)."""
        _watch_exit(self.pid or self.process.pid, on_exit)

    async def end(self) -> None:
        """End R, and mpirun with all that it started on any node."""
        self._signal(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            for _ in range(150):
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.02)
        for descriptor in (self.requests, self.results, self.terminal, self._terminal_slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _signal(self, number: int) -> None:
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def _proc(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/{name}").read_text()
        return ""


def _mpirun(run: Path, hostfile: Path | None) -> list[str]:
    """The command in front of R; none where there is no Open MPI.

    R starts on the master alone, whatever has become of the workers: each spawn adds them (Rprofile.site).
    """
    if hostfile is None or shutil.which("mpirun") is None:
        return []
    here = run / "hostfile"
    here.write_text(hostfile.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    command = ["mpirun", "-np", "1", "--enable-recovery", "--bind-to", "none", "--hostfile", str(here)]
    command += ["--mca", "mpi_yield_when_idle", "1"]
    # Else Open MPI 4.1's daemons never hear of nodes that are added later, and processes beside them fail to start.
    command += ["--mca", "plm_base_node_regex_threshold", "0"]
    # Else the slot of a worker that was killed would stay taken (a shell is around each: Rprofile.site).
    command += ["--mca", "orte_abort_on_non_zero_status", "0"]
    return [*command, "--allow-run-as-root"] if os.geteuid() == 0 else command


def _pipe(path: Path) -> int:
    """A new named pipe, open at our end for both ways, so that neither end ever waits for the other."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
    return descriptor


def _make_plain(terminal: int) -> None:
    """No echo, no signals from characters, no rewriting of line ends; input by lines."""
    modes = termios.tcgetattr(terminal)
    modes[1] &= ~termios.OPOST
    modes[3] &= ~(termios.ECHO | termios.ISIG | termios.IEXTEN)
    modes[3] |= termios.ICANON
    termios.tcsetattr(terminal, termios.TCSANOW, modes)


def _escaped(marker: str) -> str:
    return marker.replace("\x1b", "\\033")


def _watch_exit(pid: int, on_exit: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        loop.call_soon(on_exit)
        return
    except (OSError, AttributeError):  # Linux before 5.3
        _poll_exit(pid, on_exit)
        return

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        on_exit()

    loop.add_reader(descriptor, ended)


def _poll_exit(pid: int, on_exit: Callable[[], None]) -> None:
    try:
        alive = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        alive = False
    if alive:
        asyncio.get_running_loop().call_later(0.5, _poll_exit, pid, on_exit)
    else:
        on_exit()
