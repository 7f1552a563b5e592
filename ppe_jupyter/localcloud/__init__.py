"""The local cloud: an EC2 endpoint on this machine whose instances are Linux containers.

This module is what clients import: it finds the owner's daemon, or starts it. The daemon's address and key
are in ``<state_dir>/localcloud/endpoint.json`` (0600), which the owner writes; the daemon runs as root.
Importing this costs nothing: moto lives in the daemon's process only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import LocalCloudUnavailable
from ..settings import Settings
from . import network, privilege, sigv4

REGION = "us-east-1"
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Endpoint:
    """How to reach the local cloud. ``caller_address`` is this host's address as the nodes see it."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str
    caller_address: str


@dataclass(frozen=True)
class Status:
    """The local cloud now; ``instances`` counts those that are not terminated."""

    running: bool
    url: str | None = None
    pid: int | None = None
    instances: int = 0
    images: tuple[str, ...] = ()


def _ignore(_: str) -> None:
    """Report to nobody."""


def ensure(settings: Settings, *, report: Callable[[str], None] = _ignore) -> Endpoint:
    """The owner's endpoint, its daemon started if need be; safe to call at once from anywhere.

    Raises LocalCloudUnavailable with one sentence that says what is missing and what to do.
    """
    from . import check

    if ready := _ready(settings):
        return ready
    if problem := check.missing_moto() or check.problem():
        raise LocalCloudUnavailable(problem)
    with _locked(settings):
        if ready := _ready(settings):
            return ready
        report("starting the local cloud")
        return _start(settings)


def prepare(settings: Settings, *, report: Callable[[str], None] = _ignore) -> None:
    """Build the image that new instances start from, if there is none for this version of the package.

    Only a launch needs it: clusters of an older image are seen and used without it.
    """
    from . import check, image  # here, so that `python -m` can run them

    if image.find(settings.local_root) is None and (problem := check.problem()):
        raise LocalCloudUnavailable(problem)
    image.ensure(settings.local_root, report=report)


def prepared(settings: Settings) -> bool:
    """Whether the image is built that new instances start from."""
    from . import image

    return image.find(settings.local_root) is not None


def status(settings: Settings) -> Status:
    """Whether the local cloud runs, and with what."""
    endpoint = known(settings)
    answer = ask(endpoint, "status") if endpoint else None
    if endpoint is None or answer is None:
        return Status(running=False)
    return Status(True, endpoint.url, answer["pid"], answer["instances"], tuple(answer["images"]))


def down(settings: Settings) -> None:
    """End the local cloud with all in it but the image; also what a killed daemon left. Safe to repeat."""
    with _locked(settings):
        endpoint = known(settings)
        _file(settings).unlink(missing_ok=True)
        if endpoint and (answer := ask(endpoint, "stop")):
            deadline = time.monotonic() + STOP_SECONDS
            while Path(f"/proc/{answer['pid']}").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        cloud_id = _cloud_id(settings)
        if (settings.local_root / "clouds" / cloud_id).exists() or network.exists(cloud_id):
            arguments = ("--id", cloud_id, "--root", str(settings.local_root), "--remove")
            privilege.run_module("ppe_jupyter.localcloud.daemon", *arguments, report=_ignore)


def _ready(settings: Settings) -> Endpoint | None:
    """The endpoint, if its daemon answers."""
    endpoint = known(settings)
    return endpoint if endpoint and ask(endpoint, "status") else None


def _start(settings: Settings) -> Endpoint:
    if not privilege.available():
        raise LocalCloudUnavailable(privilege.NEEDS_ROOT)
    key, secret = "AKIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30)
    arguments = ("--id", _cloud_id(settings), "--root", str(settings.local_root))
    command = privilege.module("ppe_jupyter.localcloud.daemon", *arguments)
    log_path = _folder(settings) / "daemon.log"
    with log_path.open("w", encoding="utf-8") as log:
        # Its own session, so that Ctrl-C in the notebook or terminal does not reach it; forked once more, so
        # that its end is not ours to wait for.
        daemon = subprocess.Popen(
            ["setsid", "--fork", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            text=True, cwd="/",
        )  # fmt: skip
    with daemon:
        assert daemon.stdin is not None and daemon.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            daemon.stdin.write(json.dumps({"key": key, "secret": secret}) + "\n")
            daemon.stdin.close()
        answer = json.loads(daemon.stdout.readline() or "{}")
    if "url" not in answer:
        reason = (
            answer.get("error")
            or (log_path.read_text(encoding="utf-8").strip().splitlines() or ["no reason"])[-1]
        )
        raise LocalCloudUnavailable(f"the local cloud did not start: {reason} (see {log_path})")
    endpoint = Endpoint(answer["url"], key, secret, REGION, answer["gateway"])
    _store(settings, endpoint)
    return endpoint


def ask(endpoint: Endpoint, what: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The daemon's answer to a signed request of this package's own; None if it does not answer us."""
    host = endpoint.url.removeprefix("http://")
    body = json.dumps(parameters or {}).encode()
    request = sigv4.Request("POST", f"/ppe-local/{what}", "", {"host": host}, body)
    headers = sigv4.sign(
        request, key=endpoint.access_key, secret=endpoint.secret_key, region=endpoint.region, service="ec2",
        now=datetime.now(timezone.utc),
    )  # fmt: skip
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("POST", request.path, body, headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return answer


def _folder(settings: Settings) -> Path:
    folder = settings.state_dir / "localcloud"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _file(settings: Settings) -> Path:
    return settings.state_dir / "localcloud" / "endpoint.json"


def known(settings: Settings) -> Endpoint | None:
    """The endpoint as it was written down when its daemon started; None when it was taken down."""
    try:
        return Endpoint(**json.loads(_file(settings).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _store(settings: Settings, endpoint: Endpoint) -> None:
    """Write it whole or not at all, never readable by others."""
    path = _file(settings)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600, exist_ok=False)
    temporary.write_text(json.dumps(asdict(endpoint)), encoding="utf-8")
    temporary.replace(path)


def _cloud_id(settings: Settings) -> str:
    """Names the owner's local cloud on this machine: 8 hex digits, the same for all the owner's clients."""
    return hashlib.sha256(f"{os.getuid()}:{settings.state_dir.resolve()}".encode()).hexdigest()[:8]


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One client at a time starts or stops the daemon."""
    with (_folder(settings) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
