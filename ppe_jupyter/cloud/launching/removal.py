"""Removal: everything that was made for a cluster, found by its tags, goes; with or without instances.

The one way by which clusters are removed: by terminate, by a launch that failed, by another client after a
launch that died. Safe to repeat, and for two clients at once. What cannot be removed is returned, not raised,
so that the rest goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ...errors import CloudError, NoSuchCluster, NothingToDo
from .. import tagged
from ..context import Context
from ..ec2 import EC2
from ..facts import Instance
from ..pace import Pace, Report
from ..records import ClusterState, InstanceState, Progress, besides

# Large instances take minutes to shut down; a group is "in use" for some seconds more.
SHUTDOWN_SECONDS = 900.0
IN_USE_SECONDS = 120.0
IN_USE_CODES = ("DependencyViolation", "InvalidPlacementGroup.InUse", "InvalidGroup.InUse")
# An instance may take some seconds to be listed (API reference, "Eventual consistency").
UNLISTED_SECONDS = 10.0


@dataclass(frozen=True)
class Removed:
    """What was there, and what of it is still: id and why."""

    found: int
    leftovers: dict[str, str] = field(default_factory=dict)

    def leftovers_text(self) -> str:
        """The leftovers as a list for a message."""
        return "; ".join(f"{what} ({why})" for what, why in self.leftovers.items())


def terminate(context: Context, name: str, *, report: Report) -> None:
    """Remove everything that was made for the cluster, and wait until it is gone.

    Raises NoSuchCluster when nothing has or had that name, NothingToDo when it is gone already, CloudError naming
    what could not be removed.
    """
    removed = remove(context.ec2, pace=context.pace(), report=report, cluster=name)
    if removed.leftovers:
        raise CloudError(
            f"not all of cluster {name!r} could be removed: {removed.leftovers_text()}. "
            f"Try again in a minute: %ppe_terminate {name}"
        )
    if removed.found:
        return
    records = tagged.clusters(context.ec2.instances(), now=context.now())
    if any(record.name == name for record in records):
        raise NothingToDo(f"cluster {name!r} is terminated already")
    names = [record.name for record in records if record.state is not ClusterState.TERMINATED]
    raise NoSuchCluster(f"there is no cluster {name!r}{besides(names)}")


def remove(
    ec2: EC2,
    *,
    pace: Pace,
    report: Report,
    cluster: str,
    launch: str | None = None,
    instance_ids: Sequence[str] = (),
    unlisted: bool = False,
) -> Removed:
    """Remove what carries the cluster's tag, and the launch's if given.

    ``instance_ids`` are known beyond what is listed; ``unlisted`` means that there may be some that are not.
    """
    ours = {"cluster": cluster} if launch is None else {"cluster": cluster, "launch": launch}
    ending = _Ending(ec2, ours, pace=pace, report=report)
    leftovers: dict[str, str] = {}

    def attempt(what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except CloudError as exc:
            leftovers[what] = str(exc)

    def delete(action: Callable[[], None]) -> None:
        try:
            action()
        except CloudError as exc:
            if exc.code in IN_USE_CODES:  # another client may have added nodes meanwhile
                ending.end(ending.existing())
            raise

    ids = list(dict.fromkeys([*instance_ids, *(each.instance_id for each in ending.first(unlisted))]))
    if ids:
        attempt(", ".join(ids), lambda: ending.wait(ids))
    groups = ec2.security_groups(**ours)
    placements = ec2.placement_groups(**ours)
    for kind, names in ((ec2.delete_security_group, groups), (ec2.delete_placement_group, placements)):
        for name in names:
            action = partial(delete, partial(kind, name))
            attempt(name, partial(pace.insist, action, codes=IN_USE_CODES, seconds=IN_USE_SECONDS))
    return Removed(len(ending.asked) + len(groups) + len(placements), leftovers)


class _Ending:
    """The end of all instances with these tags; ``asked`` are those that were there."""

    def __init__(self, ec2: EC2, ours: dict[str, str], *, pace: Pace, report: Report) -> None:
        self.asked: set[str] = set()
        self._ec2 = ec2
        self._ours = ours
        self._pace = pace
        self._report = report

    def existing(self) -> list[Instance]:
        found = self._ec2.instances(**self._ours)
        return [each for each in found if each.state is not InstanceState.TERMINATED]

    def first(self, unlisted: bool) -> list[Instance]:
        """Those that exist; if there may be unlisted ones, wait a while for the first."""
        found = self.existing()
        if unlisted and not found:
            for last in self._pace.tries(seconds=UNLISTED_SECONDS, first=1.0, longest=2.0):
                if found or last:
                    break
                found = self.existing()
        return found

    def end(self, instances: Sequence[Instance]) -> None:
        """Ask for the end of those that were not asked for yet."""
        self._terminate([each.instance_id for each in instances if each.instance_id not in self.asked])

    def wait(self, ids: Sequence[str]) -> None:
        """Terminate these and whatever comes after them, and wait until EC2 says that they are."""
        self._terminate(ids)
        for last in self._pace.tries(seconds=SHUTDOWN_SECONDS):
            left = self.existing()
            self.end([each for each in left if each.state.alive])
            total = len(self.asked)
            self._report(Progress("terminating", total - len(left), total, self._pace.elapsed))
            if not left:
                return
            if last:
                states = ", ".join(f"{each.instance_id} {each.state}" for each in left)
                raise CloudError(f"after {SHUTDOWN_SECONDS:.0f} s still there: {states}")

    def _terminate(self, ids: Sequence[str]) -> None:
        if ids:
            self.asked.update(ids)
            self._pace.insist(
                lambda: self._ec2.terminate_instances(ids),
                codes=("InvalidInstanceID.NotFound",),
                seconds=UNLISTED_SECONDS,
            )
