"""R's objects that Python has no type for: lists, arrays with names, and everything else as an opaque handle.

Also what R knew of a vector or data frame and numpy and pandas have no place for, so that it returns as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .local_r import to_rpy2
from .nodes import Node

# Where a Series or DataFrame of pandas carries its Origin.
ATTRS = "R"


@dataclass(frozen=True)
class RObject:
    """An R object that has no Python form: a model, a function, an environment.

    ``repr()`` is what R prints of it. It can be pushed back as it was, saved, or pickled; ``to_rpy2()`` makes it an
    object of the R on this machine, if rpy2 is installed.
    """

    text: str
    r_class: tuple[str, ...]
    serialized: bytes = field(repr=False)

    def __repr__(self) -> str:
        return self.text or f"<R object of class {'/'.join(self.r_class)}>"

    def to_rpy2(self) -> Any:
        """The same object in the local R."""
        return to_rpy2(self.serialized)

    def save(self, path: str | Path) -> None:
        """Write it to a file that R's ``readRDS()`` reads."""
        Path(path).expanduser().write_bytes(self.serialized)


@dataclass(frozen=True, slots=True)
class RCell:
    """A row of a data frame's column that has no Python form, as a matrix; ``row`` counts from 0.

    It can be pushed back, with other rows of its column in any order, or alone; ``column`` is all of it.
    """

    column: RObject
    row: int

    def __repr__(self) -> str:
        return f"<{'/'.join(self.column.r_class)}, row {self.row + 1}>"


class RList(list[Any]):
    """An R list without names for all of its elements; ``names`` has "" for those without, None for NA.

    A plain Python list of numbers becomes an R vector; this becomes a list.
    """

    def __init__(self, values: Iterable[Any] = (), *, names: Sequence[str | None] | None = None) -> None:
        super().__init__(values)
        self.names = None if names is None else list(names)


class Origin(dict[str, Any]):
    """What R knew of a vector or data frame beyond what numpy or pandas holds: ``attributes``, by name.

    ``columns`` are what R knew of each column of a data frame, None where pandas holds all of it.

    Values that were not changed return to R as they were; changed ones keep those attributes that still apply.
    (To others an empty dict: pandas compares, copies and writes what is in ``attrs``.)
    """

    def __init__(
        self,
        node: Node,
        attributes: Mapping[str, Any],
        columns: Sequence[Origin | None] = (),
    ) -> None:
        super().__init__()
        self.node = node
        self.attributes = dict(attributes)
        self.columns = tuple(columns)
        self.names = node.attributes["names"].strings if columns else []
        often = Counter(self.names)
        self._own = {name: i for i, name in enumerate(self.names) if often[name] == 1}

    def column(self, name: str, position: int | None = None) -> Origin | None:
        """What R knew of a column; of one whose name is not its own, only if it is said where it is."""
        if position is not None and self.names[position : position + 1] == [name]:
            return self.columns[position]
        return self.columns[self._own[name]] if name in self._own else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin, (self.node, self.attributes, self.columns)

    def __repr__(self) -> str:
        known = [name for name, column in zip(self.names, self.columns, strict=True) if column is not None]
        return f"Origin({', '.join(self.attributes)}{f'; of {known}' if known else ''})"


class _Named:
    """R's names along the axes. Their defaults are the class's, so that what is computed has none."""

    dimnames: list[list[str] | None] | None = None
    axes: list[str] | None = None
    is_table: bool = False
    origin: Origin | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """R's attributes beyond dimensions and their names."""
        return {} if self.origin is None else self.origin.attributes


class RArray(_Named, np.ndarray[Any, np.dtype[Any]]):
    """An R vector, matrix, array or table with attributes.

    ``dimnames`` has a list of names, or None, for each axis; ``axes`` the names of the axes themselves, or None;
    ``attributes`` the others. What is computed from it is a plain array.
    """

    def __new__(
        cls,
        array: npt.NDArray[Any],
        dimnames: list[list[str] | None] | None = None,
        axes: list[str] | None = None,
        *,
        is_table: bool = False,
        origin: Origin | None = None,
    ) -> RArray:
        """Look at ``array``, with names."""
        self = np.asarray(array).view(cls)
        self.dimnames, self.axes, self.is_table, self.origin = dimnames, axes, is_table, origin
        return self


class RMaskedArray(_Named, np.ma.MaskedArray[Any, np.dtype[Any]]):
    """An RArray of integers or logicals of which some are NA."""
