"""What R and the agent answer, as outputs, values and errors; and in words, whose session it was."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ...errors import (
    PpeError,
    RankFailed,
    RemoteError,
    RemoteInterrupted,
    RemoteRError,
    RSessionDied,
    UsageError,
)
from ...node.wire.protocol import MAIN, Kind, parse_json
from .. import values
from ..line.link import Link
from ..outputs import Display, Output, Text

# How running.py words what ends an MPI call whose worker is gone.
LOST = re.compile(r"rank (\d+) on (\S+) was (?:lost|killed)")

STAMP = "%Y-%m-%dT%H:%M:%SZ"


def outputs_of(kind: Kind, body: bytearray) -> list[Output]:
    """What a frame shows: one output, or none."""
    if kind in (Kind.STDOUT, Kind.STDERR):
        return [Text("stdout" if kind is Kind.STDOUT else "stderr", body.decode(errors="replace"))]
    if kind is Kind.DISPLAY:
        data, metadata = values.decode(body)
        return [Display(data, metadata or {})]
    if kind is Kind.QUEUED:
        busy = parse_json(bytes(body))
        since = time.strftime("%H:%M:%S", time.localtime(busy["since"]))
        return [Text("stderr", f"R evaluates for {busy['client']} since {since}; this waits for it\n")]
    if kind is Kind.GAP:
        gap = parse_json(bytes(body))
        return [Text("stderr", f"[output {gap['first']} to {gap['last']} is no longer in the log]\n")]
    if kind is Kind.NOTICE:  # from the log
        return [Text("stderr", f"{in_local_time(parse_json(bytes(body))['text'])}\n")]
    if kind is Kind.FAILURE:  # of an evaluation whose client had gone, from the log
        return [Text("stderr", f"{values.decode(body)[4]}\n")]
    return []


def checked(
    kind: Kind,
    body: bytearray,
    late: float | None,
    *,
    simplify: bool = True,
    say: Callable[[str], object] | None = None,
) -> list[Any]:
    """R's answer: value, outputs. ``say`` is told what of it has no form here. Raises what it says went wrong."""
    if kind is Kind.FAILED:
        raise failure(parse_json(bytes(body)), late)
    if kind is Kind.INTERRUPTED:
        why = f"no end within {late:g} s, so R was interrupted" if late is not None else "interrupted"
        raise RemoteInterrupted(f"{why}; the R session and its variables are still there")
    answer: list[Any] = values.decode(body, simplify=simplify, say=say)
    return answer


def r_error(body: bytearray, code: str) -> RemoteError:
    """R's error as its console words it, with the way to it."""
    message, call, trace, line, text = values.decode(body)
    if lost := LOST.match(message):
        return RankFailed(f"{text}; R and its variables are still there", rank=int(lost[1]), node=lost[2])
    frames = [trace] if isinstance(trace, str) else list(trace)
    names = [frame.partition("(")[0] for frame in frames if not frame.startswith("stop(")]
    way = [f"line {line} of the cell"] if "\n" in code.strip() and "of the cell" not in text else []
    way += [f"calls: {' -> '.join(names)}"] if len(names) > 1 else []
    if way:
        text = f"{text}\n({'; '.join(way)})"
    return RemoteRError(message, call=call, traceback=frames, line=line, text=text)


def failure(told: dict[str, Any], late: float | None = None) -> PpeError:
    """The error in the body of a frame FAILED; ``late`` if it was interrupted for having no end in so many seconds."""
    message = told["message"]
    if told["reason"] == "rank":
        return RankFailed(message, rank=told["rank"], node=told["node"])
    if told["reason"] in ("died", "restarted"):
        return RSessionDied(message)
    if told["reason"] in ("command", "job", "restore"):
        return UsageError(message)
    if told["reason"] == "result":
        return RemoteError(message)
    return RemoteInterrupted(message if late is None else f"no end within {late:g} s: {message}")


def done(link: Link) -> dict[str, Any]:
    """The body of the frame DONE. Raises what the agent says went wrong, or that it does not answer."""
    link.greet()
    while True:
        head, body = link.next_frame()
        if head.kind is Kind.DONE:
            return parse_json(bytes(body))
        if head.kind is Kind.FAILED:
            raise failure(parse_json(bytes(body)))


def of_the_past(session: str, past: Mapping[str, Any], now: float) -> str:
    """How old a session is, and who used it last."""
    name = "" if session == MAIN else f" {session}"
    objects = f", {past['objects']:.0f} objects" if past.get("objects") is not None else ""
    return (
        f"R session{name} of {_ago(now - past['since'])}, last used from {past['client']} {_ago(now - past['used'])}"
        f"{objects}; --fresh for a new one"
    )


def in_local_time(text: str) -> str:
    """A notice with its times, which nodes give in UTC, as they are here."""

    def here(found: re.Match[str]) -> str:
        moment = datetime.strptime(found[0], STAMP).replace(tzinfo=timezone.utc)
        return f"{moment.astimezone():%a %d %b %H:%M}"

    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", here, text)


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "a moment ago"
