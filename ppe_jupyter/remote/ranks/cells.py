"""Python and shell cells on a cluster: what they print comes back grouped by rank or node, as it is printed.

The first rank or node that has not ended is shown as it prints; what the others print waits for its turn, so
that the order is that of the ranks and nothing waits that need not. An exception in the caller (the stop
button too) ends everything that the cell started. Knows nothing of clusters, EC2 or notebooks; the far side
is node/cells/cell.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from ...errors import RemoteCommandFailed, RemoteError, RemoteInterrupted
from ...ssh import Channel, Connection
from ..sessions.session import Output, Text

RUN_CELL = "exec python3 ~/.ppe/node run_cell"
# How often a wait looks whether its time is over.
TICK_SECONDS = 0.5
# How long the far side may take to end what a cell started.
ENDING_SECONDS = 10.0

Event = dict[str, Any]
Source = int | str | None


def run_python(
    connection: Connection,
    code: str,
    *,
    on_output: Callable[[Output], None],
    timeout: float | None = None,
) -> None:
    """Run Python on the master, for at most ``timeout`` seconds.

    Raises RemoteCommandFailed, RemoteInterrupted, ConnectionLost.
    """
    for event in _run(connection, {"kind": "python", "code": code}, on_output, timeout):
        raise _command_failed(code, event, event["error"])


def run_shell(
    connection: Connection,
    code: str,
    *,
    all_nodes: bool = False,
    on_output: Callable[[Output], None],
    timeout: float | None = None,
) -> None:
    """Run ``code`` with bash on the master, or on every node at once, for at most ``timeout`` seconds.

    Raises RemoteCommandFailed if a shell's status is not 0, RemoteInterrupted, ConnectionLost.
    """
    failed = _run(connection, {"kind": "shell", "code": code, "all": all_nodes}, on_output, timeout)
    if failed:
        said = "; ".join(f"{event['host']}: {event['error']}" for event in failed)
        raise _command_failed(code, failed[0], said)


class Grouped:
    """Events in, text out: one source's text together, in the order of ``sources``. Sans-IO."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._waiting: dict[Source, list[Event]] = {source: [] for source in sources}
        self._ended: set[Source] = set()
        self._open: Source | Literal[False] = False
        self._at_line_start = True

    def feed(self, event: Event) -> Iterator[Text]:
        """What can be shown now that ``event`` has come."""
        self._waiting[event["source"]].append(event)
        while self._waiting:
            source = next(iter(self._waiting))
            for each in self._waiting[source]:
                yield from self._shown(each)
            if source not in self._ended:
                self._waiting[source] = []
                return
            del self._waiting[source]

    def rest(self) -> Iterator[Text]:
        """What still waits for a source that will not end."""
        for events in self._waiting.values():
            for each in events:
                yield from self._shown(each)
        self._waiting.clear()

    def _shown(self, event: Event) -> Iterator[Text]:
        source = event["source"]
        if "status" in event:
            self._ended.add(source)
            # A rank's failure is the cell's error; of many nodes each has a status of its own.
            if not isinstance(source, str) or event["status"] == 0:
                return
            event = {**event, "stream": "stderr", "text": f"[{event['error']}]\n"}
        if not event["text"]:
            return
        if (source is not None and source != self._open) or self._open is False:
            yield from self._heading(source, event.get("host"))
        self._at_line_start = event["text"].endswith("\n")
        yield Text(event["stream"], event["text"])

    def _heading(self, source: Source, host: str | None) -> Iterator[Text]:
        self._open = source
        if source is None:
            return
        name = f"rank {source} on {host}" if isinstance(source, int) else source
        yield Text("stdout", f"{'' if self._at_line_start else chr(10)}── {name} ──\n")


def _run(
    connection: Connection, request: Event, on_output: Callable[[Output], None], timeout: float | None
) -> list[Event]:
    """Run a cell to its end and show it; the events of those that failed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    sources: list[Source] = [None]
    grouped = Grouped(sources)
    failed: list[Event] = []
    with connection.popen(RUN_CELL) as channel:
        channel.send_all(json.dumps(request).encode() + b"\n")
        events = _events(channel, deadline)
        try:
            for event in events:
                if "sources" in event:
                    sources = event["sources"]
                    grouped = Grouped(sources)
                elif "done" in event:
                    for text in grouped.rest():
                        on_output(text)
                    if event["error"]:
                        raise _command_failed(request["code"], {"status": 1}, event["error"])
                    return sorted(failed, key=lambda event: sources.index(event["source"]))
                else:
                    failed += [event] if event.get("error") else []
                    for text in grouped.feed(event):
                        on_output(text)
        except (KeyboardInterrupt, TimeoutError) as exc:
            _end(channel)
            for text in grouped.rest():
                on_output(text)
            why = "interrupted" if isinstance(exc, KeyboardInterrupt) else f"no end within {timeout:g} s"
            raise RemoteInterrupted(f"{why}: everything that the cell had started was ended") from None
        status = channel.exit_status()
        stderr = b"".join(iter(channel.recv_stderr, b"")).decode(errors="replace").strip()
    last = stderr.splitlines()[-1] if stderr else "it printed no error"
    raise RemoteError(f"the master cannot run cells (status {status}): {last}")


def _events(channel: Channel, deadline: float | None) -> Iterator[Event]:
    channel.settimeout(TICK_SECONDS)
    rest = b""
    while True:
        try:
            block = channel.recv()
        except TimeoutError:
            if deadline is not None and time.monotonic() > deadline:
                raise
            continue
        *lines, rest = (rest + block).split(b"\n")
        yield from (json.loads(line) for line in lines if line.startswith(b"{"))
        if not block:
            return


def _end(channel: Channel) -> None:
    """Let the far side end the cell and wait until it has."""
    channel.close_write()
    try:
        for event in _events(channel, time.monotonic() + ENDING_SECONDS):
            if "done" in event:
                return
    except TimeoutError:
        return


def _command_failed(code: str, event: Event, message: str) -> RemoteCommandFailed:
    return RemoteCommandFailed(message, command=code, status=event["status"], stderr="")
