"""Objects of S3 to the cluster and from it: node/files/s3.py does it there, with the node's own credentials.

Nothing of it crosses this machine's line. Knows nothing of clusters, EC2 or notebooks.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from typing import Any

from ...errors import RemoteInterrupted, TransferFailed
from ...node.files.exchange import OnProgress, Tally
from ...node.wire.protocol import MAIN
from ...ssh import Channel, Connection
from .transfer import Transferred, concluded

__all__ = ["fetch", "is_s3", "store"]


def is_s3(path: str) -> bool:
    """Whether it names something in S3."""
    return path.startswith("s3://")


def fetch(
    connection: Connection,
    sources: Sequence[str],
    to: str,
    *,
    nodes: Sequence[str] = (),
    region: str = "",
    session: str = MAIN,
    on_progress: OnProgress = lambda tally: None,
) -> Transferred:
    """Have the master fetch s3://bucket/key, s3://bucket/folder/ or patterns to ``to``, and pass it on to ``nodes``.

    Raises TransferFailed, RemoteInterrupted, ConnectionLost.
    """
    task = {"act": "fetch", "sources": list(sources), "dest": to, "nodes": list(nodes)}
    return _carried_out(connection, {**task, "region": region, "session": session}, on_progress)


def store(
    connection: Connection,
    sources: Sequence[str],
    to: str,
    *,
    region: str = "",
    session: str = MAIN,
    on_progress: OnProgress = lambda tally: None,
) -> Transferred:
    """Have the master take its files and folders to ``to``: s3://bucket/folder/, or a sole file's new name there.

    Raises as ``fetch``.
    """
    task = {"act": "store", "sources": list(sources), "dest": to, "region": region, "session": session}
    return _carried_out(connection, task, on_progress)


def _carried_out(connection: Connection, task: dict[str, Any], on_progress: OnProgress) -> Transferred:
    began = time.monotonic()
    command = f"exec python3 ~/.ppe/node s3 {shlex.quote(json.dumps(task))}"
    with connection.popen(command) as channel:
        try:
            told = _last_of(channel, on_progress)
        except KeyboardInterrupt:
            raise RemoteInterrupted("interrupted; what is whole is there") from None
    if "done" not in told:
        raise TransferFailed(str(told.get("error") or "the node ended without a word"))
    report = told["done"]
    return concluded(report, files=report["files"], total=report["total"], odd=(), began=began)


def _last_of(channel: Channel, on_progress: OnProgress) -> dict[str, Any]:
    """How it ended: the last line; the others say how far it is."""
    rest, told = b"", {}
    while block := channel.recv():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "progress" in told:
                on_progress(Tally(**told["progress"]))
    if "progress" in told or not told:
        said = b"".join(iter(channel.recv_stderr, b"")).decode(errors="replace").strip()
        told = {"error": said.splitlines()[-1] if said else ""}
    return told
