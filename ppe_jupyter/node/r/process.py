"""One R process, from its start under mpirun to its end.

R has three ways to us: a terminal for text, and two named pipes for requests and results (Open MPI closes
descriptors that it does not know). R is not our child but mpirun's, and mpirun may outlive it: what counts is R's own
pid, which it tells when it is ready. Must not know what goes over the ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from ..machine import own_packages
from .exits import signal_first_thread, watch_exit
from .mpirun import mpirun_command
from .patience import PATIENCE
from .terminal import Mark, marker_text

ROOMS = ("columns", "decoding", "plots", "displays", "workspace", "assistance", "evaluation", "evaluator")
PIPE_BYTES = 2**20
RESCUE_SECONDS = 10.0
# The kernel's log may come to where it is read a little later than R's end.
KERNEL_LOG_SECONDS, KERNEL_LOG_PAUSES = 5.0, (0.0, 0.3)
F_SETPIPE_SZ = 1031
# The console is read after a select() for it, and for what packages listen to: x86_64 and arm64, old and new call.
SELECT_CALLS = {"23", "270", "72"}


class RProcess:
    """R, started by the constructor. Raises OSError.

    ``entered``: it was told to load the evaluator. ``quits``: it said that it ends; ``crashed``: after a segfault.
    An interrupt's flag is there until R has met it: what R then takes is meant for the present evaluation, else late.
    """

    def __init__(self, *, run: Path, hostfile: Path | None) -> None:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.word = secrets.token_hex(8)
        self.pid: int | None = None
        self.entered = False
        self._evaluator = _evaluator()
        self.quits = False
        self.crashed = False
        self.log = run / "mpirun.log"
        self._run = run
        self._descriptors: list[int] = []
        self._flag = run / "pressed"
        self._flagged = self._late = False
        for name in ("saving", "lost", "pressed"):
            (run / name).unlink(missing_ok=True)
        try:
            self._descriptors += os.openpty()
            self.terminal, self._terminal_slave = self._descriptors
            os.set_blocking(self.terminal, False)
            _make_plain(self._terminal_slave)
            self.requests = self._pipe("requests")
            self.results = self._pipe("results")
            self.process = self._start(hostfile)
        except OSError:
            self._close()
            raise
        # R makes these two at its top level only; base takes values for them, but no new names.
        self._type("stop(); .Last.value")
        self._type(f'options(prompt = "{_escaped(marker_text(self.word, Mark.PROMPT))}\\a", continue = "+ ")')

    def _start(self, hostfile: Path | None) -> subprocess.Popen[bytes]:
        terminal = os.ttyname(self._terminal_slave)
        environment = {
            **os.environ,
            "PATH": own_packages.path(),
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
        command = [*mpirun_command(self._run, hostfile), "sh", "-c", r]
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

    def _pipe(self, name: str) -> int:
        """A new named pipe, open at our end for both ways, so that neither end ever waits for the other."""
        path = self._run / name
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
        return descriptor

    def enter(self) -> None:
        """Tell R, which is at its prompt, to load the evaluator."""
        self.entered = True
        files = ", ".join(json.dumps(path) for path in self._evaluator)
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
        with contextlib.suppress(OSError):  # on a full disk R may take it for a late one
            self._flag.touch()
            self._flagged = True
        self._late = True
        self._signal(signal.SIGINT)

    def took_interrupt(self) -> bool:
        """Whether the evaluation, which has ended, was interrupted and R has met that."""
        if not self._flagged:
            return False
        self._flagged = False
        try:
            self._flag.unlink()
        except FileNotFoundError:
            return True
        return False

    def forget_interrupt(self) -> bool:
        """Whether there was one since this was asked last: the next evaluation is to look for what is left of it."""
        late, self._late = self._late, False
        return late

    def ignores_interrupt(self) -> bool:
        """Whether R ignores SIGINT just now, as it does while system() waits for a child."""
        mask = next((line for line in self._proc("status").splitlines() if line.startswith("SigIgn:")), "")
        return bool(int(mask.split()[1], 16) & 1 << (signal.SIGINT - 1)) if mask else False

    def waits_for_input(self) -> bool:
        """Whether R waits for a line of standard input: readline(), menu(), browser()."""
        return self.pid is not None and selects_standard_input(self.pid)

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
        try:
            saving.touch()
        except OSError:  # a full disk, which would not take the workspace either
            return False
        workspace, begun = self._run / "workspace.RData", self._run / "workspace.RDataTmp"
        begun.unlink(missing_ok=True)
        deadline = time.monotonic() + RESCUE_SECONDS
        while not workspace.exists() and time.monotonic() < deadline and not self.ended:
            if begun.exists():
                deadline = time.monotonic() + RESCUE_SECONDS
            elif not still():
                break
            else:
                # On another thread it would save while it goes on computing.
                signal_first_thread(self.pid, signal.SIGUSR1)
            await asyncio.sleep(0.05)
        saving.unlink(missing_ok=True)
        return workspace.exists()

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call back when R ends (before it told its pid: when what started it ends)."""
        watch_exit(self.pid or self.process.pid, on_exit)

    async def end(self) -> None:
        """End R, and mpirun with all that it started on any node. Safe to repeat."""
        if not self._descriptors:
            return
        self._signal(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            for _ in range(150):
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.02)
        self._close()

    async def killed_for_memory(self) -> str:
        """What a dead R had when the kernel killed it for memory, in words; "" if nothing says that it did."""
        folder = Path(__file__).resolve().parents[1]
        command = [sys.executable, str(folder), "census", "why", str(self.pid)]
        for pause in KERNEL_LOG_PAUSES:
            await asyncio.sleep(pause)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            except OSError:  # where memory lacks even for that
                break
            try:
                words, _ = await asyncio.wait_for(process.communicate(), KERNEL_LOG_SECONDS)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
                break
            if words:
                return words.decode().strip()
        return ""

    def _close(self) -> None:
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.pop())

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


@functools.cache
def _evaluator() -> list[str]:
    """The R code of this agent's version, whatever has taken the place of its files since it started."""
    here = Path(__file__).resolve().parent
    files = [os.open(here / f"{room}.R", os.O_RDONLY | os.O_CLOEXEC) for room in ROOMS]
    return [f"/proc/{os.getpid()}/fd/{file}" for file in files]


def selects_standard_input(pid: int) -> bool:
    """Whether the process waits in select() for its standard input, perhaps beside others."""
    with contextlib.suppress(OSError):
        number, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
        if number in SELECT_CALLS:
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                memory.seek(int(arguments[1], 16))
                return bool(memory.read(1)[0] & 1)
    return False


def _make_plain(terminal: int) -> None:
    """No echo, no signals from characters, no rewriting of line ends; input by lines."""
    modes = termios.tcgetattr(terminal)
    modes[1] &= ~termios.OPOST
    modes[3] &= ~(termios.ECHO | termios.ISIG | termios.IEXTEN)
    modes[3] |= termios.ICANON
    termios.tcsetattr(terminal, termios.TCSANOW, modes)


def _escaped(marker: str) -> str:
    return marker.replace("\x1b", "\\033")
