"""What follows when a run or a background job is over: messages to whoever waits, and the cluster's end.

The end is only asked for here: the watchdog brings it, once nothing else works. Must not know what was run, nor EC2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from .. import whole
from . import sns

FOLDER = Path.home() / ".ppe"
END = FOLDER / "end.json"
NOTIFY_SECONDS = 300.0
TOPIC = re.compile(r"(?:sns:)?(arn:aws[\w-]*:sns:[\w-]+:\d{12}:[\w.-]+)")


def follow(
    *,
    job: str,
    status: str,
    notify: Iterable[str],
    end: bool,
    folder: Path,
    stored: bool = False,
    trouble: str = "",
) -> list[str]:
    """Ask for the end if it is to come, then tell whoever is to be told; what could not be done, in words.

    The end comes first, as telling can fail in many ways: whoever calls counts as work until this returns.
    ``stored``: what it has made is elsewhere, so that the cluster may be terminated. ``trouble`` is what else went
    wrong, told too.
    """
    if end:
        ask_for_end(f"{job} has ended ({status})", job, stored=stored)
    about = {"PPE_JOB": job, "PPE_STATUS": status, "PPE_CLUSTER": _cluster(), "PPE_TROUBLE": trouble}
    return [said for each in notify if (said := _notify(each, about, folder))]


def _notify(wish: str, about: Mapping[str, str], folder: Path) -> str:
    """Publish to a topic, or run a shell command; why that failed, or ""."""
    if topic := TOPIC.fullmatch(wish):
        subject = f"{about['PPE_JOB']} on {about['PPE_CLUSTER']}: {about['PPE_STATUS']}"
        try:
            sns.publish(
                topic[1], subject=subject, message=f"{subject}\n{about['PPE_TROUBLE']}".strip() + "\n"
            )
        except Exception as exc:  # HTTP's own are many
            return f"nothing was published to {topic[1]}: {exc}"
        return ""
    try:
        # In memory, as the disk may be full; no pipe, which what it leaves in the background would hold.
        with os.fdopen(os.memfd_create("said"), "w+b") as said:
            return _run(wish, about, folder, said)
    except (OSError, ValueError) as exc:
        return f"`{wish}` failed: {exc}"


def _run(wish: str, about: Mapping[str, str], folder: Path, said: IO[bytes]) -> str:
    environment = {**os.environ, **about}
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
    with subprocess.Popen(
        ["bash", "-c", wish], env=environment, cwd=folder, start_new_session=True, **how
    ) as process:
        try:
            status = process.wait(NOTIFY_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"`{wish}` was ended, as it had not ended after {NOTIFY_SECONDS:g} s"
    said.seek(0)
    last = said.read().decode(errors="replace").strip().splitlines()[-1:]
    return f"`{wish}` ended with status {status}: {''.join(last)}" if status else ""


class End(NamedTuple):
    """Why the cluster is to end, since when (s since 1970), after which jobs; ``stored``: they are in S3, too."""

    why: str
    since: float
    jobs: tuple[str, ...]
    stored: bool = False


_unwritten: list[End] = []


def ask_for_end(why: str, job: str, *, stored: bool = False) -> None:
    """The cluster is to end when nothing works any more. Only this process knows it if the disk is full."""
    before = asked_end() or End("", 0.0, (), stored=True)
    _unwritten[:] = [End(why, time.time(), (*before.jobs, job), stored=stored and before.stored)]
    with contextlib.suppress(OSError):
        whole.write(END, json.dumps({**_unwritten[0]._asdict(), "life": life()}))
        _unwritten.clear()


def asked_end() -> End | None:
    """The end that was asked for in this life of the node; None if there is none."""
    try:
        told = json.loads(END.read_text(encoding="utf-8"))
        if told["life"] == life():
            jobs = tuple(map(str, told["jobs"]))
            return End(str(told["why"]), float(told["since"]), jobs, stored=bool(told.get("stored")))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return _unwritten[0] if _unwritten else None


def life() -> str:
    """Of this node, from its boot to its end; a container has the boot id of its host."""
    began = Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()} {began}"


def forget_end() -> None:
    """The cluster is not to end, or it does now."""
    _unwritten.clear()
    with contextlib.suppress(OSError):
        END.unlink()


def _cluster() -> str:
    try:
        told: dict[str, Any] = json.loads((FOLDER / "cluster.json").read_text(encoding="utf-8"))
        return str(told["cluster"])
    except (OSError, ValueError, KeyError):
        return ""
