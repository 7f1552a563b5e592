"""The form of a new cluster in the panel: what it is made of, and beside it the plan, live, until it is launched.

Nothing is asked before its tab is opened. Planning starts the local cloud, if that is the cloud.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...cloud.spec import DEFAULT_TYPE
from ...errors import UsageError
from ...overview import lists
from . import options as panel_options
from .page import Choice, Types
from .review import Review

if TYPE_CHECKING:
    from ...overview.pictures import PlanPicture
    from .panel import Panel

FIELD = {"width": "21em"}


class LaunchForm:
    """The form; ``opened_up`` asks what there is to choose from."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._asked = False
        self.types = Types(value=DEFAULT_TYPE)
        self.fields: dict[str, Any] = {
            "name": widgets.Text(description="Name", placeholder="made up if empty", layout=FIELD),
            "nodes": widgets.BoundedIntText(
                value=2, min=1, max=1000, description="Nodes", continuous_update=True
            ),
            "slots": widgets.Text(description="Slots", placeholder="a node's; else its cores", layout=FIELD),
            "image": Choice(label="Image", layout=FIELD),
            "zone": _choice("Zone"),
            "key_name": _choice("Key pair"),
            "security_group": _choice("Security"),
            "spot": widgets.Checkbox(description="spot workers", indent=True, layout=FIELD),
            "rstudio": widgets.Checkbox(description="RStudio Server", indent=True, layout=FIELD),
            **panel_options.limits(empty="as usual: park"),
        }
        for each in self.fields.values():
            each.layout.width = FIELD["width"]
            if hasattr(each, "style"):
                each.style.description_width = "6em"
            each.observe(self._changed, "value")
        self.types.observe(self._type_chosen, "value")
        self._review: Review | None = None
        self._place = widgets.VBox()
        grid = widgets.HBox(list(self.fields.values()), layout={"flex_flow": "row wrap"})
        self.widget = widgets.VBox([grid, self.types, self._place])

    def opened_up(self) -> None:
        """Its tab is shown: ask once, and plan."""
        if self._asked and self._review is not None:
            self._review.plan()
            return
        self._asked = True
        self._ask_choices()
        manager = self._panel.poller.manager
        self._panel.worker.ask("types", partial(lists.types, manager), self._fill_types)
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
            "instance_type": self.types.value,
            "slots": int(slots) if slots else None,
            **{name: self.fields[name].value or None for name in ("spot", "rstudio")},
            **{name: self.fields[name].value for name in ("image", "zone", "key_name", "security_group")},
            **panel_options.read(limits),
        }
        return {name: value for name, value in values.items() if value not in (None, "")}

    def _ask_choices(self) -> None:
        manager = self._panel.poller.manager
        self._panel.worker.ask("choices", partial(lists.choices, manager), self._fill)
        self._ask_images()

    def _ask_images(self) -> None:
        asked = partial(lists.images, self._panel.poller.manager, self.types.value)
        self._panel.worker.ask("images", asked, self._fill_images)

    def _fill_types(self, found: dict[str, Any]) -> None:
        self.types.source, self.types.types = found["source"], found["types"]

    def _fill(self, found: dict[str, Any]) -> None:
        _offer(self.fields["zone"], "any", [(each, each) for each in found["zones"]])
        _offer(self.fields["key_name"], "yours, made and kept", [(each, each) for each in found["key_pairs"]])
        groups = [(f"{each['name']} ({each['id']})", each["id"]) for each in found["security_groups"]]
        _offer(self.fields["security_group"], "one of its own", groups)

    def _fill_images(self, rows: list[dict[str, Any]]) -> None:
        """Those that do not fit the type cannot be chosen, and say why; one that was chosen is not any more."""
        image = self.fields["image"]
        options = [("the newest that fits", "", "")]
        options += [(each["name"], each["id"], each["why"]) for each in sorted(rows, key=_unfit)]
        image.options = options
        if not any(value == image.value and not why for _, value, why in options):
            image.value = ""
            if self._review is not None:
                self._review.plan()

    def _planned(self, picture: PlanPicture) -> None:
        if len(self.fields["zone"].options) < 2:  # the local cloud was down until it planned
            self._ask_choices()

    def _type_chosen(self, change: Any) -> None:
        if not self._panel.worker.is_this:
            self._panel.worker.do(self._ask_images)
            self._changed(None)

    def _changed(self, change: Any) -> None:
        if self._review is not None:
            self._review.changed()


def _choice(label: str) -> Any:
    return widgets.Dropdown(description=label, options=[("…", "")], layout=FIELD)


def _offer(dropdown: Any, usual: str, options: list[tuple[str, str]]) -> None:
    """New options; what was chosen stays chosen if it is still there."""
    chosen = dropdown.value
    dropdown.options = [(usual, ""), *options]
    dropdown.value = chosen if any(value == chosen for _, value in options) else ""


def _unfit(image: dict[str, Any]) -> bool:
    return bool(image["why"])
