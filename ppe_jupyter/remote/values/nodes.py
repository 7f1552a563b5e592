"""R's objects as trees of nodes: what values become before they travel, and are when they have come.

Knows R's types, but no Python value that stands for one, nor how a tree travels (wire.py).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ...errors import ValueRefused
from ...node.r import types
from ...node.r.types import NA_REAL as NA_REAL
from ...node.r.types import Type as Type

NA_INTEGER = np.int32(types.NA_INTEGER)
DTYPES = {type: np.dtype(name) for type, name in types.DTYPES.items()}
MAX_STRING = 2**31 - 1  # bytes, of R
# Elements of a list, from which on scalars of one type are taken all at once, as in columns.R.
MANY = 64
NO_INDEXES = np.empty(0, "<i4")


class Encoding(enum.IntEnum):
    """Of the strings of a vector."""

    ASCII = 0
    UTF8 = 1
    BYTES = 2  # other bytes are among them, in Python as lone surrogates


@dataclass(slots=True)
class Node:
    """An R object. Which fields count depends on the type.

    ``data`` are the bytes of ``count`` strings, as they travel, or R's serialization of an opaque object, whose
    printed form is ``text``. ``missing`` has the positions of NA strings, which are empty.
    """

    type: Type
    array: npt.NDArray[Any] | None = None
    data: bytes = b""
    count: int = 0
    missing: npt.NDArray[np.int32] = field(default_factory=lambda: NO_INDEXES)
    encoding: Encoding = Encoding.BYTES
    children: Sequence[Node] = field(default_factory=list)
    text: str = ""
    attributes: dict[str, Node] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.array is not None:
            return len(self.array)
        return self.count if self.type is Type.CHARACTER else len(self.children)

    @property
    def strings(self) -> list[str]:
        """A character vector's, "" for NA. Bytes that are no UTF-8 (R does not check) survive the way and back."""
        if not self.data:
            return []
        return str(self.data[:-1], "utf-8", "surrogateescape").split("\0")


class Scalars(Sequence[Node]):
    """The elements of a list that are plain numbers or truth values of one type: those of ``vector``, one by one."""

    def __init__(self, vector: Node) -> None:
        assert vector.array is not None
        self.vector = vector
        self._array = vector.array

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> list[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | list[Node]:
        """As a vector of length 1."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = index % len(self)
        return Node(self.vector.type, array=self._array[at : at + 1])

    def padded(self) -> npt.NDArray[Any]:
        """The data of them all."""
        if self._array.dtype.itemsize == 8:
            return self._array
        return np.column_stack([self._array, np.zeros_like(self._array)]).ravel()


def classes(node: Node) -> list[str]:
    """R's class attribute."""
    return node.attributes["class"].strings if "class" in node.attributes else []


def null() -> Node:
    """R's NULL."""
    return Node(Type.NULL)


def vector(type: Type, array: npt.NDArray[Any], **attributes: Node) -> Node:
    """An atomic vector; ``array`` is converted to the type's layout if it has another one."""
    return Node(type, array=np.ascontiguousarray(array, DTYPES[type]), attributes=attributes)


def characters(strings: Sequence[str], missing: npt.NDArray[Any] = NO_INDEXES, **attributes: Node) -> Node:
    """A character vector; ``missing`` are positions of NA, where ``strings`` has "".

    Raises ValueRefused for strings that R cannot hold.
    """
    data, encoding = joined(strings)
    return text(data, len(strings), missing, encoding, **attributes)


def text(data: bytes, count: int, missing: npt.NDArray[Any], encoding: Encoding, **attributes: Node) -> Node:
    """A character vector of strings that are joined already, each with a NUL behind it."""
    indexes = np.ascontiguousarray(missing, "<i4")
    return Node(
        Type.CHARACTER, data=data, count=count, missing=indexes, encoding=encoding, attributes=attributes
    )


def listing(children: Sequence[Node], names: list[str] | None = None) -> Node:
    """A list, named if ``names`` are given."""
    attributes = {} if names is None else {"names": characters(names)}
    return Node(Type.LIST, children=children, attributes=attributes)


def joined(strings: Sequence[str]) -> tuple[bytes, Encoding]:
    """The strings, each with a NUL behind it. Raises ValueRefused for those that R cannot hold."""
    if not strings:
        return b"", Encoding.ASCII
    joined = "\0".join(strings) + "\0"
    encoding = Encoding.ASCII if joined.isascii() else Encoding.UTF8
    try:
        data = joined.encode()
    except UnicodeEncodeError:
        encoding = Encoding.BYTES
        try:
            data = joined.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as exc:
            raise ValueRefused(
                f"a string that is no Unicode text: {exc.object[exc.start : exc.end]!r}"
            ) from exc
    if data.count(b"\0") != len(strings):
        raise ValueRefused("a string that contains a NUL character, which R's strings cannot")
    if len(data) > MAX_STRING and max(map(len, data.split(b"\0"))) > MAX_STRING:
        raise ValueRefused("a string of more than 2 GB, which R cannot hold")
    return data, encoding
