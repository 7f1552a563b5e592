"""Values between Python and R: ``encode`` and ``decode`` are all that the session uses.

R objects without a Python form become opaque handles, which rpy2, if it is installed, turns into objects of a
local R; objects of the local R go the other way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ValueRefused
from ...node.wire.protocol import ProtocolError
from . import nodes, wire
from .decoding import odd_columns, to_python
from .encoding import to_r
from .objects import Origin, RArray, RCell, RList, RMaskedArray, RObject
from .vectors import Place

__all__ = ["Origin", "RArray", "RCell", "RList", "RMaskedArray", "RObject", "decode", "encode", "node"]


def node(value: Any, where: str = "the value", *, integer64: bool = False) -> nodes.Node:
    """The R object for ``value``. Raises ValueRefused, which names the column.

    With ``integer64`` integers that R's own do not hold become those of its package bit64.
    """
    try:
        return to_r(value, Place(where, to_r, integer64))
    except RecursionError:
        raise ValueRefused(f"{where}: lists that are nested too deep, or contain themselves") from None


def encode(value: Any, where: str = "the value") -> list[wire.Buffer]:
    """The buffers that make ``value`` in R. Raises ValueRefused, which names the column."""
    return wire.dump(node(value, where))


def decode(body: bytearray, *, simplify: bool = True, say: Callable[[str], object] | None = None) -> Any:
    """The value that R sent; arrays look into ``body``. Raises ProtocolError.

    Without ``simplify`` vectors of length 1 stay arrays. ``say`` is told of what pandas has no form for.
    """
    if simplify and (number := wire.load_number(body)) is not None:
        return RList([number])
    loaded = wire.load(body)
    try:
        if say is not None and (odd := list(odd_columns(loaded))):
            say(f"no form in pandas, so each cell stands for its row in R: {', '.join(odd)}")
        return to_python(loaded, simplify=simplify)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError) as exc:
        raise ProtocolError(f"a damaged value: {exc!r}") from exc
