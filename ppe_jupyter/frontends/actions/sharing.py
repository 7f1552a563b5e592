"""Letting a colleague into a cluster, and out again: whose key it is, is asked before."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import NothingToDo, SetupFailed, UsageError
from ...ssh import PublicKey
from ..owners import foreign_owner
from ..tables import Table, table

if TYPE_CHECKING:
    from ..desk import Desk

Arguments = argparse.Namespace


def share(desk: Desk, arguments: Arguments) -> Table | None:
    """Let a key in, or take it away; alone, whose are let in."""
    cluster = desk.any_cluster(arguments.name, arguments)
    if arguments.key_name and arguments.revoke:
        raise UsageError("either --key or --revoke")
    if not (arguments.key_name or arguments.revoke):
        found = cluster.guests()
        if not found:
            raise NothingToDo(f"{cluster.name} is shared with nobody")
        return table([{"guest": key.name, "kind": key.kind, "fingerprint": key.fingerprint} for key in found])
    owner = foreign_owner(desk.manager(arguments), cluster.record)
    if arguments.revoke:
        if owner:
            desk.agree(f"Revoke {arguments.revoke} on {cluster.name}{owner}?", unless=arguments.yes)
        if late := cluster.unshare(_who(arguments.revoke)):
            raise SetupFailed(
                f"that key is still let in on {', '.join(late)} of {cluster.name}; repeat this, or mend them with: "
                f"{desk.sign}retry {cluster.name} ({'; '.join(late.values())})"
            )
        desk.say(
            f"{arguments.revoke} is let into {cluster.name} no longer; what that person does there now goes on, "
            "and what was left there to come back with is for you to find"
        )
        return None
    key = _key(arguments.key_name)
    desk.say(f"{key.name}: {key.kind}, {key.fingerprint}")
    question = (
        f"Let {key.name} into all nodes of {cluster.name}{owner}, with all that is there, as you are, and so into what "
        "you fetch from there and open here?"
    )
    desk.agree(question, unless=arguments.yes)
    _tell(desk, cluster.share(key))
    desk.say(
        f"{cluster.name} is shared with {key.name}, who connects with: {desk.sign}connect {cluster.name} "
        f"(key_file in the settings is that key's private half); take it back with: {desk.sign}share {cluster.name} "
        f"--revoke {key.name}"
    )
    return None


def _key(path: str) -> PublicKey:
    try:
        return PublicKey.parse(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read a public key from {path}: {exc}") from exc


def _who(typed: str) -> str:
    """A name, a fingerprint, or the fingerprint of the key in that file."""
    return _key(typed).fingerprint if Path(typed).expanduser().is_file() else typed


def _tell(desk: Desk, late: Mapping[str, str]) -> None:
    for address, why in late.items():
        desk.notice(
            "warning",
            f"{address} could not be told, and will be when this is repeated or by the next set-up (retry, resize): "
            f"{why}",
        )
