"""An opened cluster in the panel: what its master says, and what can be done with it.

What costs or destroys is planned, reviewed and confirmed (``review``); R's buttons are ``session``'s.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...errors import UsageError
from ...overview import deeds
from ..rstudio import address, opener
from . import master, session, volumes, words
from . import options as panel_options
from .page import Line
from .review import Review, button, magic_field, set_magic

if TYPE_CHECKING:
    from ...overview.details import Details
    from ...overview.pictures import ClusterPicture
    from .panel import Panel

LABELS = {
    "connect": "Connect",
    "start": "Start…",
    "retry": "Mend…",
    "resize": "Resize…",
    "limit": "Limits…",
    "park": "Park…",
    "reboot": "Reboot…",
    "terminate": "Terminate…",
}
HINTS = {
    "connect": "Remote cells of this notebook use this cluster",
    "start": "Bring the parked cluster back",
    "retry": "Wait for lost nodes, replace them, or go on without them",
    "resize": "More nodes, or fewer",
    "limit": "What ends the cluster by itself",
    "park": "End the workers and stop the master; its disk stays",
    "reboot": "Boot all nodes anew, or one",
    "terminate": "End the cluster for good; shows first what would be lost",
}


class Opened:
    """One cluster; ``draw`` shows it as it is."""

    def __init__(self, panel: Panel, cluster: ClusterPicture) -> None:
        self._panel, self.name, self._cluster = panel, cluster["name"], cluster
        self._actions: list[str] = []
        self._copy = widgets.ToggleButton(
            description="Copy as magic",
            tooltip="The next action is not done: the magic that does it is shown",
            layout={"width": "auto"},
        )
        self._buttons = widgets.HBox(layout={"flex_flow": "row wrap"})
        self._magic = magic_field()
        self._form = widgets.VBox()
        self._r, self._rest, self._advice = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._server = widgets.HTML(session.server_buttons(self.name))
        self._kernel = session.kernel_buttons(panel, self._session_pressed)
        self._links = widgets.HTML(layout={"overflow": "visible"})
        self._node = widgets.Dropdown(description="ssh to", layout={"width": "20em"})
        self._node.style.description_width = "4em"
        self._node.observe(self._node_chosen, "value")
        self._ssh = Line(label="Command", hint="For any terminal", terminal=True, layout={"flex": "1 1 30em"})
        self._shell = widgets.HBox([self._node, self._ssh], layout={"flex_flow": "row wrap"})
        servers = widgets.HBox([self._server, self._kernel], layout={"flex_flow": "row wrap"})
        self._about_r = widgets.VBox([widgets.HTML("<b>R on the master</b>"), self._r, servers, self._links])
        self._events, self._magics = widgets.HTML(), widgets.HTML(_magics(self.name))
        self._magics.layout.display = "none"
        self._copy.observe(self._copying, "value")
        head = [self._advice, self._buttons, self._magics, self._magic, self._form]
        parts = [*head, self._about_r, self._shell, self._rest, self._events]
        self.widget = widgets.VBox(parts)
        self.widget.add_class("ppe-open")

    def draw(self, cluster: ClusterPicture, details: Details | None) -> None:
        """Show it; without ``details`` what was known of its master stays."""
        self._cluster = cluster
        quiet = cluster["state"] == "running" or not cluster["advice"]
        self._advice.value = (
            "" if quiet else f'<span class="ppe-calm">{words.escaped(cluster["advice"])}</span>'
        )
        if cluster["actions"] != self._actions:
            self._actions = list(cluster["actions"])
            self._buttons.children = tuple(self._made_buttons())
            self._links.value = _links(self.name) if "rstudio" in self._actions else ""
        up = "connect" in cluster["actions"]
        self._about_r.layout.display = self._shell.layout.display = "" if up else "none"
        nodes = [
            (f"node {each['index']} ({each['role']})", each["index"])
            for each in cluster["nodes"]
            if each["up"]
        ]
        if up and tuple(nodes) != self._node.options:
            self._node.options = tuple(nodes)
            self._node.index = 0 if nodes else None
            self._show_ssh()
        if details is None:
            self._rest.value = self._rest.value or master.nodes(cluster, None)
            return
        self._r.value = master.session(details) + master.jobs(details) + master.ranks(details)
        trouble = words.problem(details["problem"]) if details["problem"] else ""
        self._rest.value = (
            trouble + master.nodes(cluster, details) + master.volumes(details) + master.watchdog(details)
        )
        self._events.value = master.events(details)  # apart: what is unfolded stays so

    # -- actions ----------------------------------------------------------------------------------------

    def _made_buttons(self) -> list[Any]:
        """One for each thing that makes sense now."""
        made = [
            button(
                LABELS[verb],
                partial(self._pressed, verb),
                self._panel,
                hint=f"{HINTS[verb]}: {self.name}",
                style="danger" if verb == "terminate" else "",
            )
            for verb in self._actions
            if verb in LABELS
        ]
        if "connect" in self._actions:
            made.insert(1, button("Volumes…", partial(self._pressed, "volumes"), self._panel))
        return [*made, self._copy]

    def _pressed(self, verb: str) -> None:
        if self._copy.value:
            self._copy.value = False
            set_magic(self._magic, panel_options.usual_magic(verb, self._cluster))
        elif verb == "connect":
            self._connect()
        elif verb == "volumes":
            self._volumes()
        else:
            self._review(verb)

    def _copying(self, change: Any) -> None:
        show = "" if change["new"] else "none"
        self._panel.worker.do(lambda: setattr(self._magics.layout, "display", show))

    def _leave(self) -> None:
        self._form.children = ()

    def _review(self, verb: str) -> None:
        """Plan, review, confirm."""
        options = panel_options.widgets_of(verb, self._cluster)
        plans = self._panel.poller.plans
        self._form.children = (
            Review(
                self._panel,
                title=f"{LABELS[verb].rstrip('…')}{' of' * (verb == 'limit')} {self.name}",
                read=partial(panel_options.read, options),
                plan=partial(plans.change, verb, self.name),
                options=list(options.values()),
                leave=self._leave,
            ).widget,
        )

    def _connect(self) -> None:
        set_magic(self._magic, self._cluster["connect"])
        desk, chosen = self._panel.desk, self._panel.poller.settings
        if desk is None:
            raise UsageError(
                f"this panel has no magics beside it: %load_ext ppe_jupyter, {self._cluster['connect']}"
            )
        where = Namespace(cloud=chosen.cloud, profile=chosen.profile, region=chosen.region)

        def connect() -> None:
            cluster = desk.cluster(self.name, where)
            cluster.r()
            desk.connect(cluster, where)

        said = f"connected: %%remote_r runs on {self.name}"
        self._panel.worker.ask("connect", connect, lambda _: self._panel.say(said))

    def _session_pressed(self, verb: str) -> None:
        """Without the lab extension: interrupt or restart R."""
        copied, self._copy.value = self._copy.value, False
        asked = None if copied else session.form(self._panel, verb, self._cluster, leave=self._leave)
        set_magic(self._magic, "" if asked else session.magic(verb, self.name))
        self._form.children = (asked,) if asked else ()

    # -- volumes and shells -----------------------------------------------------------------------------

    def _volumes(self) -> None:
        """Attach, mount, detach."""
        read = partial(deeds.volumes, self._panel.poller)
        self._panel.worker.ask("volumes", read, self._volume_forms)

    def _volume_forms(self, rows: list[dict[str, Any]]) -> None:
        self._form.children = volumes.forms(self._panel, self._cluster, rows, leave=self._leave)

    def _node_chosen(self, change: Any) -> None:
        if not self._panel.worker.is_this:
            self._panel.worker.do(self._show_ssh)

    def _show_ssh(self) -> None:
        index, poller = self._node.value, self._panel.poller

        def command() -> str:
            cluster = poller.cluster(self.name)
            return cluster.ssh_command(next(each for each in cluster.nodes if each.index == index))

        def show(line: str) -> None:
            self._ssh.value = line

        if index is not None:
            self._panel.worker.ask("ssh", command, show)


def _links(name: str) -> str:
    """RStudio: a lab's tab, else a link."""
    if address(name):
        return str(opener(name).data)
    return f'<span class="ppe-calm">RStudio: %ppe_rstudio {words.escaped(name)}</span>'


def _magics(name: str) -> str:
    """What the buttons that do not ask are in a cell."""
    lines = [*(session.magic(verb, name) for verb in session.DEEDS), f"%ppe_rstudio {name}"]
    shown = " · ".join(f"<code>{words.escaped(line)}</code>" for line in lines)
    return f"<div>Press an action to see its magic. Besides: {shown}</div>"
