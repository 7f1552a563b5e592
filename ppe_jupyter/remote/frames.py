"""pandas' Series, indexes and data frames as R's vectors and data frames.

Columns that came from R and were not changed return as they were: with their attributes, as the type they had.
Must not know how nodes travel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .arrow import arrow_column
from .decoding import column
from .objects import ATTRS, Origin, RObject
from .vectors import Place, integer64, integers, strings, times, typed
from .wire import NA_INTEGER, Node, Type, characters, classes, dump, listing, vector

Array = npt.NDArray[Any]
# What makes a column of objects a list.
LISTED = (list, dict, tuple, np.ndarray, pd.Series, pd.DataFrame, RObject)
PRIVATE = {".ppe_instants", ".ppe_bytes"}


def series_node(value: pd.Series[Any] | pd.Index[Any], place: Place) -> Node:
    """A vector; the labels of a Series are its names, unless they only count."""
    if isinstance(value, pd.MultiIndex):
        raise place.refused("a MultiIndex has no counterpart in R; use to_frame()")
    if isinstance(value, pd.Index):
        return values_node(value.to_series(), place)
    node = values_node(value, place, origin_of(value.attrs, value.name))
    if not _counts(value.index):
        node.attributes["names"] = _labels(value.index, place)
    return node


def origin_of(attrs: Any, name: Any = None) -> Node | None:
    """What a Series was in R, or in a data frame of R's."""
    origin = attrs.get(ATTRS)
    if not isinstance(origin, Origin):
        return None
    return origin.columns.get(str(name)) if "data.frame" in classes(origin.node) else origin.node


def _counts(index: pd.Index[Any]) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _labels(index: pd.Index[Any], place: Place) -> Node:
    if isinstance(index, pd.MultiIndex):
        raise place.refused("labels of several levels have no counterpart in R; use reset_index()")
    missing = np.asarray(index.isna())
    if pd.api.types.infer_dtype(index, skipna=True) == "string":
        return strings(index.to_numpy(object), missing, place)
    return strings(np.array([str(label) for label in index], object), missing, place)


# --- Columns


def values_node(series: pd.Series[Any], place: Place, origin: Node | None = None) -> Node:
    """The values of a Series, without its labels."""
    if origin is None:
        return _plain(series, place)
    if origin.type is Type.LIST and series.dtype.kind == "O":
        return as_it_was(_list_column(series, place), origin, Node(Type.NULL))
    if "integer64" in classes(origin) and pd.api.types.is_integer_dtype(series.dtype):
        missing = np.asarray(series.isna())
        fresh = integer64(series.to_numpy("i8", na_value=0), missing)
        return as_it_was(fresh, origin, fresh)
    return as_it_was(_plain(series, place), origin, _plain(pd.Series(column(origin, in_frame=True)), place))


def as_it_was(fresh: Node, origin: Node, unchanged: Node) -> Node:
    """``origin``, if the values are still what it became here; else they, with those attributes that still apply."""
    if len(fresh) != len(origin):
        return fresh
    if b"".join(dump(fresh)) == b"".join(dump(unchanged)):
        found = {name: node for name, node in origin.attributes.items() if name != "names"}
        fresh = Node(origin.type, origin.array, origin.data, origin.count, origin.missing, origin.encoding,
                     origin.children, attributes=found)  # fmt: skip
    elif fresh.type is origin.type and not {"tzone", "units"} & set(origin.attributes):
        kept = {name: node for name, node in origin.attributes.items() if name not in {"names", *PRIVATE}}
        if "class" in fresh.attributes or classes(origin) in ([], ["AsIs"], ["noquote"]):
            fresh.attributes = {**kept, **fresh.attributes}
    return fresh


def _plain(series: pd.Series[Any], place: Place) -> Node:
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        array = series.to_numpy()
        if dtype.kind == "M" and dtype == np.dtype("M8[s]"):
            # R's dates arrive so: pandas has no dtype of days.
            days = array.astype("datetime64[D]")
            return times(
                days if np.array_equal(days.astype(array.dtype), array, equal_nan=True) else array, place
            )
        return typed(array, place) if dtype.kind != "O" else _object_column(array, place)
    if isinstance(dtype, pd.CategoricalDtype):
        return _factor(series, place)
    if isinstance(dtype, pd.DatetimeTZDtype):
        utc = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
        return times(utc, place, str(dtype.tz))
    if isinstance(dtype, pd.ArrowDtype) or getattr(dtype, "storage", "") == "pyarrow":
        return arrow_column(series.array.__arrow_array__(), place)
    missing = np.asarray(series.isna())
    if isinstance(dtype, pd.StringDtype):
        return strings(series.to_numpy(object), missing, place)
    if isinstance(dtype, pd.BooleanDtype):
        return typed(series.to_numpy(bool, na_value=False), place, missing)
    if isinstance(dtype, pd.SparseDtype):
        return _plain(pd.Series(np.asarray(series)), place)
    if isinstance(dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        advice = "to_timestamp()" if isinstance(dtype, pd.PeriodDtype) else "astype(str), or .left and .right"
        raise place.refused(f"pandas' {dtype} has no counterpart in R; use {advice}")
    if dtype.kind in "iuf":
        plain = series.to_numpy(f"{dtype.kind}8", na_value=0)
        return typed(plain, place, missing)
    raise place.refused(f"pandas' {dtype} has no counterpart in R; convert it with astype()")


def _object_column(array: Array, place: Place) -> Node:
    """Scalars of one kind, or a list column."""
    kind = pd.api.types.infer_dtype(array, skipna=True)
    if kind == "bytes" or (kind == "mixed" and any(isinstance(value, LISTED) for value in array)):
        return _list_column(array, place)
    return typed(array, place)


def _list_column(values: Iterable[Any], place: Place) -> Node:
    from .encoding import to_r  # which knows data frames in turn

    return listing([to_r(value, place.inner(f"{place}[{i}]")) for i, value in enumerate(values)])


def _factor(series: pd.Series[Any], place: Place) -> Node:
    categories = series.cat.categories
    levels = _labels(categories, place)
    if len(set(levels.strings)) < len(levels):
        raise place.refused("two categories have the same text, which R's levels cannot")
    codes = series.cat.codes.to_numpy().astype("<i4") + np.int32(1)
    codes[codes == 0] = NA_INTEGER
    found = ["ordered", "factor"] if series.cat.ordered else ["factor"]
    return vector(Type.INTEGER, codes, levels=levels, **{"class": characters(found)})


# --- Data frames


def frame_node(frame: pd.DataFrame, place: Place) -> Node:
    """A data frame, or the tibble or data.table that it was."""
    if isinstance(frame.columns, pd.MultiIndex):
        raise place.refused("columns of several levels have no counterpart in R; join their names first")
    origin = frame.attrs.get(ATTRS)
    origin = origin if isinstance(origin, Origin) and "data.frame" in classes(origin.node) else None
    names = _labels(frame.columns, place.inner(f"the names of {place}"))
    nodes = []
    for i, name in enumerate(names.strings):
        known = origin.columns.get(name) if origin is not None else None
        nodes.append(values_node(frame.iloc[:, i], place.inner(f"column {name!r} of {place}"), known))
        if known is not None and len(known) == len(nodes[-1]) and "names" in known.attributes:
            nodes[-1].attributes["names"] = known.attributes["names"]
    node = listing(nodes)
    node.attributes["names"] = names
    node.attributes["class"] = (
        origin.node.attributes["class"] if origin is not None else characters(["data.frame"])
    )
    node.attributes["row.names"] = _row_names(frame, place)
    if (
        origin is not None
        and len(frame) == _rows(origin.node)
        and names.data == origin.node.attributes["names"].data
    ):
        node.attributes = {**origin.node.attributes, **node.attributes}
    return node


def _rows(node: Node) -> int:
    rows = node.attributes["row.names"]
    if rows.array is not None and len(rows) == 2 and rows.array[0] == NA_INTEGER:
        return abs(int(rows.array[1]))
    return len(rows)


def _row_names(frame: pd.DataFrame, place: Place) -> Node:
    index = frame.index
    if _counts(index):
        return vector(Type.INTEGER, np.array([NA_INTEGER, -len(frame)]))
    if not isinstance(index, pd.MultiIndex) and (not index.is_unique or index.hasnans):
        raise place.refused("row labels repeat or are missing, which R's cannot; use reset_index()")
    if index.dtype.kind in "iu":
        whole = integers(index.to_numpy(), place)
        if whole.type is Type.INTEGER:
            return whole
    return _labels(index, place)
