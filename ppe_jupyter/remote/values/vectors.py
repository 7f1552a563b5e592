"""numpy's arrays, and lists of Python's scalars, as R's vectors.

What R cannot hold without loss is refused, with the place where it was found: integers beyond 2^53, mixtures, times
finer than a double. Nothing is looked at one by one in Python. Must not know pandas' own arrays, nor how nodes travel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...errors import ValueRefused
from .nodes import NA_INTEGER, NA_REAL, NO_INDEXES, Node, Type, characters, vector
from .times import Inexact, r_dates, r_spans, r_times

MAX_EXACT = 2**53
MAX_INTEGER = 2**31 - 1
# What pandas' infer_dtype calls the kinds that a vector can have.
NUMBERS = {"integer", "floating", "mixed-integer-float"}
TIMES = {"datetime", "datetime64"}
SPANS = {"timedelta", "timedelta64"}
SCALARS = {"string", "boolean", "complex", "date", *NUMBERS, *TIMES, *SPANS}

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is, as errors name it, what makes nodes of values within it, and whether 64-bit integers may
    become those of R's package bit64.
    """

    name: str
    encode: Callable[[Any, Place], Node]
    integer64: bool = False

    def __str__(self) -> str:
        return self.name

    def inner(self, name: str) -> Place:
        """A place in this one."""
        return replace(self, name=name)

    def refused(self, why: object) -> ValueRefused:
        """The error that says why a value cannot be there in R."""
        return ValueRefused(f"{self.name}: {why}")


def kind_of(value: object) -> str:
    """The name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def objects(values: Sequence[Any]) -> Array:
    """An array of Python objects, into which numpy does not look."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def typed(array: Array, place: Place, missing: Array | None = None) -> Node:
    """A vector of what numpy says it is; ``missing`` marks NA. Raises ValueRefused."""
    kind = array.dtype.kind
    if kind == "b":
        return masked(Type.LOGICAL, array.astype("<i4"), NA_INTEGER, missing)
    if kind in "iu":
        return integers(array, place, missing)
    if kind == "f":
        doubles = array.astype("<f8", copy=False)
        if array.dtype.itemsize > 8 and not np.array_equal(
            doubles.astype(array.dtype), array, equal_nan=True
        ):
            raise place.refused(f"{array.dtype} does not fit R's doubles; convert it with astype('float64')")
        return masked(Type.DOUBLE, doubles, NA_REAL, missing)
    if kind == "c":
        plain = array.astype("<c16", copy=False)
        if array.dtype.itemsize > 16 and not np.array_equal(plain.astype(array.dtype), array, equal_nan=True):
            raise place.refused(
                f"{array.dtype} does not fit R's numbers; convert it with astype('complex128')"
            )
        return masked(Type.COMPLEX, plain, complex(NA_REAL, NA_REAL), missing)
    if kind in "UT":
        values = array.astype(object)
        return strings(values, np.asarray(pd.isna(values)) if missing is None else missing, place)
    if kind in "mM":
        return times(array, place, missing=missing)
    if kind == "O":
        return untyped(array if missing is None else np.where(missing, np.array(None), array), place)
    if array.dtype.names:
        fields = ", ".join(map(repr, array.dtype.names))
        raise place.refused(f"an array with fields ({fields}) is no vector; use pandas.DataFrame(array)")
    advice = "; decode it first, as with numpy.char.decode(array)" if kind == "S" else ""
    raise place.refused(f"R has no counterpart of numpy's {array.dtype}{advice}")


def masked(type: Type, array: Array, na: Any, missing: Array | None) -> Node:
    """A vector with R's NA where it is ``missing``."""
    if missing is not None and missing.any():
        array = array.copy()
        array[missing] = na
    return vector(type, array)


def integers(array: Array, place: Place, missing: Array | None = None) -> Node:
    """Integers if they fit, else doubles if those hold them exactly, else bit64's if they may."""
    present = array if missing is None else array[~missing]
    low, high = (int(present.min()), int(present.max())) if present.size else (0, 0)
    if low >= -MAX_INTEGER and high <= MAX_INTEGER:
        return masked(Type.INTEGER, array.astype("<i4"), NA_INTEGER, missing)
    if place.integer64 and low > -(2**63) and high < 2**63:
        return integer64(array, missing)
    if low >= -MAX_EXACT and high <= MAX_EXACT:
        return masked(Type.DOUBLE, array.astype("<f8"), NA_REAL, missing)
    raise place.refused(_too_large(high if high > MAX_EXACT else low))


def _too_large(worst: int) -> str:
    bits = worst.bit_length()
    told = worst if bits < 100 else f"an integer of {bits} bits"
    advice = ", or push it with integer64=True, for R's package bit64" if bits < 64 else ""
    return (
        f"R's numbers are exact up to 2^53 only, {told} is beyond; convert it to str or float first{advice}"
    )


def integer64(array: Array, missing: Array | None = None) -> Node:
    """A vector of R's package bit64: integers in the bits of doubles."""
    whole = array.astype("<i8")
    if missing is not None:
        whole[missing] = -(2**63)
    return vector(Type.DOUBLE, whole.view("<f8"), **{"class": characters(["integer64"])})


def times(array: Array, place: Place, zone: str = "", missing: Array | None = None) -> Node:
    """Dates, times or spans, by numpy's unit; ``zone`` as pandas names it."""
    if missing is not None:
        array = np.where(missing, np.array("NaT", array.dtype), array)
    array = array.astype(array.dtype.newbyteorder("="))
    unit = np.datetime_data(array.dtype)[0]
    try:
        if unit == "generic":
            raise Inexact("times without a unit; convert them first, as with astype('datetime64[s]')")
        if array.dtype.kind == "m":
            return r_spans(array)
        return r_dates(array) if unit in "YMWD" else r_times(array, r_zone(zone))
    except Inexact as exc:
        raise place.refused(exc) from exc


def r_zone(zone: str) -> str:
    """R's name of a zone, which are the names of files; it has none for most fixed offsets."""
    fixed = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d\d):?00", zone)
    if fixed:
        hours = int(fixed[2])
        return f"Etc/GMT{'-' if fixed[1] == '+' else '+'}{hours}" if hours else "UTC"
    if re.fullmatch(r"[A-Za-z][\w+/-]*", zone) or not zone:
        return zone
    raise Inexact(f"R knows no time zone {zone!r}; convert it first, as with .dt.tz_convert('UTC')")


def strings(array: Array, missing: Array, place: Place) -> Node:
    """A character vector of an array of str."""
    if missing.any():
        array = array.copy()
        array[missing] = ""
    return texts(array.tolist(), place, np.flatnonzero(missing))


def texts(values: Iterable[str], place: Place, missing: Array = NO_INDEXES) -> Node:
    """A character vector."""
    try:
        return characters(list(values), missing)
    except ValueRefused as exc:
        raise place.refused(exc) from exc


def untyped(array: Array, place: Place) -> Node:
    """Python objects of one kind, with None, pandas.NA or NaT for NA; a NaN stays the NaN that it is."""
    missing = np.asarray(pd.isna(array))
    kind = pd.api.types.infer_dtype(array, skipna=True)
    if kind == "empty":
        kind = _kind_of_missing(array)
    if kind == "string":
        return strings(array, missing, place)
    if kind == "boolean":
        return masked(Type.LOGICAL, np.where(missing, False, array).astype("<i4"), NA_INTEGER, missing)
    if kind == "integer" and not any(isinstance(value, float) for value in array[missing]):
        return integers(_whole(np.where(missing, 0, array), place), place, missing)
    if kind in NUMBERS:
        return _doubles(array, missing, place)
    if kind == "complex":
        absent = _absent(array, missing)
        numbers = np.where(absent, 0, array).astype("<c16")
        return masked(Type.COMPLEX, numbers, complex(NA_REAL, NA_REAL), absent)
    if kind == "date":
        return _python_dates(array, missing, place)
    if kind in TIMES or kind in SPANS:
        return _python_times(array, kind, place)
    raise place.refused(_mixture({kind_of(value) for value in array[~missing][:1000]}))


def _kind_of_missing(array: Array) -> str:
    """Of values that are all missing, if there are any."""
    types = set(map(type, array))
    if any(issubclass(type, (complex, np.complexfloating)) for type in types):
        return "complex"
    if any(issubclass(type, (float, np.floating)) for type in types):
        return "floating"
    return "boolean" if len(array) else "string"


def _mixture(kinds: set[str]) -> str:
    told = " and ".join(sorted(kinds))
    if len(kinds) == 1:
        return f"R has no counterpart of {told}; convert it to numbers or str first"
    return f"a mixture of {told} has no counterpart in R; convert it to one type first"


def _absent(array: Array, missing: Array) -> Array:
    """What is missing without being a NaN."""
    absent: Array = missing.copy()
    absent[missing] = [value is None or value is pd.NA or value is pd.NaT for value in array[missing]]
    return absent


def _whole(array: Array, place: Place) -> Array:
    """Python's integers, which have no limit, as numpy's."""
    try:
        return array.astype("i8")
    except OverflowError:
        raise place.refused(_too_large(int(max(array, key=abs)))) from None


def _doubles(array: Array, missing: Array, place: Place) -> Node:
    """Floats, and integers among them."""
    absent = _absent(array, missing)
    try:
        doubles = np.where(absent, 0.0, array).astype("<f8")
    except OverflowError:
        raise place.refused("an integer is beyond R's numbers; convert it to str first") from None
    inexact = ~missing & (np.where(missing, 0.0, array) != np.where(missing, 0.0, doubles)).astype(bool)
    if inexact.any():
        raise place.refused(_too_large(int(array[inexact][0])))
    return masked(Type.DOUBLE, doubles, NA_REAL, absent)


def _python_dates(array: Array, missing: Array, place: Place) -> Node:
    exact = np.where(missing, np.array(None), array).astype("datetime64[us]")
    days = exact.astype("datetime64[D]")
    if not np.array_equal(days.astype(exact.dtype), exact, equal_nan=True):
        raise place.refused(_mixture({"datetime.date", "datetime.datetime"}))
    return r_dates(days)


def _python_times(array: Array, kind: str, place: Place) -> Node:
    try:
        if kind in SPANS:
            return times(pd.Series(pd.to_timedelta(array)).to_numpy(), place)
        # Not nanoseconds at once: those end in 2262.
        series = pd.Series(pd.to_datetime(array)) if len(array) else pd.Series(array, dtype="datetime64[us]")
        zone = getattr(series.dt, "tz", None)
        if zone is None:
            return times(series.to_numpy(), place)
        return times(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), place, str(zone))
    except (ValueError, TypeError, OverflowError) as exc:
        raise place.refused(exc) from exc
