"""Guests: colleagues whose public keys are on all nodes of a cluster, so that they use it with what is their own.

The master knows the keys (node/setting_up/guests.py), tags the names, for lists. Must not know who the colleagues are.
"""

from __future__ import annotations

import json
from typing import Any

from ...delivery import FOLDER
from ...errors import NothingToDo, UsageError
from ...ssh import Connection, PublicKey
from .. import tags
from ..context import Context
from ..records import ClusterRecord

COMMAND = f"exec python3 {FOLDER} guests"
SECONDS = 100.0  # another client's change, and a node that does not answer, take 30 each


def guests(connection: Connection) -> list[PublicKey]:
    """Whose keys are let in. Raises SshError, RemoteCommandFailed."""
    lines: list[str] = json.loads(connection.run(f"{COMMAND} list", timeout=SECONDS).stdout)
    return [PublicKey.parse(line) for line in lines]


def share(context: Context, connection: Connection, record: ClusterRecord, key: PublicKey) -> dict[str, str]:
    """Let the key in everywhere; why not yet, of nodes that could not be told, by address.

    Safe to repeat, which tells all nodes again. Raises NothingToDo when all know it already, UsageError when another
    key has its name, SshError, CloudError.
    """
    known = {each.fingerprint: each.name for each in guests(connection)}
    if key.fingerprint not in known and key.name in known.values():
        raise UsageError(f"another key of {key.name} is let in: revoke it, or give this one another comment")
    late = _change(context, connection, record, "add", key.line)
    if key.fingerprint in known and not late:
        raise NothingToDo(f"{key.name} ({key.fingerprint}) is let into {record.name} already")
    return late


def revoke(context: Context, connection: Connection, record: ClusterRecord, who: str) -> dict[str, str]:
    """Take the key of that name or fingerprint away everywhere; as ``share``.

    A name that the master knows no more may still be let in by a node that could not be told: then that is told again.
    Raises UsageError for one that is let in nowhere.
    """
    known = guests(connection)
    line = next((each.line for each in known if who in (each.name, each.fingerprint)), "")
    late = _change(context, connection, record, "remove", line)
    if not (line or late):
        names = ", ".join(key.name for key in known) or "nobody"
        raise UsageError(f"{who!r} is not let in; let in: {names}")
    return late


def _change(
    context: Context, connection: Connection, record: ClusterRecord, action: str, line: str
) -> dict[str, str]:
    stdin = json.dumps(line).encode()
    told: dict[str, Any] = json.loads(
        connection.run(f"{COMMAND} {action}", stdin=stdin, timeout=SECONDS).stdout
    )
    ids = [node.instance_id for node in record.nodes if node.state.alive]
    context.ec2.tag(ids, tags.of_guests([PublicKey.parse(each).name for each in told["lines"]]))
    return dict(told["late"])
