"""Scripts that go on without a client, for a class that knows its connection: started, found again.

Says which files go where; ``remote.runs`` and node/runs.py do the rest.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import person
from .errors import PpeError, UsageError
from .files import Files
from .remote import runs
from .remote.runs import Run, Then
from .remote.s3 import is_s3

__all__ = ["Run", "Runs", "Then"]

KINDS = (".r", ".py", ".sh")


class Runs(Files):
    """``run`` and ``runs``."""

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
        for each in self.runs():
            if each.known_state == "running" and (discard or each.discard):
                raise UsageError(
                    f"{each.name} would be lost with the cluster: discard nothing, or stop it first"
                    if discard
                    else f"{each.name} terminates the cluster when it ends, with all there is then: wait, or stop it"
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
        ``park``, or ``terminate`` if you ``discard`` what was not fetched: else that parks it too, as only who has
        fetched may ``Cluster.terminate`` (``ppe run`` does). To discard holds for its limits as well, from now on.
        ``notify`` are commands for the master's shell, or topics of SNS (``Job.follow_up``). ``own``: it was
        launched for this. Raises UsageError, TransferFailed, SshError.
        """
        path = script_of(script, ranks=ranks)
        if discard and then != "terminate":
            raise UsageError("to discard is for a cluster that is to be terminated")
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
