"""A phase of the work on all nodes at once, told as JSON lines to whoever started setup.py."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import reach
from .reach import Node, NodeFailed

SAY_SECONDS = 0.5
Json = dict[str, Any]


def emit(event: str, **fields: Any) -> None:
    """One event for whoever started us."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Phase:
    """One phase of the work: tells how many nodes are ready and, not too often, what one of them does."""

    def __init__(self, name: str, nodes: Sequence[Node], total: int) -> None:
        self.nodes = nodes
        self._name = name
        self._total = total
        self._ready = 0
        self._next = 0.0

    def run(
        self, act: Callable[[Node, reach.Say], Json], *, patient: bool = False
    ) -> tuple[dict[str, Json], dict[str, NodeFailed]]:
        """Act on all nodes at once (reach.everywhere)."""
        return reach.everywhere(
            self.nodes, lambda node: act(node, partial(self.say, node)), done=self.ready, patient=patient
        )

    def ready(self, count: int) -> None:
        """So many nodes have done it."""
        self._ready = count
        emit("progress", phase=self._name, ready=count, total=self._total)

    def say(self, node: Node, text: str) -> None:
        """What a node does now."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_SECONDS
            self.warn(f"{node.name}: {text}")

    def warn(self, message: str) -> None:
        """What is told in any case."""
        emit("progress", phase=self._name, ready=self._ready, total=self._total, message=message)
