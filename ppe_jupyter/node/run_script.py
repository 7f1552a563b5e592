"""Runs one script to its end, whoever watches: the supervisor of a run. Run as ``python3 -m node.run_script NAME``.

R is started as the R session is, under an mpirun of its own, so that Rmpi, snow and ppe.lapply reach every slot. What
the script prints goes to output.log in its folder, in order. When it is over, aftermath.py does what was asked for.
SIGTERM ends the script. Standard library only; must not know clients.
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
from pathlib import Path
from types import FrameType

from . import aftermath, own_packages
from .agent import HOSTFILE as SESSION_HOSTFILE
from .agent import ask
from .mpirun import mpirun_command
from .patience import PATIENCE, PRELOAD
from .run_cell import HOSTFILE, hosts
from .runs import HOME, LOG, Run, load
from .team_ranks import ONE_THREAD, SOON_ENDED

STATUS = ".status"
POLL_SECONDS = 0.1
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
    folder = HOME / ".ppe" / "runs" / run.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hostfile = SESSION_HOSTFILE if SESSION_HOSTFILE.exists() else None
    mpirun = mpirun_command(folder, hostfile)
    preload = f"PPE_SESSION=$$ LD_PRELOAD={PATIENCE} " if hostfile and PATIENCE.exists() else ""
    r = f"{preload}exec {shlex.join(['Rscript', script, *run.arguments])}"
    noted = f"sh -c {shlex.quote(r)} >>{LOG} 2>&1; echo $? >{STATUS}.new; mv {STATUS}.new {STATUS}"
    return [*mpirun, "sh", "-c", f"cd {shlex.quote(str(run.folder))}; {noted}"], {"PPE_RUN": str(folder)}


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
    found, missing = run.results()
    dest = f"{run.store.rstrip('/')}/{run.name}/"
    task = {"act": "store", "sources": found, "dest": dest, "region": run.region, "folder": str(run.folder)}
    done = subprocess.run(
        [sys.executable, "-m", "node.s3", json.dumps(task)],
        cwd=HOME / ".ppe",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    told = {}
    with contextlib.suppress(ValueError, IndexError):
        told = json.loads(done.stdout.splitlines()[-1])
    failures = told.get("done", {}).get("failures", {})
    if "done" not in told or failures:
        why = "; ".join(failures.values()) or told.get("error") or done.stderr.strip()[-300:]
        return f"the results could not be stored in {dest}: {why}"
    return f"nothing matches {', '.join(missing)}" if missing else ""


class Script:
    """The script's processes."""

    def __init__(self, run: Run) -> None:
        self.stopped = False
        self._run = run
        self._status = run.folder / STATUS
        self._log = run.folder / LOG

    def start(self) -> None:
        """Start it. Raises OSError."""
        words, more = command(self._run)
        # Around R it has mpirun's own words only, which matter if R cannot be started.
        self._words = Path(more["PPE_RUN"], "mpirun.log") if more else self._log
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
        for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[not self.stopped :]:
            self._end(signal_)
        status = self._process.returncode
        try:
            status = int(self._status.read_text())
        except (OSError, ValueError):
            if self._words != self._log:
                with self._log.open("ab") as log:
                    log.write(self._words.read_bytes())
        return status if status >= 0 else 128 - status  # as a shell has it

    def _end(self, number: signal.Signals) -> None:
        """A signal to its process group, and time for what that does."""
        deadline = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def main(name: str) -> None:
    """Run it, and do what follows."""
    run = load(name)
    script = Script(run)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, script.stop)
    run = run.change(pid=os.getpid())
    for line in own_packages.share():  # any script may start processes on other nodes
        sys.stdout.write(f"{line.lstrip('!')}\n")
    sys.stdout.flush()
    try:
        script.start()
        status = script.wait()
    except OSError as exc:
        sys.stderr.write(f"{run.script} cannot be started: {exc}\n")
        status = 127
    ended = time.time()
    trouble = store(run)
    fetched = bool(run.store) and not trouble
    run = run.change(ended=ended, status=status, stopped=script.stopped, fetched=fetched)
    state = run.state if run.state != "failed" else f"failed with status {status}"
    end = run.then != "nothing" and not script.stopped
    troubles = aftermath.follow(
        job=f"the run {name}", status=state, notify=run.notify, end=end, folder=run.folder
    )
    run.change(followed=True, troubles=[*([trouble] if trouble else []), *troubles])
    if end:
        ask("limits")  # the watchdog looks at once


if __name__ == "__main__":
    main(sys.argv[1])
