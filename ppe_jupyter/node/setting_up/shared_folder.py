"""Has every node share ~/shared where that takes more than a link: the master first, which may have to serve it.

Runs on the master, part of its setup. What a node does is sharing.py's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import reach
from .phase import Json, Phase, emit
from .reach import Node, NodeFailed

SECONDS = 900.0  # it may have to be installed


def share(nodes: Sequence[Node], shared: Mapping[str, Any], login_user: str) -> None:
    """Share it on these nodes, the first of which is the master.

    Raises NodeFailed where the user's own file system cannot be mounted: that is not the cluster that was asked for.
    Without the master's own folder it is of use nevertheless: that is said, and nodes lack the link.
    """
    master, *workers = nodes
    members = [node.private_ip for node in workers]

    def act(node: Node, say: reach.Say) -> Json:
        how = {**shared, "server": master.private_ip, "members": members, "serves": node.is_master}
        task = {"shared": how, "login_user": login_user}
        return reach.ask(node, "share", task, deadline=time.monotonic() + SECONDS, say=say)

    try:
        for some in ([master], workers):
            phase = Phase("sharing", some, len(nodes))
            answers, failed = phase.run(act)
            for error in failed.values():
                raise error
            tell(answers, phase)
    except NodeFailed as exc:
        if shared["kind"] == "efs":
            raise
        emit("progress", phase="sharing", ready=0, total=len(nodes), message=f"no ~/shared: {exc}")


def tell(answers: Mapping[str, Json], phase: Phase) -> None:
    """On which nodes it is not seen, by what they have answered."""
    for node in phase.nodes:
        if note := answers.get(node.private_ip, {}).get("note"):
            phase.warn(f"{node.name}: {note}")
