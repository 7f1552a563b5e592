"""One rank of a team: Python or R with its variables, which runs one cell after the other; mpirun starts it.

    team_rank LANGUAGE SOCKET

Two processes. The child is the rank. The parent hands the ends of the rank's pipes to its node's relay (relay.py),
waits for the child, and tells how it ended. The loop uses no MPI: that is the cell's, so a rank that waits for a cell
takes no processor time, and one that fails cannot hang it. Standard library; R's loop is rank.R,
a map's map_rank.py.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cells.python_cell import cells_module, execute
from . import plain
from .frames import HEAD, Kind, pack
from .own_modules import OwnModules
from .values import dump, load

if TYPE_CHECKING:
    from .map_rank import MapRank

CONNECT_SECONDS = 30.0
# mpirun ends the other ranks as soon as one has: its own end is to be told of before.
LAST_WORDS_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
# Where a rank of R finds its pipes (rank.R).
REQUESTS, ANSWERS = 3, 4


def main() -> None:
    """Fork: the child is the rank, the parent tells of it."""
    language, where = sys.argv[1:3]
    rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
    requests, answers, out, err = (os.pipe() for _ in range(4))
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out[1], 1)
        os.dup2(err[1], 2)
        {"r": _be_r, "python": _be_python, "map": _be_map}[language](rank, requests[0], answers[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _connected(where) as relay:
        ends = [requests[1], answers[0], out[0], err[0]]
        socket.send_fds(relay, [HEAD.pack(rank, Kind.HERE, child)], ends)
        for each in (*requests, *answers, *out, *err):
            os.close(each)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        words = f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        relay.sendall(words.encode())
    time.sleep(LAST_WORDS_SECONDS)
    os._exit(0 if status == 0 else 1)


def _connected(where: str) -> socket.socket:
    """To the node's relay, which may start later than we do."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        relay = socket.socket(socket.AF_UNIX)
        try:
            relay.connect(where)
            return relay
        except OSError:
            relay.close()
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _be_r(rank: int, requests: int, answers: int) -> None:
    # Copies are inherited, and are in nobody's way.
    for end, at in ((os.dup(requests), REQUESTS), (os.dup(answers), ANSWERS)):
        os.dup2(end, at)
    os.closerange(ANSWERS + 1, 64)
    loop = Path(__file__).with_name("rank.R")
    os.execlp("R", "R", "--no-echo", "--no-save", "--no-restore", "-f", str(loop), "--args", str(rank))  # noqa: S606


def _be_python(rank: int, requests: int, answers: int) -> None:
    module = cells_module()
    _serve(PythonRank(module, lambda kind, body: _write(answers, pack(rank, kind, body))), requests)


def _be_map(rank: int, requests: int, answers: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # till MapRank can take it
    from .map_rank import MapRank

    cells_module()
    _serve(MapRank(lambda kind, body: _write(answers, pack(rank, kind, body))), requests)


def _serve(rank: PythonRank | MapRank, requests: int) -> None:
    sys.argv = [""]
    ours = str(__package__).split(".")[0]
    for name in [name for name in sys.modules if name.split(".")[0] == ours]:
        del sys.modules[name]
    with open(requests, "rb") as file:
        while len(head := file.read(HEAD.size)) == HEAD.size:
            _, kind, size = HEAD.unpack(head)
            body = file.read(int(size))
            if kind == Kind.VALUE and isinstance(rank, PythonRank):
                rank.take(body)
            else:
                rank.run(body)
    sys.exit(0)  # mpi4py finalises MPI


def _write(end: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(end, view) :]


class PythonRank:
    """Runs cells in one module; an interrupt is a KeyboardInterrupt of the cell's, and nothing between cells."""

    def __init__(self, module: types.ModuleType, tell: Callable[[Kind, bytes], None]) -> None:
        self._module = module
        self._modules = OwnModules()
        self._tell = tell
        self._cells = 0
        self._untaken = ""
        self._running = False
        signal.signal(signal.SIGINT, self._interrupt)

    def take(self, value: bytes) -> None:
        """A variable of the R session's, for the next cell."""
        name, _, data = value.partition(b"\0")
        try:
            self._module.__dict__[name.decode()] = plain.load(data)
        except Exception as exc:  # numpy or pandas may be missing
            self._untaken = f"{name.decode()} of R's session cannot be had here: {exc}"

    def run(self, request: bytes) -> None:
        """A cell: its inputs, its code, its outputs."""
        failure, answer = self._performed(request)
        self._untaken = ""
        sys.stdout.flush()
        sys.stderr.flush()
        if failure is None:
            self._tell(Kind.DONE, answer)
        else:
            self._tell(Kind.FAILED, failure.encode(errors="replace"))

    def _performed(self, request: bytes) -> tuple[str | None, bytes]:
        self._cells += 1
        names: dict[str, Any] = self._module.__dict__
        try:
            cell = load(request)
            names.update({name: load(value) for name, value in cell["inputs"].items()})
        except Exception as exc:  # whatever a class of the user's raises
            return f"its inputs cannot be read here: {exc!r}", b""
        if self._untaken:
            return self._untaken, b""
        if (changed := self._modules.changed()) and os.environ["OMPI_COMM_WORLD_RANK"] == "0":
            named = ", ".join(sorted(changed))
            said = (
                f"{named}: changed since these ranks imported it; %%remote_py --fresh has new ones import it"
            )
            print(said, file=sys.stderr)  # noqa: T201
        try:
            self._running = True
            failure = execute(cell["code"], module=self._module, name=f"<cell {self._cells}>")
            self._running = False
        except KeyboardInterrupt:  # at the very end
            self._running = False
            failure = "KeyboardInterrupt"
        if failure is not None:
            return failure, b""
        names = self._module.__dict__
        for name in (*cell["to_r"], *cell["outputs"]):
            if name not in names:
                return f"NameError: there is no variable {name!r} to bring back", b""
        for name in cell["to_r"]:
            try:
                self._tell(Kind.VALUE, name.encode() + b"\0" + plain.dump(names[name]))
            except Exception as exc:  # whatever a class of the user's raises
                return (
                    f"{name} cannot go to R's session: {exc}; bring it back with -o, and %remote_push it",
                    b"",
                )
        return self._outputs(cell["outputs"])

    def _outputs(self, wanted: list[str]) -> tuple[str | None, bytes]:
        found = {}
        for name in wanted:
            try:
                found[name] = dump(self._module.__dict__[name])
            except Exception as exc:  # whatever a class of the user's raises
                return f"{name} cannot be brought back: {exc!r}", b""
        return None, dump(found)

    def _interrupt(self, number: int, frame: object) -> None:
        if self._running:
            self._tell(Kind.STOPPED, b"")
            raise KeyboardInterrupt


if __name__ == "__main__":
    main()
