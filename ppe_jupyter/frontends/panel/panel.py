"""The panel: clusters to look at and click, as ipywidgets in a notebook; ``%ppe_panel``, and what a Manager shows.

Invariants: clicks are only queued; one thread (``worker``) acts and is the only writer of traits. All panels of a
process share one poller. A panel watches while it is looked at (``presence``), until it is closed. Knows nothing
of plans and clouds but ``overview``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...overview import pictures, poller
from . import words
from .clusters import Clusters
from .launch import LaunchForm
from .left import LeftBehind
from .operations import OperationList
from .presence import Presence
from .review import button
from .settings import SettingsForm
from .style import STYLE
from .worker import Worker

if TYPE_CHECKING:
    from ...overview.details import Details
    from ...overview.pictures import ClusterPicture, Overview
    from ...settings import Settings
    from ..desk import Desk

TICK_SECONDS = 4.0  # between questions to the master in sight
SILENT_SECONDS = 30.0
FORGOTTEN_SECONDS = 3600.0  # without a view it is closed: its cell was run again, or cleared
TABS = ("Clusters", "New cluster", "Left behind", "Settings")


class Panel:
    """One panel; ``widget`` is its root. ``desk`` (if any) is where "connect" connects."""

    def __init__(self, chosen: Settings | None = None, *, desk: Desk | None = None) -> None:
        self._chosen, self.desk = chosen, desk
        self.poller = poller.shared(chosen)
        self.seen: Overview | None = self.poller.latest
        self.on_picture: Callable[[Overview], object] = lambda seen: None
        self._details: tuple[str, Details] | None = None
        self._drawn, self._ask_from = "", 0.0
        self._viewed = time.monotonic()
        self._unsubscribe: Callable[[], object] | None = None
        self.worker = Worker(tick=self._tick, seconds=TICK_SECONDS, failed=self.fail)
        self._heading, self._glance = widgets.HTML(), widgets.HTML()
        self._message, self._operations = widgets.HTML(), OperationList(self)
        self._dismiss = button("Dismiss", self._forget_problem, self)
        self._dismiss.layout.display = "none"
        self.clusters, self.launch = Clusters(self), LaunchForm(self)
        self._left, self._settings = LeftBehind(self), SettingsForm(self)
        self._tabs = widgets.Tab([each.widget for each in self._parts], titles=TABS)
        self._tabs.observe(self._turned, "selected_index")
        refresh = button("Refresh", self._refresh, self, hint="Ask the cloud now")
        top = widgets.HBox([self._heading, refresh], layout={"justify_content": "space-between"})
        trouble = widgets.HBox([self._message, self._dismiss], layout={"align_items": "flex-start"})
        self._presence = Presence(
            self._looked_at,
            do=self.worker.do,
            loop=_kernels_loop(),
            viewed=lambda: self.widget._view_count,
        )
        parts = [
            widgets.HTML(STYLE),
            self._presence.widget,
            top,
            self._glance,
            trouble,
            self._operations.widget,
            self._tabs,
        ]
        self.widget = widgets.VBox(parts, layout={"padding": "4px", "width": "100%"})
        self.widget.add_class("ppe-panel")
        self.widget._view_count = 0
        self.widget.comm.on_close(lambda _: self.close())
        self._draw()
        self._watch()

    @property
    def _parts(self) -> tuple[Any, ...]:
        return (self.clusters, self.launch, self._left, self._settings)

    @property
    def watching(self) -> bool:
        """Whether it polls."""
        return self._unsubscribe is not None

    def close(self) -> None:
        """Stop watching, and take the widgets away."""
        self._unwatch()
        if self.worker.alive:
            self.worker.close()
            for each in list(_descendants(self.widget)):
                each.close()

    def fail(self, exc: Exception) -> None:
        """Show what went wrong."""
        self._message.value = words.problem(pictures.problem(exc))
        self._dismiss.layout.display = ""

    def say(self, text: str) -> None:
        """Show what was done."""
        self._message.value = f'<div role="status">✓ {words.escaped(text)}</div>'
        self._dismiss.layout.display = ""

    def cluster(self, name: str) -> ClusterPicture | None:
        """As it was seen last."""
        clusters = self.seen["clusters"] if self.seen else []
        return next((each for each in clusters if each["name"] == name), None)

    def launched(self) -> None:
        """A launch has begun: what comes of it is among the clusters."""
        self._tabs.selected_index = 0

    def look_closer(self) -> None:
        """Ask the master of the cluster in focus now."""
        self._tick()

    def settings_changed(self) -> None:
        """Those of the file: there may be another account to look at."""
        wanted = poller.shared(self._chosen)
        if wanted is not self.poller:
            self._unwatch()
            self.poller, self.seen, self._details = wanted, wanted.latest, None
            self._watch()
            self.launch.forget()

    # -- watching ---------------------------------------------------------------------------------------

    def _looked_at(self) -> None:
        (self._watch if self._presence.present else self._unwatch)()

    def _watch(self) -> None:
        if self._unsubscribe is None:
            self._unsubscribe = self.poller.subscribe(self._new_picture)
            self.worker.do(self._first)

    def _unwatch(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _first(self) -> None:
        self.worker.ask("overview", self.poller.picture, self._see)

    def _refresh(self) -> None:
        self.worker.ask("overview", self.poller.refresh, self._see)
        self.look_closer()

    def _new_picture(self, seen: Overview) -> None:
        """From the poller's thread."""
        self.worker.do(partial(self._see, seen))

    def _see(self, seen: Overview) -> None:
        latest = self.poller.latest or seen  # several may wait in the queue: the last counts
        if latest["version"] != self._drawn:
            self.seen, self._drawn = latest, latest["version"]
            self._draw()
            self.on_picture(latest)

    def _tick(self) -> None:
        self._presence.tick()
        if self.widget._view_count:
            self._viewed = time.monotonic()
        elif time.monotonic() - self._viewed > FORGOTTEN_SECONDS:
            self.close()
        if not self.watching:
            return
        self._draw()  # times pass
        focus = self._focus()
        if focus is not None and time.monotonic() > self._ask_from and "connect" in focus["actions"]:
            name = focus["name"]
            self.worker.ask(
                "details",
                partial(self.poller.watching.details, name),
                partial(self._told, name),
                failed=lambda exc: None,  # it has ended: the next picture says so
            )

    def _told(self, name: str, details: Details) -> None:
        self._details = (name, details)
        # A master that does not answer is not asked all the time: each try costs calls to the cloud.
        self._ask_from = time.monotonic() + (SILENT_SECONDS if details["problem"] else 0)
        self._draw()

    # -- drawing ----------------------------------------------------------------------------------------

    def _focus(self) -> ClusterPicture | None:
        """The cluster that is open, or the only one."""
        clusters = self.seen["clusters"] if self.seen else []
        opened = self.cluster(self.clusters.opened or "")
        return opened or (clusters[0] if len(clusters) == 1 else None)

    def _draw(self) -> None:
        seen = self.seen
        if seen is None:
            self._heading.value = '<span role="status">◐ asking the cloud …</span>'
            return
        focus = self._focus()
        known = self._details[1] if self._details and focus and self._details[0] == focus["name"] else None
        self._heading.value = words.heading(seen)
        self._glance.value = words.glance(seen, focus, known)
        self._operations.draw()
        self.clusters.draw(seen, known)

    def _forget_problem(self) -> None:
        self._message.value, self._dismiss.layout.display = "", "none"

    def _turned(self, change: Any) -> None:
        part = self._parts[change["new"] or 0]
        self.worker.do(part.opened_up)


def _kernels_loop() -> Any:
    """What runs a kernel's main thread, if there is one."""
    from IPython.core.getipython import get_ipython

    return getattr(getattr(get_ipython(), "kernel", None), "io_loop", None)


def _descendants(widget: Any) -> Iterator[Any]:
    """It and what is in it, with their layouts and styles: each is a model in the browser."""
    for child in getattr(widget, "children", ()):
        yield from _descendants(child)
    yield widget
    yield from (part for name in ("layout", "style") if (part := getattr(widget, name, None)) is not None)
