"""The notebook's variables as a cell's line names them: ``a,b``, ``module.value``, ``name_in_r=a``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import UsageError

Names = Mapping[str, Any]


def listed(words: Iterable[str]) -> list[str]:
    """``a,b`` and ``a b`` and both: the names."""
    return [name for each in words for name in each.split(",") if name]


def pairs(words: Iterable[str]) -> list[tuple[str, str]]:
    """Each one's name there, "" if it is the same, and what it is here."""
    parts = [each.rpartition("=") for each in listed(words)]
    return [(there, here) for there, _, here in parts]


def inputs(words: Iterable[str], names: Names) -> dict[str, Any]:
    """The values to send, by their names in R. Raises UsageError."""
    return {there or here: value(here, names) for there, here in pairs(words)}


def value(path: str, names: Names) -> Any:
    """That of a variable, or of an attribute of one. Raises UsageError."""
    name, *attributes = path.split(".")
    if name not in names:
        raise UsageError(f"there is no Python variable {name!r} to send to R")
    found = names[name]
    for attribute in attributes:
        if not hasattr(found, attribute):
            raise UsageError(f"Python's {name} has no attribute {attribute!r} to send to R")
        found = getattr(found, attribute)
    return found


def python_named(values: Mapping[str, Any]) -> dict[str, Any]:
    """R's variables by names that Python can have."""
    return {name.replace(".", "_"): value for name, value in values.items()}
