"""Lists: what a launch can be made of, what outlives clusters, what it all cost, the settings: rows as JSON.

A local cloud that is down is not started for a list: what only it could say is then empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .. import catalog, settings
from ..cloud.keeping.volumes import attached_to
from ..cloud.records import Progress
from ..cloud.spec import ClusterSpec
from ..cloud.tagged import user_tags
from ..errors import CloudError, Forgotten, SettingsError, UsageError
from .pictures import instant

if TYPE_CHECKING:
    import pandas as pd

    from ..manager import Manager

Rows = list[dict[str, Any]]
ORPHANS = ("images", "everyone", "force", "all_regions")
HIDDEN = "//***@"


def asleep(manager: Manager) -> bool:
    """Whether it is a local cloud that is down."""
    return manager.is_free and not manager.local_status().running


def types(manager: Manager, **filters: Any) -> dict[str, Any]:
    """Instance types, the cheapest core first; ``Manager.types`` says which filters."""
    frame = catalog.table(**filters) if asleep(manager) else manager.types(**filters)
    known = catalog.instance_types()
    rows = []
    for name, row in zip(frame.index, _rows(frame), strict=True):
        kind = known.get(str(name))
        rows.append(
            {
                "name": str(name),
                "cores": row["cores"],
                "vcpus": kind.vcpus if kind else None,
                "gb": row["GB"],
                "gbps": row["Gbit/s"],
                "cluster_capable": row["cluster"],
                "arch": row["arch"],
                "usd_per_hour": row["USD/h"],
                "spot_usd_per_hour": row["spot USD/h"],
                "usd_per_core_hour": row["USD/core-h"],
            }
        )
    return {"source": frame.attrs["source"], "types": rows}


def images(manager: Manager, instance_type: str | None = None) -> Rows:
    """The catalog of images, and whether they fit the type. Raises UsageError for one that is not known."""
    asking = catalog.instance_types().get if asleep(manager) else manager.instance_type
    kind = asking(instance_type) if instance_type else None
    if instance_type and kind is None:
        raise UsageError(f"there is no instance type {instance_type!r}")
    return [
        {
            "id": each.image.image_id,
            "name": each.name,
            "own": each.own,
            "software": dict(each.software),
            "login_user": each.image.login_user,
            "fits": not (kind and each.unfit(kind)),
            "why": each.unfit(kind) if kind else "",
        }
        for each in ([] if asleep(manager) else manager.images())
    ]


def choices(manager: Manager) -> dict[str, Any]:
    """What a launch can name, and what it is made of when nothing is said."""
    nothing: dict[str, list[Any]] = {"zones": [], "key_pairs": [], "security_groups": []}
    named = nothing if asleep(manager) else manager.choices()
    return {**named, "defaults": _plain(asdict(ClusterSpec()))}


def volumes(manager: Manager) -> Rows:
    """Every EBS volume of the region but root disks."""
    if asleep(manager):
        return []
    records = [each.record for each in manager.clusters()]
    owners = {node.instance_id: (each.name, node.index) for each in records for node in each.nodes}
    return [
        {
            "id": each.volume_id,
            "gb": each.gb,
            "state": each.state,
            "zone": each.zone,
            "cluster": owners.get(each.instance_id, (None, None))[0],
            "node": owners.get(each.instance_id, (None, None))[1],
            "attached": attached_to(each, records),
            "tags": dict(user_tags(each.tags)),
        }
        for each in manager.volumes()
    ]


def orphans(manager: Manager, **flags: bool) -> Rows:
    """What was left behind; ``Manager.orphans`` says which flags."""
    if asleep(manager):
        return []
    return [_plain(asdict(each)) for each in manager.orphans(**flags)]


def clean_up(manager: Manager, ids: Sequence[str], *, report: Any, **flags: bool) -> None:
    """Remove those of the orphans. Raises Forgotten if one is none (any more), CloudError for what is still there."""
    found = {each.id: each for each in manager.orphans(**flags)}
    if unknown := [each for each in ids if each not in found]:
        raise Forgotten(f"nothing left behind, or not any more: {', '.join(unknown)}")
    report(Progress("removing", 0, len(ids), 0.0))
    removed = manager.clean_up([found[each] for each in ids], report=report)
    if removed.leftovers:
        raise CloudError(f"still there: {removed.leftovers_text()}")


def costs(manager: Manager, *, month: str | None = None, by: str | None = None) -> dict[str, Any]:
    """What was spent: the columns, the rows, and lines to be shown below. Raises UsageError."""
    if asleep(manager):
        return {"columns": [], "rows": [], "notes": ["the local cloud is down: it cannot be asked"]}
    frame = manager.costs(month=month, by=by)
    columns = [str(frame.index.name or ""), *map(str, frame.columns)]
    rows = [[_plain(name), *row.values()] for name, row in zip(frame.index, _rows(frame), strict=True)]
    return {"columns": columns, "rows": rows, "notes": [str(note) for note in frame.attrs.get("notes", ())]}


def shown_settings(chosen: settings.Settings) -> Rows:
    """A row for each setting; passwords within URLs are not shown."""
    return [
        {
            "name": each.name,
            "value": masked(getattr(chosen, each.name)),
            "set": getattr(chosen, each.name) != each.default,
            "help": each.metadata.get("help", ""),
            "choices": list(settings.CHOICES.get(str(each.type), ())),
        }
        for each in fields(chosen)
    ]


def change_settings(values: Mapping[str, object]) -> None:
    """Write settings to the configuration file; null takes one out of it. Raises SettingsError."""
    for key, value in values.items():
        if not isinstance(value, str | int | float | None) or isinstance(value, bool):
            raise SettingsError(f"{key} = {value!r} is neither text nor a number")
        if HIDDEN in str(value):
            raise SettingsError(f"{key}: *** stands for a password that is not shown; type the password")
    for key, value in values.items():
        settings.save(key, "" if value is None else str(value))


def masked(value: object) -> str:
    """A setting without its password."""
    return "" if value is None else re.sub(r"//[^/@]*@", HIDDEN, str(value))


def _rows(frame: pd.DataFrame) -> Rows:
    return [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is null, times are text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return instant(value)
    if hasattr(value, "item"):  # numpy's
        value = value.item()
    return None if value != value else value
