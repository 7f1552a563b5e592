"""pandas' Series, indexes and data frames as R's vectors and data frames.

Columns that came from R and were not changed return as they were: with their attributes, as the type they had.
Must not know how nodes travel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .arrow import arrow_column
from .decoding import PRIVATE, column, row_index
from .nodes import NA_INTEGER, Node, Type, characters, classes, listing, vector
from .objects import ATTRS, Origin, RCell, RObject
from .vectors import Place, integer64, integers, strings, times, typed
from .wire import dump

Array = npt.NDArray[Any]
# What makes a column of objects a list.
LISTED = (list, dict, tuple, np.ndarray, pd.Series, pd.DataFrame, RObject)
# Classes that say what values mean; others may stay with values that were changed, as in R's own x[i] <- value.
CLASSES = {"factor", "Date", "POSIXct", "difftime", "integer64", "table"}
# Attributes that tell the scale of values, of which other ones may come.
WITH_UNIT = {"tzone", "units", "tsp"}
# Attributes that belong to each value.
BY_VALUE = ("names", "dim", "dimnames")


def series_node(value: pd.Series[Any] | pd.Index[Any], place: Place) -> Node:
    """A vector; the labels of a Series are its names, unless they only count."""
    if isinstance(value, pd.MultiIndex):
        raise place.refused("a MultiIndex has no counterpart in R; use to_frame()")
    if isinstance(value, pd.Index):
        return values_node(value.to_series(), place)
    node = values_node(value, place, origin_of(value.attrs, value.name))
    if _counts(value.index):
        node.attributes.pop("names", None)
    else:
        node.attributes = {name: kept for name, kept in node.attributes.items() if name not in BY_VALUE}
        node.attributes["names"] = _labels(value.index, place)
    return node


def origin_of(attrs: Any, name: Any = None) -> Node | None:
    """What a Series was in R, or in a data frame of R's."""
    origin = attrs.get(ATTRS)
    if isinstance(origin, Origin) and "data.frame" in classes(origin.node):
        origin = origin.column(name)
    return origin.node if isinstance(origin, Origin) else None


def _counts(index: pd.Index[Any]) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _labels(index: pd.Index[Any], place: Place) -> Node:
    if isinstance(index, pd.MultiIndex):
        raise place.refused("labels of several levels have no counterpart in R; use reset_index()")
    missing = np.asarray(index.isna())
    if pd.api.types.infer_dtype(index, skipna=True) == "string":
        return strings(index.to_numpy(object), missing, place)
    texts = np.array([str(label) for label in index], object)
    if len(set(texts[~missing])) < index.nunique():
        raise place.refused("two different labels have the same text, which is what they become in R")
    return strings(texts, missing, place)


# --- Columns


def values_node(
    series: pd.Series[Any], place: Place, origin: Node | None = None, *, certain: bool = True
) -> Node:
    """The values of a Series, without its labels; it may be not ``certain`` that ``origin`` is its own."""
    if origin is None:
        return _plain(series, place)
    if origin.type is Type.OPAQUE:
        empty = not len(series) and series.dtype.kind == "O"
        return _rows_of(origin.data, []) if empty else _plain(series, place)
    if origin.type is Type.LIST and series.dtype.kind == "O":
        return as_it_was(_list_column(series, place), origin, Node(Type.NULL), certain=certain)
    if "integer64" in classes(origin) and pd.api.types.is_integer_dtype(series.dtype):
        missing = np.asarray(series.isna())
        fresh = integer64(series.to_numpy("i8", na_value=0), missing)
        return as_it_was(fresh, origin, replace(fresh, array=origin.array), certain=certain)
    unchanged = _plain(pd.Series(column(origin, in_frame=True)), place)
    return as_it_was(_plain(series, place), origin, unchanged, certain=certain)


def as_it_was(fresh: Node, origin: Node, unchanged: Node, *, certain: bool = True) -> Node:
    """``origin``, if the values are still what it became here; else they, with those attributes that still apply."""
    if len(fresh) != len(origin):
        return fresh
    if b"".join(dump(fresh)) == b"".join(dump(unchanged)):
        return replace(origin, attributes=dict(origin.attributes))
    applies = "class" in fresh.attributes or not CLASSES & set(classes(origin))
    if certain and applies and fresh.type is origin.type and not WITH_UNIT & set(origin.attributes):
        kept = {n: node for n, node in origin.attributes.items() if n not in {*BY_VALUE, *PRIVATE}}
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
    if kind == "mixed" and any(isinstance(value, RCell) for value in array):
        return cells_node(array, place)
    if kind == "bytes" or (kind == "mixed" and any(isinstance(value, LISTED) for value in array)):
        return _list_column(array, place)
    return typed(array, place)


def cells_node(cells: Iterable[Any], place: Place) -> Node:
    """Rows of a column that is R's own."""
    found = list(cells)
    column = next(cell.column for cell in found if isinstance(cell, RCell))
    if not all(isinstance(cell, RCell) and cell.column == column for cell in found):
        raise place.refused("rows of different R objects, or of none, cannot be joined here; join them in R")
    return _rows_of(column.serialized, [cell.row for cell in found])


def _rows_of(serialized: bytes, rows: list[int]) -> Node:
    return Node(Type.OPAQUE, data=serialized, attributes={".ppe_rows": vector(Type.INTEGER, np.array(rows))})


def _list_column(values: Iterable[Any], place: Place) -> Node:
    return listing([place.encode(value, place.inner(f"{place}[{i}]")) for i, value in enumerate(values)])


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
    rows = None if origin is None else row_index(origin.node)
    nodes = _columns(frame, names.strings, place, origin, rows)
    node = listing(nodes)
    node.attributes["names"] = names
    node.attributes["class"] = (
        origin.node.attributes["class"] if origin is not None else characters(["data.frame"])
    )
    node.attributes["row.names"] = _row_names(frame, place)
    if (
        origin is not None
        and rows is not None
        and len(frame) == len(rows)
        and names.data == origin.node.attributes["names"].data
    ):
        node.attributes = {**origin.node.attributes, **node.attributes}
    return node


def _columns(
    frame: pd.DataFrame, names: list[str], place: Place, origin: Origin | None, rows: pd.Index[Any] | None
) -> list[Node]:
    """What came from R is known by its name; if that is another's too, only by its place, and if it is what it was."""
    nodes = []
    often = Counter(names)
    where_it_was = origin is not None and names == origin.names
    for i, name in enumerate(names):
        known = origin.column(name, i if where_it_was else None) if origin is not None else None
        inner, own = place.inner(f"column {name!r} of {place}"), None if known is None else known.node
        node = values_node(frame.iloc[:, i], inner, own, certain=often[name] == 1)
        if set(BY_VALUE) & set(node.attributes) and (rows is None or not frame.index.equals(rows)):
            node.attributes = {n: kept for n, kept in node.attributes.items() if n not in BY_VALUE}
        nodes.append(node)
    return nodes


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
