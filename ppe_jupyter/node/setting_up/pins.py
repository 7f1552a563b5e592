"""Has packages installed in given versions on the nodes of a cluster. Runs on the master, as the login user.

    python3 ~/.ppe/node pins

Reads a JSON object: ``pins`` (versions by private address, kind and name), ``snapshot`` (pinned.py) and ``lock``, the
text that says why, which all nodes note. Prints setup.py's events; ``done`` has ``refused``: what could not be had and
why, by address, kind and name. Run in ~/.ppe.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..machine import own_packages, packages, pinned
from . import reach
from .installing import SECONDS
from .master import CLUSTER, read
from .phase import Phase, emit
from .reach import Node, NodeFailed
from .setup import _node


def pin(task: Mapping[str, Any]) -> dict[str, dict[str, pinned.Refused]]:
    """Install them; what was refused. Raises NodeFailed."""
    pins: Mapping[str, Any] = task["pins"]
    nodes = [_node(each) for each in read(CLUSTER).get("nodes", ())]
    phase = Phase("installing" if pins else "noting the lock", nodes, len(nodes))

    def act(node: Node, say: reach.Say) -> dict[str, Any]:
        wanted = pins.get(node.private_ip, {}).get("apt", {})
        own = {"pins": wanted, "snapshot": task["snapshot"], "lock": task["lock"]}
        return reach.ask(node, "pin", own, deadline=time.monotonic() + SECONDS, say=say)

    answers, failed = phase.run(act)
    for error in failed.values():
        raise error
    refused = {address: {"apt": answer["refused"]} for address, answer in answers.items()}
    # What the others are to have besides is the master's too, as everything that a user installs.
    r, python = (
        {name: version for each in pins.values() for name, version in each.get(kind, {}).items()}
        for kind in ("r", "python")
    )
    if r or python:
        try:
            own = pinned.of_user(r, python, partial(phase.say, nodes[0]))
        except packages.NotInstalled as exc:
            raise nodes[0].failed(str(exc)) from None
        for line in own_packages.share(everything=True):
            phase.say(nodes[0], line)
        for address in refused:
            refused[address].update(own)
    return refused


def main() -> int:
    """0 if it is done."""
    try:
        emit("done", refused=pin(json.load(sys.stdin)))
    except NodeFailed as exc:
        emit("error", message=str(exc), node=exc.node)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # as setup.py
