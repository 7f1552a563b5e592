"""Fleet: the instances of one cluster while one client changes it: asked for, waited for, tagged.

Decides nothing of what is to become of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ...errors import CloudError
from .. import tagged, tags
from ..context import Context
from ..facts import Instance
from ..launching.boot import PhaseReport
from ..launching.purchase import patiently
from ..launching.removal import SHUTDOWN_SECONDS, UNLISTED_SECONDS
from ..pace import Pace
from ..planning.draft import renumbered
from ..records import ClusterRecord, InstanceState

T = TypeVar("T")


class Fleet:
    """``before`` are the instances that lived when the change began, ``instances`` those that are to live."""

    def __init__(self, context: Context, name: str, launch: str, *, pace: Pace, report: PhaseReport) -> None:
        self.pace = pace
        self._context = context
        self._ec2 = context.ec2
        self._name = name
        self._launch = launch
        self._report = report
        self.before = self.instances = self.listed()

    def listed(self) -> list[Instance]:
        """The cluster's instances that live, as EC2 says now."""
        found = self._do(partial(self._ec2.instances, cluster=self._name, launch=self._launch))
        return [each for each in found if each.state.alive]

    def record(self, instances: Sequence[Instance] | None = None) -> ClusterRecord:
        """The cluster that these make, or as EC2 lists it now, with those that it has lost."""
        found = (
            self._ec2.instances(cluster=self._name, launch=self._launch) if instances is None else instances
        )
        return tagged.clusters(found, now=self._context.now())[0]

    def launched(self, host_key: str, *, unlisted: bool) -> list[str]:
        """The ids of those that were launched since with that host key; ``unlisted``: there may be some to wait for."""
        known = {each.instance_id for each in self.before}
        ours = {each.instance_id for each in self.instances} - known
        for last in self.pace.tries(seconds=UNLISTED_SECONDS, longest=2.0):
            mine = [each for each in self.listed() if each.tags.get(tags.LAUNCH_HOST_KEY) == host_key]
            ours |= {each.instance_id for each in mine}
            if ours or last or not unlisted:
                break
        return sorted(ours)

    def end(self, ids: Iterable[str]) -> None:
        """Terminate these."""
        if wanted := list(ids):
            self._do(partial(self._ec2.terminate_instances, wanted))
            self.instances = [each for each in self.instances if each.instance_id not in wanted]

    def stop(self, ids: Sequence[str]) -> None:
        """Stop these, and wait until they are."""
        self._do(partial(self._ec2.stop_instances, ids))
        self.wait(ids, (InstanceState.STOPPED,), "stopping")

    def start(self, ids: Sequence[str]) -> None:
        """Start these; one that is still stopping cannot be before it is stopped."""
        states = (InstanceState.PENDING, InstanceState.RUNNING)
        self.wait(ids, (InstanceState.STOPPED, *states), "stopping")
        self._do(partial(self._ec2.start_instances, ids))
        started = self.wait(ids, states, "starting")
        self.instances = [started.get(each.instance_id, each) for each in self.instances]

    def wait(self, ids: Iterable[str], states: Sequence[InstanceState], phase: str) -> dict[str, Instance]:
        """Wait until these are in one of the states; they, as EC2 says. Raises CloudError when it takes too long.

        One that is not listed any more is terminated.
        """
        wanted = set(ids)
        for last in self.pace.tries(seconds=SHUTDOWN_SECONDS):
            listed = self._do(partial(self._ec2.instances, cluster=self._name, launch=self._launch))
            found = {each.instance_id: each for each in listed if each.instance_id in wanted}
            waiting = [each.instance_id for each in found.values() if each.state not in states]
            self._report(phase, len(wanted) - len(waiting), "")
            if not waiting:
                return found
            if last:
                raise CloudError(f"after {SHUTDOWN_SECONDS:.0f} s not {states[0]} yet: {', '.join(waiting)}")
        raise AssertionError("the last try returns or raises")

    def tag(self, ids: Iterable[str], marks: Mapping[str, str]) -> None:
        """Set the same tags on these instances."""
        if wanted := list(ids):
            self._do(partial(self._ec2.tag, wanted, marks))
            self.instances = [
                replace(each, tags={**each.tags, **marks}) if each.instance_id in wanted else each
                for each in self.instances
            ]

    def renumber(self, *, without: Collection[str]) -> None:
        """Leave no holes among the indices of the instances, but those that are to go."""
        staying = [each for each in self.instances if each.instance_id not in without]
        living = [node for node in self.record(staying).nodes if node.state.alive]
        moved = renumbered(living)
        # Host keys are kept by index.
        keys = {moved.get(node.instance_id, node.index): node.host_key for node in living}
        for instance in staying:
            if instance.instance_id in moved:
                index = tags.at_index(instance, moved[instance.instance_id])
                self.tag([instance.instance_id], {**tags.of_host_keys(keys), **index})

    def _do(self, call: Callable[[], T]) -> T:
        return patiently(self.pace, call)
