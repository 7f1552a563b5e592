"""R's types of vectors, its missing values and the attributes that have numbers, as columns.R has them. Pure."""

from __future__ import annotations

import enum
import struct

# Those that both ends know; numbered from 1.
ATTRIBUTES = ("names", "dim", "dimnames", "levels", "class", "tzone", "units", "row.names")
NA_INTEGER = -(2**31)
# A NaN whose low word is 1954.
NA_REAL: float = struct.unpack("<d", struct.pack("<Q", 0x7FF00000000007A2))[0]


class Type(enum.IntEnum):
    """Types of vectors, as they are numbered."""

    NULL = 0
    LOGICAL = 1
    INTEGER = 2
    DOUBLE = 3
    COMPLEX = 4
    CHARACTER = 5
    RAW = 6
    LIST = 7
    OPAQUE = 8


# numpy's names of what travels as an array.
DTYPES = {Type.LOGICAL: "<i4", Type.INTEGER: "<i4", Type.DOUBLE: "<f8", Type.COMPLEX: "<c16", Type.RAW: "u1"}
