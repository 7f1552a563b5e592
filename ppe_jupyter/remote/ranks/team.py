"""Cells on a team: N ranks of Python or R over the cluster's nodes, which keep their variables from cell to cell.

Values go to the ranks whole or in parts, and come back by rank. The stop button interrupts all ranks; a second press
does so again. Knows nothing of clusters, EC2 or notebooks; the far side is node/ranks/cell.py and node/ranks/team.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from ...errors import ConnectionLost, RankFailed, RemoteCommandFailed, RemoteInterrupted, UsageError
from ...node.ranks import values as team_values
from ...node.ranks.frames import ALL, Kind, pack
from ...ssh import Channel, Connection
from .. import values
from ..outputs import Output, Text
from ..values import nodes, wire
from .cells import Event, Grouped
from .exchange import Exchange
from .team_line import TEAM_CELL, TeamLine

if TYPE_CHECKING:
    from ..sessions.session import RemoteR

# After the time is over: for the interrupt to reach the ranks, or the team to end.
ENDING_SECONDS = 10.0
KEPT = "the ranks keep their variables"
LINE_LOST = (
    "the connection to {host} was cut; the ranks go on with this cell and keep their variables, but what it prints "
    "and brings back is lost. The next cell on as many ranks waits for its end: -o and --to-r, also without code, "
    "fetch variables"
)
GONE = "the variables of all ranks are gone; the next cell starts new ranks"

Language = Literal["python", "r"]


@dataclass(frozen=True, kw_only=True)
class TeamCell:
    """What a team is to do.

    ``inputs`` go to every rank whole, ``scattered`` in parts of their first axis, as numpy.array_split makes them.
    ``outputs`` are names of variables to bring back from every rank. ``ranks`` -1: one for each slot. ``from_r`` names
    variables of the master's R session that every rank gets, ``scattered_r`` those of which each gets a part,
    ``to_r`` those that the session gets, as lists by rank; for ranks of Python they are plain values
    (node/ranks/plain.py).
    """

    code: str
    language: Language = "python"
    ranks: int = -1
    inputs: Mapping[str, Any] = field(default_factory=dict)
    scattered: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    from_r: Sequence[str] = ()
    scattered_r: Sequence[str] = ()
    to_r: Sequence[str] = ()

    @property
    def with_r(self) -> bool:
        """Whether values go between the ranks and the master's R session."""
        return bool(self.from_r or self.scattered_r or self.to_r)

    def bodies(self, count: int) -> Iterator[tuple[int, bytes]]:
        """For which rank what is to be sent. Raises UsageError, ValueRefused."""
        if not self.scattered:
            yield ALL, self._body(self.inputs)
            return
        parts = {name: split(value, count, name) for name, value in self.scattered.items()}
        for rank in range(count):
            yield rank, self._body({**self.inputs, **{name: parts[name][rank] for name in parts}})

    def _body(self, inputs: Mapping[str, Any]) -> bytes:
        if self.language == "python":
            dumped = {name: _dumped(value, name) for name, value in inputs.items()}
            names = {"outputs": list(self.outputs), "to_r": list(self.to_r)}
            return team_values.dump({"code": self.code, "inputs": dumped, **names})
        given = [values.node(value, name) for name, value in inputs.items()]
        request = [
            values.node(self.code, "the code"),
            nodes.listing(given, list(inputs)) if given else nodes.null(),
            nodes.characters(list(self.outputs)) if self.outputs else nodes.null(),
            nodes.characters(list(self.to_r)) if self.to_r else nodes.null(),
        ]
        return b"".join(wire.dump(nodes.listing(request)))

    def loaded(self, body: bytes) -> dict[str, Any]:
        """The outputs of a rank. Raises ProtocolError, and what the values' classes do."""
        if self.language == "python":
            return {name: team_values.load(each) for name, each in team_values.load(body).items()}
        return dict(zip(self.outputs, values.decode(bytearray(body)), strict=True)) if self.outputs else {}


class Streamed:
    """Events in, text out: whole lines as they come, each behind its rank. Sans-IO."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, str], str] = {}

    def feed(self, event: Event) -> Iterator[Text]:
        """The lines that ``event`` completes."""
        if "status" in event:
            yield from self._rest(event["source"])
            return
        key = event["source"], event["stream"]
        *lines, self._open[key] = (self._open.get(key, "") + event["text"]).split("\n")
        if lines:
            yield Text(key[1], "".join(f"[{key[0]}] {line}\n" for line in lines))

    def rest(self) -> Iterator[Text]:
        """Lines that have no end."""
        for rank in sorted({rank for rank, _ in self._open}):
            yield from self._rest(rank)

    def _rest(self, rank: int) -> Iterator[Text]:
        for stream in ("stdout", "stderr"):
            if line := self._open.pop((rank, stream), ""):
                yield Text(stream, f"[{rank}] {line}\n")


def run(
    connection: Connection,
    cell: TeamCell,
    *,
    on_output: Callable[[Output], None],
    session: RemoteR | None = None,
    fresh: bool = False,
    streamed: bool = False,
    timeout: float | None = None,
) -> list[dict[str, Any]]:
    """Run the cell; the outputs of each rank. ``fresh``: on new ranks, without variables. ``timeout`` in seconds.

    ``session`` is the master's R, for ``from_r`` and ``to_r``; the values go through the master's memory only.

    Output comes rank after rank, or, ``streamed``, line by line as it is printed. Raises RankFailed,
    RemoteInterrupted, RemoteCommandFailed, ConnectionLost (the cell goes on), UsageError, ValueRefused.
    """
    request: dict[str, Any] = {"language": cell.language, "ranks": cell.ranks, "fresh": fresh, "end": False}
    exchange = Exchange(cell.language, cell.ranks, list(cell.from_r), list(cell.scattered_r), list(cell.to_r))
    with exchange.through(session) as folder, connection.popen(TEAM_CELL) as channel:
        request.update(values=folder, from_r=exchange.whole, scattered=exchange.parts)
        try:
            return _Run(channel, cell, on_output, streamed).result(request, timeout)
        except ConnectionLost as lost:
            raise ConnectionLost(LINE_LOST.format(host=lost.host), host=lost.host) from lost


def end(connection: Connection, *, language: Language, ranks: int) -> None:
    """End the team of that language and count, and its variables."""
    request = {"language": language, "ranks": ranks, "fresh": False, "end": True}
    with connection.popen(TEAM_CELL) as channel:
        _Run(channel, TeamCell(code="", language=language), lambda output: None, False).result(request, None)


class _Run:
    """A cell at work, seen from here."""

    def __init__(
        self, channel: Channel, cell: TeamCell, on_output: Callable[[Output], None], streamed: bool
    ) -> None:
        self._line = TeamLine(channel)
        self._cell = cell
        self._show = on_output
        self._streamed = streamed
        self._out: Grouped | Streamed = Streamed()
        self._found: list[dict[str, Any]] = []
        self._failed: list[Event] = []
        self._stopped = ""
        self._sending = False

    def result(self, request: Mapping[str, Any], timeout: float | None) -> list[dict[str, Any]]:
        self._line.ask(request)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                if (event := self._line.event()) is None:
                    late = deadline is not None and time.monotonic() > deadline
                    if late and not self._stopped:
                        self._stop(f"no end within {timeout:g} s")
                    elif late and deadline is not None and time.monotonic() > deadline + ENDING_SECONDS:
                        raise RemoteInterrupted(
                            f"{self._stopped}, and the ranks do not answer; start new ones: --fresh"
                        )
                elif "done" in event:
                    return self._ended(event["error"], GONE if event.get("gone") else KEPT)
                else:
                    self._take(event)
            except KeyboardInterrupt:
                if self._sending:  # perhaps in the middle of a frame
                    self._line.channel.close()
                    raise RemoteInterrupted("the transfer was interrupted; nothing ran") from None
                self._stop("interrupted")

    def _stop(self, why: str) -> None:
        self._stopped = why
        self._line.channel.send_all(pack(ALL, Kind.INTERRUPT))

    def _take(self, event: Event) -> None:
        if "note" in event:
            self._show(Text("stderr", f"[{event['note']}]\n"))
        elif "sources" in event:
            self._found = [{} for _ in event["sources"]]
            if not self._streamed:
                self._out = Grouped(event["sources"])
            self._send_cell(len(event["sources"]))
        elif "bytes" in event:
            if self._cell.outputs:
                self._found[event["source"]] = self._cell.loaded(event["body"])
        else:
            self._failed += [event] if event.get("error") else []
            for text in self._out.feed(event):
                self._show(text)

    def _send_cell(self, count: int) -> None:
        self._sending = True
        for rank, body in self._cell.bodies(count):
            self._line.send(pack(rank, Kind.RUN, body))
        self._sending = False

    def _ended(self, error: str | None, variables: str) -> list[dict[str, Any]]:
        for text in self._out.rest():
            self._show(text)
        if self._stopped:
            told = [error, *(each["error"] for each in self._failed)] if variables == GONE else []
            raise RemoteInterrupted("; ".join([self._stopped, *list(filter(None, told))[:1], variables]))
        for event in self._failed:
            where = f" on {event['host']}" if event.get("host") else ""
            words = "; ".join(filter(None, (event["error"], error, variables)))
            raise RankFailed(
                f"rank {event['source']}{where} failed: {words}",
                rank=event["source"],
                node=event.get("host"),
            )
        if error:
            words = f"{error}; {GONE}" if variables == GONE else error
            raise RemoteCommandFailed(words, command=self._cell.code, status=1, stderr="")
        return self._found


def _dumped(value: Any, name: str) -> bytes:
    try:
        return team_values.dump(value)
    except Exception as exc:  # whatever a class of the user's raises
        raise UsageError(f"{name} cannot be sent to the ranks: {exc}") from exc


def split(value: Any, count: int, name: str) -> list[Any]:
    """Parts of the first axis, the first ones longer by one if it does not divide. Raises UsageError."""
    rows = value.iloc if hasattr(value, "iloc") else value
    has_length = hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0
    if isinstance(value, Mapping) or not has_length or not hasattr(rows, "__getitem__"):
        raise UsageError(f"{name} cannot be scattered: a {type(value).__name__} has no first axis")
    short, longer = divmod(len(value), count)
    starts = [rank * short + min(rank, longer) for rank in range(count + 1)]
    return [rows[start:stop] for start, stop in pairwise(starts)]


def joined(parts: Sequence[Any]) -> Any:
    """What came back from each rank, as one: arrays and tables along their first axis, lists, or a list of the rest."""
    import numpy as np
    import pandas as pd

    if all(isinstance(part, (pd.DataFrame, pd.Series)) for part in parts):
        labelled = any(part.index.name or not part.index.equals(pd.RangeIndex(len(part))) for part in parts)
        return pd.concat(parts, ignore_index=not labelled)
    if all(isinstance(part, np.ndarray) and part.ndim for part in parts):
        masked = any(isinstance(part, np.ma.MaskedArray) for part in parts)
        return np.ma.concatenate(parts) if masked else np.concatenate(parts)  # type: ignore[no-untyped-call]
    if all(isinstance(part, list) for part in parts):
        return [each for part in parts for each in part]
    return list(parts)
