"""Dates, times and spans: R counts days or seconds in doubles, numpy units in integers.

A double holds a time of our days to a quarter of a microsecond; what came from microseconds becomes them again.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .wire import NA_REAL, Node, Type, characters, vector

MAX_NANOSECONDS_IN_SECONDS = 9.2e9

Array = npt.NDArray[Any]


def r_dates(days: Array) -> Node:
    """A Date vector."""
    numbers = _numbers(days.astype("datetime64[D]"), 1)
    return vector(Type.DOUBLE, numbers, **{"class": characters(["Date"])})


def r_times(times: Array, zone: str = "") -> Node:
    """Times as seconds; those without a zone are wall clock times, for R those of its session's zone."""
    node = vector(Type.DOUBLE, _seconds(times), **{"class": characters(["POSIXct", "POSIXt"])})
    if zone:
        node.attributes["tzone"] = characters([zone])
    return node


def r_spans(spans: Array) -> Node:
    """A difftime vector, in seconds."""
    return vector(
        Type.DOUBLE,
        _seconds(spans),
        **{"class": characters(["difftime"]), "units": characters(["secs"])},
    )


def _seconds(array: Array) -> Array:
    unit, count = np.datetime_data(array.dtype)
    if unit not in ("s", "ms", "us", "ns") or count != 1:
        array = array.astype(f"{array.dtype.kind}8[ns]")
        unit = "ns"
    return _numbers(array, {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit])


def _numbers(array: Array, per_second: int) -> Array:
    """Integers of a unit in units of ``per_second``; NaT is NA."""
    whole, parts = np.divmod(array.view("i8"), per_second)
    out = whole + parts / per_second
    out[np.isnat(array)] = NA_REAL
    return out


def whole_units(numbers: Array, unit: str, kind: str = "datetime64") -> Array:
    """Whole numbers of a unit; what is not finite is NaT."""
    finite = np.isfinite(numbers)
    out = np.where(finite, numbers, 0).astype("i8").astype(f"{kind}[{unit}]")
    out[~finite] = np.array("NaT", dtype=out.dtype)
    return out


def nanoseconds(seconds: Array, kind: str) -> Array:
    """Seconds to nanoseconds without the product's loss; microseconds where those do not reach."""
    finite = np.isfinite(seconds)
    if np.abs(seconds[finite]).max(initial=0) > MAX_NANOSECONDS_IN_SECONDS:
        return whole_units(np.rint(seconds * 1e6), "us", kind)
    seconds = np.where(finite, seconds, 0)
    whole = np.floor(seconds)
    # Microseconds, if they are what the double was made from: its own last digits mean nothing.
    parts = np.rint((seconds - whole) * 1e6) * 1e3
    parts = np.where(whole + parts / 1e9 == seconds, parts, np.rint((seconds - whole) * 1e9))
    out = (whole.astype("i8") * 10**9 + parts.astype("i8")).astype(f"{kind}[ns]")
    out[~finite] = np.array("NaT", dtype=out.dtype)
    return cast(Array, out)
