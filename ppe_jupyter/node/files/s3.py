"""Objects of Amazon S3 to this node and from it, with the credentials of its instance profile.

Run as ``python3 ~/.ppe/node s3 JSON``: ``{"act": "fetch", sources, dest, nodes}`` brings objects (s3://bucket/key,
s3://bucket/folder/, patterns) to a folder, or a sole one to a new name, and passes them on to other nodes;
``{"act": "store", sources, dest}`` takes files to s3://bucket/folder/. Both with region, folder and session (where
relative paths begin). Prints JSON lines: how far it is, at last ``{"done": report}`` or ``{"error": text}``.
boto3 checks what S3 has a checksum of; it comes from PyPI into a venv of its own when it is first wanted. What is there
by size and time is not fetched again; no object has its name before it is whole.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .exchange import Refused, Tally
from .listing import Unsendable, entries, expanded
from .transfer import below, pass_on

FOLDER = Path.home() / ".ppe"
VENV = FOLDER / "aws"
WANTED = "boto3>=1.36,<2"  # the first that asks S3 for checksums
INSTALL_SECONDS = 300.0
URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", re.DOTALL)
PATTERN = re.compile(r"[*?[]")
AT_ONCE = 8
TELL_SECONDS = 0.25

Task = dict[str, Any]


@dataclass(frozen=True)
class Object:
    """``path`` is its name here, its parts joined by "/"; ``mtime`` in seconds."""

    bucket: str
    key: str
    path: str
    size: int
    mtime: float


class Teller:
    """Prints how far it is, not too often; for any thread."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._next = 0.0
        self._lock = threading.Lock()

    def add(self, size: int, *, kept: bool = False) -> None:
        """So many bytes more are there, or were already."""
        with self._lock:
            self.tally.done += size
            self.tally.kept += size * kept
            if time.monotonic() >= self._next:
                self.tell()

    def tell(self, phase: str = "") -> None:
        """Now."""
        self._next = time.monotonic() + TELL_SECONDS
        self.tally.phase = phase
        _print({"progress": asdict(self.tally)})


def split(url: str) -> tuple[str, str]:
    """Bucket and key. Raises Refused."""
    found = URL.fullmatch(url)
    if not found:
        raise Refused(f"{url} is not s3://bucket/key")
    return found[1], found[2] or ""


def objects(s3: Any, url: str) -> list[Object]:
    """What is meant: one object, all below a folder (which keeps its name), or those that fit a pattern."""
    bucket, key = split(url)
    fixed = key[: found.start()] if (found := PATTERN.search(key)) else key
    if found or not key or key.endswith("/"):
        folder = f"{(key.rstrip('/').rpartition('/')[2] or bucket)}/"
        listed = [
            Object(bucket, each["Key"], path, each["Size"], each["LastModified"].timestamp())
            for each in _listed(s3, bucket, fixed)
            if not each["Key"].endswith("/")  # a folder's mark
            if (path := each["Key"].rpartition("/")[2] if found else folder + each["Key"][len(key) :])
            if not found or _fits(each["Key"], key)
        ]
    else:
        about = s3.head_object(Bucket=bucket, Key=key)
        modified = about["LastModified"].timestamp()
        listed = [Object(bucket, key, key.rpartition("/")[2], about["ContentLength"], modified)]
    if not listed:
        raise Refused(f"there is nothing at {url}")
    return listed


def _listed(s3: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from page.get("Contents", ())


def _fits(key: str, pattern: str) -> bool:
    """As in a shell: a pattern's part fits one part of the key."""
    parts, patterns = key.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def fetch(s3: Any, task: Task, teller: Teller) -> Task:
    """Bring the objects here, and to the other nodes. Raises Refused, OSError and what boto3 raises."""
    wanted = [each for source in task["sources"] for each in objects(s3, source)]
    dest, name = Path(below(task, task["dest"])).expanduser(), ""
    sole = len(wanted) == 1 and "/" not in wanted[0].path and not task["dest"].endswith("/")
    if sole and dest.name not in ("", "..") and not dest.is_dir():
        dest, name = dest.parent, dest.name
    base = dest.resolve()
    where: dict[str, Object] = {}
    left_out = []
    for each in wanted:
        if {"", ".", ".."} & set(each.path.split("/")):
            left_out.append(f"{each.key} (no path that a file can have)")
        elif (path := name or each.path) in where:
            raise Refused(f"{where[path].key} and {each.key} would both become {path}")
        else:
            where[path] = each
    teller.tally.files, teller.tally.bytes = len(where), sum(each.size for each in where.values())
    failures = _each(where, lambda path, each: _bring(s3, each, base / path, teller))
    arrived = sorted({path.split("/")[0] for path in where if path not in failures})
    report = {"base": str(base), "failures": failures, "left_out": left_out, "nodes": {}}
    if arrived and task.get("nodes"):
        offered, _ = entries([str(base / top) for top in arrived])
        ours = {
            "/".join(parts[:count])
            for parts in (path.split("/") for path in where)
            for count in range(1, len(parts) + 1)
        }
        chosen = [each for each in offered if each.path in ours]
        report["nodes"] = pass_on(chosen, str(base), task["nodes"], teller.tell)
    return report


def _bring(s3: Any, each: Object, path: Path, teller: Teller) -> None:
    if path.is_file():
        about = path.stat()
        if about.st_size == each.size and abs(about.st_mtime - each.mtime) < 1:
            teller.add(each.size, kept=True)
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole, as boto3 does it.
    s3.download_file(each.bucket, each.key, str(path), Callback=teller.add)
    if path.stat().st_size != each.size:
        raise Refused("it was changed while it was fetched")
    os.utime(path, (each.mtime, each.mtime))


def store(s3: Any, task: Task, teller: Teller) -> Task:
    """Take files to S3. Raises Unsendable, Refused and what boto3 raises."""
    bucket, key = split(task["dest"])
    offered, left_out = entries(expanded([below(task, source) for source in task["sources"]]))
    files = {each.path: each for each in offered if each.kind == "file"}
    left_out += [f"{each.path} (a link)" for each in offered if each.kind == "link"]
    if len(offered) > 1 or not key or not files:
        key = key if not key or key.endswith("/") else f"{key}/"
    teller.tally.files, teller.tally.bytes = len(files), sum(each.size for each in files.values())

    def put(path: str, each: Any) -> None:
        s3.upload_file(each.source, bucket, key + path if key[-1:] in ("", "/") else key, Callback=teller.add)

    return {"base": f"s3://{bucket}/{key}", "failures": _each(files, put), "left_out": left_out, "nodes": {}}


def _each(files: dict[str, Any], act: Callable[[str, Any], None]) -> dict[str, str]:
    """Act on some of them at a time; why it failed, by path. What fails for all of them fails."""
    failures: dict[str, str] = {}

    def tried(path: str) -> None:
        try:
            act(path, files[path])
        except (OSError, Refused) as exc:
            failures[path] = str(exc)
        except Exception as exc:  # boto3's, which only the venv has
            failures[path] = explained(exc)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(tried, files))
    return failures


def explained(exc: Exception) -> str:
    """What boto3 says, and what to do about it."""
    kind, text = type(exc).__name__, str(exc)
    if "NoCredentials" in kind or "CredentialRetrieval" in kind:
        return "this node has no credentials of AWS: launch the cluster with --instance-profile"
    if "(403)" in text or "AccessDenied" in text:
        return f"{text}; the instance profile's role needs s3:GetObject, s3:PutObject and s3:ListBucket there"
    return text or kind


def _client(region: str | None) -> Any:
    import boto3

    # By itself boto3 asks the metadata service once, and waits for a second: too short for a busy node.
    os.environ.setdefault("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "4")
    os.environ.setdefault("AWS_METADATA_SERVICE_TIMEOUT", "4")

    return boto3.session.Session(region_name=region or None).client("s3")


def with_boto3(program: str, *, say: Callable[[str], None]) -> None:
    """Become the venv's Python, which has boto3, unless it is; it is made if it is not there. Raises Refused."""
    if sys.prefix.startswith(str(VENV)):
        return
    done = VENV / "complete"
    VENV.parent.mkdir(mode=0o700, exist_ok=True)
    with (VENV.parent / "aws.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            say("installing boto3")
            pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--no-input", WANTED]
            for command in ([sys.executable, "-m", "venv", "--clear", str(VENV)], pip):
                _run(command)
            done.touch()
    python = str(VENV / "bin" / "python")
    os.execv(python, [python, str(FOLDER / "node"), program, *sys.argv[1:]])  # noqa: S606


def _run(command: Sequence[str]) -> None:
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise Refused(f"boto3 could not be installed from PyPI within {INSTALL_SECONDS:.0f} s") from exc
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout.strip()).splitlines()[-1:]
        raise Refused(f"boto3 could not be installed from PyPI: {' '.join(said)}")


def _print(line: Task) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Do what the argument says; an exit status."""
    teller = Teller()
    try:
        with_boto3("s3", say=teller.tell)
        task = json.loads(sys.argv[1])
        report = {"fetch": fetch, "store": store}[task["act"]](_client(task.get("region")), task, teller)
        tally = teller.tally
        sent = {"files": tally.files, "total": tally.bytes, "bytes": tally.done - tally.kept}
        _print({"done": {**report, **sent}})
    except (Refused, Unsendable, OSError) as exc:
        _print({"error": str(exc)})
    except Exception as exc:  # boto3's
        _print({"error": explained(exc)})
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
