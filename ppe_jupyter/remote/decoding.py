"""R values as Python's: nodes to scalars, numpy, pandas, lists and dicts.

A vector of length 1 without names is a scalar. NA is ``pandas.NA``, but of doubles it is R's own NaN, so that they
return bit for bit. A vector with names is a Series. Must not know how nodes travel.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from .objects import RArray, RList, RObject
from .times import nanoseconds, whole_units
from .wire import NA_INTEGER, Node, Type

# pandas 3 has a string type of its own, without an NA that differs from NaN.
TEXT = "str" if int(pd.__version__.partition(".")[0]) >= 3 else "string"
UNITS = {"secs": 1.0, "mins": 60.0, "hours": 3600.0, "days": 86400.0, "weeks": 604800.0}

Array = npt.NDArray[Any]


def to_python(node: Node) -> Any:
    """The Python value of an R object."""
    if node.type is Type.NULL:
        return None
    if node.type is Type.OPAQUE:
        return RObject(node.text, tuple(_classes(node)), node.serialized)
    if node.type is Type.LIST:
        return _frame(node) if "data.frame" in _classes(node) else _list(node)
    if node.type is Type.RAW and "dim" not in node.attributes:
        assert node.array is not None
        return node.array.tobytes()
    if "dim" in node.attributes:
        return _array(node)
    values = _column(node)
    if "names" in node.attributes:
        return pd.Series(values, index=_labels(node.attributes["names"]))
    if len(node) == 1 and not isinstance(values, pd.Categorical):
        return _scalar(node, values[0])
    return values


def _scalar(node: Node, value: Any) -> Any:
    if isinstance(value, np.datetime64):
        # Of R's dates only a Date is made of days.
        return value.item() if np.datetime_data(value.dtype)[0] == "D" else pd.Timestamp(value)
    if isinstance(value, np.timedelta64):
        return pd.Timedelta(value)
    return value.item() if isinstance(value, np.generic) else value


def _classes(node: Node) -> list[str]:
    return node.attributes["class"].strings if "class" in node.attributes else []


def _column(node: Node, *, in_frame: bool = False) -> Any:
    """A vector's values, as an array of numpy's or pandas'."""
    classes = _classes(node)
    if node.type is Type.CHARACTER:
        return _text(node, in_frame=in_frame)
    if node.type is Type.LIST:
        return _objects([to_python(child) for child in node.children])
    assert node.array is not None
    if "factor" in classes:
        return _factor(node, node.array)
    if "Date" in classes:
        days = whole_units(np.floor(_doubles(node)), "D")
        return days.astype("datetime64[s]") if in_frame else days
    if "POSIXct" in classes:
        return _times(node)
    if "difftime" in classes:
        return nanoseconds(_doubles(node) * UNITS[node.attributes["units"].strings[0]], "timedelta64")
    if node.type in (Type.LOGICAL, Type.INTEGER):
        missing = node.array == NA_INTEGER
        if node.type is Type.LOGICAL:
            truth = node.array != 0
            return pd.arrays.BooleanArray(truth, missing) if missing.any() else truth
        return pd.arrays.IntegerArray(node.array, missing) if missing.any() else node.array
    return node.array


def _text(node: Node, *, in_frame: bool) -> Any:
    values = _objects(node.strings)
    if len(node.missing):
        values[node.missing] = pd.NA
    return pd.Series(values, dtype=TEXT).array if in_frame else values


def _objects(values: list[Any]) -> Array:
    array = np.empty(len(values), object)
    # Not np.array(values), which looks into elements that are lists.
    array[:] = values
    return array


def _factor(node: Node, codes: Array) -> pd.Categorical:
    categories = pd.Index(node.attributes["levels"].strings, dtype=object if TEXT == "string" else "str")
    dtype = pd.CategoricalDtype(categories, ordered="ordered" in _classes(node))
    return pd.Categorical.from_codes(np.where(codes == NA_INTEGER, -1, codes - np.int32(1)), dtype=dtype)


def _doubles(node: Node) -> Array:
    """A date's numbers, which R also keeps as integers."""
    assert node.array is not None
    if node.type is Type.DOUBLE:
        return node.array
    return np.where(node.array == NA_INTEGER, np.nan, node.array.astype(float))


def _times(node: Node) -> Any:
    times = nanoseconds(_doubles(node), "datetime64")
    zone = node.attributes["tzone"].strings[0] if "tzone" in node.attributes else ""
    if not zone:
        return times
    aware = pd.DatetimeIndex(times).tz_localize("UTC")
    try:
        return aware.tz_convert(zone)
    except Exception:  # each source of zones raises its own: R knows one that Python does not
        return aware


def _labels(node: Node) -> pd.Index[Any]:
    return cast("pd.Index[Any]", pd.Index(_text(node, in_frame=True)))


def _names(node: Node) -> list[str] | None:
    return node.attributes["names"].strings if "names" in node.attributes else None


def _list(node: Node) -> Any:
    values = [to_python(child) for child in node.children]
    names = _names(node)
    if names is None:
        return RList(values)
    if "" in names or len(set(names)) < len(names) or len(node.attributes["names"].missing):
        return RList(values, names=names)
    return dict(zip(names, values, strict=True))


def _array(node: Node) -> Array:
    """A matrix or array, in R's order. Integers and logicals with NA become doubles: numpy has no NA for them."""
    shape = node.attributes["dim"].array
    assert shape is not None
    if node.type is Type.CHARACTER:
        values = _text(node, in_frame=False)
    elif node.array is not None and node.type in (Type.LOGICAL, Type.INTEGER):
        values = node.array if node.type is Type.INTEGER else node.array != 0
        missing = node.array == NA_INTEGER
        if missing.any():
            values = values.astype(float)
            values[missing] = np.nan
    else:
        values = node.array
    array: Array = values.reshape(tuple(shape), order="F")
    is_table = "table" in _classes(node)
    if "dimnames" not in node.attributes and not is_table:
        return array
    dimnames = node.attributes.get("dimnames") or Node(Type.LIST, children=[Node(Type.NULL)] * len(shape))
    names = [None if axis.type is Type.NULL else axis.strings for axis in dimnames.children]
    return RArray(array, names, _names(dimnames), is_table=is_table)


def _frame(node: Node) -> pd.DataFrame:
    columns = {i: _column(child, in_frame=True) for i, child in enumerate(node.children)}
    rows = node.attributes["row.names"]
    index: pd.Index[Any]
    if rows.type is Type.CHARACTER:
        index = _labels(rows)
    elif rows.array is not None and len(rows.array) == 2 and rows.array[0] == NA_INTEGER:
        index = pd.RangeIndex(abs(int(rows.array[1])))
    else:
        assert rows.array is not None
        index = pd.Index(rows.array)
    frame: pd.DataFrame = pd.DataFrame(columns, index=index, copy=False)
    frame.columns = pd.Index(_names(node) or [], dtype=TEXT if TEXT == "str" else object)
    return frame
