"""What needs rpy2 here: two options of its %%R (a converter, and a function that displays the cell's value), and the
exchange of variables between the master's R and this machine's, which is the one of %%R.

Values cross as R's serialization, and are objects of this machine's R then. Must not know what a notebook is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...remote.values import local_r
from ...remote.values.objects import RObject

if TYPE_CHECKING:
    from ...remote.sessions.session import RemoteR


def inputs(values: Mapping[str, Any], converter: Any) -> dict[str, Any]:
    """The values as the converter makes them objects of R. Raises ValueRefused without rpy2."""
    return {name: local_r.converted(value, converter) for name, value in values.items()}


def outputs(session: RemoteR, names: Sequence[str], converter: Any) -> dict[str, Any]:
    """R's variables as the converter makes them Python's."""
    return {name: local_r.unconverted(_fetched(session, f"`{name}`"), converter) for name in names}


def show_last(session: RemoteR, function: Callable[[Any, Any], object], arguments: Any) -> None:
    """Have ``function`` show the value of the last evaluation, as rpy2's ``-d`` does: R's object and the arguments."""
    function(_fetched(session, ".Last.value"), arguments)


def pull_to_r(session: RemoteR, names: Sequence[str]) -> None:
    """R's variables to the R of this machine, as they are. Raises ValueRefused without rpy2."""
    for name in names:
        local_r.assign(name, _serialized(session, f"`{name}`"))


def push_from_r(session: RemoteR, names: Mapping[str, str]) -> None:
    """Variables of the R of this machine to R, by their names there. Raises ValueRefused if there is none."""
    found = {there: RObject("", (), local_r.serialized(here)) for there, here in names.items()}
    for name, value in found.items():
        session.push(name, value)


def _fetched(session: RemoteR, code: str) -> Any:
    return local_r.to_rpy2(_serialized(session, code))


def _serialized(session: RemoteR, code: str) -> bytes:
    return bytes(session.eval(f"serialize({code}, NULL, xdr = FALSE)"))
