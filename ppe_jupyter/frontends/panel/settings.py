"""The settings in the panel: what ``%ppe_config`` has, one field each. Passwords are masked, and stay so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ... import settings
from ...overview import lists
from . import words
from .review import button, magic_field, set_magic

if TYPE_CHECKING:
    from .panel import Panel


class SettingsForm:
    """A field for each setting; those that were changed are saved together."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._fields: dict[str, Any] = {}
        self._shown: dict[str, str] = {}
        self._rows = widgets.VBox()
        self._magic = magic_field()
        self._save = button(
            "Save", self._write, panel, hint="Write them to the configuration file", style="primary"
        )
        note = widgets.HTML('<p class="ppe-calm">For this and all later notebooks and commands of yours.</p>')
        self.widget = widgets.VBox([note, self._rows, self._magic, self._save])

    def opened_up(self) -> None:
        """Its tab is shown: read the file."""
        self._panel.worker.ask("settings", lambda: lists.shown_settings(settings.load()), self._fill)

    def _fill(self, rows: list[dict[str, Any]]) -> None:
        self._shown = {each["name"]: each["value"] for each in rows}
        if not self._fields:
            self._rows.children = tuple(self._row(each) for each in rows)
        for each in rows:
            self._fields[each["name"]].value = each["value"]
        set_magic(self._magic, "")

    def _row(self, setting: dict[str, Any]) -> Any:
        about = {"description": setting["name"], "tooltip": setting["help"], "layout": {"width": "30em"}}
        if setting["choices"]:
            field = widgets.Dropdown(options=setting["choices"], **about)
        else:
            field = widgets.Text(placeholder="not set", **about)
        field.style.description_width = "11em"
        field.observe(self._changed, "value")
        self._fields[setting["name"]] = field
        text = f'<span class="ppe-calm">{words.escaped(setting["help"])}</span>'
        help = widgets.HTML(text, layout={"flex": "1 1 15em"})
        return widgets.HBox([field, help], layout={"flex_flow": "row wrap"})

    def _new(self) -> dict[str, str | None]:
        found = {name: str(field.value).strip() for name, field in self._fields.items()}
        return {name: value or None for name, value in found.items() if value != self._shown[name]}

    def _changed(self, change: Any) -> None:
        if not self._panel.worker.is_this:
            self._panel.worker.later("magic", 0.2, self._show_magic)

    def _show_magic(self) -> None:
        new = self._new()
        lines = [f'%ppe_config "{name}={lists.masked(value)}"' for name, value in new.items()]
        set_magic(self._magic, "; ".join(lines))

    def _write(self) -> None:
        new = self._new()
        if new:
            self._panel.worker.ask(
                "settings", partial(lists.change_settings, new), lambda _: self._written(new)
            )

    def _written(self, new: dict[str, str | None]) -> None:
        self._panel.say(f"saved: {', '.join(new)}")
        self.opened_up()
        self._panel.settings_changed()
