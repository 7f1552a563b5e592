"""R values as Python's: nodes to scalars, numpy, pandas, lists and dicts.

A vector of length 1 without names is a scalar, unless ``simplify`` is False. NA is ``pandas.NA``, but of doubles it
is R's own NaN, so that they return bit for bit. A vector with names is a Series. What Python's form has no place
for goes beside it as an Origin: in a RArray, or in ``attrs["R"]`` of a Series or DataFrame. Must not know how
nodes travel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...node.wire.protocol import ProtocolError
from . import arrow
from .completeness import all_missing, is_complete
from .nodes import NA_INTEGER, Node, Scalars, Type, classes
from .objects import ATTRS, Origin, RArray, RCell, RList, RMaskedArray, RObject
from .times import are_whole, numbers, python_dates, python_spans, python_times

# pandas 3 has a string type of its own, without an NA that differs from NaN.
TEXT = "str" if int(pd.__version__.partition(".")[0]) >= 3 else "string"
# Of names and levels.
NAMES: Any = "str" if TEXT == "str" else object
NA_INTEGER64 = np.int64(-(2**63))
# Attributes that are not R's own.
PRIVATE = {".ppe_instants", ".ppe_bytes", ".ppe_original"}
# What a scalar may lose: how R stores it. It is known again when it returns as part of a column.
STORAGE = {"class", "tzone", "units", "levels", ".ppe_original"}

Array = npt.NDArray[Any]


def to_python(node: Node, *, simplify: bool = True) -> Any:
    """The Python value of an R object."""
    if node.type is Type.NULL:
        return None
    if node.type is Type.OPAQUE:
        return RObject(node.text, tuple(classes(node)), node.data)
    if node.type is Type.LIST:
        make = _frame if _is_frame(node) else _list
        return make(node, simplify=simplify)
    if node.type is Type.RAW and not node.attributes:
        assert node.array is not None
        return node.array.tobytes()
    if "dim" in node.attributes:
        return _array(node)
    if "names" in node.attributes:
        # In a Series strings have a type of their own, so that a vector of NA stays one of strings.
        values = column(node, in_frame=node.type is Type.CHARACTER)
        return _with_origin(pd.Series(values, index=_labels(node.attributes["names"])), node)
    values = column(node)
    if simplify and len(node) == 1 and _is_simple(node):
        return _scalar(node, values[0])
    if is_complete(node, values):
        return values
    if isinstance(values, np.ndarray):
        return RArray(values, origin=_origin(node))
    return _with_origin(pd.Series(values), node)


def _is_simple(node: Node) -> bool:
    """Whether a vector of length 1 is a scalar of Python's."""
    found = classes(node)
    if not set(node.attributes) <= STORAGE or {"factor", "AsIs", "noquote"} & set(found):
        return False
    return "Date" not in found or are_whole(numbers(node))


def _scalar(node: Node, value: Any) -> Any:
    if isinstance(value, np.datetime64):
        # Of R's dates only a Date is made of days.
        if np.datetime_data(value.dtype)[0] == "D":
            date = value.item()
            return value if isinstance(date, int) else pd.NaT if date is None else date
        return pd.Timestamp(value)
    if isinstance(value, np.timedelta64):
        return pd.Timedelta(value)
    return value.item() if isinstance(value, np.generic) else value


# --- What has no place in the values


def _with_origin(series: pd.Series[Any], node: Node) -> pd.Series[Any]:
    if not is_complete(node, series.array, {"names"}, typed=True):
        series.attrs[ATTRS] = _origin(node, {"names"})
    return series


def _origin(node: Node, told: Iterable[str] = (), columns: Sequence[Origin | None] = ()) -> Origin:
    """With what is not told by the values themselves."""
    hidden = {"dim", "dimnames", "levels", "row.names", *PRIVATE, *told}
    attributes = {name: to_python(value) for name, value in node.attributes.items() if name not in hidden}
    return Origin(node, attributes, columns)


# --- Vectors


def column(node: Node, *, in_frame: bool = False, simplify: bool = True) -> Any:
    """A vector's values, as an array of numpy's or pandas'."""
    found = classes(node)
    if node.type is Type.CHARACTER:
        return _text(node, in_frame=in_frame)
    if node.type is Type.LIST:
        return _objects(_elements(node, simplify=simplify))
    assert node.array is not None
    if "factor" in found:
        return _factor(node, node.array)
    if "integer64" in found:
        whole = node.array.view("<i8")
        return _masked(whole, whole == NA_INTEGER64)
    if "Date" in found:
        return python_dates(numbers(node), in_frame=in_frame)
    if "POSIXct" in found:
        return python_times(node)
    if "difftime" in found:
        return python_spans(node, in_frame=in_frame)
    if node.type is Type.LOGICAL:
        missing = node.array == NA_INTEGER
        truth = node.array != 0
        return pd.arrays.BooleanArray(truth, missing) if missing.any() else truth
    return _masked(node.array, node.array == NA_INTEGER) if node.type is Type.INTEGER else node.array


def _masked(array: Array, missing: Array) -> Any:
    return pd.arrays.IntegerArray(array, missing) if missing.any() else array


def _text(node: Node, *, in_frame: bool) -> Any:
    if in_frame and arrow.holds_text(TEXT) and (array := arrow.text_array(node, TEXT)) is not None:
        return array
    values = _objects(node.strings)
    if len(node.missing):
        values[node.missing] = pd.NA
    return _typed_text(values, TEXT) if in_frame else values


def _typed_text(values: Any, dtype: Any) -> Any:
    try:
        return pd.Series(values, dtype=dtype).array
    except UnicodeEncodeError:  # bytes that are no text, which Arrow refuses
        return pd.Series(values, dtype=object).to_numpy()


def _objects(values: list[Any]) -> Array:
    array = np.empty(len(values), object)
    # Not np.array(values), which looks into elements that are lists.
    array[:] = values
    return array


def _factor(node: Node, codes: Array) -> pd.Categorical:
    categories = _index(_typed_text(node.attributes["levels"].strings, NAMES))
    dtype = pd.CategoricalDtype(categories, ordered="ordered" in classes(node))
    return pd.Categorical.from_codes(np.where(codes == NA_INTEGER, -1, codes - np.int32(1)), dtype=dtype)


def _labels(node: Node) -> pd.Index[Any]:
    return _index(_text(node, in_frame=True))


def _index(values: Any) -> pd.Index[Any]:
    return cast("pd.Index[Any]", pd.Index(values, dtype=values.dtype))


# --- Lists, arrays, data frames


def _names(node: Node) -> list[str | None] | None:
    """The names of a list or of axes; None for NA."""
    if "names" not in node.attributes:
        return None
    names: list[str | None] = list(node.attributes["names"].strings)
    for i in node.attributes["names"].missing:
        names[i] = None
    return names


def _elements(node: Node, *, simplify: bool) -> list[Any]:
    if simplify and isinstance(node.children, Scalars):
        values: list[Any] = column(node.children.vector).tolist()
        return values
    return [to_python(child, simplify=simplify) for child in node.children]


def _list(node: Node, *, simplify: bool) -> Any:
    values = _elements(node, simplify=simplify)
    names = _names(node)
    if names is None:
        return RList(values)
    if "" in names or None in names or len(set(names)) < len(names):
        return RList(values, names=names)
    return dict(zip(names, values, strict=True))


def _array(node: Node) -> Any:
    """A matrix, array or table, in R's order; integers and logicals with NA are masked."""
    shape = node.attributes["dim"].array
    assert shape is not None
    values = array_values(node).reshape(tuple(shape), order="F")
    is_table = "table" in classes(node)
    told = {"dim", "dimnames", *(["class"] if classes(node) == ["table"] else [])}
    complete = node.type is not Type.RAW and set(node.attributes) <= told and not all_missing(node)
    if complete and not is_table and "dimnames" not in node.attributes and len(shape) > 1:
        return values
    dimnames = node.attributes.get("dimnames") or Node(Type.LIST, children=[Node(Type.NULL)] * len(shape))
    named = values.view(RMaskedArray if isinstance(values, np.ma.MaskedArray) else RArray)
    named.dimnames = [None if axis.type is Type.NULL else axis.strings for axis in dimnames.children]
    named.axes = _names(dimnames)
    named.is_table = is_table
    named.origin = None if complete else _origin(node, told)
    return named


def array_values(node: Node) -> Any:
    """The values of an array, in one dimension."""
    if node.type not in (Type.LOGICAL, Type.INTEGER) or "dim" not in node.attributes:
        return column(node)
    assert node.array is not None
    missing = node.array == NA_INTEGER
    plain = node.array if node.type is Type.INTEGER else node.array != 0
    return np.ma.MaskedArray(plain, missing) if missing.any() else plain


def row_index(node: Node) -> pd.Index[Any]:
    """The row names of a data frame."""
    index: pd.Index[Any]
    rows = node.attributes["row.names"]
    if rows.type is Type.CHARACTER:
        return _labels(rows)
    assert rows.array is not None
    if len(rows.array) == 2 and rows.array[0] == NA_INTEGER:
        index = pd.RangeIndex(abs(int(rows.array[1])))
    else:
        index = pd.Index(rows.array)
    return index


def odd_columns(node: Node) -> Iterator[str]:
    """The names and classes of the columns that pandas has no form for, of any data frame in a value."""
    named = zip(node.attributes["names"].strings, node.children, strict=False) if _is_frame(node) else ()
    for name, child in named:
        if child.type is Type.OPAQUE:
            yield f"{name!r} ({'/'.join(classes(child))})"
    for child in node.children if not isinstance(node.children, Scalars) else ():
        yield from odd_columns(child)


def _is_frame(node: Node) -> bool:
    return node.type is Type.LIST and "data.frame" in classes(node)


def _cells(node: Node, rows: int) -> Array:
    whole = to_python(node)
    return _objects([RCell(whole, row) for row in range(rows)])


def _frame(node: Node, *, simplify: bool) -> pd.DataFrame:
    children = node.children
    index = row_index(node)
    columns = {
        i: None if child.type is Type.OPAQUE else column(child, in_frame=True, simplify=simplify)
        for i, child in enumerate(children)
    }
    # Before a damaged number of rows has as many cells made.
    if any(values is not None and len(values) != len(index) for values in columns.values()):
        raise ProtocolError(f"not all columns have {len(index)} rows")
    for i, values in columns.items():
        filled = _cells(children[i], len(index)) if values is None else values
        if isinstance(filled, np.ndarray) and filled.dtype == object:  # pandas would guess
            columns[i] = pd.Series(filled, index=index, dtype=object)
    frame: pd.DataFrame = pd.DataFrame(columns, index=index, copy=False)
    names = _names(node) or []
    frame.columns = _index(_typed_text(names, NAMES))
    odd = [
        None if is_complete(child, columns[i], typed=True) else _origin(child)
        for i, child in enumerate(children)
    ]
    told = {"names", "row.names", *(["class"] if classes(node) == ["data.frame"] else [])}
    if any(odd_one is not None for odd_one in odd) or set(node.attributes) - told:
        frame.attrs[ATTRS] = _origin(node, {"names"}, odd)
    return frame
