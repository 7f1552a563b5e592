"""Boot: instances on their way up, from an answered RunInstances to a verified SSH connection to a master.

One describe call per interval for all nodes together, whatever their number; intervals grow. A node that ends or
does not come up is noted as lost, and the others go on; it is an error only when no node is left that could be
the master. Configures nothing, ends nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ... import ssh
from ...errors import AuthenticationRefused, CloudError, Unreachable
from .. import tagged, tags
from ..access import is_reached, target
from ..context import Context
from ..facts import Instance
from ..pace import Pace
from ..records import ClusterRecord, InstanceState, Node
from .diagnosis import diagnose
from .purchase import patiently

PhaseReport = Callable[[str, int, str], None]
Watch = Callable[[Sequence[Instance]], None]

# sshd may answer before cloud-init has written the authorized keys.
AUTHORIZED_SECONDS = 60.0
# A packet to a machine that is only coming up is lost, and TCP repeats it after 1, 3, 7 s: rather begin anew.
SHORTEST_TRY_SECONDS = 2.0
# While sshd or setup.py work, whether the instances still live.
FIRST_WATCH_SECONDS, LONGEST_WATCH_SECONDS = 4.0, 15.0
# Who takes a lost master's place has had the time to boot; if some do not answer, none will.
HEIR_SECONDS, MOST_HEIRS = 30.0, 3
MOST_DIAGNOSED = 3


class Boot:
    """The instances of one cluster; ``instances`` is what EC2 said last, ``lost`` why those by id are lost."""

    def __init__(
        self,
        context: Context,
        instances: Sequence[Instance],
        *,
        pace: Pace,
        report: PhaseReport,
        watch: Watch = lambda listed: None,
    ) -> None:
        """``watch`` sees every answer of EC2, with all instances of the cluster's name, and may raise."""
        self.instances = list(instances)
        self.lost: dict[str, str] = {}
        self._context = context
        self._pace = pace
        self._report = report
        self._watch = watch
        self._cluster = instances[0].tags[tags.CLUSTER]
        self._noted: dict[str, str] = {}  # tags that EC2 may not list yet
        self._deadline = pace.elapsed + context.settings.boot_timeout
        self._interval = FIRST_WATCH_SECONDS
        self._next = pace.elapsed + self._interval

    @property
    def seconds_left(self) -> float:
        """Until the settings' time for booting is over."""
        return self._deadline - self._pace.elapsed

    @property
    def record(self) -> ClusterRecord:
        """The cluster that the instances make."""
        return tagged.clusters(self.instances, now=self._context.now())[0]

    @property
    def nodes(self) -> list[Node]:
        """Those that are not lost."""
        return [node for node in self.record.nodes if node.instance_id not in self.lost]

    def look(self) -> None:
        """Ask EC2 once; what has ended is lost."""
        listed = patiently(self._pace, partial(self._context.ec2.instances, cluster=self._cluster))
        self._watch(listed)
        # An instance that is not listed yet stays as RunInstances described it.
        known = {each.instance_id: each for each in listed}
        found = [known.get(each.instance_id, each) for each in self.instances]
        self.instances = [replace(each, tags={**each.tags, **self._noted}) for each in found]
        for each in self.instances:
            if each.state not in (InstanceState.PENDING, InstanceState.RUNNING):
                self._lose(each, "ended")

    def check(self) -> None:
        """Look, if the time has come. Raises NodesLost when there are fewer than before."""
        if self._pace.elapsed >= self._next:
            before = len(self.lost)
            self.look()
            self._interval = min(1.4 * self._interval, LONGEST_WATCH_SECONDS)
            self._next = self._pace.elapsed + self._interval
            if len(self.lost) > before:
                raise NodesLost

    def wait_until_running(self) -> None:
        """Until every instance runs or is lost; those that do not in time are."""
        for last in self._pace.tries(seconds=self.seconds_left):
            self.look()
            waiting = [each for each in self.instances if not (_runs(each) or each.instance_id in self.lost)]
            self._report("booting", len(self.instances) - len(waiting) - len(self.lost), "")
            if not waiting:
                return
            if last:
                for each in waiting:
                    self._lose(each, f"does not run after {self._context.settings.boot_timeout:.0f} s")

    def open_master(self, *, key: str) -> ssh.Connection:
        """Connect to the master as soon as its sshd answers; one that is lost before it was ever used is replaced.

        ``key`` is the user's private key. Raises CloudError when no node answers, or a master that was in use does
        not; HostKeyMismatch at once.
        """
        heirs = 0
        while self.nodes:
            master = next((node for node in self.nodes if node.role == "master"), None)
            if master is None:
                self._check_that_nothing_is_given_up()
                heirs += 1
                master = self._heir() if heirs <= MOST_HEIRS else None
                if master is None:
                    break
                self.promote(master.instance_id)
            try:
                return self._open(master.instance_id, key)
            except NodesLost:
                continue
        reasons = "; ".join(map(self.said, self.lost))
        raise CloudError(f"no node of {self._cluster!r} can be the master: {reasons}")

    def _check_that_nothing_is_given_up(self) -> None:
        """Raise CloudError if the lost master still has its disk and was in use: only the user may give that up.

        It may be this client's own network that is down, or the master may be stopping to be parked.
        """
        for node in self.record.nodes:
            found = next((each for each in self.instances if each.instance_id == node.instance_id), None)
            if node.role == "master" and found and found.state.alive and tagged.was_configured(found.tags):
                raise CloudError(
                    f"the master, {self.said(node.instance_id)}. Its disk has home and results, so no other "
                    f"node takes its place unless you say so: %ppe_retry {self._cluster} --replace --force (or --drop)"
                )

    def promote(self, instance_id: str) -> None:
        """Make another instance the master."""
        self._report("promoting", 0, f"node {self._index(instance_id)} becomes the master")
        self.note(tags.of_master(instance_id))

    def note(self, new: Mapping[str, str]) -> None:
        """Tag all instances, for every client to see."""
        self._noted.update(new)
        living = [each.instance_id for each in self.instances if each.state.alive]
        patiently(self._pace, partial(self._context.ec2.tag, living, new))
        self.instances = [replace(each, tags={**each.tags, **new}) for each in self.instances]

    def lose(self, instance_id: str, why: str) -> None:
        """Go on without that node."""
        self._lose(next(each for each in self.instances if each.instance_id == instance_id), why)

    def _open(self, instance_id: str, key: str) -> ssh.Connection:
        """Connect to that node. Raises NodesLost when it is."""
        answered: float | None = None
        began = self._pace.elapsed
        for last in self._pace.tries(seconds=max(self.seconds_left, HEIR_SECONDS), longest=1.0):
            record = self.record
            node = next(each for each in record.nodes if each.instance_id == instance_id)
            wanted = target(
                self._context,
                node,
                user=record.login_user,
                key=key,
                host_keys=[each for each in dict.fromkeys([node.host_key, node.launch_host_key]) if each],
            )
            self._report("connecting", 0, wanted.host)
            patience = SHORTEST_TRY_SECONDS + (self._pace.elapsed - began) / 4
            try:
                return self._context.connect(
                    wanted, timeout=min(self._context.settings.connect_timeout, patience)
                )
            except AuthenticationRefused:
                answered = self._pace.elapsed if answered is None else answered
                if last or self._pace.elapsed - answered > AUTHORIZED_SECONDS:
                    raise
            except Unreachable as exc:
                if last:
                    self.lose(instance_id, f"does not answer: {exc}")
            with contextlib.suppress(NodesLost):
                self.check()
            if instance_id in self.lost:
                raise NodesLost
        raise AssertionError("the last try returns or raises")

    def _heir(self) -> Node | None:
        """Who can take the master's place: on demand rather than spot, and reached as the master was."""
        spec = self.record.spec
        able = [each for each in self.nodes if is_reached(self._context, each, spec)]
        return min(able, key=lambda each: (each.spot, each.index), default=None)

    def _lose(self, instance: Instance, why: str) -> None:
        if instance.instance_id in self.lost:
            return
        # Each check of a diagnosis is a call, and many nodes are rarely lost for different reasons.
        found = f": {diagnose(self._context, instance)}" if len(self.lost) < MOST_DIAGNOSED else ""
        self.lost[instance.instance_id] = f"({instance.instance_id}) {why}{found}"
        left = len(self.instances) - len(self.lost)
        self._report("losing", left, f"{self.said(instance.instance_id)}; going on with {left} nodes")

    def said(self, instance_id: str) -> str:
        """Which node is lost, why, and what was checked."""
        return f"node {self._index(instance_id)} {self.lost[instance_id]}"

    def _index(self, instance_id: str) -> int | str:
        return next((node.index for node in self.record.nodes if node.instance_id == instance_id), "?")


class NodesLost(Exception):
    """A node was lost meanwhile; ``Boot.lost`` says which and why."""


def _runs(instance: Instance) -> bool:
    return instance.state is InstanceState.RUNNING and bool(instance.private_ip)
