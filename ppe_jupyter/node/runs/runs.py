"""Runs: scripts that go on without a client, each in a folder of its own below ~/runs.

``python3 ~/.ppe/node runs`` and one of these:

    make          a new folder; reads {"script"}, prints {"name", "folder"}
    start NAME    start it (script.py); reads the rest of what Run has; prints its row
    list [NAME]   the rows of all, the oldest first, as one JSON list; or of that one
    watch NAME [FROM]   what it prints, from that byte on, then its row; afterwards the cluster does not end until
                  standard input ends or is silent for SILENCE_SECONDS: who watches has results to fetch
    results NAME  its folder, and which of the patterns of its results match something: found, missing
    fetched NAME  its results were fetched
    stop NAME     end it

Each prints JSON, ``watch`` a line for every piece. A row is what .run.json has, with ``state`` and ``ends_cluster``.
Standard library only; must not know how a client shows or fetches.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import glob
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import whole
from ..lifetime.aftermath import asked_end

HOME = Path.home()
RUNS = HOME / "runs"
NODE = HOME / ".ppe" / "node"
RECORD, LOG = ".run.json", "output.log"
SUPERVISOR = "run_script"
POLL_SECONDS = 0.2
SILENCE_SECONDS = 60.0
START_SECONDS = 10.0
BLOCK_BYTES = 2**16


@dataclass
class Run:
    """One run. Times in seconds since 1970; ``status`` is the script's, None before its end.

    ``ranks``: on so many MPI ranks (-1: all slots). ``fetch``: patterns of its results, ``store``: where in S3 they go
    when it is over (s3://bucket/folder/; "": a client fetches them). ``then``: what becomes of the cluster, "park",
    "terminate" or "nothing"; ``discard``: without regard to what was not fetched. ``own``: it was launched for this.
    ``followed``: what was to follow was done, or asked for; ``troubles`` say what could not be.
    """

    name: str
    script: str = ""
    arguments: list[str] = field(default_factory=list)
    ranks: int | None = None
    fetch: list[str] = field(default_factory=list)
    store: str = ""
    region: str = ""
    then: str = "nothing"
    discard: bool = False
    own: bool = False
    notify: list[str] = field(default_factory=list)
    client: str = ""
    pid: int = 0
    began: float = 0.0
    ended: float | None = None
    status: int | None = None
    stopped: bool = False
    fetched: bool = False
    followed: bool = False
    troubles: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return RUNS / self.name

    @property
    def job(self) -> str:
        """What it is called where the cluster's end is asked for."""
        return f"the run {self.name}"

    @property
    def state(self) -> str:
        """What became of it."""
        if self.ended is None:
            return "running" if _is_supervisor(self.pid, self.name) else "lost"
        return "stopped" if self.stopped else "failed" if self.status else "done"

    @property
    def ends_cluster(self) -> bool:
        """Whether the cluster is to end because of it, now or when it is over."""
        if self.then == "nothing" or self.stopped:
            return False
        asked = asked_end()
        due = not self.followed and self.state != "lost"
        return due or (asked is not None and self.job in asked.jobs)

    @property
    def abandoned(self) -> bool:
        """Whether what is to follow it never will by itself: its supervisor is gone."""
        begins = time.time() < self.began + START_SECONDS
        return not (self.followed or begins or _is_supervisor(self.pid, self.name))

    def row(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "state": self.state, "ends_cluster": self.ends_cluster}

    def results(self) -> tuple[list[str], list[str]]:
        """Patterns of its log and its results that match each path once; those that match nothing.

        They hold in its folder, which becomes this process's. Of those with one name, which would not fit into one
        folder, all are to keep their path (files/listing.py).
        """
        os.chdir(self.folder)  # Python 3.9's glob has no root
        found: list[tuple[str, set[str]]] = []
        missing: list[str] = []
        taken: set[str] = set()
        for pattern in self.fetch:
            paths = {os.path.normpath(path) for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207
            # What is in a folder comes with the folder.
            new = {path for path in paths - taken if not (taken | paths) & set(map(str, Path(path).parents))}
            found += (
                [(pattern, new)]
                if new and new == paths
                else [(glob.escape(path), {path}) for path in sorted(new)]
            )
            missing += [] if paths else [pattern]
            taken |= new
        names = Counter(Path(path).name for path in {*taken, LOG})
        several = {path for path in taken if names[Path(path).name] > 1 and path != Path(path).name}
        patterns = [] if LOG in taken else [LOG]
        for pattern, paths in found:
            kept = [f"./{glob.escape(path)}" for path in sorted(paths & several)]
            patterns += [*kept, *map(glob.escape, sorted(paths - several))] if kept else [pattern]
        return patterns, missing

    def save(self) -> None:
        """Write it, whole or not at all; where the disk is full, over the old one, whose room it has."""
        path = self.folder / RECORD
        text = json.dumps(asdict(self))
        try:
            whole.write(path, text)
        except OSError:
            with path.open("r+", encoding="ascii") as old:
                old.write(text.ljust(path.stat().st_size))

    def change(self, **values: Any) -> Run:
        """Change some of it, whatever others have written meanwhile."""
        folder = os.open(self.folder, os.O_RDONLY)  # a lock that needs no disk
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            now = load(self.name)
            for key, value in values.items():
                setattr(now, key, value)
            now.save()
        finally:
            os.close(folder)
        return now


def load(name: str) -> Run:
    """The run of that name. Raises OSError, ValueError."""
    known = {each.name for each in fields(Run)}
    told = json.loads((RUNS / name / RECORD).read_text(encoding="utf-8"))
    return Run(**{key: value for key, value in told.items() if key in known})


def every() -> list[Run]:
    """All that are known, the oldest first."""
    found = []
    for path in RUNS.glob(f"*/{RECORD}"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(load(path.parent.name))
    return sorted(found, key=lambda run: run.began)


def make(script: str) -> Run:
    """A folder for a run of a script of that name."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(script).stem).strip(".-") or "run"
    RUNS.mkdir(exist_ok=True)
    at, second = time.strftime("%Y%m%d-%H%M%S", time.gmtime()), 2
    name = f"{stem}-{at}"
    while True:
        try:
            (RUNS / name).mkdir()
            return Run(name)
        except FileExistsError:
            name, second = f"{stem}-{at}-{second}", second + 1


def start(name: str, told: dict[str, Any]) -> Run:
    """Start it, and let it go."""
    run = Run(**{**told, "name": name, "began": time.time()})
    run.save()
    with (run.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(NODE), SUPERVISOR, name],
            cwd=HOME / ".ppe",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not (now := load(name)).pid and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return now


def stop(run: Run) -> None:
    """End it; its supervisor does."""
    if run.state == "running":
        os.kill(run.pid, signal.SIGTERM)


def watch(name: str, since: int) -> None:
    """Print what it prints until it has ended; then wait until the watcher has gone."""
    log = RUNS / name / LOG
    heard = time.monotonic()
    with log.open("rb") as file:
        file.seek(since)
        while True:
            run = load(name)
            over = run.state != "running"  # asked first: what it printed last is there then
            while block := file.read(BLOCK_BYTES):
                _tell(data=base64.b64encode(block).decode(), at=file.tell())
            if over:
                break
            heard = _listen(heard, POLL_SECONDS)
    _tell(ended=run.row())
    while True:
        heard = _listen(heard, SILENCE_SECONDS)


def _listen(heard: float, seconds: float) -> float:
    """Wait for a sign of the watcher's life; when there was one last. Ends this process without."""
    if select.select([sys.stdin], [], [], seconds)[0]:
        if not os.read(sys.stdin.fileno(), 4096):
            sys.exit(0)
        return time.monotonic()
    if time.monotonic() - heard >= SILENCE_SECONDS:
        sys.exit(0)
    return heard


def _is_supervisor(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return SUPERVISOR in words and name in words
    return False


def _tell(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Do what the first argument names."""
    action, *about = arguments
    if action == "list":
        rows = [run.row() for run in every() if run.name in (about or [run.name])]
        sys.stdout.write(json.dumps(rows) + "\n")
    elif action == "make":
        run = make(json.load(sys.stdin)["script"])
        _tell(name=run.name, folder=str(run.folder))
    elif action == "start":
        _tell(**start(about[0], json.load(sys.stdin)).row())
    else:
        _act(action, *about)


def _act(action: str, name: str, since: str = "0") -> None:
    try:
        run = load(name)
    except (OSError, ValueError):
        sys.exit(f"there is no run {name!r} there")
    if action == "watch":
        watch(name, int(since))
    elif action == "results":
        found, missing = run.results()
        _tell(folder=str(run.folder), found=found, missing=missing)
    elif action == "fetched":
        _tell(**run.change(fetched=True).row())
    else:
        stop(run)
        _tell(**run.row())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1:])
