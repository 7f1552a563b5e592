"""The public keys of colleagues whom the cluster's owner has let in: one block of lines in each node's authorized_keys.

    python3 ~/.ppe/node guests list      the master's lines, as a JSON list
    python3 ~/.ppe/node guests add       reads a line (JSON): its key is let in too, here and on the workers
    python3 ~/.ppe/node guests remove    reads a line: its key is let in no longer
    python3 ~/.ppe/node guests here      reads such a list: these and no others, on this node alone

``add`` and ``remove`` tell all nodes who is let in, whether or not that is a change, and print {"lines": …, "late": why
not, by address, of those that could not be told}; a repetition or setup.py tells them later.

Run it on the master as the login user, in ~/.ppe. The master's own block is the truth, which setup.py hands to every
node that it configures. Standard library only; must not know whose keys they are.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..machine import blocks

SECONDS = 30.0
HERE = "exec python3 ~/.ppe/node guests here"


def _authorized(home: Path) -> Path:
    return home / ".ssh" / "authorized_keys"


def listed(home: Path | None = None) -> list[str]:
    """The lines of those that are let in."""
    return blocks.read(_authorized(home or Path.home()))


def let_in(lines: Sequence[str], *, home: Path | None = None, owner: tuple[int, int] | None = None) -> None:
    """Let in these and no others; ``owner`` is user and group of the file, if root writes it."""
    path = _authorized(home or Path.home())
    if lines or listed(home):
        blocks.write(path, lines, mode=0o600, owner=owner)


def change(action: str, line: str) -> dict[str, Any]:
    """Add or remove the line's key, while no other client does."""
    with (Path.home() / ".ppe" / "guests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key, lines = line.split()[:2], listed()
        if action == "remove":
            lines = [each for each in lines if each.split()[:2] != key]
        elif key not in [each.split()[:2] for each in lines]:
            lines.append(line)
        return {"lines": lines, "late": everywhere(lines)}


def everywhere(lines: Sequence[str]) -> dict[str, str]:
    """Here and on the workers; why not, by address."""
    from . import reach
    from .master import CLUSTER, read

    nodes = [reach.Node(**node) for node in read(CLUSTER).get("nodes", ())]
    let_in(lines)
    stdin, deadline = json.dumps(list(lines)).encode(), time.monotonic() + SECONDS

    def tell(node: reach.Node) -> dict[str, object]:
        reach.command(node, HERE, stdin, deadline=deadline)
        return {}

    workers = [node for node in nodes if not node.is_master]
    _, failed = reach.everywhere(workers, tell, done=lambda count: None)
    return {address: str(why) for address, why in failed.items()}


def main(action: str) -> None:
    """Do what it names."""
    if action == "list":
        sys.stdout.write(json.dumps(listed()) + "\n")
    elif action in ("add", "remove"):
        sys.stdout.write(json.dumps(change(action, json.load(sys.stdin))) + "\n")
    else:
        let_in(json.load(sys.stdin))


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # threads may still wait for a node that is gone
