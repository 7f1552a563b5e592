"""What was typed for a launch, as a specification; and errors in its fields said with the options' names."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import SpecError, UsageError
from ...verbs.clusters import LAUNCH

if TYPE_CHECKING:
    from ...cloud.spec import ClusterSpec

Arguments = argparse.Namespace


def typed_spec(arguments: Arguments) -> ClusterSpec:
    """What was typed, over what --spec holds. Raises SpecError, UsageError."""
    from ...cloud.spec import ClusterSpec

    chosen: dict[str, Any] = {}
    if arguments.spec:
        from ...cloud import spec_file

        chosen = spec_file.load(Path(arguments.spec).expanduser())
    for each in fields(ClusterSpec):
        value = getattr(arguments, each.name)
        if each.name == "tags":
            chosen["tags"] = {**chosen.get("tags", {}), **dict(value)}
        elif each.name.endswith("_packages"):
            chosen[each.name] = packages(value) or chosen.get(each.name, ())
        elif each.name == "bootstrap" and value is not None:
            chosen["bootstrap"] = _script(value)
        elif each.name in ("max_hours", "budget_usd") and value == 0:  # off: also what the file says
            chosen[each.name] = None
        elif value not in (None, []):
            chosen[each.name] = value
    try:
        return ClusterSpec(**chosen)
    except SpecError as error:
        raise SpecError(_as_typed(str(error)), problems=error.problems) from None


def _as_typed(message: str) -> str:
    """Fields that are options of another name have that name behind them."""
    named = {each.dest: each for each in LAUNCH.options if each.dest and not each.nargs}
    words = "|".join(named)
    return re.sub(
        rf"\b({words})\b(?! packages)", lambda found: f"{found[1]} (--{named[found[1]].name})", message
    )


def packages(typed: list[str]) -> tuple[str, ...]:
    """``a,b`` and ``a b`` and both: the names."""
    return tuple(name for each in typed for name in each.replace(",", " ").split())


def _script(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read the bootstrap script {path}: {exc}") from exc
