"""What is shown of clusters, settings, volumes, images and what was left behind: the rows of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..cloud import bill
from ..cloud.plan import Grade
from ..cloud.records import ClusterState, advice
from ..overview.lists import masked
from ..overview.pictures import UP
from ..settings import Settings
from .tables import Sheet, Table, age, counted, dollars, local_time, span, table

if TYPE_CHECKING:
    from ..cloud.plan import Plan
    from ..cluster import Cluster
    from ..host import Host
    from ..localcloud import Status
    from ..remote.sessions.watchdog import Watchdog


def clusters(found: Sequence[Cluster], *, connected: Cluster | Host | None) -> Table:
    """A row for each cluster; prices are EC2's, in USD."""
    shared = any(cluster.record.guests for cluster in found)
    return table(
        [
            {
                "cluster": cluster.name,
                "state": str(cluster.state),
                "nodes": len(cluster.nodes),
                "slots": cluster.record.slots,
                "type": ", ".join(sorted({node.instance_type for node in cluster.nodes})),
                "zone": ", ".join(sorted({node.zone for node in cluster.nodes})),
                "age": age(cluster.record.launched),
                "EC2 $/h": cluster.record.usd_per_hour,
                "EC2 $ so far": cluster.cost_so_far,
                "connected": connected is not None and cluster.name == connected.name,
                "owner": cluster.record.owner.partition(" ")[0],
                **({"shared with": ", ".join(cluster.record.guests)} if shared else {}),
            }
            for cluster in found
        ]
    )


def nodes(cluster: Cluster) -> Table:
    """A row for each node, the master first."""
    return table(
        [
            {
                "node": node.index,
                "role": node.role,
                "state": str(node.state),
                "slots": node.slots,
                "private address": node.private_ip,
                "private name": node.private_dns,
                "public address": node.public_ip,
                "type": node.instance_type,
                "market": "spot" if node.spot else "on demand",
                "zone": node.zone,
                "instance": node.instance_id,
            }
            for node in cluster.nodes
        ]
    )


def summary(cluster: Cluster) -> str:
    """One line: name, state, size, age, cost."""
    return f"{cluster.name}: {_state(cluster)} · {cost(cluster)}"


def cost(cluster: Cluster) -> str:
    """What it has cost and what it costs; on EC2, if it is free here."""
    rate = cluster.record.usd_per_hour
    where = "on EC2 " if cluster.is_free else ""
    if rate is None:
        return f"{where}at an unknown price"
    return (
        f"{where}{dollars(cluster.cost_so_far)} so far, {dollars(rate)} an hour, {dollars(24 * rate)} a day"
    )


def status(whose: str, cluster: Cluster, watch: Watchdog | str | None) -> Sheet:
    """Everything about one cluster but its nodes; ``watch`` is a text when the watchdog cannot be asked."""
    rows = [
        ("pays", whose),
        ("cluster", f"{cluster.name}: {_state(cluster)} · of {cluster.record.owner.partition(' ')[0]}"),
        ("cost", cost(cluster)),
    ]
    if cluster.record.guests:
        rows.append(("shared", f"with {', '.join(cluster.record.guests)}"))
    rows += _limits(cluster)
    rows += [("watchdog", text) for text in ([watch] if isinstance(watch, str) else watchdog(watch))]
    if watch is not None and not isinstance(watch, str):
        rows += [("notice", text) for text in dict.fromkeys((*watch.spot, *watch.notices))]
    rows += [("warning", text) for text in troubles(cluster)]
    if cluster.state not in UP:
        rows.append(("info", advice(cluster.record)))
    return Sheet(rows)


def limits(whose: str, cluster: Cluster) -> Sheet:
    """What ends it, and when."""
    rows = [("pays", whose), ("cost", cost(cluster)), *_limits(cluster)]
    watch = cluster.watchdog() if cluster.state in UP else None
    return Sheet(rows + [("watchdog", text) for text in watchdog(watch)])


def _limits(cluster: Cluster) -> list[tuple[str, str]]:
    spec = cluster.record.spec
    if spec is None:
        return []
    return [("limit", text) for text in bill.limits(spec, None)] or [("limit", "none: %ppe_limit sets them")]


def troubles(cluster: Cluster) -> list[str]:
    """What is wrong with its nodes, and the way out; that nodes are not there yet, or parked, is not wrong.

    Of one that runs what it does without.
    """
    if cluster.state is ClusterState.RUNNING:
        return list(cluster.record.troubles)
    if cluster.state is not ClusterState.DEGRADED:
        return []
    return [*cluster.record.troubles, f"mend it with: %ppe_retry {cluster.name}"]


def watchdog(watch: Watchdog | None) -> list[str]:
    """When and why the cluster's watchdog acts, in local time."""
    if watch is None:
        return []
    at = watch.acts_at
    verb = {"park": "parks", "terminate": "terminates"}.get(watch.then, watch.then)
    lines = [f"at work: {text}" for text in watch.working]
    if at is None:
        return [*lines, f"{verb} the cluster when a limit is reached; none is in sight"]
    left = span(at - datetime.now(timezone.utc))
    return [*lines, f"{verb} the cluster at {local_time(at)}, in {left}: {watch.why}"]


def review(whose: str, plan: Plan) -> Sheet:
    """What a plan would do and cost, beginning with who pays; what forbids it is said by ``Plan.check``, once."""
    return Sheet([("pays", whose), *(row for row in plan.rows() if row[0] != Grade.ERROR.value)])


def alike(found: Sequence[Any]) -> Table:
    """A row for each of some dataclass's values, a column for each of its fields."""
    assert is_dataclass(found[0])
    names = [each.name for each in fields(found[0])]
    words = {name: "$/h" if name == "usd_per_hour" else name.replace("_", " ") for name in names}
    return table([{words[name]: getattr(each, name) for name in names} for each in found])


def settings(chosen: Settings, only: str | None = None) -> Table:
    """A row for each setting, or the one named; passwords within URLs are not shown."""
    return table(
        [
            {
                "setting": each.name,
                "value": masked(getattr(chosen, each.name)),
                "meaning": each.metadata.get("help", ""),
            }
            for each in fields(chosen)
            if only in (None, each.name)
        ]
    )


def local_cloud(status: Status) -> str:
    """Whether it runs, where, and with what."""
    if not status.running:
        return "the local cloud is down"
    images = ", ".join(status.images) or "none yet"
    return f"the local cloud is up: {status.instances} instances, {status.url}, process {status.pid}, image {images}"


def _state(cluster: Cluster) -> str:
    record = cluster.record
    alive = sum(node.state.alive for node in cluster.nodes)
    few = f"{alive} of " if alive != record.wanted else ""
    parts = [
        str(cluster.state),
        f"{few}{counted(record.wanted, 'node')}",
        counted(record.slots, "slot"),
        f"{age(record.launched)} old",
        *(["free here"] if cluster.is_free else []),
    ]
    return " · ".join(parts)
