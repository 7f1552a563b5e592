"""What follows when a run or a background job is over: messages to whoever waits, and the cluster's end.

The end is only asked for here: the watchdog brings it, once nothing else works. Must not know what was run, nor EC2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import sns

FOLDER = Path.home() / ".ppe"
END = FOLDER / "end.json"
NOTIFY_SECONDS = 300.0
TOPIC = re.compile(r"(?:sns:)?(arn:aws[\w-]*:sns:[\w-]+:\d{12}:[\w.-]+)")


def follow(
    *, job: str, status: str, notify: Iterable[str], end: bool, folder: Path, why: str = ""
) -> list[str]:
    """Tell whoever is to be told, then ask for the end if it is to come; what could not be done, in words."""
    about = {"PPE_JOB": job, "PPE_STATUS": status, "PPE_CLUSTER": _cluster()}
    troubles = [trouble for each in notify if (trouble := _notify(each, about, folder))]
    if end:
        ask_for_end(why or f"{job} has ended ({status})")
    return troubles


def _notify(wish: str, about: Mapping[str, str], folder: Path) -> str:
    """Publish to a topic, or run a shell command; why that failed, or ""."""
    if topic := TOPIC.fullmatch(wish):
        subject = f"{about['PPE_JOB']} on {about['PPE_CLUSTER']}: {about['PPE_STATUS']}"
        try:
            sns.publish(topic[1], subject=subject, message=f"{subject}\n")
        except (sns.Refused, OSError) as exc:
            return f"nothing was published to {topic[1]}: {exc}"
        return ""
    try:
        done = subprocess.run(
            ["bash", "-c", wish],
            env={**os.environ, **about},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=NOTIFY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"`{wish}` failed: {exc}"
    said = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
    return f"`{wish}` ended with status {done.returncode}: {''.join(said)}" if done.returncode else ""


def ask_for_end(why: str) -> None:
    """The cluster is to end when nothing works any more."""
    new = END.with_suffix(".new")
    new.write_text(json.dumps({"why": why, "time": time.time()}), encoding="utf-8")
    new.replace(END)


def asked_end() -> tuple[str, float] | None:
    """Why the cluster is to end, and since when (s since 1970); None if it is not."""
    try:
        told = json.loads(END.read_text(encoding="utf-8"))
        return str(told["why"]), float(told["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_end() -> None:
    """The cluster is not to end, or it does now."""
    with contextlib.suppress(OSError):
        END.unlink()


def _cluster() -> str:
    try:
        told: dict[str, Any] = json.loads((FOLDER / "cluster.json").read_text(encoding="utf-8"))
        return str(told["cluster"])
    except (OSError, ValueError, KeyError):
        return ""
