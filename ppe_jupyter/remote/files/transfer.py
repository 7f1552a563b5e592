"""Files and folders between this machine and a node: whole, checked, and gone on with after a cut.

Both ends run node/files/exchange.py, here over an SSH channel. Another node than the master is reached through it, and
what goes to all nodes crosses the line to the master once. Many small files are one stream, in which none waits for
another. Knows nothing of clusters, EC2 or notebooks.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import ConnectionLost, RemoteInterrupted, TransferFailed
from ...node.files import exchange
from ...node.files.arrivals import Arrivals, Unreceivable, size_text
from ...node.files.exchange import Line, LineLost, OnProgress, Refused, Tally
from ...node.files.listing import Entry, Unsendable, entries, expanded
from ...node.files.transfer import HERE
from ...node.wire.protocol import MAIN, Kind, ProtocolError
from ...ssh import Channel, Connection
from ..sessions.session import AGENT

__all__ = ["OnProgress", "Tally", "Transferred", "download", "size_text", "upload", "working_folder"]

# The node says something every 5 s.
SILENCE_SECONDS = 30.0
MOST_NAMED = 5
AGAIN = "what is whole is there; do the same again to go on"


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """What a transfer did. ``bytes`` crossed the line, of ``total``: the rest was there already. ``left_out``: what
    is no file, or a link out of its folder. ``base`` is the folder that it went to."""

    files: int
    bytes: int
    total: int
    seconds: float
    left_out: tuple[str, ...]
    base: str

    def __str__(self) -> str:
        number = f"{self.files} file{'' if self.files == 1 else 's'}"
        rate = f", {size_text(self.bytes / self.seconds)}/s" if self.seconds > 1 else ""
        there = (
            f"; {size_text(self.total - self.bytes)} were there already" if self.bytes < self.total else ""
        )
        return f"{number}, {size_text(self.total)} in {self.seconds:.1f} s{rate}{there}"


def upload(
    connection: Connection,
    sources: Sequence[str],
    to: str = ".",
    *,
    via: str | None = None,
    nodes: Sequence[str] = (),
    folder: str | None = None,
    session: str = MAIN,
    on_progress: OnProgress = lambda tally: None,
) -> Transferred:
    """Send files and folders of this machine, ``*``, ``?``, ``[…]`` and ``~`` expanded.

    ``to`` is a folder, or the new name of a sole source; relative to where that R session is (or to ``folder``).
    ``via`` is the private address of another node than the master; to ``nodes`` the master passes it on. Raises
    TransferFailed, RemoteInterrupted, ConnectionLost; nothing half-written has a file's name, and a repetition goes on.
    """
    began = time.monotonic()
    with _understood(connection):
        offered, odd = entries(expanded(sources))
        tops = len({entry.path.split("/")[0] for entry in offered})
        told = {"dest": to, "sources": tops, "nodes": list(nodes), "folder": folder, "session": session}
        with _line(connection, via) as line:
            report = exchange.send(line, offered, told, on_progress)
    return _transferred(report, offered, odd, began)


def download(
    connection: Connection,
    sources: Sequence[str],
    to: str = ".",
    *,
    via: str | None = None,
    folder: str | None = None,
    session: str = MAIN,
    on_progress: OnProgress = lambda tally: None,
) -> Transferred:
    """Fetch files and folders; relative ones from where that R session is (or ``folder``), patterns expanded there.

    ``to`` is a folder here, or the new name of a sole source. Else as ``upload``.
    """
    began = time.monotonic()
    with _understood(connection), _line(connection, via) as line:
        line.tell(Kind.FETCH, {"sources": list(sources), "folder": folder, "session": session})
        task = line.wait(Kind.MANIFEST)
        offered = exchange.parsed(task["entries"])
        arrivals = Arrivals(to, offered, rename=task["sources"] == 1)
        report = exchange.receive(line, arrivals, on_progress)
        line.tell(Kind.DONE, report)
    return _transferred(report, offered, task["odd"], began)


def working_folder(connection: Connection, session: str = MAIN) -> str:
    """Where that R session is, whatever it does; the home folder if there is no R. Raises TransferFailed."""
    said = connection.run(f"{AGENT} where {shlex.quote(session)}", check=False).stdout
    told = json.loads(said or b"{}")
    if "error" in told:
        raise TransferFailed(told["error"])
    return str(told.get("folder") or "~")


def _transferred(
    report: Mapping[str, Any], offered: Sequence[Entry], odd: Sequence[str], began: float
) -> Transferred:
    total = sum(entry.size for entry in offered)
    files = sum(entry.kind == "file" for entry in offered)
    return concluded(report, files=files, total=total, odd=odd, began=began)


def concluded(
    report: Mapping[str, Any], *, files: int, total: int, odd: Sequence[str], began: float
) -> Transferred:
    """What was done. Raises TransferFailed for what was not."""
    problems = {
        **report["failures"],
        **{f"node {node}": why for node, why in report.get("nodes", {}).items()},
    }
    if problems:
        named = "; ".join(f"{what}: {why}" for what, why in list(problems.items())[:MOST_NAMED])
        more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        said = printable(f"{named}{more} (into {report['base']}); {AGAIN}")
        raise TransferFailed(said, failures=problems)
    return Transferred(
        files=files,
        bytes=report["bytes"],
        total=total,
        seconds=time.monotonic() - began,
        left_out=tuple(map(printable, (*odd, *report["left_out"]))),
        base=printable(report["base"]),
    )


def printable(text: str) -> str:
    """A text with names in it: a name may have bytes that are no characters."""
    return text.encode(errors="backslashreplace").decode()


@contextmanager
def _understood(connection: Connection) -> Iterator[None]:
    """What goes wrong, as errors of ours."""
    try:
        yield
    except (Unsendable, Unreceivable, Refused) as exc:
        raise TransferFailed(printable(str(exc))) from exc
    except ProtocolError as exc:
        raise TransferFailed(f"{connection.target.host} answers what is no file transfer: {exc}") from exc
    except LineLost as exc:
        if not connection.alive:
            raise ConnectionLost(
                f"the connection to {connection.target.host} was cut; {AGAIN}", host=connection.target.host
            ) from exc
        raise TransferFailed(f"{connection.target.host} let go of the line: {exc}") from exc
    except KeyboardInterrupt:
        raise RemoteInterrupted(f"interrupted; {AGAIN}") from None


@contextmanager
def _line(connection: Connection, via: str | None) -> Iterator[Line]:
    """The line to a node that runs files.py; LineLost says what that had to say."""
    command = HERE if via is None else shlex.join(["ssh", "-o", "BatchMode=yes", via, HERE])
    with connection.popen(command) as channel, _Watched(connection, channel) as watched:
        line = Line(watched.recv, watched.send)
        try:
            yield line
        except LineLost as exc:
            if not connection.alive:
                raise
            said = b"".join(iter(channel.recv_stderr, b"")).decode(errors="replace").strip()
            raise LineLost(said.splitlines()[-1] if said else str(exc) or "it said nothing") from exc


class _Watched:
    """A channel whose silence, while something is waited for, is a cut line."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self._connection = connection
        self._channel = channel
        self._waiting_since: float | None = None
        self._ended = threading.Event()

    def recv(self) -> bytes:
        self._waiting_since = time.monotonic()
        try:
            return self._channel.recv()
        except ConnectionLost as exc:
            raise LineLost from exc
        finally:
            self._waiting_since = None

    def send(self, data: exchange.Bytes) -> None:
        try:
            self._channel.send_all(memoryview(data))
        except ConnectionLost as exc:
            raise LineLost from exc

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > SILENCE_SECONDS:
                self._connection.close()
                return

    def __enter__(self) -> _Watched:
        threading.Thread(target=self._watch, daemon=True, name="ppe transfer").start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
