"""Makes containers what the API says instances are, and the API say what containers are.

One thread owns every container: API threads only submit() a wish and return, as EC2 does. The thread polls,
because a container's end (a shutdown from inside, a crash) has no other witness than its process. An
instance's state moves pending → running → (stopping → stopped → pending …) → shutting-down → terminated.
Knows no EC2 library: a Machine is what it needs of an instance's record.
"""

from __future__ import annotations

import queue
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from . import firewall
from .container import Container, NodeSpec
from .network import Network, Resolver, publish_on_host

STOP_SECONDS = 10.0  # then the plug is pulled; EC2 waits minutes
TERMINATE_SECONDS = 3.0
POLL_SECONDS = 0.05


class Action(Enum):
    """What the API asks for."""

    START = "start"
    STOP = "stop"
    TERMINATE = "terminate"
    REBOOT = "reboot"
    REFRESH = "refresh"  # a security group has changed
    QUIT = "quit"


class Machine(Protocol):
    """An instance's record, as far as the reconciler goes. Its methods are safe to call from any thread."""

    id: str

    def spec(self) -> NodeSpec:
        """What its container is made of."""

    def permissions(self) -> list[firewall.Ingress]:
        """What its security groups let in."""

    def names(self) -> list[str]:
        """Its DNS names."""

    def terminates_on_shutdown(self) -> bool:
        """Whether a shutdown from inside terminates it."""

    def moved(self, state: str, *, code: str = "", reason: str = "", console: bytes = b"") -> None:
        """Its container has changed; ``code`` and ``reason`` are EC2's StateReason."""


@dataclass
class _Node:
    machine: Machine
    container: Container
    wanted: Action = Action.START
    rules: str = ""
    address: str = ""
    seen_pid: int | None = None
    deadline: float | None = None


class Reconciler:
    """Owns the containers of one local cloud, in ``folder``."""

    def __init__(self, folder: Path, network: Network, resolver: Resolver, *, cloud_id: str) -> None:
        self._folder = folder
        self._network = network
        self._resolver = resolver
        self._cloud_id = cloud_id
        self._wishes: queue.SimpleQueue[tuple[Action, Machine | None]] = queue.SimpleQueue()
        self._nodes: dict[str, _Node] = {}
        self._published: dict[str, list[str]] = {}

    def submit(self, action: Action, machine: Machine | None = None) -> None:
        """Ask for something; returns at once. For any thread."""
        self._wishes.put((action, machine))

    def console(self, instance_id: str) -> bytes:
        """What a container has printed. For any thread."""
        return Container(self._folder / instance_id, self._network).console()

    def run(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Work until QUIT is submitted, then end and remove every container."""
        try:
            while (wish := self._next_wish()) is None or wish[0] is not Action.QUIT:
                if wish is not None:
                    self._safely(self._take, *wish, clock())
                for node in list(self._nodes.values()):
                    self._safely(self._watch, node, clock())
        finally:
            self._remove_all(clock)

    def _next_wish(self) -> tuple[Action, Machine | None] | None:
        try:
            return self._wishes.get(timeout=POLL_SECONDS if self._nodes else None)
        except queue.Empty:
            return None

    def _safely(self, act: Callable[..., None], *arguments: Any) -> None:
        """One broken container must not end the service for the others."""
        try:
            act(*arguments)
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def _take(self, action: Action, machine: Machine | None, now: float) -> None:
        if machine is None:
            self._refresh()
            return
        node = self._nodes.get(machine.id)
        if action is Action.START:
            node = node or _Node(machine, Container(self._folder / machine.id, self._network))
            self._nodes[machine.id] = node
            self._start(node)
        elif node is None:
            machine.moved("terminated")
        elif action is Action.REBOOT:
            node.wanted, node.deadline = Action.REBOOT, now + STOP_SECONDS
            node.container.signal(signal.SIGINT)
        else:
            grace = STOP_SECONDS if action is Action.STOP else TERMINATE_SECONDS
            node.wanted, node.deadline = action, now + grace
            node.container.signal(signal.SIGPWR)

    def _start(self, node: _Node) -> None:
        spec = node.machine.spec()
        node.address, node.wanted, node.seen_pid, node.deadline = spec.address, Action.START, None, None
        self._publish()
        self._refresh()
        node.rules = firewall.ruleset(node.machine.permissions())
        node.container.start(spec, rules=node.rules)

    def _watch(self, node: _Node, now: float) -> None:
        if node.container.ended:
            self._ended(node)
            return
        pid = node.container.pid
        if pid != node.seen_pid:
            node.seen_pid = pid
            if node.wanted is Action.START:
                node.machine.moved("running")
            elif node.wanted is Action.REBOOT:
                node.wanted, node.deadline = Action.START, None
            else:
                node.container.signal(signal.SIGPWR)
        if node.deadline is not None and now > node.deadline:
            node.container.signal(signal.SIGKILL)

    def _ended(self, node: _Node) -> None:
        """The container has stopped; why decides what becomes of the instance."""
        if node.wanted is Action.REBOOT:
            self._start(node)
        elif node.wanted is Action.TERMINATE:
            self._remove(node, code="Client.UserInitiatedShutdown", reason="User initiated shutdown")
        elif node.wanted is Action.START and node.seen_pid is None:
            reason = f"Internal error on launch: {node.container.failure()}"
            self._remove(node, code="Server.InternalError", reason=reason)
        elif node.wanted is Action.START and node.machine.terminates_on_shutdown():
            self._remove(node, code="Client.InstanceInitiatedShutdown", reason="Instance initiated shutdown")
        elif node.deadline is not None or node.wanted is Action.START:
            node.deadline = None
            initiator = "User" if node.wanted is Action.STOP else "Instance"
            node.wanted = Action.STOP
            code, reason = f"Client.{initiator}InitiatedShutdown", f"{initiator} initiated shutdown"
            node.machine.moved("stopped", code=code, reason=reason)

    def _remove(self, node: _Node, *, code: str, reason: str) -> None:
        console = node.container.console()
        node.container.remove()
        del self._nodes[node.machine.id]
        self._publish()
        node.machine.moved("terminated", code=code, reason=reason, console=console)
        self._refresh()

    def _publish(self) -> None:
        names = {node.address: node.machine.names() for node in self._nodes.values()}
        if names != self._published:
            self._published = names
            self._resolver.publish(names)
            publish_on_host(self._cloud_id, names)

    def _refresh(self) -> None:
        """Bring every firewall up to date with its groups and their members."""
        for node in self._nodes.values():
            if node.container.folder.exists():
                self._safely(self._protect, node)

    def _protect(self, node: _Node) -> None:
        rules = firewall.ruleset(node.machine.permissions())
        if rules == node.rules:
            return
        node.container.write_rules(rules)
        if (pid := node.container.pid) and not node.container.ended:
            firewall.apply(rules, pid=pid)
        node.rules = rules

    def _remove_all(self, clock: Callable[[], float]) -> None:
        deadline = clock() + STOP_SECONDS
        for node in self._nodes.values():
            node.wanted, node.deadline = Action.TERMINATE, clock()
        while self._nodes and clock() < deadline:
            for node in list(self._nodes.values()):
                node.container.signal(signal.SIGKILL)
                self._safely(self._watch, node, clock())
            time.sleep(POLL_SECONDS)
