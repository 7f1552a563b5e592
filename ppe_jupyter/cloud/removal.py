"""Removal: everything that was made for a cluster, found by its tags, goes; with or without instances.

The one way by which things are removed: by terminate, by a launch that failed, by another client after a
launch that died. Safe to repeat. What cannot be removed is returned, not raised, so that the rest goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..errors import CloudError
from .ec2 import EC2
from .facts import Instance
from .pace import Pace, Report
from .records import InstanceState, Progress

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
    tags = {"cluster": cluster} if launch is None else {"cluster": cluster, "launch": launch}
    leftovers: dict[str, str] = {}

    def attempt(what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except CloudError as exc:
            leftovers[what] = str(exc)

    def existing() -> list[Instance]:
        return [each for each in ec2.instances(**tags) if each.state is not InstanceState.TERMINATED]

    found = existing()
    if unlisted:
        for last in pace.tries(seconds=UNLISTED_SECONDS, first=1.0, longest=2.0):
            if found or last:
                break
            found = existing()
    ids = list(dict.fromkeys([*instance_ids, *(each.instance_id for each in found)]))
    if ids:
        attempt(", ".join(ids), lambda: _terminate(ec2, ids, existing, pace=pace, report=report))
    groups = ec2.security_groups(**tags)
    for group in groups:
        attempt(group, partial(_delete, pace, partial(ec2.delete_security_group, group)))
    placements = ec2.placement_groups(**tags)
    for name in placements:
        attempt(name, partial(_delete, pace, partial(ec2.delete_placement_group, name)))
    return Removed(len(ids) + len(groups) + len(placements), leftovers)


def _delete(pace: Pace, action: Callable[[], None]) -> None:
    pace.insist(action, codes=IN_USE_CODES, seconds=IN_USE_SECONDS)


def _terminate(
    ec2: EC2, ids: list[str], existing: Callable[[], list[Instance]], *, pace: Pace, report: Report
) -> None:
    """Terminate the instances and wait until EC2 says they are."""
    pace.insist(
        lambda: ec2.terminate_instances(ids), codes=("InvalidInstanceID.NotFound",), seconds=UNLISTED_SECONDS
    )
    for last in pace.tries(seconds=SHUTDOWN_SECONDS):
        left = existing()
        report(Progress("terminating", len(ids) - len(left), len(ids), pace.elapsed))
        if not left:
            return
        if last:
            states = ", ".join(f"{each.instance_id} {each.state}" for each in left)
            raise CloudError(f"after {SHUTDOWN_SECONDS:.0f} s still there: {states}")
