"""Python values as R's: scalars, numpy, pandas, lists and dicts to nodes.

What R cannot hold without loss is refused, with the name of the column: integers beyond 2^53, mixtures, zones of
objects that have no counterpart. Nothing is looked at one by one in Python but what is a list already. Must not
know how nodes travel.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import ValueRefused
from .local_r import from_rpy2
from .objects import RArray, RList, RObject
from .times import r_dates, r_spans, r_times
from .wire import NA_INTEGER, NA_REAL, NO_INDEXES, Node, Type, characters, listing, null, vector

MAX_EXACT = 2**53
MAX_INTEGER = 2**31 - 1
# What pandas' infer_dtype calls the kinds that a vector can have.
TEXTS = {"string"}
NUMBERS = {"integer", "floating", "mixed-integer-float"}
TIMES = {"datetime", "datetime64"}
SPANS = {"timedelta", "timedelta64"}

Array = npt.NDArray[Any]


def to_r(value: Any, where: str = "the value") -> Node:
    """The R object for a Python value; ``where`` names it in ValueRefused."""
    if value is None:
        return null()
    if isinstance(value, (pd.Series, pd.Index)):
        return _series(value, where)
    if isinstance(value, pd.DataFrame):
        return _frame(value, where)
    if isinstance(value, (np.ndarray, pd.api.extensions.ExtensionArray)):
        return _array(value, where)
    if isinstance(value, Mapping):
        return _mapping(value, where)
    if isinstance(value, RObject):
        return Node(Type.OPAQUE, serialized=value.serialized)
    if isinstance(value, (list, tuple)):
        return _sequence(value, where)
    if isinstance(value, range):
        return _array(np.asarray(value), where)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return vector(Type.RAW, np.frombuffer(value, "u1"))
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> Node:
    if isinstance(value, str):
        return _texts([value], where)
    if isinstance(value, np.generic):
        return _array(np.asarray(value).reshape(1), where)
    # What pandas cannot tell apart in an array of one.
    if isinstance(value, (bool, int, float, complex, datetime.date, datetime.timedelta)) or value is pd.NA:
        return _untyped(_objects([value]), where)
    serialized = from_rpy2(value)
    if serialized is None:
        raise ValueRefused(f"{where}: R has no counterpart of {_kind(value)}")
    return Node(Type.OPAQUE, serialized=serialized)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _objects(values: Sequence[Any]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


# --- Lists and dicts


def _mapping(value: Mapping[Any, Any], where: str) -> Node:
    if not all(isinstance(name, str) for name in value):
        raise ValueRefused(f"{where}: names in an R list are strings, not {_kind(next(iter(value)))}")
    node = listing([to_r(item, f"{where}[{name!r}]") for name, item in value.items()])
    node.attributes["names"] = _texts(list(value), f"the names of {where}")
    return node


def _sequence(value: list[Any] | tuple[Any, ...], where: str) -> Node:
    """A vector, if all elements are scalars of one kind (None is NA then), else a list."""
    if not isinstance(value, RList) and value:
        array = _objects(value)
        if pd.api.types.infer_dtype(array, skipna=True) in {
            *TEXTS,
            *NUMBERS,
            *TIMES,
            *SPANS,
            "boolean",
            "complex",
            "date",
        }:
            return _untyped(array, where)
    names = value.names if isinstance(value, RList) else None
    return listing([to_r(item, f"{where}[{i}]") for i, item in enumerate(value)], names)


# --- Arrays


def _array(value: Any, where: str) -> Node:
    """A vector, or an array with ``dim``."""
    if not isinstance(value, np.ndarray):
        return _column(pd.Series(value), where)
    if value.ndim == 0:
        return to_r(value.item(), where)
    if isinstance(value, np.ma.MaskedArray):
        node = _typed(
            np.asarray(value.data).ravel("F"), where, np.asarray(np.ma.getmaskarray(value)).ravel("F")
        )
    else:
        node = _typed(np.asarray(value).ravel("F"), where)
    if value.ndim > 1 or isinstance(value, RArray):
        node.attributes["dim"] = vector(Type.INTEGER, np.array(value.shape))
        if isinstance(value, RArray) and value.dimnames is not None:
            names = [null() if names is None else characters(names) for names in value.dimnames]
            node.attributes["dimnames"] = listing(names, value.axes)
        if getattr(value, "is_table", False):
            node.attributes["class"] = characters(["table"])
    return node


def _typed(array: Array, where: str, missing: Array | None = None) -> Node:
    """A vector of what numpy says it is; ``missing`` marks NA."""
    kind = array.dtype.kind
    if kind == "b":
        return _masked(Type.LOGICAL, array.astype("<i4"), NA_INTEGER, missing)
    if kind in "iu":
        return _integers(array, where, missing)
    if kind == "f":
        doubles = array.astype("<f8", copy=False)
        if array.dtype.itemsize > 8 and not np.array_equal(doubles, array, equal_nan=True):
            raise ValueRefused(f"{where}: {array.dtype} does not fit R's doubles")
        return _masked(Type.DOUBLE, doubles, NA_REAL, missing)
    if kind == "c" and array.dtype.itemsize <= 16:
        return _masked(Type.COMPLEX, array.astype("<c16", copy=False), complex(NA_REAL, NA_REAL), missing)
    if kind in "UT":
        return _strings(
            array.astype(object), np.zeros(len(array), bool) if missing is None else missing, where
        )
    if kind == "M":
        return r_dates(array) if np.datetime_data(array.dtype)[0] in "YMWD" else r_times(array)
    if kind == "m":
        return r_spans(array)
    if kind == "O":
        return _untyped(array, where)
    raise ValueRefused(f"{where}: R has no counterpart of numpy's {array.dtype}")


def _masked(type: Type, array: Array, na: Any, missing: Array | None) -> Node:
    if missing is not None and missing.any():
        array = array.copy()
        array[missing] = na
    return vector(type, array)


def _integers(array: Array, where: str, missing: Array | None = None) -> Node:
    """Integers if they fit, else doubles if those hold them exactly."""
    present = array if missing is None else array[~missing]
    low, high = (int(present.min()), int(present.max())) if present.size else (0, 0)
    if low >= -MAX_INTEGER and high <= MAX_INTEGER:
        return _masked(Type.INTEGER, array.astype("<i4"), NA_INTEGER, missing)
    if low >= -MAX_EXACT and high <= MAX_EXACT:
        return _masked(Type.DOUBLE, array.astype("<f8"), NA_REAL, missing)
    worst = high if high > MAX_EXACT else low
    raise ValueRefused(
        f"{where}: R's numbers are exact up to 2^53 only, {worst} is beyond; convert it to str or float first"
    )


def _strings(array: Array, missing: Array, where: str) -> Node:
    if missing.any():
        array = array.copy()
        array[missing] = ""
    return _texts(array.tolist(), where, np.flatnonzero(missing))


def _texts(strings: list[str], where: str, missing: Array = NO_INDEXES) -> Node:
    try:
        return characters(strings, missing)
    except ValueRefused as exc:
        raise ValueRefused(f"{where}: {exc}") from exc


def _untyped(array: Array, where: str) -> Node:
    """Python objects of one kind, with None, pandas.NA or NaT for NA."""
    missing = np.asarray(pd.isna(array))
    kind = pd.api.types.infer_dtype(array, skipna=True)
    if kind in TEXTS or (kind == "empty" and not len(array)):
        return _strings(array, missing, where)
    if kind == "boolean" or kind == "empty":
        return _masked(Type.LOGICAL, np.where(missing, False, array).astype("<i4"), NA_INTEGER, missing)
    if kind == "integer":
        return _integers(_exact_integers(array, missing, where), where, missing)
    if kind in NUMBERS:
        # None and NA are R's NA; a NaN stays the NaN that it is.
        absent = np.array([value is None or value is pd.NA for value in array])
        _exact_integers(_objects([value for value in array if isinstance(value, int)]), None, where)
        return _masked(Type.DOUBLE, np.where(absent, 0.0, array).astype("<f8"), NA_REAL, absent)
    if kind == "complex":
        return _masked(Type.COMPLEX, np.where(missing, 0, array).astype("<c16"), NA_REAL, missing)
    if kind == "date":
        return r_dates(np.where(missing, np.datetime64("NaT"), array).astype("datetime64[D]"))
    if kind in TIMES or kind in SPANS:
        return _column(_parsed(array, kind, where), where)
    raise ValueRefused(
        f"{where}: a mixture of {' and '.join(sorted({_kind(v) for v in array[~missing]}))} "
        "has no counterpart in R; convert it to one type first"
    )


def _exact_integers(array: Array, missing: Array | None, where: str) -> Array:
    try:
        numbers = array if missing is None else np.where(missing, 0, array)
        out = numbers.astype("i8")
    except OverflowError as exc:
        raise ValueRefused(
            f"{where}: R's numbers are exact up to 2^53 only, an integer is beyond; convert it to str or float first"
        ) from exc
    if missing is None:
        _integers(out, where)
    return out


def _parsed(array: Array, kind: str, where: str) -> pd.Series[Any]:
    try:
        if kind in SPANS:
            return pd.Series(pd.to_timedelta(array))
        # Not nanoseconds at once: those end in 2262.
        return pd.Series(pd.to_datetime(array)) if len(array) else pd.Series(array, dtype="datetime64[us]")
    except (ValueError, TypeError, OverflowError) as exc:
        raise ValueRefused(f"{where}: {exc}") from exc


# --- pandas


def _series(value: pd.Series[Any] | pd.Index[Any], where: str) -> Node:
    """A vector; the labels of a Series are its names, unless they only count."""
    if isinstance(value, pd.MultiIndex):
        raise ValueRefused(f"{where}: a MultiIndex has no counterpart in R; use to_frame()")
    if isinstance(value, pd.Index):
        return _column(value.to_series(), where)
    node = _column(value, where)
    if not _counts(value.index):
        node.attributes["names"] = characters(_label_texts(value.index, where))
    return node


def _counts(index: pd.Index[Any]) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _label_texts(index: pd.Index[Any], where: str) -> list[str]:
    if isinstance(index, pd.MultiIndex):
        raise ValueRefused(f"{where}: labels of several levels have no counterpart in R; use reset_index()")
    return [str(label) for label in index]


def _column(series: pd.Series[Any], where: str) -> Node:
    """The values of a Series, without its labels."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        array = series.to_numpy()
        if dtype.kind == "M" and dtype == np.dtype("M8[s]"):
            # R's dates arrive so: pandas has no dtype of days.
            days = array.astype("datetime64[D]")
            return (
                r_dates(days)
                if np.array_equal(days.astype(array.dtype), array, equal_nan=True)
                else r_times(array)
            )
        return _typed(array, where) if dtype.kind != "O" else _object_column(array, where)
    missing = np.asarray(series.isna())
    if isinstance(dtype, pd.CategoricalDtype):
        return _factor(series, where)
    if isinstance(dtype, pd.DatetimeTZDtype):
        zone = str(dtype.tz)
        return r_times(
            series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), zone if _is_zone(zone) else "UTC"
        )
    if isinstance(dtype, pd.StringDtype):
        return _strings(series.to_numpy(object), missing, where)
    if isinstance(dtype, pd.BooleanDtype):
        return _typed(series.to_numpy(bool, na_value=False), where, missing)
    if dtype.kind in "iuf" and not isinstance(dtype, (pd.SparseDtype, pd.IntervalDtype, pd.PeriodDtype)):
        plain = series.to_numpy(f"{dtype.kind}8", na_value=0)
        return _typed(plain, where, missing)
    if isinstance(dtype, pd.ArrowDtype):
        return _object_column(np.asarray(series.astype(object)), where)
    raise ValueRefused(f"{where}: pandas' {dtype} has no counterpart in R; convert it with astype()")


def _is_zone(zone: str) -> bool:
    """Whether R knows a zone by that name; it has none for fixed offsets."""
    return "/" in zone or zone.isalnum()


def _object_column(array: Array, where: str) -> Node:
    """Scalars of one kind, or a list column."""
    if any(isinstance(v, (list, dict, tuple, np.ndarray, pd.Series, RObject)) for v in array):
        return listing([to_r(value, f"{where}[{i}]") for i, value in enumerate(array)])
    return _untyped(array, where)


def _factor(series: pd.Series[Any], where: str) -> Node:
    levels = [str(level) for level in series.cat.categories]
    if len(set(levels)) < len(levels):
        raise ValueRefused(f"{where}: two categories have the same text, which R's levels cannot")
    codes = series.cat.codes.to_numpy().astype("<i4") + np.int32(1)
    codes[codes == 0] = NA_INTEGER
    classes = ["ordered", "factor"] if series.cat.ordered else ["factor"]
    return vector(Type.INTEGER, codes, levels=characters(levels), **{"class": characters(classes)})


def _frame(frame: pd.DataFrame, where: str) -> Node:
    if isinstance(frame.columns, pd.MultiIndex):
        raise ValueRefused(
            f"{where}: columns of several levels have no counterpart in R; join their names first"
        )
    names = [str(label) for label in frame.columns]
    columns = [_column(frame.iloc[:, i], f"column {name!r} of {where}") for i, name in enumerate(names)]
    node = listing(columns, names)
    node.attributes["class"] = characters(["data.frame"])
    node.attributes["row.names"] = _row_names(frame, where)
    return node


def _row_names(frame: pd.DataFrame, where: str) -> Node:
    index = frame.index
    if _counts(index):
        return vector(Type.INTEGER, np.array([NA_INTEGER, -len(frame)]))
    if not index.is_unique or index.hasnans:
        raise ValueRefused(f"{where}: row labels repeat or are missing, which R's cannot; use reset_index()")
    if index.dtype.kind in "iu":
        integers = _integers(index.to_numpy(), where)
        if integers.type is Type.INTEGER:
            return integers
    return characters(_label_texts(index, where))
