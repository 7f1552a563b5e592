"""What was left behind, in the panel: looked for when asked, chosen, removed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...overview import deeds, lists
from . import words
from .review import button, confirmation

if TYPE_CHECKING:
    from .panel import Panel


class LeftBehind:
    """Orphans, and their end."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        said = "What was made for clusters and nothing uses any more."
        self._images = widgets.Checkbox(description="images and snapshots too", indent=False)
        look = button("Look for it", self._look, panel, hint=said)
        self._found = widgets.VBox()
        top = widgets.HBox([look, self._images])
        self.widget = widgets.VBox([widgets.HTML(f"<p>{said}</p>"), top, self._found])

    def opened_up(self) -> None:
        """Its tab is shown; looking costs a dozen calls, and waits for a click."""

    def _look(self) -> None:
        flags = {"images": self._images.value}
        self._found.children = (widgets.HTML('<span role="status">◐ looking …</span>'),)
        manager = self._panel.poller.manager
        self._panel.worker.ask(
            "orphans", partial(lists.orphans, manager, **flags), partial(self._show, flags)
        )

    def _show(self, flags: dict[str, bool], rows: list[dict[str, Any]]) -> None:
        if not rows:
            self._found.children = (widgets.HTML("<p>✓ Nothing was left behind.</p>"),)
            return
        options = [
            (f"{each['kind']} {each['name'] or each['id']}: {each['why']}", each["id"]) for each in rows
        ]
        chosen = widgets.SelectMultiple(
            options=options,
            value=tuple(each["id"] for each in rows if each["kind"] != "volume"),
            rows=min(12, len(rows) + 1),
            description="To remove",
            layout={"width": "min(60em, 100%)"},
        )
        columns = ("kind", "name", "cluster", "region", "#$/h", "why")
        table = words.table("Left behind", columns, (_cells(each) for each in rows))

        def magic() -> str:
            return "%ppe_cleanup --images" if flags["images"] else "%ppe_cleanup"

        self._found.children = (
            confirmation(
                self._panel,
                said=f"{table}<p>What is chosen is removed for good; volumes with all that is on them.</p>",
                magic=magic,
                label="Remove the chosen for good",
                act=lambda: deeds.clean_up(self._panel.poller, chosen.value, **flags),
                leave=self._leave,
                options=[chosen],
            ),
        )

    def _leave(self) -> None:
        self._found.children = ()


def _cells(orphan: dict[str, Any]) -> list[str]:
    price = orphan["usd_per_hour"]
    shown = [orphan[key] or "" for key in ("kind", "name", "cluster", "region")]
    return [words.escaped(each) for each in [*shown, "" if price is None else f"{price:.4f}", orphan["why"]]]
