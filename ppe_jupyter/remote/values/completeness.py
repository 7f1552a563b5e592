"""Whether Python's form of an R vector tells all of it, so that R's object can be made from it again.

Pure; must not know how values are made, nor where the rest is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from .nodes import Node, Type, classes
from .times import NUMPY_UNITS, r_dates, r_spans, r_times


def is_complete(node: Node, values: Any, told: Iterable[str] = (), *, typed: bool = False) -> bool:
    """Whether R's object can be made from the values alone, if the attributes ``told`` are known.

    An array of objects, unlike the ``typed`` strings of a Series, does not say what kind of NA are all of its values.
    """
    attributes = set(node.attributes) - set(told)
    found = classes(node)
    # An array of objects does not say that it was a list.
    if node.type in (Type.RAW, Type.LIST):
        return False
    if not attributes:
        return typed or not all_missing(node)
    if found in (["factor"], ["ordered", "factor"]):
        return attributes == {"levels", "class"} and not node.attributes["levels"].attributes
    if node.type is not Type.DOUBLE:
        return False
    if found == ["Date"] and attributes == {"class"}:
        return _are_numbers(node, values, r_dates)
    if found == ["POSIXct", "POSIXt"] and attributes <= {"class", "tzone"}:
        zones = node.attributes["tzone"].strings if "tzone" in attributes else None
        zone = str(getattr(values, "tz", None) or "") or None
        return zones == (zone and [zone]) and _are_numbers(node, values, r_times)
    if found == ["difftime"] and attributes == {"class", "units"}:
        unit = NUMPY_UNITS.get(node.attributes["units"].strings[0])
        named = np.datetime_data(values.dtype)[0] if isinstance(values, np.ndarray) else None
        return (named == unit if unit else True) and _are_numbers(node, values, r_spans)
    return False


def _are_numbers(node: Node, values: Any, encode: Any) -> bool:
    """Whether times become R's numbers again, bit for bit."""
    assert node.array is not None
    if isinstance(values, (pd.Index, pd.api.extensions.ExtensionArray)):
        zoned = getattr(values, "tz", None) is not None
        values = (values.tz_convert("UTC").tz_localize(None) if zoned else values).to_numpy()  # type: ignore[union-attr]
    try:
        return bool(np.array_equal(encode(values).array.view("i8"), node.array.view("i8")))
    except ValueError:
        return False


def all_missing(node: Node) -> bool:
    """Whether all of a character vector are NA."""
    return node.type is Type.CHARACTER and 0 < len(node) == len(node.missing)
