"""Cleanup: remove the orphans that were found and shown, and no more.

A cluster on which a dead client was at work is brought in order: its master knows the nodes that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ...errors import CloudError, PpeError
from .. import tagged, tags
from ..context import Context
from ..launching.clusters import Clusters
from ..launching.removal import IN_USE_CODES, IN_USE_SECONDS, SHUTDOWN_SECONDS, Removed
from ..pace import Pace, Report
from ..records import ClusterState, InstanceState, Progress
from .change import Changes
from .orphans import KINDS
from .orphans import Orphan as Orphan
from .orphans import orphans as orphans
from .orphans import same_owner as same_owner


def clean_up(context: Context, found: Sequence[Orphan], *, report: Report) -> Removed:
    """Remove these; a cluster that has lost nodes by it is configured anew if this client can.

    Safe to repeat, and for several clients at once. What cannot be removed is in the answer.
    """
    pace, ec2 = context.pace(), context.ec2
    leftovers: dict[str, str] = {}

    def attempt(what: str, action: Callable[[], None]) -> None:
        report(Progress("removing", done, len(found), pace.elapsed, what))
        try:
            action()
        except PpeError as exc:
            leftovers[what] = str(exc)

    done = 0
    if ids := [each.id for each in found if each.kind == "instance"]:
        attempt(", ".join(ids), lambda: _end(context, ids, pace, report))
        done = len(ids)
    deletions: dict[str, Callable[[str], None]] = {
        "security group": ec2.delete_security_group,
        "placement group": ec2.delete_placement_group,
        "volume": ec2.delete_volume,
        "data volume": ec2.delete_volume,
        "image": ec2.deregister_image,
        "snapshot": ec2.delete_snapshot,
        "SSH rule": lambda rule: ec2.revoke_ssh(rule.split()[0], rule.split()[1:]),
        "key pair": ec2.delete_key_pair,
    }
    for each in sorted(found, key=lambda orphan: KINDS.index(orphan.kind)):
        if delete := deletions.get(each.kind):
            attempt(each.id, partial(_insist, pace, delete, each.id))
            done += 1
    ended = {each.cluster for each in found if each.kind == "instance"}
    for name in sorted(ended | {each.cluster for each in found if each.kind == "mark"}):
        settle = partial(_settle, context, name, report, has_lost=name in ended)
        attempt(f"what {name} knows of its nodes", settle)
    return Removed(len(found), leftovers)


def _insist(pace: Pace, delete: Callable[[str], None], what: str) -> None:
    pace.insist(lambda: delete(what), codes=IN_USE_CODES, seconds=IN_USE_SECONDS)


def _end(context: Context, ids: Sequence[str], pace: Pace, report: Report) -> None:
    """Terminate the instances and wait until EC2 says that they are."""
    context.ec2.terminate_instances(ids)
    for last in pace.tries(seconds=SHUTDOWN_SECONDS):
        left = [
            each.instance_id
            for each in context.ec2.our_instances()
            if each.instance_id in ids and each.state is not InstanceState.TERMINATED
        ]
        report(Progress("terminating", len(ids) - len(left), len(ids), pace.elapsed))
        if not left:
            return
        if last:
            raise CloudError(f"after {SHUTDOWN_SECONDS:.0f} s still there: {', '.join(left)}")


def _settle(context: Context, name: str, report: Report, *, has_lost: bool) -> None:
    """Bring a cluster in order on which a dead client was at work, and which may have lost nodes to this cleanup.

    First its tags say that it is not configured, which is then true for every client.
    """
    clusters = Clusters(context)
    changes = Changes(context, clusters)
    for record in tagged.clusters(context.ec2.instances(cluster=name), now=context.now()):
        ids = [each.instance_id for each in record.nodes if each.state.alive]
        if not ids:
            continue
        context.ec2.tag(ids, tags.busy(context.now()))
        if record.state is ClusterState.PARKED:
            continue
        if not has_lost:
            clusters.connect(record).close()  # only who can configure it may call it not configured
        context.ec2.tag(ids, tags.in_state(ClusterState.CONFIGURING))
        changes.carry_out(changes.plan(clusters.get(name), "retry", choice="wait"), report=report)
