"""The R of this machine, through rpy2: where R objects that have no Python form can be objects all the same.

The only importer of rpy2, and only when that is asked for, never before: it starts an R of its own. Knows nothing
of the R session on the master but R's serialization.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ...errors import ValueRefused


def to_rpy2(serialized: bytes) -> Any:
    """The object in the R of this machine. Raises ValueRefused without rpy2."""
    rinterface = _started()
    from rpy2 import robjects

    return robjects.r["unserialize"](rinterface.ByteSexpVector(serialized))


def assign(name: str, serialized: bytes) -> None:
    """Make the object a variable of the local R's, where ``%%R`` sees it. Raises ValueRefused without rpy2."""
    value = to_rpy2(serialized)
    from rpy2 import robjects

    robjects.globalenv[name] = value


def serialized(name: str) -> bytes:
    """A variable of the local R's. Raises ValueRefused if there is none, or no rpy2."""
    _started()
    from rpy2 import robjects

    if name not in robjects.globalenv:
        raise ValueRefused(f"the R of this machine has no variable {name!r}")
    value = from_rpy2(robjects.globalenv[name])
    assert value is not None
    return value


def _started() -> Any:
    try:
        from rpy2 import rinterface
    except ImportError as exc:
        raise ValueRefused("rpy2 is not installed: pip install 'ppe-jupyter[r]'") from exc
    libraries = os.environ.get("LD_LIBRARY_PATH")
    rinterface.initr()
    # rpy2 puts R's folders there: too late for this process, and a Python it starts may find another's libpython.
    if libraries is None:
        os.environ.pop("LD_LIBRARY_PATH", None)
    else:
        os.environ["LD_LIBRARY_PATH"] = libraries
    return rinterface


def converted(value: Any, converter: Any) -> Any:
    """``value`` as rpy2's ``converter`` makes it an object of the local R. Raises ValueRefused without rpy2."""
    _started()
    from rpy2.robjects.conversion import localconverter

    with localconverter(converter) as rules:
        return rules.py2rpy(value)


def unconverted(value: Any, converter: Any) -> Any:
    """An object of the local R as rpy2's ``converter`` makes it Python's."""
    from rpy2.robjects.conversion import localconverter

    with localconverter(converter) as rules:
        return rules.rpy2py(value)


def from_rpy2(value: Any) -> bytes | None:
    """R's serialization of an object of rpy2's; None if it is none."""
    if "rpy2" not in sys.modules:
        return None
    from rpy2 import rinterface, robjects

    if not isinstance(value, rinterface.Sexp):
        return None
    return bytes(robjects.r["serialize"](value, rinterface.NULL, xdr=False))
