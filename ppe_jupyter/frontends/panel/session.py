"""R's buttons of an opened cluster: interrupt and restart, and termination, which must work while a cell runs.

The lab extension handles buttons of class ``ppe-server-action`` through the Jupyter server, questions included. Where
it is absent, what has the class ``ppe-server-absent`` shows, and goes through the kernel, which asks in a form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...overview import deeds
from . import words
from .review import button, confirmation

if TYPE_CHECKING:
    from ...overview.pictures import ClusterPicture
    from .panel import Panel

SERVER_ACTIONS = (
    ("interrupt", "Interrupt R", "%remote_interrupt"),
    ("restart", "Restart R", "%remote_restart"),
    ("terminate", "Terminate", "%ppe_terminate"),
)
DEEDS: dict[str, Callable[..., None]] = {"interrupt": deeds.interrupt, "restart": deeds.restart}
ENDS = {
    "interrupt": "what it evaluates ends, whoever started it; its variables stay",
    "restart": "what it evaluates ends, and its variables are lost",
}
SAID = {"interrupt": "R was interrupted", "restart": "R has started anew"}


def magic(verb: str, cluster: str) -> str:
    """What a button that goes through the kernel is in a cell."""
    return f"%remote_{verb} --cluster {cluster}"


def server_buttons(name: str) -> str:
    """Those of the lab extension, as HTML."""
    shown = "".join(
        f'<button type="button" class="ppe-server-action{" ppe-end" if action == "terminate" else ""}" '
        f'data-ppe-action="{action}" data-ppe-cluster="{words.escaped(name)}" '
        f'title="Also while a cell runs; as magic: {typed} …">{label}</button>'
        for action, label, typed in SERVER_ACTIONS
    )
    absent = (
        '<span class="ppe-server-absent ppe-calm">these need JupyterLab with the ppe-jupyter extension and its '
        "server; here they do nothing, the ones beside do</span>"
    )
    return f'<span class="ppe-calm">also while a cell runs:</span> {shown} {absent}'


def kernel_buttons(panel: Panel, pressed: Callable[[str], object]) -> Any:
    """For pages without the lab extension; these wait while a cell runs."""
    labels = {action: label for action, label, _ in SERVER_ACTIONS if action in DEEDS}
    made = [button(label, partial(pressed, action), panel) for action, label in labels.items()]
    note = widgets.HTML('<span class="ppe-calm">(these wait while a cell runs)</span>')
    box = widgets.HBox([*made, note])
    box.add_class("ppe-server-absent")
    return box


def form(panel: Panel, verb: str, cluster: ClusterPicture, *, leave: Callable[[], object]) -> Any:
    """The question, or None after it is done: one's own R is interrupted without one."""
    name, foreign = cluster["name"], not cluster["mine"]

    def act() -> None:
        DEEDS[verb](panel.poller, name, agreed=foreign)

    def done() -> None:
        panel.say(SAID[verb])
        leave()

    if verb == "interrupt" and not foreign:
        panel.worker.ask(verb, act, lambda _: done())
        return None
    label = f"{verb.capitalize()} R{' nevertheless' if foreign else ''}"
    return confirmation(
        panel,
        said=f"<b>{verb.capitalize()} R on {words.escaped(name)}</b>: {ENDS[verb]}{words.foreign(cluster)}",
        magic=lambda: magic(verb, name),
        label=label,
        act=act,
        leave=leave,
        done=done,
    )
