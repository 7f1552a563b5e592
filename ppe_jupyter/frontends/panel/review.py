"""Review: a plan within the panel, made anew as its options change, until it is confirmed or left.

What is not planned (a volume, a cleanup) is confirmed in the same form. The magic that does the same is always there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...overview import pictures
from ..tables import dollars
from . import words
from .page import Line

if TYPE_CHECKING:
    from ...overview.pictures import PlanPicture
    from .panel import Panel

TYPING_SECONDS = 0.5
_numbers = itertools.count()


def button(label: str, act: Callable[[], object], panel: Panel, *, hint: str = "", style: str = "") -> Any:
    """A button that has the panel's worker do it."""
    made = widgets.Button(
        description=label, tooltip=hint or label, button_style=style, layout={"width": "auto"}
    )
    made.on_click(lambda _: panel.worker.do(act))
    return made


def magic_field(text: str = "") -> Any:
    """The magic that does the same, to be copied."""
    shown = {"width": "min(48em, 100%)", "display": "" if text else "none"}
    return Line(value=text, label="As magic", hint="What does the same in a cell", layout=shown)


def set_magic(field: Any, text: str) -> None:
    """Show it, or nothing."""
    field.layout.display = "" if text else "none"
    field.value = text


class Review:
    """``plan`` makes the picture (it may wait), with the values that ``read`` takes from the options."""

    def __init__(
        self,
        panel: Panel,
        *,
        title: str,
        read: Callable[[], dict[str, Any]],
        plan: Callable[[dict[str, Any]], PlanPicture],
        options: Sequence[Any] = (),
        leave: Callable[[], object] | None = None,
        planned: Callable[[PlanPicture], object] = lambda picture: None,
    ) -> None:
        self._panel, self._read, self._plan, self._leave = panel, read, plan, leave
        self._planned = planned
        self._key = f"plan-{next(_numbers)}"
        self._picture: PlanPicture | None = None
        self.said = widgets.HTML('<span role="status" class="ppe-calm">◐ planning …</span>')
        self.magic = magic_field()
        self.confirm = button("Confirm", self._start, panel, style="primary")
        self.confirm.disabled = True
        buttons = [self.confirm] + ([button("Leave it", leave, panel)] if leave else [])
        for option in options:
            option.observe(self.changed, "value")
        heading = [widgets.HTML(f"<b>{words.escaped(title)}</b>")] if title else []
        parts = [
            *heading,
            widgets.HBox(list(options), layout={"flex_flow": "row wrap"}),
            self.said,
            self.magic,
            widgets.HBox(buttons),
        ]
        self.widget = widgets.VBox(parts)
        panel.worker.do(self.plan)

    def plan(self) -> None:
        """Make the plan anew."""
        self._outdated()
        try:
            values = self._read()
        except Exception as exc:
            self._refused(exc)
            return
        self._panel.worker.ask(self._key, partial(self._plan, values), self._show, failed=self._refused)

    def changed(self, change: Any = None) -> None:
        """An option is another: if the user's, what was planned cannot be confirmed any more."""
        if not self._panel.worker.is_this:
            self._panel.worker.do(self._outdated)
            self._panel.worker.later(self._key, TYPING_SECONDS, self.plan)

    def _outdated(self) -> None:
        self._picture, self.confirm.disabled = None, True

    def _show(self, picture: PlanPicture) -> None:
        self._picture = picture
        self.said.value = words.review(picture)
        set_magic(self.magic, picture["magic"])
        self.confirm.disabled = not picture["ok"]
        self.confirm.button_style = "danger" if picture["destroys"] else "primary"
        self.confirm.description = _label(picture)
        self.confirm.tooltip = self.confirm.description
        self._planned(picture)

    def _refused(self, exc: Exception) -> None:
        self._outdated()
        self.said.value = words.problem(pictures.problem(exc))

    def _start(self) -> None:
        if self._picture is None:
            return
        picture, self.confirm.disabled = self._picture, True
        begin = partial(self._panel.poller.plans.start, picture["plan"])
        self._panel.worker.ask(self._key, begin, lambda _: self._begun(), failed=self._refused)

    def _begun(self) -> None:
        self.said.value = '<span role="status">✓ begun; its progress is above</span>'
        if self._leave:
            self._leave()
        else:
            self._panel.launched()


def _label(picture: PlanPicture) -> str:
    verb = {"retry": "mend", "limit": "set limits of"}.get(picture["verb"], picture["verb"])
    rate = picture["usd_per_hour"]
    if picture["destroys"]:
        what = "gone" if verb == "terminate" else "nodes end"
        return f"{verb.capitalize()} {picture['cluster']}: {what} for good"
    if picture["costs"]:
        return f"{verb.capitalize()} {picture['cluster']} ({dollars(rate)}/h)"
    return f"{verb.capitalize()} {picture['cluster']}"


def confirmation(
    panel: Panel,
    *,
    said: str,
    magic: Callable[[], str],
    label: str,
    act: Callable[[], object],
    leave: Callable[[], object],
    options: Sequence[Any] = (),
    done: Callable[[], object] | None = None,
) -> Any:
    """A form for what has no plan: ``act`` begins or does it, and may wait; ``done`` follows. ``said`` is HTML."""
    field = magic_field(magic())

    def begin() -> None:
        panel.worker.ask("act", act, lambda _: (done or leave)())

    def changed(change: Any) -> None:
        if not panel.worker.is_this:
            panel.worker.do(lambda: set_magic(field, magic()))

    for option in options:
        option.observe(changed, "value")
    buttons = [button(label, begin, panel, style="primary"), button("Leave it", leave, panel)]
    options_box = widgets.HBox(list(options), layout={"flex_flow": "row wrap"})
    return widgets.VBox([widgets.HTML(said), options_box, field, widgets.HBox(buttons)])
