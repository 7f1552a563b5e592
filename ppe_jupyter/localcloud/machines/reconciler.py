"""Makes containers what the API says instances are, and the API say what containers are.

One thread owns every container: API threads only submit() a wish and return, as EC2 does. The thread polls,
because a container's end (a shutdown from inside, a crash) has no other witness than its process. An
instance's state moves pending → running → (stopping → stopped → pending …) → shutting-down → terminated.
Wishes that wait are taken together: names, firewalls and ways out are brought up to date once for all of them.
Knows no EC2 library: a Machine is what it needs of an instance's record.
"""

from __future__ import annotations

import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import LocalCloudUnavailable
from .. import network
from ..network import Network, publish_on_host
from . import firewall, metadata
from .captures import Captures
from .container import Container, NodeSpec
from .machine import Action as Action
from .machine import Capture, Machine
from .resolver import Resolver
from .volumes import Disks, Volumes

STOP_SECONDS = 10.0  # then the plug is pulled; EC2 waits minutes
TERMINATE_SECONDS = 3.0
POLL_SECONDS = 0.05
BUSY_SECONDS = 0.5  # how often it is looked whether a volume that shall go is still mounted


@dataclass
class _Node:
    machine: Machine
    container: Container
    disks: Disks
    spec: NodeSpec
    wanted: Action = Action.START
    starting: bool = True
    rules: str = ""
    seen_pid: int | None = None
    deadline: float | None = None
    busy_until: float | None = None
    captures: list[Capture] = field(default_factory=list)
    copying: threading.Thread | None = None


class Reconciler:
    """Owns the containers of one local cloud, in ``folder``."""

    def __init__(self, folder: Path, network: Network, resolver: Resolver, *, cloud_id: str) -> None:
        self._instances = folder / "instances"
        self._network = network
        self._resolver = resolver
        self._cloud_id = cloud_id
        self._wishes: queue.SimpleQueue[tuple[Action, Machine | None, Capture | None]] = queue.SimpleQueue()
        self._nodes: dict[str, _Node] = {}
        self._callers: dict[str, metadata.Caller] = {}
        self._published: dict[str, list[str]] = {}
        self._let_out: set[str] = set()
        self.shared = folder / "shared"
        self.volumes = Volumes(folder / "volumes")
        self.captures = Captures(folder / "images", self._instances)

    def submit(self, action: Action, machine: Machine | None = None, capture: Capture | None = None) -> None:
        """Ask for something; returns at once. For any thread."""
        self._wishes.put((action, machine, capture))

    def console(self, instance_id: str) -> bytes:
        """What a container has printed. For any thread."""
        return Container(self._instances / instance_id, self._network).console()

    def caller(self, address: str) -> metadata.Caller | None:
        """Who has that address. For any thread."""
        return self._callers.get(address)

    def run(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Work until QUIT is submitted, then end and remove every container."""
        try:
            while (wishes := self._next_wishes()) is not None:
                for wish in wishes:
                    self._safely(self._take, *wish, clock())
                if any(action in (Action.START, Action.REFRESH) for action, _, _ in wishes):
                    self._safely(self._refresh)
                for node in list(self._nodes.values()):
                    self._safely(self._watch, node, clock())
        finally:
            self._remove_all(clock)

    def _next_wishes(self) -> list[tuple[Action, Machine | None, Capture | None]] | None:
        """All that wait, after the first within a moment; None to quit."""
        found = []
        try:
            found.append(self._wishes.get(timeout=POLL_SECONDS if self._nodes else None))
            while True:
                found.append(self._wishes.get_nowait())
        except queue.Empty:
            return None if any(action is Action.QUIT for action, _, _ in found) else found

    def _safely(self, act: Callable[..., None], *arguments: Any) -> None:
        """One broken container must not end the service for the others."""
        try:
            act(*arguments)
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def _take(self, action: Action, machine: Machine | None, capture: Capture | None, now: float) -> None:
        if machine is None:
            return
        node = self._nodes.get(machine.id)
        if action is Action.START and machine.has_container:
            if node is None:
                container = Container(self._instances / machine.id, self._network)
                node = _Node(machine, container, Disks(container, self.volumes), machine.spec())
                self._nodes[machine.id] = node
            node.wanted, node.starting = Action.START, True
        elif node is None:
            _pretend(action, machine, capture)
        elif action is Action.DISKS:
            self._settle_disks(node, now)
        elif action is Action.CAPTURE:
            assert capture is not None
            node.captures.append(capture)
            if capture.reboot and node.wanted is Action.START and not node.container.ended:
                self._ask(node, Action.CAPTURE, now + STOP_SECONDS)
        else:
            self._ask(node, action, now + (TERMINATE_SECONDS if action is Action.TERMINATE else STOP_SECONDS))

    def _ask(self, node: _Node, wanted: Action, deadline: float) -> None:
        """Ask what is inside to end; past the deadline the plug is pulled."""
        node.wanted, node.deadline, node.starting = wanted, deadline, False
        node.container.signal(signal.SIGINT if wanted is Action.REBOOT else signal.SIGPWR)

    def _start(self, node: _Node) -> None:
        node.spec, node.wanted, node.starting = node.machine.spec(), Action.START, False
        node.seen_pid = node.deadline = None
        wishes = node.machine.disks()
        disks = node.disks.prepare(wishes)
        node.rules = firewall.ruleset(node.machine.permissions())
        node.container.start(node.spec, rules=node.rules, disks=disks)
        for wish in wishes:
            node.machine.disk_moved(wish.volume_id, "detached" if wish.leaving else "attached")

    def _watch(self, node: _Node, now: float) -> None:
        if self._captures(node):
            return
        if node.starting:
            self._start(node)
            return
        if node.container.ended:
            self._ended(node)
            return
        pid = node.container.pid
        if pid != node.seen_pid:
            node.seen_pid = pid
            # The rules may have changed after the hook had read them and before it told the pid.
            node.rules = ""
            self._safely(self._protect, node)
            node.disks.replug()
            if node.wanted is Action.START:
                node.machine.moved("running")
            elif node.wanted is Action.REBOOT:
                node.wanted, node.deadline = Action.START, None
            else:
                node.container.signal(signal.SIGPWR)
        if node.deadline is not None and now > node.deadline:
            node.container.signal(signal.SIGKILL)
        if node.busy_until is not None and now > node.busy_until:
            self._settle_disks(node, now)

    def _settle_disks(self, node: _Node, now: float) -> None:
        """Attach and detach what the record says; of what is still mounted, look again later."""
        node.busy_until = None
        for wish in node.machine.disks():
            if node.container.ended:
                state = "detached" if wish.leaving else "attached"
            else:
                try:
                    state = node.disks.settle(wish)
                except (OSError, subprocess.SubprocessError, LocalCloudUnavailable):
                    traceback.print_exc(file=sys.stderr)
                    state = "detached"
            node.machine.disk_moved(wish.volume_id, state)
            if state == "busy":
                node.busy_until = now + BUSY_SECONDS

    def _captures(self, node: _Node) -> bool:
        """Copy for the images that are asked for; whether that is all that is to be done now."""
        if node.copying is not None:
            if node.copying.is_alive():
                return True
            node.copying = None
            if node.wanted is Action.CAPTURE:
                self._start(node)
        if not node.captures or (node.wanted is Action.CAPTURE and not node.container.ended):
            return False
        capture, image, container = node.captures.pop(0), node.spec.rootfs, node.container

        def copy() -> None:
            capture.done(self.captures.take(capture.ami_id, container, image))

        node.copying = threading.Thread(target=copy, daemon=True)
        node.copying.start()
        return True

    def _ended(self, node: _Node) -> None:
        """The container has stopped; why decides what becomes of the instance."""
        node.disks.release()
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
        shared = node.spec.shared
        if shared and all(each.spec.shared != shared for each in self._nodes.values()):
            shutil.rmtree(shared, ignore_errors=True)  # with the last of its nodes
        self._publish()
        node.machine.moved("terminated", code=code, reason=reason, console=console)
        self.submit(Action.REFRESH)

    def _refresh(self) -> None:
        """Bring names, ways out and every firewall up to date with the records, and remove unused images."""
        self._publish()
        for node in self._nodes.values():
            if node.container.folder.exists():
                self._safely(self._protect, node)
        self.captures.collect()

    def _publish(self) -> None:
        """Who has which address, and may leave the network."""
        nodes = {node.spec.address: node for node in self._nodes.values()}
        self._callers = {
            address: metadata.Caller(node.machine.identity, node.disks) for address, node in nodes.items()
        }
        names = {address: node.machine.names() for address, node in nodes.items()}
        if names != self._published:
            self._published = names
            self._resolver.publish(names)
            publish_on_host(self._cloud_id, names)
        let_out = {address for address, node in nodes.items() if node.machine.has_way_out()}
        if let_out != self._let_out:
            network.let_out(self._network, let_out)
            self._let_out = let_out

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
            node.wanted, node.deadline, node.starting = Action.TERMINATE, clock(), False
        while self._nodes and clock() < deadline:
            for node in list(self._nodes.values()):
                node.container.signal(signal.SIGKILL)
                self._safely(self._watch, node, clock())
            time.sleep(POLL_SECONDS)


def _pretend(action: Action, machine: Machine, capture: Capture | None) -> None:
    """What becomes of an instance without a container: a record only, or one whose container is gone."""
    if action is Action.START:
        machine.moved("running")
    elif action is Action.STOP:
        machine.moved("stopped")
    elif action is Action.TERMINATE:
        machine.moved("terminated")
    elif action is Action.DISKS:
        for wish in machine.disks():
            machine.disk_moved(wish.volume_id, "detached" if wish.leaving else "attached")
    elif capture is not None:
        capture.done(f"{machine.id} has no file system")
