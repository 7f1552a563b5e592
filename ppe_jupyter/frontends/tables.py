"""How clusters, nodes, settings and a launch's review look: tables, one-line summaries, text and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pandas as pd

from ..settings import Settings

if TYPE_CHECKING:
    from ..cloud.plan import Plan
    from ..cluster import Cluster
    from ..localcloud import Status

DECIMALS = {"EC2 $/h": 3, "EC2 $ so far": 2}
# Else Jupyter takes what is between two dollar signs for TeX.
TABLE = '<table class="mathjax_ignore tex2jax_ignore">'
NOWRAP = "white-space:nowrap;"
COLOURS = {"error": "#c0392b", "warning": "#b9770e"}


class Table(pd.DataFrame):
    """A small DataFrame, shown whole and with words to the left; parts of it are plain DataFrames."""

    def __repr__(self) -> str:
        columns = [
            [cell.rjust(width) if numeric else cell.ljust(width) for cell in cells]
            for cells, numeric in self._shown()
            for width in [max(map(len, cells))]
        ]
        return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        columns = [
            [f'{NOWRAP}text-align:{"right" if numeric else "left"}">{html.escape(cell)}' for cell in cells]
            for cells, numeric in self._shown()
        ]
        header, *rows = zip(*columns, strict=True)
        head = "".join(f'<th style="{cell}</th>' for cell in header)
        body = "".join(
            f"<tr>{''.join(f'<td style={chr(34)}{cell}</td>' for cell in row)}</tr>" for row in rows
        )
        return f"{TABLE}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _shown(self) -> list[tuple[list[str], bool]]:
        """For each column, the index among them: header and cells as text, and whether they are numbers."""
        frame = self.reset_index()
        return [
            (
                [str(name), *(_cell(value, DECIMALS.get(str(name))) for value in frame[name])],
                pd.api.types.is_numeric_dtype(frame[name]),
            )
            for name in frame.columns
        ]


def clusters(found: Sequence[Cluster], *, connected: Cluster | None) -> Table:
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
            "EC2 $ so far": cluster.cost_so_far,
            "connected": "✓" if connected is not None and cluster.name == connected.name else "",
            "owner": cluster.record.owner.partition(" ")[0],
        }
        for cluster in found
    ]
    return _table(rows)


def nodes(cluster: Cluster) -> Table:
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
    return _table(rows)


def summary(cluster: Cluster) -> str:
    """One line: name, state, size, age, cost."""
    record = cluster.record
    parts = [
        str(cluster.state),
        f"{len(cluster.nodes)} node{'s' * (len(cluster.nodes) != 1)}",
        f"{record.slots} slot{'s' * (record.slots != 1)}",
        f"{_age(record.launched)} old",
    ]
    if cluster.is_free:
        parts.append("free here")
    if cluster.cost_so_far is not None:
        parts.append(
            f"{'on EC2 ' * cluster.is_free}${record.usd_per_hour:.3f} an hour, ${cluster.cost_so_far:.2f} so far"
        )
    return f"{cluster.name}: {' · '.join(parts)}"


def settings(chosen: Settings, only: str | None = None) -> Table:
    """A row for each setting, or the one named; passwords within URLs are not shown."""
    rows = [
        {
            "setting": each.name,
            "value": _masked(getattr(chosen, each.name)),
            "meaning": each.metadata.get("help", ""),
        }
        for each in fields(chosen)
        if only in (None, each.name)
    ]
    return _table(rows)


def local_cloud(status: Status) -> str:
    """Whether it runs, where, and with what."""
    if not status.running:
        return "the local cloud is down"
    images = ", ".join(status.images) or "none yet"
    return f"the local cloud is up: {status.instances} instances, {status.url}, process {status.pid}, image {images}"


@dataclass(frozen=True)
class Review:
    """What a launch would do and cost, beginning with who pays."""

    whose: str
    plan: Plan

    def rows(self) -> list[tuple[str, str]]:
        """(what, detail); of several rows of a kind only the first says which."""
        rows = [("pays", self.whose), *self.plan.rows()]
        kinds = [what for what, _ in rows]
        return [
            ("" if kinds[at - 1 : at] == [what] else what, detail) for at, (what, detail) in enumerate(rows)
        ]

    def __str__(self) -> str:
        return "\n".join(f"{what:<8} {detail}" for what, detail in self.rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = "text-align:left;vertical-align:top"
        cells = "".join(
            f'<tr style="background:none"><th style="{left};color:{COLOURS.get(what, "inherit")}">'
            f'{html.escape(what)}</th><td style="{left}">{html.escape(detail)}</td></tr>'
            for what, detail in self.rows()
        )
        return f"{TABLE}{cells}</table>"


def _table(rows: Sequence[Mapping[str, object]]) -> Table:
    """The rows, the first column as the index."""
    table: Table = Table(pd.DataFrame(rows).set_index(next(iter(rows[0]))))
    return table


def _cell(value: object, decimals: int | None) -> str:
    if value is None or value != value:  # NaN: a price that is not known
        return "?"
    return f"{value:.{decimals}f}" if decimals is not None else str(value)


def _age(since: datetime) -> str:
    minutes = int((datetime.now(timezone.utc) - since).total_seconds() // 60)
    if minutes < 60:
        return f"{max(minutes, 0)} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def _masked(value: object) -> str:
    return "" if value is None else re.sub(r"//[^/@]*@", "//***@", str(value))
