"""Scripts that go on without a client, for a class that knows its connection: started, found again, concluded.

Says which files go where, and whether a cluster may end with its run; ``remote.runs`` and node/runs/ do the rest.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from . import person
from .errors import PpeError, UsageError
from .files import Files
from .remote import runs
from .remote.files.s3 import is_s3
from .remote.runs import Run, Then
from .remote.sessions.watchdog import Losses, agent_status

__all__ = ["Conclusion", "Run", "Runs", "Then"]

KINDS = (".r", ".py", ".sh")
# What has computed is said to compute for a minute more (node/lifetime/activity.py), the script too; and a watcher
# whose line was cut is one for a minute more.
COMPUTING, COOLING_SECONDS = "processes ", 75.0
LOOK_SECONDS = 7.5


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What becomes of a cluster after a run: it ``stays``; it ``parks`` or ``terminates`` itself, once nothing else
    works there; or it is ``terminated`` by now.

    ``why`` it parks though it was to be terminated; ``lost`` is what would have been lost besides, if that is why.
    """

    fate: Literal["stays", "parks", "terminates", "terminated"]
    why: str = ""
    lost: Losses | None = None


class Runs(Files):
    """``run``, ``runs`` and ``conclude``."""

    @property
    def mine(self) -> bool:
        """Whether this user launched the cluster."""
        raise NotImplementedError

    def losses(self) -> Losses:
        """What would be lost if it ended now."""
        raise NotImplementedError

    def terminate(self) -> None:
        """End the cluster and remove all that was made for it."""
        raise NotImplementedError

    def prepare_end(self, then: Then, *, discard: bool = False) -> bool:
        """Have the master do that when it shuts itself down; whether that is another thing than before."""
        raise NotImplementedError

    @contextlib.contextmanager
    def ending(self, then: Then, *, discard: bool = False) -> Iterator[None]:
        """Prepare that end for what begins within; if it does not, nothing is terminated that would have been kept."""
        changed = self.prepare_end(then, discard=discard)
        try:
            yield
        except BaseException:
            if changed and discard:
                with contextlib.suppress(PpeError, TimeoutError):
                    self.prepare_end("park")
            raise

    def check_end(self, *, discard: bool) -> None:
        """Raise UsageError for what would be lost with another's end: a run that goes on, or what is to begin."""
        running = [each for each in self.runs() if each.known_state == "running"]
        if discard and running:
            raise UsageError(
                f"{running[0].name} would be lost with the cluster: discard nothing, or stop it first"
            )
        ending = [each.name for each in running if each.discard]
        for session in () if discard else agent_status(self.ssh()).get("sessions", ()):
            ending += [f"a job of the R session {session['name']}"] if session.get("discards") else []
        if ending:
            raise UsageError(
                f"{ending[0]} terminates the cluster when it ends, with all there is then: wait, or stop it"
            )

    def run(
        self,
        script: str | Path,
        *arguments: str,
        files: Sequence[str | Path] = (),
        ranks: int | None = None,
        fetch: Sequence[str] = (),
        store: str = "",
        then: Then = "nothing",
        discard: bool = False,
        notify: Sequence[str] = (),
        own: bool = False,
    ) -> Run:
        """Start a script (.R, .py or .sh) on the master, in a folder of its own, and let it go.

        ``files`` are sent beside it, patterns expanded. R reaches every slot through Rmpi and ppe.lapply; ``ranks``
        runs R or Python as an MPI program (-1: on all slots). ``fetch`` are patterns in its folder: its results, which
        the master itself takes to ``store`` (s3://bucket/folder/), as its instance profile allows.
        ``then`` is what becomes of the cluster when the script has ended and nothing else works, without a client:
        ``park``, or ``terminate`` if all is in the ``store`` and nothing else would be lost, or if you ``discard`` what
        was not fetched: else that parks it too, as only who has fetched may terminate it (``conclude``). To discard
        holds for its limits as well, from now on.
        ``notify`` are commands for the master's shell, or topics of SNS (``Job.follow_up``). ``own``: it was
        launched for this. Raises UsageError, TransferFailed, SshError.
        """
        path = script_of(script, ranks=ranks)
        check_discard(then, discard=discard)
        if store and not is_s3(store):
            raise UsageError(f"{store} is not s3://bucket/folder/")
        self.check_end(discard=discard)
        made = runs.tell(self.ssh(), "make", {"script": path.name})
        self.upload(path, *files, to=f"{made['folder']}/", all_nodes=ranks is not None)
        task = {
            "script": path.name, "arguments": list(arguments), "ranks": ranks, "fetch": list(fetch), "then": then,
            "store": store, "region": self._region(),
            "discard": discard, "own": own, "notify": list(notify), "client": person.client(),
        }  # fmt: skip
        with self.ending(then, discard=discard):  # last: until here it may fail
            return Run(self.ssh, runs.tell(self.ssh(), f"start {shlex.quote(made['name'])}", task))

    def runs(self) -> list[Run]:
        """Every run there, whoever started it, the oldest first."""
        return runs.runs(self.ssh)

    def find_run(self, name: str) -> Run:
        """The run of that name. Raises UsageError."""
        return runs.find(self.ssh, name)

    def concludes(self, run: Run) -> bool:
        """Whether the run's results and its cluster's end are this user's: who started it, from whatever machine."""
        if run.client == person.client():
            return True
        return self.mine and (run.own or run.user == person.os_user())

    def conclude(self, run: Run, *, missing: Sequence[str] = ()) -> Conclusion:
        """Terminate the cluster, if that was to follow the run, and nothing is lost by it; else what becomes of it.

        For ``Run.watch``'s ``at_end``, once the results are fetched; ``missing`` is what ``Run.fetch`` did not find.
        Who did not start the run terminates nothing. Raises SshError, RemoteError, CloudError.
        """
        if not run.wait_for_sequel().ends_cluster:
            return Conclusion(fate="stays")
        if run.then != "terminate" or run.discard:
            return Conclusion(fate="terminates" if run.then == "terminate" else "parks")
        if not self.concludes(run):
            if run.store and run.fetched:
                return Conclusion(fate="terminates")
            return Conclusion(fate="parks", why=f"that is for {run.client}, who has started {run.name}")
        if run.state != "done":
            return Conclusion(
                fate="parks", why=f"{run.script} {'has' if run.state == 'failed' else 'is'} {run.state}"
            )
        if missing:
            return Conclusion(fate="parks", why="results are missing")
        try:
            lost = self._lost_besides(run)
        except (PpeError, TimeoutError) as error:
            return Conclusion(fate="parks", why=f"it cannot be asked what it holds: {error}")
        if lost.any:
            return Conclusion(fate="parks", why="more would be lost with it", lost=lost)
        self.terminate()
        return Conclusion(fate="terminated")

    def _lost_besides(self, run: Run) -> Losses:
        """What would be lost besides the run's; on a cluster that was launched for it only other runs have files."""
        deadline = time.monotonic() + COOLING_SECONDS
        while True:
            lost = self.losses()
            jobs = others(run, lost.jobs)
            passing = [each for each in jobs if each.startswith(COMPUTING) or each == run.watcher]
            if not passing or time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
        # A run's folder is worth what was fetched of it.
        kept = tuple(f"runs/{each.name}/" for each in self.runs() if each.fetched or each.name == run.name)
        files = tuple(each for each in lost.files if not each[0].startswith(kept))
        lost = replace(lost, jobs=tuple(jobs), files=files)
        if not run.own:
            return lost
        files = tuple(each for each in files if each[0].startswith("runs/"))
        return replace(lost, files=files, more_files=0, more_bytes=0)


def others(run: Run, jobs: Sequence[str]) -> list[str]:
    """What works there besides the run and this client, who watches it."""
    watchers = [each for each in jobs if each == run.watcher]
    rest = [each for each in jobs if each not in (run.watcher, f"the run {run.name}")]
    return [each for each in rest if not (run.own and each.startswith(COMPUTING))] + watchers[1:]


def check_discard(then: Then | None, *, discard: bool) -> None:
    """Raise UsageError if nothing is to be terminated."""
    if discard and then != "terminate":
        raise UsageError("discard is for then = terminate")


def script_of(script: str | Path, *, ranks: int | None = None) -> Path:
    """The script's file, if it can be run. Raises UsageError."""
    path = Path(script).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no script {path}")
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"{path.name}: a script ends in .R, .py or .sh")
    if ranks is not None and path.suffix.lower() == ".sh":
        raise UsageError("a shell script has no MPI ranks; it may call mpirun itself")
    return path
