"""A function called for each of many items on all slots of a cluster, and what came of the last such map.

The tasks are given out on the master (node/maps/keeper.py): a lost line stops nothing. Knows nothing of clusters, EC2
or notebooks.
"""

from __future__ import annotations

import json
import pickle
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import ConnectionLost, NothingToDo, RemoteError, RemoteInterrupted, TaskFailed, UsageError
from ...node.maps.log import MAGIC, Record, Records
from ...node.maps.log import Kind as Is
from ...node.ranks.frames import ALL, Kind, pack
from ...node.ranks.functions import load
from ...ssh import Connection
from ..outputs import Text
from .functions import cloudpickle_source, dumped, fingerprint
from .team_line import TEAM_CELL, Event, TeamLine

BLOCK_BYTES = 2**20
# After the stop button: the ranks have 1.2 s to send what they have.
ENDING_SECONDS = 10.0
# Who follows a map hears of it every quarter of a second; the keeper has 20 s to start.
SILENT_SECONDS = 60.0
REQUEST = {"language": "map", "ranks": 0, "fresh": False, "end": False}


@dataclass(frozen=True, kw_only=True)
class MapProgress:
    """How far a map is: tasks ``done`` and ``failed`` of ``count``, and ranks at work of ``slots``."""

    count: int
    done: int
    failed: int
    busy: int
    slots: int


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """What to call for each of ``items``, which are tuples of arguments. ``seed`` None: another one in each run."""

    function: Callable[..., Any]
    items: Sequence[tuple[Any, ...]]
    seed: int | None = None
    on_error: Literal["stop", "collect"] = "stop"
    retries: int = 0
    checkpoint: str | None = None
    slots: int | None = None

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not callable(self.function):
            raise UsageError(f"the first argument is to be a function, not a {type(self.function).__name__}")
        if self.on_error not in ("stop", "collect"):
            raise UsageError(f"on_error is stop or collect, not {self.on_error!r}")
        for name, value, least in (
            ("seed", self.seed, 0),
            ("retries", self.retries, 0),
            ("slots", self.slots, 1),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not (whole or (value is None and name != "retries")):
                raise UsageError(f"{name} is a whole number from {least}, not {value!r}")

    def request(self) -> dict[str, Any]:
        """What the keeper is asked for."""
        mark: dict[str, Any] = {}
        if self.checkpoint:
            mark = {"function": fingerprint(self.function), "items": fingerprint(list(self.items))}
            mark["seed"] = self.seed
        return {
            **REQUEST,
            "do": "map",
            "count": len(self.items),
            "entropy": secrets.randbits(64) if self.seed is None else self.seed,
            "mark": mark,
            "retries": self.retries,
            "stop": self.on_error == "stop",
            "checkpoint": self.checkpoint,
            "slots": self.slots,
        }

    def frames(self, python: Sequence[int]) -> Iterator[bytes]:
        """Function and items, for ranks of that version of Python. Raises UsageError."""
        source = tuple(python) != sys.version_info[:2]
        function = {
            "cloudpickle": cloudpickle_source(),
            "pickle": dumped(self.function, "the function", source=source, shared=True),
        }
        yield pack(ALL, Kind.RUN, pickle.dumps(function, 5))
        block: list[bytes] = []
        size = 0
        for index, item in enumerate(self.items):
            block.append(dumped(item, f"item {index}", source=source))
            size += len(block[-1])
            if size > BLOCK_BYTES or index == len(self.items) - 1:
                yield pack(ALL, Kind.VALUE, pickle.dumps(block, 5))
                block, size = [], 0


@dataclass
class MapResult:
    """What is known of a map. ``values`` by index, None where there is none (yet).

    ``failed``: errors by index. ``said``: (index, stream, text) that tasks have printed. ``seed`` repeats it.
    ``lost``: how many ranks. ``running``: it was not at its end when this was asked for. ``cut``: it came to none, for
    its master or its keeper there came to theirs.
    """

    values: list[Any] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    failed: dict[int, TaskFailed] = field(default_factory=dict)
    said: list[tuple[int, str, str]] = field(default_factory=list)
    seed: int = 0
    seconds: float = 0.0
    slots: int = 0
    lost: int = 0
    running: bool = False
    cut: bool = True

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        state = ", running" if self.running else ", cut off" if self.cut else ""
        return f"<map: {len(self.done)} of {len(self.values)} results{failed}{state}>"

    def take(self, record: Record) -> Text | None:
        """Add a record; what of it is to be shown."""
        kind, index, body = record
        self.cut = kind is not Is.END  # of a file that was gone on with, the last one
        if kind is Is.HEADER:
            header = json.loads(body)
            self.seed = header["entropy"]
            self.values = self.values or [None] * header["count"]
        elif kind is Is.RESULT:
            self.values[index] = load(body)
            self.done.add(index)
            self.failed.pop(index, None)
        elif kind is Is.ERROR:
            self.failed[index] = _failure(index, len(self.values), pickle.loads(body))  # noqa: S301  # ours
        elif kind is Is.SAID:
            stream, text = json.loads(body)
            self.said.append((index, stream, text))
            return Text(stream, "".join(f"[{index}] {line}\n" for line in text.splitlines()))
        elif kind is Is.NOTE:
            return Text("stderr", f"[{body.decode()}]\n")
        else:
            end = json.loads(body)
            self.seconds, self.slots, self.lost = end["seconds"], end["slots"], end["lost"]
        return None


def _failure(index: int, count: int, told: dict[str, Any]) -> TaskFailed:
    exception = None
    if told["exception"] is not None:
        try:
            exception = load(told["exception"])
        except Exception:  # whatever a class of the user's raises
            exception = None
    words = f"task {index} of {count}: {told['error']}"
    return TaskFailed(words, index=index, traceback=told["traceback"], exception=exception)


class _Following:
    """A map, seen from here."""

    def __init__(
        self, line: TeamLine, on_output: Callable[[Text], None], on_progress: Callable[[MapProgress], None]
    ) -> None:
        self.result = MapResult()
        self._line = line
        self._show = on_output
        self._tell = on_progress
        self._records = Records()
        self._old = 0

    def take(self, event: Event) -> None:
        """An event."""
        if "note" in event:
            self._show(Text("stderr", f"[{event['note']}]\n"))
        elif "old" in event:
            self._old = event["old"]
        elif "running" in event:
            self.result.running = True
        elif "progress" in event:
            self._tell(MapProgress(count=len(self.result.values), **event["progress"]))
        elif "bytes" in event:
            for record in self._records.feed(event["body"]):
                text = self.result.take(record)
                if text is not None and self._records.whole > self._old:
                    self._show(text)


def run(
    connection: Connection,
    job: MapJob,
    *,
    on_output: Callable[[Text], None],
    on_progress: Callable[[MapProgress], None],
) -> MapResult:
    """Run the map to its end; with ``on_error="stop"`` to the first failure.

    Raises RemoteInterrupted after the stop button (what was finished is kept: ``last``), RemoteError if no ranks
    could be had, or the function not be read there; ConnectionLost (the map goes on), UsageError.
    """
    __tracebackhide__ = True
    request = job.request()
    with connection.popen(TEAM_CELL) as channel:
        following = _Following(TeamLine(channel), on_output, on_progress)
        stopped = _followed(following, request, job)
    result = following.result
    if stopped is not None:
        raise RemoteInterrupted(f"stopped: last_map() has {len(result.done)} of {len(job.items)} results")
    return result


def _followed(following: _Following, request: dict[str, Any], job: MapJob) -> float | None:
    """Send the job, and follow it to its end; when it was stopped, in seconds of the monotonic clock."""
    __tracebackhide__ = True
    line = following._line
    stopped: float | None = None
    sending = False
    line.ask(request)
    while True:
        try:
            event = line.event()
            if event is None:
                if stopped is not None and time.monotonic() > stopped + ENDING_SECONDS:
                    raise RemoteInterrupted("stopped, and the master does not answer; see last_map()")
            elif "done" in event:
                if event["error"] and stopped is None:
                    raise RemoteError(event["error"])
                return stopped
            elif "python" in event:
                sending = True
                for frame in job.frames(event["python"]):
                    line.send(frame)
                sending = False
            else:
                following.take(event)
        except KeyboardInterrupt:
            if sending:  # perhaps in the middle of a frame
                line.channel.close()
                raise RemoteInterrupted("the transfer was interrupted; nothing ran") from None
            if stopped is None:
                line.channel.send_all(pack(ALL, Kind.INTERRUPT))
            stopped = stopped or time.monotonic()
        except ConnectionLost as exc:
            raise ConnectionLost(f"{exc}; the map goes on there: last_map(wait=True)", host=exc.host) from exc


def last(
    connection: Connection,
    *,
    wait: bool = False,
    on_output: Callable[[Text], None] = lambda text: None,
    on_progress: Callable[[MapProgress], None] = lambda progress: None,
) -> MapResult:
    """What is known of the last map that anybody has run there; ``wait`` for its end.

    Raises NothingToDo, RemoteError if the master is silent or, with ``wait``, the map was cut off, RemoteInterrupted
    after Ctrl-C, which stops no map.
    """
    __tracebackhide__ = True
    with connection.popen(TEAM_CELL) as channel:
        line = TeamLine(channel)
        following = _Following(line, on_output, on_progress)
        line.ask({**REQUEST, "do": "last", "wait": wait})
        try:
            while "done" not in (event := _answer(line)):
                following.take(event)
        except KeyboardInterrupt:
            raise RemoteInterrupted("stopped looking; a map that runs goes on: last_map(wait=True)") from None
    if event["error"]:
        raise NothingToDo(event["error"])
    result = following.result
    result.running &= not wait
    result.cut &= not result.running
    if wait and result.cut:
        raise RemoteError(
            f"that map was cut off, with its keeper or with the master: last_map() has {len(result.done)} of"
            f" {len(result.values)} results; the same call goes on from there if it had a checkpoint"
        )
    return result


def last_seed(connection: Connection) -> int | None:
    """The seed of the last map that anybody has run there; None if there is no such file."""
    path = '"$(cat ~/.ppe/run/map.last)"'
    data = connection.run(f"head -c {BLOCK_BYTES} -- {path}", check=False).stdout
    result = MapResult()
    for record in Records().feed(data[len(MAGIC) :]):
        if record.kind is Is.HEADER:
            result.take(record)
            return result.seed
    return None


def end(connection: Connection) -> None:
    """End the ranks of maps."""
    with connection.popen(TEAM_CELL) as channel:
        line = TeamLine(channel)
        line.ask({**REQUEST, "end": True})
        while "done" not in _answer(line):
            pass


def _answer(line: TeamLine) -> Event:
    """The next event. Raises RemoteError if none comes."""
    deadline = time.monotonic() + SILENT_SECONDS
    while (event := line.event()) is None:
        if time.monotonic() > deadline:
            raise RemoteError(
                f"nothing heard of maps for {SILENT_SECONDS:g} s; see ~/.ppe/run/team-map-0.log on the master"
            )
    return event
