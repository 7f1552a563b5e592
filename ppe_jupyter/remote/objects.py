"""R's objects that Python has no type for: lists, arrays with names, and everything else as an opaque handle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .local_r import to_rpy2


@dataclass(frozen=True)
class RObject:
    """An R object that has no Python form: a model, a function, an environment.

    ``repr()`` is what R prints of it. It can be pushed back as it was; ``to_rpy2()`` makes it an object of the
    R on this machine, if rpy2 is installed.
    """

    text: str
    r_class: tuple[str, ...]
    serialized: bytes = field(repr=False)

    def __repr__(self) -> str:
        return self.text or f"<R object of class {'/'.join(self.r_class)}>"

    def to_rpy2(self) -> Any:
        """The same object in the local R."""

        return to_rpy2(self.serialized)


class RList(list[Any]):
    """An R list without names for all of its elements; ``names`` has "" for those without.

    A plain Python list of numbers becomes an R vector; this becomes a list.
    """

    def __init__(self, values: Iterable[Any] = (), *, names: Sequence[str] | None = None) -> None:
        super().__init__(values)
        self.names = None if names is None else list(names)


class RArray(np.ndarray[Any, np.dtype[Any]]):
    """An R matrix, array or table with names along its axes.

    ``dimnames`` has a list of names, or None, for each axis; ``axes`` the names of the axes themselves, or None.
    What is computed from it is a plain array.
    """

    dimnames: list[list[str] | None] | None
    axes: list[str] | None
    is_table: bool

    def __new__(
        cls,
        array: npt.NDArray[Any],
        dimnames: list[list[str] | None],
        axes: list[str] | None = None,
        *,
        is_table: bool = False,
    ) -> RArray:
        """Look at ``array``, with names."""
        self = np.asarray(array).view(cls)
        self.dimnames = dimnames
        self.axes = axes
        self.is_table = is_table
        return self

    def __array_finalize__(self, obj: npt.NDArray[Any] | None, /) -> None:
        self.dimnames = None
        self.axes = None
        self.is_table = False
