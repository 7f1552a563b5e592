"""Options of a verb in the panel: a widget for each, and what it says; and the magic that types the same."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from ...errors import UsageError
from ...overview import magic
from ...overview.plans import OPTIONS
from ...verbs.options import hours, usd

if TYPE_CHECKING:
    from ...overview.pictures import ClusterPicture

LIMITS: Mapping[str, tuple[str, str, Callable[[str], float]]] = {
    "idle_hours": ("Idle", "2h, 90m or off", hours),
    "max_hours": ("Max. hours", "12h or off", hours),
    "budget_usd": ("Budget $", "12.50 or off", usd),
}
CHOICES = [("wait for them", "wait"), ("replace them", "replace"), ("go on without them", "drop")]
ENDS = [("park", "park"), ("terminate", "terminate")]


def node_choice(cluster: ClusterPicture, *, everywhere: str = "") -> Any:
    """A node, or all if that is among the choices."""
    nodes: list[tuple[str, int | str]] = [
        (f"{each['index']} ({each['role']})", each["index"])
        for each in cluster["nodes"]
        if each["state"] == "running"
    ]
    return widgets.Dropdown(description="Node", options=[(everywhere, ""), *nodes] if everywhere else nodes)


def limits(*, empty: str = "as it is") -> dict[str, Any]:
    """What ends a cluster; ``empty`` stands for no choice of what happens then."""
    made: dict[str, Any] = {
        name: widgets.Text(
            description=label, placeholder=hint, layout={"width": "16em"}, continuous_update=True
        )
        for name, (label, hint, _) in LIMITS.items()
    }
    made["then"] = widgets.Dropdown(
        description="At a limit", options=[(empty, ""), *ENDS], layout={"width": "16em"}
    )
    return made


def widgets_of(verb: str, cluster: ClusterPicture) -> dict[str, Any]:
    """The widgets by the option's name."""
    if verb == "limit":
        return limits()
    made: dict[str, Any] = {}
    for name in OPTIONS[verb]:
        if name == "node":
            made[name] = node_choice(cluster, everywhere="all nodes")
        elif name == "nodes":
            wanted = max(cluster["nodes_wanted"], 1)
            made[name] = widgets.BoundedIntText(
                value=wanted, min=1, max=1000, description="Nodes", continuous_update=True
            )
        elif name == "choice":
            made[name] = widgets.Dropdown(description="Lost nodes", options=CHOICES)
        elif name == "force":
            made[name] = widgets.Checkbox(
                value=False, description="even if something is at work", indent=False
            )
    return made


def read(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the widgets say; None for what is as it is. Raises UsageError."""
    values = {name: LIMITS[name][2] if name in LIMITS else None for name in options}
    return {name: _read(name, widget.value, values[name]) for name, widget in options.items()}


def _read(name: str, value: Any, kind: Callable[[str], float] | None) -> Any:
    if kind is None:
        return value or None if isinstance(value, bool | str) else value
    try:
        return kind(value.strip()) if value.strip() else None
    except argparse.ArgumentTypeError as exc:
        raise UsageError(f"{LIMITS[name][0]}: {exc}") from None


def usual_magic(verb: str, cluster: ClusterPicture) -> str:
    """The magic of an action before anything is chosen."""
    if verb == "connect":
        return cluster["connect"]
    if verb == "volumes":
        return f"%ppe_attach_volume VOLUME --cluster {cluster['name']}"
    needed = {"resize": {"nodes": cluster["nodes_wanted"]}}.get(verb, {})
    return magic.line(verb, needed, words=[cluster["name"]])


def attach_magic(cluster: str, volume: str, node: int | None, mount: str, format: str | None) -> str:
    """``%ppe_attach_volume …``."""
    values = {"cluster": cluster, "mount": mount or None, "format": format}
    words = [volume] if node is None else [volume, str(node)]
    return magic.line("attach_volume", values, words=words)


def detach_magic(cluster: str, volume: str, force: bool) -> str:
    """``%ppe_detach_volume …``."""
    return magic.line("detach_volume", {"cluster": cluster, "force": force or None}, words=[volume])
