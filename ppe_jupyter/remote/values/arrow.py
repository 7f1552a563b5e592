"""Columns in Arrow's memory: to R's vectors, and R's strings to pandas' Arrow-backed ones, without Python objects.

The only user of pyarrow, which is optional: nothing here imports it before a value of it, or pandas' own use of it,
shows that it is there.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .nodes import NA_INTEGER, NO_INDEXES, Encoding, Node, Type, characters, text, vector
from .vectors import Place, masked, objects, texts, times, typed

Array = npt.NDArray[Any]


def is_arrow(value: Any) -> bool:
    """Whether it is a column or table of pyarrow's."""
    pa = sys.modules.get("pyarrow")
    return pa is not None and isinstance(value, (pa.Array, pa.ChunkedArray, pa.Table, pa.RecordBatch))


def holds_text(dtype: str) -> bool:
    """Whether pandas keeps strings of this type in Arrow's memory."""
    return getattr(pd.api.types.pandas_dtype(dtype), "storage", "") == "pyarrow"


def text_array(node: Node, dtype: str) -> Any:
    """The strings of a node in pandas' array; None if there are bytes among them that are no text."""
    import pyarrow as pa

    data = np.frombuffer(node.data, "u1")
    ends = np.flatnonzero(data == 0)
    offsets = np.zeros(len(node) + 1, "<i8")
    offsets[1:] = ends - np.arange(len(node))
    valid = None
    if len(node.missing):
        present = np.ones(len(node), bool)
        present[node.missing] = False
        valid = pa.py_buffer(np.packbits(present, bitorder="little"))
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(data[data != 0])]
    array = pa.LargeStringArray.from_buffers(len(node), buffers[1], buffers[2], buffers[0])
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return pd.api.types.pandas_dtype(dtype).__from_arrow__(pa.chunked_array([array]))  # type: ignore[union-attr]


def arrow_frame(table: Any) -> list[tuple[str, Any]]:
    """Names and columns of a table."""
    return list(zip(table.schema.names, table.columns, strict=True))


def arrow_column(column: Any, place: Place) -> Node:
    """A vector. Raises ValueRefused."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.ChunkedArray):  # of no chunks
        column = pa.array([], column.type)
    kind = column.type
    missing = None if not column.null_count else column.is_null().to_numpy(zero_copy_only=False)
    if types.is_dictionary(kind):
        return _factor(column, missing, place)
    if types.is_string(kind) or types.is_large_string(kind) or "string_view" in str(kind):
        return _text(column.cast(pa.large_string()), missing, place)
    if types.is_null(kind):
        return masked(Type.LOGICAL, np.zeros(len(column), "<i4"), NA_INTEGER, np.ones(len(column), bool))
    if types.is_timestamp(kind):
        return times(_counts(column, f"M8[{kind.unit}]"), place, kind.tz or "", missing)
    if types.is_date(kind):
        return times(_counts(column.cast(pa.date32()), "M8[D]"), place, "", missing)
    if types.is_duration(kind):
        return times(_counts(column, f"m8[{kind.unit}]"), place, "", missing)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        whole = column if missing is None else column.fill_null(False if types.is_boolean(kind) else 0)
        return typed(whole.to_numpy(zero_copy_only=False), place, missing)
    raise place.refused(f"R has no counterpart of Arrow's {kind}; cast it first")


def _counts(column: Any, dtype: str) -> Array:
    """Arrow's integers of dates and times as numpy's times."""
    import pyarrow as pa

    size = pa.int32() if dtype == "M8[D]" else pa.int64()
    whole = column.view(size)
    whole = whole.fill_null(0) if whole.null_count else whole
    numbers: Array = whole.to_numpy(zero_copy_only=False)
    return numbers.astype("i8").view(dtype)


def _text(column: Any, missing: Array | None, place: Place) -> Node:
    """Arrow has no separators between strings, R has NUL."""
    if missing is not None:
        column = column.fill_null("")
    _, offsets, data = column.buffers()
    ends = (
        np.frombuffer(offsets, "<i8", len(column) + 1, column.offset * 8)
        if len(column)
        else np.zeros(1, "i8")
    )
    chars = np.frombuffer(data, "u1")[ends[0] : ends[-1]] if data and ends[-1] else np.empty(0, "u1")
    if not chars.all():
        raise place.refused("a string that contains a NUL character, which R's strings cannot")
    out = np.zeros(len(chars) + len(column), "u1")
    within = np.ones(len(out), bool)
    within[ends[1:] - ends[0] + np.arange(len(column))] = False
    out[within] = chars
    encoding = Encoding.ASCII if not len(chars) or chars.max() < 128 else Encoding.UTF8
    return text(
        out.tobytes(), len(column), NO_INDEXES if missing is None else np.flatnonzero(missing), encoding
    )


def _factor(column: Any, missing: Array | None, place: Place) -> Node:
    found = column.dictionary.to_pylist()
    names = [str(level) for level in found if level is not None]
    if len(set(names)) < len(names):
        raise place.refused("two categories have the same text, which R's levels cannot")
    # A value of the dictionary may be missing, as well as one of the column.
    known = np.array([level is not None for level in found] or [False])
    numbers = np.where(known, np.cumsum(known), NA_INTEGER).astype("<i4")
    codes = numbers[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    if missing is not None:
        codes[missing] = NA_INTEGER
    levels = texts(objects(names), place)
    classes = ["ordered", "factor"] if column.type.ordered else ["factor"]
    return vector(Type.INTEGER, codes, levels=levels, **{"class": characters(classes)})
