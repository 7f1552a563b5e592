"""A cluster's volumes in the panel: attach, mount, format, detach; each a form of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...overview import deeds
from . import options, words
from .review import button, confirmation

if TYPE_CHECKING:
    from ...overview.pictures import ClusterPicture
    from .panel import Panel

FORMATS = [("no", ""), ("ext4 if empty", "ext4"), ("xfs if empty", "xfs")]
Leave = Callable[[], object]


def forms(
    panel: Panel, cluster: ClusterPicture, rows: list[dict[str, Any]], *, leave: Leave
) -> tuple[Any, ...]:
    """The forms for these volumes (rows of ``lists.volumes``); if there are none, what to do about it."""
    zones = {each["zone"] for each in cluster["nodes"]}
    free = [each for each in rows if each["cluster"] is None and each["zone"] in zones]
    here = [each for each in rows if each["cluster"] == cluster["name"]]
    made = [_attach(panel, cluster, free, leave)] if free else []
    made += [_detach(panel, cluster, here, leave)] if here else []
    none = f"There is no free volume in {', '.join(sorted(zones))}; make one with: %ppe_create_volume"
    return tuple(made) or (
        widgets.HTML(f"<p>{words.escaped(none)}</p>"),
        button("Leave it", leave, panel),
    )


def _attach(panel: Panel, cluster: ClusterPicture, free: list[dict[str, Any]], leave: Leave) -> Any:
    name, asked = cluster["name"], not cluster["mine"]
    labels = [(f"{each['id']} · {each['gb']} GB", each["id"]) for each in free]
    which = widgets.Dropdown(description="Volume", options=labels)
    node = options.node_choice(cluster)
    mount = widgets.Text(description="Mount at", placeholder="/data; empty: attach only")
    format = widgets.Dropdown(description="Format", options=FORMATS)

    def magic() -> str:
        return options.attach_magic(name, which.value, node.value, mount.value, format.value or None)

    def act() -> Any:
        where = {"node": node.value, "mount": mount.value, "format": format.value or None}
        return deeds.attach(panel.poller, name, which.value, agreed=asked, **where)

    return confirmation(
        panel,
        said=f"<b>Attach a volume to {words.escaped(name)}</b>{words.foreign(cluster)}",
        magic=magic,
        label="Attach nevertheless" if asked else "Attach",
        act=act,
        leave=leave,
        options=[which, node, mount, format],
    )


def _detach(panel: Panel, cluster: ClusterPicture, here: list[dict[str, Any]], leave: Leave) -> Any:
    name, asked = cluster["name"], not cluster["mine"]
    labels = [(f"{each['id']} on node {each['node']}", each["id"]) for each in here]
    which = widgets.Dropdown(description="Volume", options=labels)
    force = widgets.Checkbox(description="even if it is in use", value=False)
    return confirmation(
        panel,
        said=f"<b>Detach a volume from {words.escaped(name)}</b>: it is unmounted first{words.foreign(cluster)}",
        magic=lambda: options.detach_magic(name, which.value, force.value),
        label="Detach nevertheless" if asked else "Detach",
        act=lambda: deeds.detach(panel.poller, name, which.value, force=force.value, agreed=asked),
        leave=leave,
        options=[which, force],
    )
