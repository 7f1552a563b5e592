"""Values between Python and R: ``encode`` and ``decode`` are all that the session uses.

R objects without a Python form become opaque handles, which rpy2, if it is installed, turns into objects of a
local R; objects of the local R go the other way.
"""

from __future__ import annotations

from typing import Any

from . import wire
from .decoding import to_python
from .encoding import to_r
from .objects import RArray, RList, RObject

__all__ = ["RArray", "RList", "RObject", "decode", "encode"]


def encode(value: Any, where: str = "the value") -> list[wire.Buffer]:
    """The buffers that make ``value`` in R. Raises ValueRefused, which names the column."""
    return wire.dump(to_r(value, where))


def decode(body: bytearray) -> Any:
    """The value that R sent; arrays look into ``body``."""
    return to_python(wire.load(body))
