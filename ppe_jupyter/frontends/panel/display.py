"""How a panel is shown, and what stays of it: the widget, and beside it a last picture for a page without a kernel.

A page shows one of the two: the picture hides while the panel is there, and where the panel cannot be (a notebook
reopened without a kernel, or converted) the picture is there and the widget's own error is not. In a terminal a Manager
and the panel are lines of text. Imports no widgets before there is a notebook.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any

from . import words

if TYPE_CHECKING:
    from ...overview.pictures import Overview
    from ...settings import Settings
    from ..desk import Desk
    from .panel import Panel

WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE_SECONDS = 2.0  # after a change
# A notebook that is executed without a page is saved as its last cell leaves it. The panel itself does not wait.
FIRST_SECONDS = 5.0
# Both are outputs of one cell. The widget manager says of a model without a kernel that there is an error.
HIDING = """<style>
.jp-OutputArea-child:has(.ppe-last):has(~ .jp-OutputArea-child .ppe-panel) { display: none; }
.jp-OutputArea-child:has(.ppe-last) ~ .jp-OutputArea-child:has(> .jupyter-widgets:not(:has(.ppe-panel))) {
  display: none; }
</style>"""


def show(chosen: Settings | None = None, *, desk: Desk | None = None) -> Any:
    """Show a panel below the cell; in a terminal the clusters as text. Returns the panel, or None."""
    from IPython.core.getipython import get_ipython
    from IPython.display import display, update_display

    shell = get_ipython()
    if getattr(shell, "kernel", None) is None:
        print(text(chosen))
        return None
    from .panel import Panel

    panel = Panel(chosen, desk=desk)
    handle = f"ppe-panel-{secrets.token_hex(8)}"
    seen = panel.seen
    display(picture(seen), raw=True, display_id=handle)
    view = {"version_major": 2, "version_minor": 0, "model_id": panel.widget.model_id}
    display({"text/plain": "", WIDGET: view}, raw=True)
    if seen is None and _answered(panel):
        seen = panel.poller.latest
        update_display(picture(seen), raw=True, display_id=handle)
    panel.on_picture = _Renewal(panel, handle, seen)
    return panel


def _answered(panel: Panel) -> bool:
    """Wait for the cloud's first answer, for a moment."""
    came = threading.Event()
    end = panel.poller.subscribe(lambda seen: came.set())
    try:
        return panel.poller.latest is not None or came.wait(FIRST_SECONDS)
    finally:
        end()


class _Renewal:
    """Renews the picture when a cluster has come, gone or changed; not for each cent: it makes a notebook unsaved."""

    def __init__(self, panel: Panel, handle: str, shown: Overview | None) -> None:
        self._panel, self._handle, self._last = panel, handle, _gist(shown)

    def __call__(self, seen: Overview) -> None:
        if _gist(seen) != self._last:
            self._last = _gist(seen)
            self._panel.worker.later("picture", PICTURE_SECONDS, self._renew)

    def _renew(self) -> None:
        from IPython.display import update_display

        update_display(picture(self._panel.seen), raw=True, display_id=self._handle)


def _gist(seen: Overview | None) -> Any:
    return seen and [(each["name"], each["state"], each["nodes_up"]) for each in seen["clusters"]]


def picture(seen: Overview | None) -> dict[str, str]:
    """The last picture, as a mimebundle."""
    shown = words.last_picture(seen) if seen else f"<p>{words.UNANSWERED}; {words.LIVES}</p>"
    plain = words.plain(seen) if seen else words.UNANSWERED
    return {"text/plain": plain, "text/html": f'{HIDING}<div class="ppe-last">{shown}</div>'}


def text(chosen: Settings | None = None) -> str:
    """What there is, as lines."""
    from ...overview import poller

    return words.plain(poller.shared(chosen).picture())
