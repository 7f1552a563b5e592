"""The form of a new cluster in the panel: what it is made of, and beside it the plan, live, until it is launched.

Nothing is asked before its tab is opened. Planning starts the local cloud, if that is the cloud.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ..cloud.spec import DEFAULT_TYPE
from ..errors import UsageError
from ..overview import lists
from . import panel_options
from . import panel_words as words
from .panel_review import TYPING_SECONDS, Review
from .tables import dollars

if TYPE_CHECKING:
    from ..overview.pictures import PlanPicture
    from .panel import Panel

MOST_TYPES = 80
SORTS = {
    "$ per core": "usd_per_core_hour",
    "$ per hour": "usd_per_hour",
    "cores, most first": "cores",
    "GB, most first": "gb",
    "network, fastest first": "gbps",
    "name": "name",
}
HEADER = f"{'type':<17}{'cores':>6}{'GB':>8}{'Gb/s':>7}{'group':>7}{'$/h':>9}{'spot':>9}  arch"
FIELD = {"width": "21em"}


class TypeTable:
    """Instance types to filter, sort and choose from; ``chosen`` is told the name."""

    def __init__(self, panel: Panel, chosen: Any) -> None:
        self._panel, self._types = panel, list[dict[str, Any]]()
        self._filter = widgets.Text(placeholder="Filter, such as c7a or arm64", tooltip="Filter the types")
        self._cores = widgets.BoundedIntText(min=0, max=1000, description="Cores ≥", layout={"width": "11em"})
        self._gb = widgets.BoundedFloatText(min=0, max=1e5, description="GB ≥", layout={"width": "11em"})
        self._group = widgets.Checkbox(description="cluster-capable", indent=False, layout={"width": "11em"})
        self._sort = widgets.Dropdown(description="Sort by", options=list(SORTS), layout={"width": "17em"})
        for each in (self._filter, self._cores, self._gb, self._group, self._sort):
            each.observe(self._changed, "value")
        self._said = widgets.HTML()
        header = widgets.HTML(words.escaped(HEADER))
        self.select = widgets.Select(rows=8, tooltip="Instance types", layout={"width": "99%"})
        self.select.observe(lambda change: chosen(), "value")
        tools = [self._filter, self._cores, self._gb, self._group, self._sort]
        self.widget = widgets.VBox(
            [widgets.HBox(tools, layout={"flex_flow": "row wrap"}), header, self.select, self._said],
            layout={"max_width": "56em"},
        )
        self.widget.add_class("ppe-mono")

    def fill(self, found: dict[str, Any], chosen: str) -> None:
        """Take the types that there are."""
        self._types = found["types"]
        self._said.value = f'<span class="ppe-calm">{words.escaped(found["source"])}</span>'
        self.draw(chosen)

    def draw(self, chosen: str | None = None) -> None:
        """Show those that fit the filter; the chosen one stays."""
        chosen = chosen or self.select.value
        found = self._filter.value.lower().split()
        fitting = [
            each
            for each in self._types
            if all(word in f"{each['name']} {each['arch']}" for word in found)
            and (each["cores"] or 0) >= self._cores.value
            and (each["gb"] or 0) >= self._gb.value
            and (each["cluster_capable"] or not self._group.value)
        ]
        key = SORTS[self._sort.value]
        fitting.sort(key=partial(_rank, key))
        shown = fitting[:MOST_TYPES]
        if chosen and not any(each["name"] == chosen for each in shown):
            shown = [each for each in self._types if each["name"] == chosen] + shown
        self.select.options = [(_line(each), each["name"]) for each in shown]
        self.select.value = chosen if any(each["name"] == chosen for each in shown) else None
        self.select.description = ""
        more = f"; the first {MOST_TYPES}" if len(fitting) > MOST_TYPES else ""
        self._filter.tooltip = f"{len(fitting)} types{more}"

    def _changed(self, change: Any) -> None:
        self._panel.worker.later("types", 0.2, self.draw)


class LaunchForm:
    """The form; ``opened_up`` asks what there is to choose from."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._asked = False
        self.types = TypeTable(panel, self._type_chosen)
        self._images = widgets.HTML()
        self.fields: dict[str, Any] = {
            "name": widgets.Text(description="Name", placeholder="made up if empty", layout=FIELD),
            "nodes": widgets.BoundedIntText(value=2, min=1, max=1000, description="Nodes", layout=FIELD),
            "slots": widgets.Text(description="Slots", placeholder="a node's; else its cores", layout=FIELD),
            "image": _choice("Image"),
            "zone": _choice("Zone"),
            "key_name": _choice("Key pair"),
            "security_group": _choice("Security"),
            "spot": widgets.Checkbox(description="spot workers", indent=True, layout=FIELD),
            **panel_options.limits(),
        }
        for each in self.fields.values():
            each.style.description_width = "6em"
            each.layout.width = FIELD["width"]
        self._review: Review | None = None
        for each in self.fields.values():
            each.observe(self._changed, "value")
        self._place = widgets.VBox()
        grid = widgets.HBox(list(self.fields.values()), layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([grid, self.types.widget, self._images, self._place])

    def opened_up(self) -> None:
        """Its tab is shown: ask once, and plan."""
        if self._asked and self._review is not None:
            self._review.plan()
            return
        self._asked = True
        self._ask_choices()
        manager = self._panel.poller.manager
        self._panel.worker.ask(
            "types", partial(lists.types, manager), lambda found: self.types.fill(found, DEFAULT_TYPE)
        )
        self._review = Review(
            self._panel,
            title="",
            read=self.read,
            plan=lambda values: self._panel.poller.plans.launch(values),
            options=(),
            planned=self._planned,
        )
        self._place.children = (self._review.widget,)

    def forget(self) -> None:
        """There is another account to choose from."""
        self._asked = False

    def read(self) -> dict[str, Any]:
        """The fields of ClusterSpec that were chosen. Raises UsageError."""
        limits = {name: self.fields[name] for name in (*panel_options.LIMITS, "then")}
        slots = self.fields["slots"].value.strip()
        if slots and not slots.isdecimal():
            raise UsageError(f"Slots: {slots!r} is not a whole number")
        values = {
            "name": self.fields["name"].value.strip() or None,
            "nodes": self.fields["nodes"].value,
            "instance_type": self.types.select.value or DEFAULT_TYPE,
            "slots": int(slots) if slots else None,
            "spot": self.fields["spot"].value or None,
            **{name: self.fields[name].value for name in ("image", "zone", "key_name", "security_group")},
            **panel_options.read(limits),
        }
        return {name: value for name, value in values.items() if value not in (None, "")}

    def _ask_choices(self) -> None:
        manager = self._panel.poller.manager
        self._panel.worker.ask("choices", partial(lists.choices, manager), self._fill)
        self._ask_images()

    def _ask_images(self) -> None:
        manager, kind = self._panel.poller.manager, self.types.select.value or DEFAULT_TYPE
        self._panel.worker.ask(
            "images", partial(lists.images, manager, kind), partial(self._fill_images, kind)
        )

    def _fill(self, found: dict[str, Any]) -> None:
        _offer(self.fields["zone"], "any", [(each, each) for each in found["zones"]])
        _offer(self.fields["key_name"], "yours, made and kept", [(each, each) for each in found["key_pairs"]])
        groups = [(f"{each['name']} ({each['id']})", each["id"]) for each in found["security_groups"]]
        _offer(self.fields["security_group"], "one of its own", groups)

    def _fill_images(self, kind: str, rows: list[dict[str, Any]]) -> None:
        """Those that do not fit cannot be chosen; below it is said why."""
        fits = [(each["name"], each["id"]) for each in rows if each["fits"]]
        _offer(self.fields["image"], "the newest that fits", fits)
        unfit = [
            f"<li>{words.escaped(each['name'])}: {words.escaped(each['why'])}</li>"
            for each in rows
            if each["why"]
        ]
        shown = f"<details><summary>{len(unfit)} images do not fit {words.escaped(kind)}</summary><ul>"
        self._images.value = f"{shown}{''.join(unfit)}</ul></details>" if unfit else ""

    def _planned(self, picture: PlanPicture) -> None:
        if len(self.fields["zone"].options) < 2:  # the local cloud was down until it planned
            self._ask_choices()

    def _type_chosen(self) -> None:
        if not self._panel.worker.is_this:
            self._panel.worker.do(self._ask_images)
            self._changed(None)

    def _changed(self, change: Any) -> None:
        if not self._panel.worker.is_this and self._review is not None:
            self._panel.worker.later("launch", TYPING_SECONDS, self._review.plan)


def _choice(label: str) -> Any:
    return widgets.Dropdown(description=label, options=[("…", "")], layout=FIELD)


def _offer(dropdown: Any, usual: str, options: list[tuple[str, str]]) -> None:
    """New options; what was chosen stays chosen if it is still there."""
    chosen = dropdown.value
    dropdown.options = [(usual, ""), *options]
    dropdown.value = chosen if any(value == chosen for _, value in options) else ""


def _rank(key: str, kind: dict[str, Any]) -> Any:
    value = kind[key]
    if key == "name":
        return value
    most_first = key in ("cores", "gb", "gbps")
    return float("inf") if value is None else -value if most_first else value


def _line(kind: dict[str, Any]) -> str:
    """A row of the table, under HEADER."""

    def number(value: float | None) -> str:
        return "?" if value is None else f"{value:g}"

    spot = "" if kind["spot_usd_per_hour"] is None else dollars(kind["spot_usd_per_hour"])
    price = "?" if kind["usd_per_hour"] is None else f"{kind['usd_per_hour']:.4g}"
    group = "yes" if kind["cluster_capable"] else "no"
    return (
        f"{kind['name']:<17}{number(kind['cores']):>6}{number(kind['gb']):>8}{number(kind['gbps']):>7}{group:>7}"
        f"{price:>9}{spot:>9}  {kind['arch']}"
    ).replace(" ", "\u00a0")  # a browser joins spaces
