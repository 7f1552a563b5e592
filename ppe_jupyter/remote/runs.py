"""Run: a script that goes on without a client, as any client sees it.

The master runs it (node/runs/runs.py); what is known of it is the master's answer at one moment. Knows nothing of EC2.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import json
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from ..errors import ConnectionLost, RemoteCommandFailed, RemoteError, Unreachable, UsageError
from ..node.lifetime.aftermath import NOTIFY_SECONDS
from ..ssh import Channel, Connection
from .files import transfer
from .files.transfer import OnProgress, Transferred
from .outputs import OnOutput, Text, write_output

Then = Literal["park", "terminate", "nothing"]
Connect = Callable[[], Connection]

RUNS = "exec python3 ~/.ppe/node runs"
# What a node says whose software is older: Python, and node/__main__.py.
UNKNOWN = ("can't find '__main__'", "no program named")
ASK_SECONDS = 60.0
TICK_SECONDS = 0.5
# The master takes a watcher for gone that is silent for a minute.
SIGN_SECONDS = 5.0
# So soon a line that was cut is made anew.
AGAIN_SECONDS = 120.0
AGAIN_PAUSE_SECONDS = 2.0
# What follows a run's end takes so long besides its messages.
SEQUEL_SECONDS = 10.0


class Run:
    """One run; ``connect`` gives the connection to the master, made anew if it was cut."""

    def __init__(self, connect: Connect, row: Mapping[str, Any]) -> None:
        self._connect = connect
        self._row = row

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self._row['state']}>"

    @property
    def name(self) -> str:
        """Its name, and that of its folder below ~/runs on the master."""
        return str(self._row["name"])

    @property
    def folder(self) -> str:
        """Its folder on the master."""
        return f"~/runs/{self.name}"

    @property
    def script(self) -> str:
        """The script's file name."""
        return str(self._row["script"])

    @property
    def client(self) -> str:
        """Who started it."""
        return str(self._row["client"])

    @property
    def user(self) -> str:
        """The name of that user (``person.client``)."""
        return self.client.rpartition(" by ")[2].partition("@")[0]

    @property
    def watcher(self) -> str:
        """What the master calls a client that watches it (node/lifetime/activity.py)."""
        return f"a client at the run {self.name}"

    @property
    def state(self) -> str:
        """running, done, failed, stopped, or lost (its node was rebooted), as it is now."""
        if self._row["state"] == "running":
            self.refresh()
        return str(self._row["state"])

    @property
    def ends_cluster(self) -> bool:
        """Whether the cluster is to end because of it, as was known last: not after an end and a new start."""
        return bool(self._row["ends_cluster"])

    @property
    def known_state(self) -> str:
        """Its state when it was last asked for."""
        return str(self._row["state"])

    @property
    def status(self) -> int | None:
        """The script's exit status; None if it had not ended when it was last asked for, or is lost."""
        status: int | None = self._row["status"]
        return status

    @property
    def began(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(self._row["began"], timezone.utc)

    @property
    def seconds(self) -> float | None:
        """How long it ran; None if it had not ended."""
        ended = self._row["ended"]
        return None if ended is None else float(ended - self._row["began"])

    @property
    def then(self) -> Then:
        """What becomes of the cluster when it is over."""
        then: Then = self._row["then"]
        return then

    @property
    def discard(self) -> bool:
        """Whether the cluster ends without regard to what was not fetched."""
        return bool(self._row["discard"])

    @property
    def own(self) -> bool:
        """Whether the cluster was launched for it."""
        return bool(self._row["own"])

    @property
    def fetch_patterns(self) -> list[str]:
        """What of its folder are its results."""
        return list(self._row["fetch"])

    @property
    def store(self) -> str:
        """Where in S3 the master takes them when it is over, or ""."""
        return f"{self._row['store'].rstrip('/')}/{self.name}/" if self._row.get("store") else ""

    @property
    def fetched(self) -> bool:
        """Whether a client has fetched them, or they are in S3."""
        return bool(self._row["fetched"])

    @property
    def troubles(self) -> list[str]:
        """What could not be done after its end, in words."""
        return list(self._row["troubles"])

    def watch(self, on_output: OnOutput = write_output, *, at_end: Callable[[], None] = lambda: None) -> None:
        """Show what it has printed, and what it prints, until it ends; an interrupt ends only the watching.

        ``at_end`` is called when it is over: until it returns, or this client is silent for a minute, the run does
        not end its cluster. After a cut it goes on where it was, if that is within two minutes. Raises SshError,
        RemoteError.
        """
        seen = _Seen(on_output)
        while True:
            try:
                with self._watched(seen) as row:
                    self._row = row
                    seen.end()
                    return at_end()
            except (ConnectionLost, Unreachable):
                now = time.monotonic()
                seen.cut = seen.cut or now
                if now > seen.cut + AGAIN_SECONDS:
                    raise
                time.sleep(AGAIN_PAUSE_SECONDS)

    def fetch(
        self, to: str | Path, *, note: bool = True, on_progress: OnProgress = lambda tally: None
    ) -> tuple[Transferred, list[str]]:
        """Its results and what it printed, into the local folder ``to``; and the patterns that matched nothing.

        It is ``fetched`` if they all did, and that is noted. Raises as ``transfer.download``.
        """
        told = self._tell("results")
        how: dict[str, Any] = {"folder": told["folder"], "on_progress": on_progress}
        done = transfer.download(self._connect(), told["found"], os.path.join(to, ""), **how)  # noqa: PTH118
        if note and not told["missing"]:
            self._row = self._tell("fetched")
        return done, told["missing"]

    def wait_for_sequel(self) -> Run:
        """Wait until those that were to be told of its end were, or the time for that is over."""
        deadline = time.monotonic() + NOTIFY_SECONDS * len(self._row["notify"]) + SEQUEL_SECONDS
        while not self.refresh()._row["followed"] and self.known_state != "lost":
            if time.monotonic() > deadline:
                break
            time.sleep(TICK_SECONDS)
        return self

    def refresh(self) -> Run:
        """Ask for what is known of it now."""
        self._row = find(self._connect, self.name)._row
        return self

    def stop(self) -> None:
        """End it; what was to follow does not. One that has ended is left alone.

        Where it was to ``discard``, the cluster's limits still terminate it: ``Cluster.set_limits(then="park")``.
        """
        self._row = self._tell("stop")

    def _tell(self, action: str) -> dict[str, Any]:
        told: dict[str, Any] = tell(self._connect(), f"{action} {shlex.quote(self.name)}")
        return told

    @contextmanager
    def _watched(self, seen: _Seen) -> Iterator[Mapping[str, Any]]:
        """Wait for its end, its output shown on the way; the master waits for this block to end."""
        with self._connect().popen(f"{RUNS} watch {shlex.quote(self.name)} {seen.at}") as channel:
            if self.known_state == "running":  # or what follows its end might be tried for ever
                seen.cut = None
            channel.settimeout(TICK_SECONDS)
            ended = threading.Event()
            threading.Thread(target=_give_signs, args=(channel, ended), daemon=True).start()
            try:
                for event in _events(channel):
                    if "ended" in event:
                        yield event["ended"]
                        return
                    seen.take(event)
                said = b"".join(iter(channel.recv_stderr, b"")).decode(errors="replace").strip()
                raise RemoteError(said.splitlines()[-1] if said else f"{self.name} cannot be watched")
            finally:
                ended.set()


class _Seen:
    """Output that has come; ``at``: so many bytes of it, ``cut``: since when the line is cut."""

    def __init__(self, on_output: OnOutput) -> None:
        self.at = 0
        self.cut: float | None = None
        self._on_output = on_output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, event: Mapping[str, Any]) -> None:
        self.at = int(event["at"])
        self._show(self._decoder.decode(base64.b64decode(event["data"])))

    def end(self) -> None:
        self._show(self._decoder.decode(b"", final=True))

    def _show(self, text: str) -> None:
        if text:
            self._on_output(Text("stdout", text))


def tell(connection: Connection, action: str, told: Mapping[str, Any] | None = None) -> Any:
    """What node/runs/runs.py answers. Raises RemoteError, TimeoutError."""
    stdin = json.dumps(told or {}).encode()
    try:
        return json.loads(connection.run(f"{RUNS} {action}", stdin=stdin, timeout=ASK_SECONDS).stdout)
    except RemoteCommandFailed as exc:
        if not any(each in exc.stderr for each in UNKNOWN):
            raise
        raise RemoteError(
            "its nodes were set up by another version of ppe_jupyter, and do not know these runs; %ppe_reboot sets them"
            " up anew"
        ) from exc


def runs(connect: Connect) -> list[Run]:
    """All of the cluster, the oldest first."""
    return [Run(connect, row) for row in tell(connect(), "list")]


def find(connect: Connect, name: str) -> Run:
    """The run of that name. Raises UsageError."""
    for row in tell(connect(), f"list {shlex.quote(name)}"):
        if row["name"] == name:
            return Run(connect, row)
    names = ", ".join(run.name for run in runs(connect)[-5:]) or "none"
    raise UsageError(f"there is no run {name!r} there; the last ones: {names}")


def _events(channel: Channel) -> Iterator[dict[str, Any]]:
    rest = b""
    while True:
        try:
            block = channel.recv()
        except TimeoutError:
            continue
        *lines, rest = (rest + block).split(b"\n")
        yield from (json.loads(line) for line in lines if line.startswith(b"{"))
        if not block:
            return


def _give_signs(channel: Channel, ended: threading.Event) -> None:
    with contextlib.suppress(ConnectionLost, TimeoutError):
        while not ended.wait(SIGN_SECONDS):
            channel.send_all(b"\n")
