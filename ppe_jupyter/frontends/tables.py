"""How clusters, nodes, settings and a launch's review look: DataFrames, one-line summaries, text and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pandas as pd

from ..settings import Settings

if TYPE_CHECKING:
    from ..cloud.plan import Plan
    from ..manager import Cluster


def clusters(found: Sequence[Cluster], *, connected: Cluster | None) -> pd.DataFrame:
    """A row for each cluster; prices are EC2's, in USD."""
    rows = [
        {
            "cluster": cluster.name,
            "state": str(cluster.state),
            "nodes": len(cluster.nodes),
            "slots": cluster.record.slots,
            "type": ", ".join(sorted({node.instance_type for node in cluster.nodes})),
            "zone": ", ".join(sorted({node.zone for node in cluster.nodes})),
            "age": _age(cluster.record.launched),
            "EC2 $/h": cluster.record.usd_per_hour,
            "$ so far": cluster.cost_so_far,
            "connected": "✓" if connected is not None and cluster.name == connected.name else "",
            "owner": cluster.record.owner,
        }
        for cluster in found
    ]
    table: pd.DataFrame = pd.DataFrame(rows).round({"EC2 $/h": 3, "$ so far": 2}).set_index("cluster")
    return table


def nodes(cluster: Cluster) -> pd.DataFrame:
    """A row for each node, the master first."""
    rows = [
        {
            "node": node.index,
            "role": node.role,
            "state": str(node.state),
            "slots": node.slots,
            "private address": node.private_ip,
            "private name": node.private_dns,
            "public address": node.public_ip,
            "type": node.instance_type,
            "zone": node.zone,
            "instance": node.instance_id,
        }
        for node in cluster.nodes
    ]
    table: pd.DataFrame = pd.DataFrame(rows).set_index("node")
    return table


def summary(cluster: Cluster) -> str:
    """One line: name, state, size, age, cost."""
    record = cluster.record
    parts = [
        str(cluster.state),
        f"{len(cluster.nodes)} nodes",
        f"{record.slots} slots",
        f"{_age(record.launched)} old",
    ]
    if cluster.cost_so_far is not None:
        parts.append(f"${cluster.cost_so_far:.2f} so far")
    return f"{cluster.name}: {' · '.join(parts)}"


def settings(chosen: Settings) -> pd.DataFrame:
    """A row for each setting; passwords within URLs are not shown."""
    rows = [
        {
            "setting": each.name,
            "value": _masked(getattr(chosen, each.name)),
            "meaning": each.metadata.get("help", ""),
        }
        for each in fields(chosen)
    ]
    table: pd.DataFrame = pd.DataFrame(rows).set_index("setting")
    return table


@dataclass(frozen=True)
class Review:
    """What a launch would do and cost, beginning with who pays."""

    whose: str
    plan: Plan

    def rows(self) -> list[tuple[str, str]]:
        """(what, detail)."""
        return [("pays", self.whose), *self.plan.rows()]

    def __str__(self) -> str:
        return "\n".join(f"{what:<8} {detail}" for what, detail in self.rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colours = {"error": "#c0392b", "warning": "#b9770e"}
        cells = "".join(
            f'<tr style="background:none"><td style="text-align:left;color:{colours.get(what, "inherit")}">'
            f'<b>{html.escape(what)}</b></td><td style="text-align:left">{html.escape(detail)}</td></tr>'
            for what, detail in self.rows()
        )
        return f"<table>{cells}</table>"


def _age(since: datetime) -> str:
    minutes = int((datetime.now(timezone.utc) - since).total_seconds() // 60)
    if minutes < 60:
        return f"{max(minutes, 0)} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def _masked(value: object) -> str:
    return "" if value is None else re.sub(r"//[^/@]*@", "//***@", str(value))
