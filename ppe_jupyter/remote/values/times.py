"""Dates, times and spans: R counts days or seconds in doubles, numpy units in integers.

A double holds a time of our days to a quarter of a microsecond; what came from microseconds becomes them again.
Towards R nothing is rounded: ``Inexact`` is raised. Towards Python what is finer than nanoseconds is; decoding.py
keeps R's own numbers then.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from .nodes import NA_INTEGER, NA_REAL, Node, Type, characters, vector

MAX_NANOSECONDS_IN_SECONDS = 9.2e9
MAX_MICROSECONDS_IN_SECONDS = 9.2e12
MAX_COUNT = 9.2e18  # of any unit
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# R's units of time spans, in seconds, and numpy's of the same length.
UNITS = {"secs": 1.0, "mins": 60.0, "hours": 3600.0, "days": 86400.0, "weeks": 604800.0}
NUMPY_UNITS = {"mins": "m", "hours": "h", "days": "D", "weeks": "W"}

Array = npt.NDArray[Any]


class Inexact(ValueError):
    """R's doubles do not hold these times; the message says what to do."""


def r_dates(days: Array) -> Node:
    """A Date vector."""
    numbers = _doubles(days.astype("datetime64[D]"))
    return vector(Type.DOUBLE, numbers, **{"class": characters(["Date"])})


def r_times(times: Array, zone: str = "") -> Node:
    """Times as seconds; those without a zone are wall clock times, for R those of its session's zone."""
    node = vector(Type.DOUBLE, _seconds(times), **{"class": characters(["POSIXct", "POSIXt"])})
    if zone:
        node.attributes["tzone"] = characters([zone])
    return node


def r_spans(spans: Array) -> Node:
    """A difftime vector: in numpy's unit if R has it, else in seconds."""
    unit, count = np.datetime_data(spans.dtype)
    names = [name for name, known in NUMPY_UNITS.items() if known == unit and count == 1]
    if unit in ("Y", "M"):
        raise Inexact("months and years have no fixed length; convert them to days first")
    return vector(
        Type.DOUBLE,
        _doubles(spans) if names else _seconds(spans),
        **{"class": characters(["difftime"]), "units": characters(names or ["secs"])},
    )


def _seconds(array: Array) -> Array:
    """Integers of any unit as seconds, exactly; NaT is NA."""
    unit, count = np.datetime_data(array.dtype)
    if unit not in PER_SECOND or count != 1:
        base = "ns" if unit in ("ps", "fs", "as") else unit if unit in PER_SECOND else "s"
        converted = array.astype(f"{array.dtype.kind}8[{base}]")
        if not np.array_equal(converted.astype(array.dtype), array, equal_nan=True):
            raise Inexact(f"{array.dtype} does not fit R's seconds; convert it to [{base}] first")
        array, unit = converted, base
    numbers = array.view("i8")
    whole, parts = np.divmod(numbers, PER_SECOND[unit])
    missing = np.isnat(array)
    out = np.where(missing, 0.0, whole + parts / PER_SECOND[unit])
    if not np.array_equal(_units(out, unit)[~missing], numbers[~missing]):
        raise Inexact(
            "R's times are doubles, exact to about a microsecond, and these are finer; "
            "round them first, as with .round('us')"
        )
    out[missing] = NA_REAL
    return out


def _units(seconds: Array, unit: str) -> Array:
    """Seconds as the integers that they are told from again."""
    if unit == "ns":
        return nanoseconds(seconds, "datetime64").astype("M8[ns]").view("i8")
    whole = np.floor(seconds)
    parts = np.rint((seconds - whole) * PER_SECOND[unit])
    return cast(Array, whole.astype("i8") * PER_SECOND[unit] + parts.astype("i8"))


def _doubles(array: Array) -> Array:
    numbers = array.view("i8").astype("<f8")
    numbers[np.isnat(array)] = NA_REAL
    return numbers


def whole_units(numbers: Array, unit: str, kind: str = "datetime64") -> Array:
    """Numbers of a unit, without their fractions; what is not finite is NaT. Raises OverflowError."""
    finite = np.isfinite(numbers)
    if np.abs(numbers[finite]).max(initial=0) > MAX_COUNT:
        raise OverflowError(f"times beyond numpy's range, in {unit}")
    out = np.where(finite, numbers, 0).astype("i8").astype(f"{kind}[{unit}]")
    out[~finite] = np.array("NaT", dtype=out.dtype)
    return out


def are_whole(numbers: Array) -> bool:
    """Whether all that are finite are whole."""
    finite = np.where(np.isfinite(numbers), numbers, 0)
    return bool(np.array_equal(np.floor(finite), finite))


def nanoseconds(seconds: Array, kind: str) -> Array:
    """Seconds to nanoseconds without the product's loss; coarser units where those do not reach."""
    finite = np.isfinite(seconds)
    farthest = np.abs(seconds[finite]).max(initial=0)
    if farthest > MAX_MICROSECONDS_IN_SECONDS:
        return whole_units(np.rint(seconds), "s", kind)
    if farthest > MAX_NANOSECONDS_IN_SECONDS:
        return whole_units(np.rint(seconds * 1e6), "us", kind)
    seconds = np.where(finite, seconds, 0)
    whole = np.floor(seconds)
    # Microseconds, if they are what the double was made from: its own last digits mean nothing.
    parts = np.rint((seconds - whole) * 1e6) * 1e3
    parts = np.where(whole + parts / 1e9 == seconds, parts, np.rint((seconds - whole) * 1e9))
    out = (whole.astype("i8") * 10**9 + parts.astype("i8")).astype(f"{kind}[ns]")
    out[~finite] = np.array("NaT", dtype=out.dtype)
    return cast(Array, out)


# --- Nodes to Python


def numbers(node: Node) -> Array:
    """A date's or time's, which R also keeps as integers."""
    assert node.array is not None
    if node.type is Type.DOUBLE:
        return node.array
    return np.where(node.array == NA_INTEGER, np.nan, node.array.astype(float))


def python_dates(days: Array, *, in_frame: bool) -> Array:
    """Of days, the fractions of which are hours; in a frame, which has no dtype of days, in seconds."""
    if not are_whole(days):
        return nanoseconds(_times_factor(days, UNITS["days"]), "datetime64")
    dates = whole_units(days, "D")
    return dates.astype("datetime64[s]") if in_frame else dates


def python_times(node: Node) -> Any:
    """Of a POSIXct; with its zone, if Python knows that."""
    times = nanoseconds(numbers(node), "datetime64")
    zone = node.attributes["tzone"].strings[0] if "tzone" in node.attributes else ""
    if not zone:
        return times
    aware = pd.DatetimeIndex(times).tz_localize("UTC")
    try:
        return aware.tz_convert(zone)
    except Exception:  # each source of zones raises its own: R knows one that Python does not
        return aware


def python_spans(node: Node, *, in_frame: bool) -> Array:
    """Of a difftime, in its unit if numpy has that."""
    units = node.attributes["units"].strings[0]
    spans = numbers(node)
    if units in NUMPY_UNITS and are_whole(spans):
        whole = whole_units(spans, NUMPY_UNITS[units], "timedelta64")
        return whole.astype("timedelta64[s]") if in_frame else whole
    return nanoseconds(_times_factor(spans, UNITS[units]), "timedelta64")


def _times_factor(numbers: Array, factor: float) -> Array:
    # R's NA is a signalling NaN, of which numpy warns.
    with np.errstate(invalid="ignore"):
        return cast(Array, numbers * factor)
