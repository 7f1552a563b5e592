"""Launches and changes of this process in the panel: how far they are, and how those went that have ended lately."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets

from . import words
from .review import button

if TYPE_CHECKING:
    from ...overview.operations import Operation
    from .panel import Panel

KEPT = 3  # that have ended


class OperationRow:
    """One of them, with a button that stops a launch."""

    def __init__(self, panel: Panel) -> None:
        self._operation: Operation | None = None
        self._text = widgets.HTML()
        self._stop = button(
            "Stop this launch", self._stopped, panel, hint="What it has made is removed again"
        )
        self.widget = widgets.HBox([self._text, self._stop], layout={"align_items": "center"})

    def draw(self, operation: Operation) -> None:
        """Show this one."""
        self._operation = operation
        self._text.value = words.operation(operation.picture())
        self._stop.layout.display = "" if operation.stoppable and operation.running else "none"

    def _stopped(self) -> None:
        if self._operation is not None:
            self._operation.stop()


class OperationList:
    """Those that run, then the last that ended."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._rows: list[OperationRow] = []
        self.widget = widgets.VBox()

    def draw(self) -> None:
        """Show what there is."""
        known = self._panel.poller.operations.all()
        ended = [each for each in known if not each.running and words.ended_lately(each.picture())]
        shown = [each for each in known if each.running] + ended[:KEPT]
        while len(self._rows) < len(shown):
            self._rows.append(OperationRow(self._panel))
        for row, operation in zip(self._rows, shown, strict=False):
            row.draw(operation)
        children = tuple(row.widget for row in self._rows[: len(shown)])
        if self.widget.children != children:
            self.widget.children = children
