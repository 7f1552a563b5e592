"""Runs one script to its end, whoever watches: the supervisor of a run. Run as ``python3 ~/.ppe/node run_script NAME``.

R is started as the R session is, under an mpirun of its own, so that Rmpi, snow and ppe.lapply reach every slot. What
the script prints goes to output.log in its folder, in order. When it is over, aftermath.py does what was asked for.
SIGTERM ends the script. With ``--lost`` before the name only what follows is done, of a run whose own supervisor is
gone; the cluster's end belongs to that with ``--end``. Standard library only; must not know clients.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from ..agent import HOSTFILE as SESSION_HOSTFILE
from ..agent import ask
from ..cells.cell import HOSTFILE, NODE, hosts
from ..lifetime import aftermath
from ..machine import own_packages
from ..r.lone import PID, LoneR
from ..r.mpirun import mpirun_command
from ..r.patience import PATIENCE, PRELOAD
from ..ranks.processes import ONE_THREAD, SOON_ENDED
from .runs import HOME, LOG, Run, load

STATUS = ".status"
POLL_SECONDS = 0.1
STORE_SECONDS = 3600.0
# What is asked to end may do so for so long.
GRACE_SECONDS = 5.0


def command(run: Run) -> tuple[list[str], Mapping[str, str]]:
    """What starts the script, and what its environment has besides. The shell around it notes its status.

    mpirun may outlive the R that it was started for, and that has workers.
    """
    script = str(run.folder / run.script)
    kind = Path(script).suffix.lower()
    python = own_packages.python()
    if run.ranks is not None:
        program = ["Rscript", script] if kind == ".r" else [python, "-m", "mpi4py", script]
        return _on_ranks(run, [*program, *run.arguments]), {}
    if kind != ".r":
        return [*(["bash"] if kind == ".sh" else [python]), script, *run.arguments], {}
    folder = r_folder(run)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hostfile = SESSION_HOSTFILE if SESSION_HOSTFILE.exists() else None
    mpirun = mpirun_command(folder, hostfile)
    preload = f"PPE_SESSION=$$ LD_PRELOAD={PATIENCE} " if hostfile and PATIENCE.exists() else ""
    pid = shlex.quote(str(folder / PID))
    r = f"echo $$ >{pid}; {preload}exec {shlex.join(['Rscript', script, *run.arguments])}"
    noted = f"sh -c {shlex.quote(r)} >>{LOG} 2>&1; echo $? >{STATUS}.new; mv {STATUS}.new {STATUS}"
    return [*mpirun, "sh", "-c", f"cd {shlex.quote(str(run.folder))}; {noted}"], {"PPE_RUN": str(folder)}


def r_folder(run: Run) -> Path:
    """What its R knows as PPE_RUN."""
    return HOME / ".ppe" / "runs" / run.name


def _on_ranks(run: Run, program: list[str]) -> list[str]:
    slots = sum(count for _, count in hosts())
    count = run.ranks if run.ranks and run.ranks > 0 else slots
    environment = [part for name in (*ONE_THREAD, "PYTHONUNBUFFERED") for part in ("-x", f"{name}=1")]
    if PRELOAD.exists():
        environment += ["-x", f"LD_PRELOAD={PRELOAD.read_text(encoding='ascii').strip()}"]
    mpirun = ["mpirun", "--hostfile", str(HOSTFILE), "-np", str(count), "--bind-to", "none", *SOON_ENDED]
    return [*mpirun, "-wdir", str(run.folder), *environment, *program]


def store(run: Run) -> str:
    """Take its results to S3, if they are to go there; why that failed, or ""."""
    if not run.store:
        return ""
    try:
        return _store(run)
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        return f"the results could not be stored in {run.store}: {exc}"


def _store(run: Run) -> str:
    found, missing = run.results()
    dest = f"{run.store.rstrip('/')}/{run.name}/"
    task = {"act": "store", "sources": found, "dest": dest, "region": run.region, "folder": str(run.folder)}
    done = subprocess.run(
        [sys.executable, str(NODE), "s3", json.dumps(task)],
        cwd=HOME / ".ppe",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STORE_SECONDS,
        check=False,
    )
    trouble = unstored(done.stdout, done.stderr)
    if trouble:
        return f"the results could not be stored in {dest}: {trouble}"
    return f"nothing matches {', '.join(missing)}" if missing else ""


def unstored(said: str, error: str) -> str:
    """What node/files/s3.py, which has printed that, did not store, and why; or ""."""
    told = {}
    with contextlib.suppress(ValueError, IndexError):
        told = json.loads(said.splitlines()[-1])
    if "done" not in told:
        return str(told.get("error") or error.strip()[-300:])
    failures = "; ".join(told["done"].get("failures", {}).values())
    left_out = ", ".join(told["done"].get("left_out", ()))
    return failures or (f"left out: {left_out}" if left_out else "")


class Script:
    """The script's processes."""

    def __init__(self, run: Run) -> None:
        self.stopped = False
        self._run = run
        self._status = run.folder / STATUS
        self._log = run.folder / LOG
        self._workers: LoneR | None = None

    def start(self) -> None:
        """Start it. Raises OSError."""
        words, more = command(self._run)
        # Around R it has mpirun's own words only, which matter if R cannot be started.
        self._words = Path(more["PPE_RUN"], "mpirun.log") if more else self._log
        if more:
            self._workers = LoneR(Path(more["PPE_RUN"]), ends=True)
            self._workers.look_after()
        with self._words.open("ab") as log:
            self._process = subprocess.Popen(
                words,
                cwd=self._run.folder,
                env={**os.environ, "PATH": own_packages.path(), "PYTHONUNBUFFERED": "1", **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler: the script is to end."""
        self.stopped = True

    def wait(self) -> int:
        """Its status when it has ended; what it has left running is ended."""
        while self._process.poll() is None and not self._status.exists() and not self.stopped:
            time.sleep(POLL_SECONDS)
        if self._workers:
            self._workers.forget()
        for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[not self.stopped :]:
            self._end(signal_)
        status = self._process.returncode
        try:
            status = int(self._status.read_text())
        except (OSError, ValueError):
            if self._words != self._log:
                with contextlib.suppress(OSError), self._log.open("ab") as log:
                    log.write(self._words.read_bytes())
        if status is None:  # it cannot be killed: the kernel holds it
            return 128 + signal.SIGKILL
        return status if status >= 0 else 128 - status  # as a shell has it

    def _end(self, number: signal.Signals) -> None:
        """A signal to its process group, and time for what that does."""
        deadline = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def say(text: str) -> None:
    """A line in its log, if the disk takes it."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode())


def work(run: Run, script: Script) -> int:
    """Run it to its end; its status."""
    try:
        for line in own_packages.share():  # any script may start processes on other nodes
            say(line.lstrip("!"))
    except OSError as exc:
        say(f"packages may differ between the nodes: {exc}")
    if script.stopped:
        return 128 + signal.SIGTERM
    try:
        script.start()
        return script.wait()
    except Exception as exc:  # whatever it is, what is to follow has to come
        say(f"{run.script} cannot be run: {exc}")
        return 127


def follow(run: Run, *, end: bool = True) -> None:
    """Store its results, write down how it ended, and do what is to follow.

    Who waits for its end then knows where its results are. The cluster's end comes when this process has gone.
    """
    trouble = store(run) if not run.fetched else ""
    fetched = run.fetched or bool(run.store and not trouble)
    run = noted(run, ended=run.ended, status=run.status, stopped=run.stopped, fetched=fetched)
    unsafe = run.discard and run.store and not run.fetched  # without discard it is parked
    end = end and run.then != "nothing" and not run.stopped and not unsafe
    stored = bool(run.store and run.fetched) and run.then == "terminate" and run.status == 0
    state = run.state if run.state != "failed" else f"failed with status {run.status}"
    how: dict[str, Any] = {"notify": run.notify, "folder": run.folder, "trouble": trouble}
    troubles = aftermath.follow(job=run.job, status=state, end=end, stored=stored, **how)
    noted(run, followed=True, troubles=[*([trouble] if trouble else []), *troubles])
    if end:
        with contextlib.suppress(OSError):
            ask(f"end {run.job}")  # the watchdog looks at once


def noted(run: Run, **values: Any) -> Run:
    """The run with that changed; on the disk too, if that takes it."""
    try:
        return run.change(**values)
    except (OSError, ValueError):
        return replace(run, **values)


def main(*arguments: str) -> None:
    """Run it, and do what follows."""
    *options, name = arguments
    run = load(name)
    if "--lost" in options:
        LoneR(r_folder(run), ends=True).forget()
        return follow(run, end="--end" in options)
    script = Script(run)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, script.stop)
    run = noted(run, pid=os.getpid())
    status = work(run, script)
    return follow(replace(run, ended=time.time(), status=status, stopped=script.stopped))


if __name__ == "__main__":
    main(*sys.argv[1:])
