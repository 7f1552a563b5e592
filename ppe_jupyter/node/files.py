"""Files over a line: one end sends, the other receives; the client and this module, run on a node, are either.

The sender offers its entries (MANIFEST); the receiver says what it has already (PLAN); then the files' blocks come
(DATA, then END with the file's SHA-256, or LOST), and both say DONE. A node says PROGRESS every few seconds, so that
a silent line is a cut one. Run as ``python3 -m node.files`` in ~/.ppe, it begins with the client's first frame: FETCH,
or the MANIFEST of what comes. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from .arrivals import Arrivals, Unreceivable
from .listing import Entry, Unsendable, entries, expanded
from .protocol import Body, FrameReader, Header, Kind, frame, header, parse_json

Bytes = Union[bytes, bytearray, memoryview]  # noqa: UP007  # Python 3.9 on nodes
HERE = "cd ~/.ppe && exec python3 -m node.files"
BLOCK = 2**18
# Small frames are sent together: each packet costs as much as 10 kB.
JOINED = 2**16
BEAT_SECONDS = 5.0
MOST_AT_ONCE = 16


class LineLost(Exception):
    """The other end is gone."""


class Refused(Exception):
    """The other end says why it does not go on."""


@dataclass
class Tally:
    """How far a transfer is. ``kept``: bytes that the receiver had already; ``phase``: words, or "" for the files."""

    files: int = 0
    bytes: int = 0
    done: int = 0
    kept: int = 0
    phase: str = ""


OnProgress = Callable[[Tally], None]


class Line:
    """Frames over a function that receives bytes (b"" at the end) and one that sends all of some."""

    def __init__(self, recv: Callable[[], bytes], send: Callable[[Bytes], object]) -> None:
        self._recv = recv
        self._send = send
        self._reader = FrameReader(preamble=True)
        self._waiting = bytearray()
        self._lock = threading.Lock()

    def put(self, kind: Kind, body: Bytes = b"", *, id: int = 0, seq: int = 0) -> None:
        """Send a frame, perhaps together with the next ones."""
        with self._lock:
            self._waiting += header(kind, len(body), id=id, seq=seq)
            self._waiting += body
            if len(self._waiting) >= JOINED:
                self._flush()

    def tell(self, kind: Kind, body: Mapping[str, Any] | None = None) -> None:
        """Send a frame of JSON now."""
        with self._lock:
            self._waiting += frame(kind, json.dumps(body or {}).encode())  # ASCII: names need not be UTF-8
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        self._send(waiting)

    def next(self) -> Header | Body:
        """The next event. Raises LineLost, ProtocolError."""
        while (event := self._reader.next()) is None:
            data = self._recv()
            if not data:
                raise LineLost(self._reader.skipped.decode(errors="replace"))
            self._reader.feed(data)
        return event

    def body(self, head: Header) -> bytes:
        """The whole body of the frame that ``next`` has just begun."""
        data = bytearray()
        while len(data) < head.size:
            piece = self.next()
            assert isinstance(piece, Body)
            data += piece.data
        return bytes(data)

    def wait(self, *kinds: Kind, on_progress: Callable[[dict[str, Any]], None] = lambda told: None) -> Any:
        """The JSON of the next frame of these kinds. Raises Refused, LineLost."""
        while True:
            head = self.next()
            assert isinstance(head, Header)
            body = self.body(head)
            if head.kind is Kind.FAILED:
                raise Refused(parse_json(body)["message"])
            if head.kind in kinds:
                return {"kind": head.kind, **parse_json(body)}
            if head.kind is Kind.PROGRESS:
                on_progress(parse_json(body))


def send(
    line: Line,
    offered: Sequence[Entry],
    told: Mapping[str, Any],
    on_progress: OnProgress = lambda tally: None,
) -> dict[str, Any]:
    """Offer the entries, send those that the other end lacks, and return its report. Raises Refused, LineLost."""
    line.tell(Kind.MANIFEST, {**told, "entries": [entry.row() for entry in offered]})
    plan = line.wait(Kind.PLAN)
    tally = Tally(sum(entry.kind == "file" for entry in offered), sum(entry.size for entry in offered))
    have, failed = set(plan["have"]), plan["failures"]
    tally.done = tally.kept = sum(offered[index].size for index in have)
    answer = _Answer(line, lambda told: _tell(on_progress, tally, **told))
    try:
        for index, entry in enumerate(offered):
            if answer.is_there:
                break
            if entry.kind == "file" and index not in have and entry.path not in failed:
                begun, digest = plan["begun"].get(str(index), (0, ""))
                _send_file(line, index, entry, begun, digest, tally, on_progress, answer)
        line.tell(Kind.DONE)
    except (OSError, LineLost):
        answer.get()  # it may say why it has gone
        raise
    return answer.get()


def _tell(on_progress: OnProgress, tally: Tally, phase: str = "") -> None:
    tally.phase = phase
    on_progress(tally)


class _Answer:
    """What the receiver says while it is being sent to; read in a thread."""

    def __init__(self, line: Line, on_progress: Callable[[dict[str, Any]], None]) -> None:
        self._line = line
        self._on_progress = on_progress
        self._report: dict[str, Any] = {}
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="ppe files")
        self._thread.start()

    def _read(self) -> None:
        try:
            self._report = self._line.wait(Kind.DONE, on_progress=self._on_progress)
        except Exception as exc:  # raised where the report is wanted
            self._error = exc

    @property
    def is_there(self) -> bool:
        return not self._thread.is_alive()

    def get(self) -> dict[str, Any]:
        while self._thread.is_alive():
            self._thread.join(0.2)  # not for ever: the stop button is heard between
        if self._error is not None:
            raise self._error
        return self._report


def _send_file(
    line: Line,
    index: int,
    entry: Entry,
    begun: int,
    known: str,
    tally: Tally,
    on_progress: OnProgress,
    answer: _Answer,
) -> None:
    """One file, after its first ``begun`` bytes if their SHA-256 is ``known``."""
    try:
        with Path(entry.source).open("rb", buffering=0) as file:
            digest, at = _digest_of(file, begun), begun
            if begun and digest.hexdigest() != known:
                file.seek(0)
                digest, at = hashlib.sha256(), 0
            tally.done += at
            tally.kept += at
            while not answer.is_there and (block := file.read(min(BLOCK, entry.size - at))):
                digest.update(block)
                line.put(Kind.DATA, block, id=index, seq=at)
                at += len(block)
                tally.done += len(block)
                on_progress(tally)
            about = os.fstat(file.fileno())
            if (about.st_size, about.st_mtime_ns) != (entry.size, entry.mtime):
                line.put(Kind.LOST, b"it was changed while it was sent", id=index)
            elif at == entry.size:
                line.put(Kind.END, digest.digest(), id=index)
    except PermissionError as exc:
        line.put(Kind.LOST, str(exc.strerror).encode(), id=index)
    except FileNotFoundError:
        line.put(Kind.LOST, b"it was removed before it was sent", id=index)


def _digest_of(file: Any, size: int) -> Any:
    digest = hashlib.sha256()
    while size and (block := file.read(min(2**20, size))):
        digest.update(block)
        size -= len(block)
    return digest


def receive(line: Line, arrivals: Arrivals, on_progress: OnProgress = lambda tally: None) -> dict[str, Any]:
    """Take what is offered, and return the report. Raises Unreceivable, LineLost; parts stay to be gone on with."""
    plan = arrivals.plan()
    offered = arrivals.entries
    tally = Tally(sum(entry.kind == "file" for entry in offered), sum(entry.size for entry in offered))
    tally.done = tally.kept = sum(offered[index].size for index in plan["have"])
    line.tell(Kind.PLAN, plan)
    begun: set[int] = set()
    try:
        while True:
            head = line.next()
            assert isinstance(head, Header)
            if head.kind is Kind.DATA:
                if head.id not in begun:
                    begun.add(head.id)
                    tally.done += head.seq
                    tally.kept += head.seq
                _take(line, head, arrivals)
                tally.done += head.size
                on_progress(tally)
            else:
                body = line.body(head)
                if head.kind is Kind.END:
                    arrivals.end(head.id, body)
                elif head.kind is Kind.LOST:
                    arrivals.fail(head.id, body.decode(errors="replace"))
                elif head.kind is Kind.FAILED:
                    raise Refused(parse_json(body)["message"])
                elif head.kind is Kind.DONE:
                    return {**arrivals.finish(), "bytes": tally.done - tally.kept}
    finally:
        arrivals.leave()


def _take(line: Line, head: Header, arrivals: Arrivals) -> None:
    at, left = head.seq, head.size
    while left:
        piece = line.next()
        assert isinstance(piece, Body)
        arrivals.write(head.id, at, piece.data)
        at, left = at + len(piece.data), piece.left


def parsed(rows: Sequence[Sequence[Any]]) -> list[Entry]:
    """The entries of a MANIFEST."""
    return [Entry(*row) for row in rows]


# -- on a node ------------------------------------------------------------------------------------------


def main() -> int:
    """Do what the client's first frame says; an exit status."""
    line = Line(lambda: os.read(0, 2**20), lambda data: _write_all(1, data))
    done = threading.Event()
    threading.Thread(target=_beat, args=(line, done), daemon=True).start()
    try:
        task = line.wait(Kind.FETCH, Kind.MANIFEST)
        (_fetched if task["kind"] is Kind.FETCH else _received)(line, task)
    except (Unsendable, Unreceivable, Refused) as exc:
        done.set()
        line.tell(Kind.FAILED, {"message": str(exc)})
        return 1
    except (LineLost, OSError):
        return 1
    return 0


def _write_all(descriptor: int, data: Bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _beat(line: Line, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        try:
            line.tell(Kind.PROGRESS)
        except OSError:
            return


def _below(told: Mapping[str, Any], path: str) -> str:
    """A path of the client's: relative ones begin where R is, or where it says."""
    from .agent import ask  # asyncio takes time to import

    if path[:1] not in ("/", "~"):
        path = f"{told.get('folder') or ask('where').get('folder', '~')}/{path}"
    return path


def _fetched(line: Line, task: Mapping[str, Any]) -> None:
    """Send what the client asks for."""
    offered, odd = entries(expanded([_below(task, source) for source in task["sources"]]))
    send(line, offered, {"odd": odd, "sources": len({entry.path.split("/")[0] for entry in offered})})


def _received(line: Line, task: Mapping[str, Any]) -> None:
    """Take what the client sends, and pass it on to the nodes that it names."""
    arrivals = Arrivals(
        _below(task, task["dest"]), parsed(task["entries"]), rename=task["sources"] == 1, end_stale=True
    )
    report = receive(line, arrivals)
    if task.get("nodes"):
        report["nodes"] = _pass_on(line, report["base"], arrivals, task["nodes"])
    line.tell(Kind.DONE, report)


def _pass_on(line: Line, base: str, arrivals: Arrivals, nodes: Sequence[str]) -> dict[str, str]:
    """Send what has come to other nodes, all at once; why it failed, by node."""
    offered = arrivals.arrived()
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        pending = {pool.submit(_pass_to, node, base, offered): node for node in nodes}
        line.tell(Kind.PROGRESS, {"phase": f"passing it on to {len(nodes)} nodes"})
        for future in as_completed(pending):
            if why := future.result():
                failed[pending[future]] = why
    return failed


def _pass_to(node: str, base: str, offered: Sequence[Entry]) -> str:
    """Send to one node; "" or why it failed."""
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=10", node, HERE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ssh:
        assert ssh.stdin and ssh.stdout and ssh.stderr
        out, into = ssh.stdout.fileno(), ssh.stdin.fileno()
        line = Line(lambda: os.read(out, 2**20), lambda data: _write_all(into, data))
        try:
            report = send(line, offered, {"dest": base, "sources": 2})
            failures: dict[str, str] = report["failures"]
            return "; ".join(f"{path}: {why}" for path, why in list(failures.items())[:3])
        except Refused as exc:
            return str(exc)
        except (LineLost, OSError):
            ssh.kill()
            said = ssh.stderr.read().decode(errors="replace").strip()
            return said.splitlines()[-1] if said else "the line to it was cut"


if __name__ == "__main__":
    sys.exit(main())
