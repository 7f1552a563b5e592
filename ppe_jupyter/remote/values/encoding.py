"""Python values as R's: scalars, lists, dicts, arrays and tables to nodes.

What R cannot hold without loss is refused, with the name of the column. Nothing is looked at one by one in Python but
what is a list already. Must not know how nodes travel.
"""

from __future__ import annotations

import array as arrays
import datetime
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .arrow import arrow_column, arrow_frame, is_arrow
from .decoding import array_values
from .frames import as_it_was, cells_node, frame_node, series_node, values_node
from .local_r import from_rpy2
from .nodes import MANY, NA_INTEGER, Node, Scalars, Type, characters, listing, null, vector
from .objects import RArray, RCell, RList, RMaskedArray, RObject
from .vectors import SCALARS, Place, kind_of, objects, texts, typed, untyped


def to_r(value: Any, place: Place) -> Node:
    """The R object for a Python value; ``place`` names it in ValueRefused."""
    if value is None:
        return null()
    if isinstance(value, str):
        return texts([value], place)
    if isinstance(value, (pd.Series, pd.Index)):
        return series_node(value, place)
    if isinstance(value, pd.DataFrame):
        return frame_node(value, place)
    if isinstance(value, np.ndarray):
        return _array(value, place)
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return values_node(pd.Series(value), place)
    if isinstance(value, Mapping):
        return _mapping(value, place)
    if isinstance(value, RObject):
        return Node(Type.OPAQUE, data=value.serialized)
    if isinstance(value, RCell):
        return cells_node([value], place)
    if isinstance(value, (list, tuple)):
        if hasattr(value, "_asdict"):  # a named tuple
            return _mapping(value._asdict(), place)
        return _sequence(value, place)
    if isinstance(value, range):
        return _array(np.asarray(value), place)
    if isinstance(value, (bytes, bytearray)) or (isinstance(value, memoryview) and value.format in "Bc"):
        return vector(Type.RAW, np.frombuffer(bytes(value), "u1"))
    if isinstance(value, (memoryview, arrays.array)):
        return _array(np.asarray(value), place)
    return _table(value, place) if is_arrow(value) else _scalar(value, place)


def _scalar(value: Any, place: Place) -> Node:
    if isinstance(value, np.generic):
        return _array(np.asarray(value).reshape(1), place)
    # What pandas cannot tell apart in an array of one.
    if isinstance(value, (bool, int, float, complex, datetime.date, datetime.timedelta)) or value is pd.NA:
        return untyped(objects([value]), place)
    if value is pd.NaT:
        return typed(np.array(["NaT"], "M8[us]"), place)
    serialized = from_rpy2(value)
    if serialized is None:
        raise place.refused(f"R has no counterpart of {kind_of(value)}{_advice(value)}")
    return Node(Type.OPAQUE, data=serialized)


def _advice(value: Any) -> str:
    if hasattr(value, "toarray"):
        return "; use toarray()"
    return "; use list()" if hasattr(value, "__iter__") and not hasattr(value, "__array__") else ""


def _mapping(value: Mapping[Any, Any], place: Place) -> Node:
    for name in value:
        if not isinstance(name, str):
            raise place.refused(f"names in an R list are strings, not {kind_of(name)}")
    items = _scalars(value.values(), place) or [
        to_r(item, place.inner(f"{place}[{name!r}]")) for name, item in value.items()
    ]
    node = listing(items)
    node.attributes["names"] = texts(value, place.inner(f"the names of {place}"))
    return node


def _scalars(values: Collection[Any], place: Place) -> Scalars | None:
    """The elements of a list at once, if they are many numbers of one type, or truth values."""
    if len(values) < MANY or set(map(type, values)) not in ({float}, {int}, {bool}):
        return None
    whole = untyped(objects(list(values)), place)
    # An integer that is larger than R's is a double by itself, and makes doubles of its neighbours.
    return None if whole.type is Type.DOUBLE and not isinstance(next(iter(values)), float) else Scalars(whole)


def _sequence(value: list[Any] | tuple[Any, ...], place: Place) -> Node:
    """A vector, if all elements are scalars of one kind (None is NA then), else a list."""
    if not isinstance(value, RList) and value:
        array = objects(value)
        kind = pd.api.types.infer_dtype(array, skipna=True)
        if kind in SCALARS or (kind == "empty" and any(item is not None for item in value)):
            return untyped(array, place)
    items = _scalars(value, place) or [
        to_r(item, place.inner(f"{place}[{i}]")) for i, item in enumerate(value)
    ]
    node = listing(items)
    if isinstance(value, RList) and value.names is not None:
        missing = [i for i, name in enumerate(value.names) if name is None]
        node.attributes["names"] = characters([name or "" for name in value.names], np.array(missing, "<i4"))
    return node


def _array(value: Any, place: Place) -> Node:
    """A vector, or an array with ``dim``."""
    if value.ndim == 0:
        value = value.reshape(1)
    named = value if isinstance(value, (RArray, RMaskedArray)) else None
    node = _flat(value, place)
    if named is not None and named.origin is not None:
        origin = named.origin.node
        node = as_it_was(node, origin, _flat(array_values(origin), place))
        for name in ("dim", "dimnames"):
            node.attributes.pop(name, None)
    if value.ndim > 1 or (named is not None and named.dimnames is not None):
        node.attributes["dim"] = vector(Type.INTEGER, np.array(value.shape))
    if named is None or named.dimnames is None:
        return node
    if any(names is not None for names in named.dimnames) or named.axes:
        names = [null() if names is None else characters(names) for names in named.dimnames]
        node.attributes["dimnames"] = listing(names, named.axes)
    if named.is_table and "class" not in node.attributes:
        node.attributes["class"] = characters(["table"])
    return node


def _flat(value: Any, place: Place) -> Node:
    """The values in R's order."""
    if isinstance(value, np.ma.MaskedArray):
        missing = np.asarray(np.ma.getmaskarray(value)).ravel("F")
        return typed(np.asarray(value.data).ravel("F"), place, missing)
    if isinstance(value, np.ndarray):
        return typed(np.asarray(value).ravel("F"), place)
    return values_node(pd.Series(value), place)


def _table(value: Any, place: Place) -> Node:
    """An Arrow table as a data frame, an Arrow array as a vector."""
    if not hasattr(value, "schema"):
        return arrow_column(value, place)
    columns = arrow_frame(value)
    node = listing(
        [arrow_column(column, place.inner(f"column {name!r} of {place}")) for name, column in columns],
        [name for name, _ in columns],
    )
    node.attributes["class"] = characters(["data.frame"])
    node.attributes["row.names"] = vector(Type.INTEGER, np.array([NA_INTEGER, -value.num_rows]))
    return node
