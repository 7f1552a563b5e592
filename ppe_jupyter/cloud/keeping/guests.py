"""Guests: colleagues whose public keys are on all nodes of a cluster, so that they use it with what is their own.

The master knows the keys (node/guests.py), tags the names, for lists. Must not know who the colleagues are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...delivery import FOLDER
from ...errors import NothingToDo, UsageError
from ...ssh import Connection, PublicKey
from .. import tags
from ..context import Context
from ..records import ClusterRecord

COMMAND = f"cd {FOLDER}/.. && exec python3 -m node.guests"
SECONDS = 60.0


def guests(connection: Connection) -> list[PublicKey]:
    """Whose keys are let in. Raises SshError, RemoteCommandFailed."""
    lines: list[str] = json.loads(connection.run(f"{COMMAND} list", timeout=SECONDS).stdout)
    return [PublicKey.parse(line) for line in lines]


def share(context: Context, connection: Connection, record: ClusterRecord, key: PublicKey) -> dict[str, str]:
    """Let the key in everywhere; why not yet, of nodes that could not be told, by address.

    Raises NothingToDo, UsageError when another key has its name, SshError, CloudError.
    """
    known = guests(connection)
    if any(each.fingerprint == key.fingerprint for each in known):
        raise NothingToDo(f"{key.name} ({key.fingerprint}) is let into {record.name} already")
    if any(each.name == key.name for each in known):
        raise UsageError(f"another key of {key.name} is let in: revoke it, or give this one another comment")
    return _let_in(context, connection, record, [*known, key])


def revoke(context: Context, connection: Connection, record: ClusterRecord, who: PublicKey) -> dict[str, str]:
    """Take the key away everywhere; as ``share``."""
    return _let_in(context, connection, record, [each for each in guests(connection) if each != who])


def find(known: Sequence[PublicKey], who: str) -> PublicKey:
    """The guest of that name or fingerprint. Raises UsageError."""
    for key in known:
        if who in (key.name, key.fingerprint):
            return key
    names = ", ".join(key.name for key in known) or "nobody"
    raise UsageError(f"{who!r} is not let in; let in: {names}")


def _let_in(
    context: Context, connection: Connection, record: ClusterRecord, keys: Sequence[PublicKey]
) -> dict[str, str]:
    stdin = json.dumps([key.line for key in keys]).encode()
    late: dict[str, str] = json.loads(connection.run(f"{COMMAND} set", stdin=stdin, timeout=SECONDS).stdout)
    ids = [node.instance_id for node in record.nodes if node.state.alive]
    context.ec2.tag(ids, tags.of_guests([key.name for key in keys]))
    return late
