"""The clusters in the panel: a page of a list, one of them opened. Rows are used again, so that many cost little."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from . import words
from .cluster import Opened
from .review import button

if TYPE_CHECKING:
    from ...overview.details import Details
    from ...overview.pictures import ClusterPicture, Overview
    from .panel import Panel

PAGE = 20
ROW = {"align_items": "center", "width": "100%", "flex_flow": "row wrap"}


class Row:
    """A cluster: a button with its name that opens it, and its facts."""

    def __init__(self, panel: Panel, toggle: Any) -> None:
        self.name = ""
        self._button = button("", lambda: toggle(self.name), panel)
        self._button.layout.flex = "0 0 13em"
        self._button.add_class("ppe-opener")
        self._facts = widgets.HTML(layout={"flex": "1 1 24em"})
        self._head = widgets.HBox([self._button, self._facts], layout=ROW)
        self.widget = widgets.VBox([self._head])
        self.widget.add_class("ppe-row")

    def draw(self, cluster: ClusterPicture, opened: Opened | None, *, free: bool) -> None:
        """Show this cluster."""
        self.name = cluster["name"]
        self._button.description = f"{'▾' if opened else '▸'} {self.name}"
        self._button.tooltip = f"{'Close' if opened else 'Open'} {self.name}: nodes, R, actions"
        self._facts.value = words.row(cluster, free=free)
        children = (self._head, opened.widget) if opened else (self._head,)
        if self.widget.children != children:
            self.widget.children = children


class Clusters:
    """The list; ``opened`` is the name of the cluster that is open."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self.opened: str | None = None
        self._open: Opened | None = None
        self._page = 0
        self._rows: list[Row] = []
        self._filter = widgets.Text(
            placeholder="Filter by name, state, type …",
            tooltip="Filter the clusters",
            layout={"width": "18em"},
        )
        self._filter.observe(self._filtered, "value")
        self._back = button("‹ Before", partial(self._turn, -1), panel, hint="Clusters before these")
        self._on = button("Next ›", partial(self._turn, 1), panel, hint="Clusters after these")
        self._where = widgets.HTML()
        self._tools = widgets.HBox([self._filter, self._back, self._where, self._on])
        self._none = widgets.HTML()
        self._list = widgets.VBox()
        self.widget = widgets.VBox([self._tools, self._none, self._list])
        self._tools.layout.display = "none"

    def draw(self, seen: Overview, details: Details | None) -> None:
        """Show what there is."""
        found = self._filter.value.lower().split()
        shown = [each for each in seen["clusters"] if all(word in _text(each) for word in found)]
        pages = max(1, -(-len(shown) // PAGE))
        self._page = min(self._page, pages - 1)
        here = shown[self._page * PAGE : (self._page + 1) * PAGE]
        self._tools.layout.display = "" if len(seen["clusters"]) > PAGE else "none"
        self._where.value = f"{self._page + 1} of {pages} · {len(shown)} clusters"
        self._back.disabled, self._on.disabled = self._page == 0, self._page == pages - 1
        self._none.value = "" if shown else _nothing(seen)
        while len(self._rows) < len(here):
            self._rows.append(Row(self._panel, self.toggle))
        if self.opened and not any(each["name"] == self.opened for each in seen["clusters"]):
            self.opened = self._open = None
        for row, cluster in zip(self._rows, here, strict=False):
            opened = self._open if cluster["name"] == self.opened else None
            if opened:
                opened.draw(cluster, details)
            row.draw(cluster, opened, free=seen["free"])
        children = tuple(row.widget for row in self._rows[: len(here)])
        if self._list.children != children:
            self._list.children = children

    def toggle(self, name: str) -> None:
        """Open it, or close it if it is open."""
        cluster = self._panel.cluster(name)
        if cluster is None or name == self.opened:
            self.opened = self._open = None
        else:
            self.opened, self._open = name, Opened(self._panel, cluster)
        self._redraw()
        self._panel.look_closer()

    def opened_up(self) -> None:
        """Its tab is shown."""

    def _filtered(self, change: Any) -> None:
        self._panel.worker.later("filter", 0.2, self._redraw)

    def _turn(self, pages: int) -> None:
        self._page = max(0, self._page + pages)
        self._redraw()

    def _redraw(self) -> None:
        if self._panel.seen:
            self.draw(self._panel.seen, None)


def _text(cluster: ClusterPicture) -> str:
    owner = cluster["owner"].partition(" ")[0]
    return f"{cluster['name']} {cluster['state']} {cluster['type']} {cluster['zone']} {owner}".lower()


def _nothing(seen: Overview) -> str:
    if seen["clusters"]:
        return "<p>No cluster is like that.</p>"
    return "<p>There is no cluster. Make one under <b>New cluster</b>, or with <code>%ppe_launch</code>.</p>"
