"""Values between Python and R, and the only importer of rpy2.

``encode`` and ``decode`` are all that the session uses. R objects without a Python form become opaque handles; rpy2,
if it is installed, turns those into objects of a local R, and takes objects of the local R the other way. It
is imported when that is asked for, never before: it starts an R of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from ..errors import ValueRefused
from . import wire
from .decoding import to_python
from .encoding import to_r
from .objects import RArray, RList, RObject

__all__ = ["RArray", "RList", "RObject", "decode", "encode", "from_rpy2", "to_rpy2"]


def encode(value: Any, where: str = "the value") -> list[wire.Buffer]:
    """The buffers that make ``value`` in R. Raises ValueRefused, which names the column."""
    return wire.dump(to_r(value, where))


def decode(body: bytearray) -> Any:
    """The value that R sent; arrays look into ``body``."""
    return to_python(wire.load(body))


def to_rpy2(value: RObject) -> Any:
    """The object in the R of this machine. Raises ValueRefused without rpy2."""
    try:
        from rpy2 import rinterface
    except ImportError as exc:
        raise ValueRefused("rpy2 is not installed: pip install 'ppe-jupyter[r]'") from exc
    rinterface.initr()
    from rpy2 import robjects

    return robjects.r["unserialize"](rinterface.ByteSexpVector(value.serialized))


def from_rpy2(value: Any) -> bytes | None:
    """R's serialization of an object of rpy2's; None if it is none."""
    if "rpy2" not in sys.modules:
        return None
    from rpy2 import rinterface, robjects

    if not isinstance(value, rinterface.Sexp):
        return None
    return bytes(robjects.r["serialize"](value, rinterface.NULL, xdr=False))
