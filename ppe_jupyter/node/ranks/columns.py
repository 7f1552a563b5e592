"""Columns on the wire (columns.R tells the layout) to nodes, and back, on a rank. Standard library and numpy.

Knows R's types, but no Python value that stands for one: that is plain.py's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..r.types import ATTRIBUTES, DTYPES, Type


@dataclass
class Node:
    """An R object: numpy's array, strings (None: NA) or children, and attributes."""

    type: Type
    values: Any = None
    attributes: dict[str, Node] = field(default_factory=dict)

    def strings(self, name: str) -> list[str]:
        """Those of an attribute."""
        found = self.attributes.get(name)
        return [each or "" for each in found.values] if found and found.type is Type.CHARACTER else []


# --- From R


def load(data: bytes) -> Node:
    """The R object. Raises ValueError and struct.error for damaged bytes."""
    (count,) = struct.unpack_from("<d", data)
    heads = iter(struct.unpack_from(f"<{int(count)}d", data, 8))
    return _Loading(heads, memoryview(data), 8 + 8 * int(count)).node()


class _Loading:
    def __init__(self, heads: Iterator[float], data: memoryview, at: int) -> None:
        self._heads = heads
        self._data = data
        self._at = at

    def node(self) -> Node:
        type, length, attributes = (
            Type(int(next(self._heads))),
            int(next(self._heads)),
            int(next(self._heads)),
        )
        found = Node(type, self._values(type, length))
        for _ in range(attributes):
            number = int(next(self._heads))
            known = ATTRIBUTES[number - 1] if 0 < number <= len(ATTRIBUTES) else "private"
            name = known if number else str(self.node().values[0])
            found.attributes[name] = self.node()
        if type is Type.LIST:
            found.values = [self.node() for _ in range(length)]
        return found

    def _values(self, type: Type, length: int) -> Any:
        import numpy as np

        if type is Type.CHARACTER:
            size, missing, _ = (int(next(self._heads)) for _ in range(3))
            texts: list[str | None] = [*str(self._take(size), "utf-8", "surrogateescape").split("\0")[:-1]]
            for position in np.frombuffer(self._take(4 * missing), "<i4"):
                texts[position] = None
            return texts
        if type is Type.OPAQUE:
            for size in [int(next(self._heads)) for _ in range(2)]:
                self._take(size)
        if type not in DTYPES:
            return None
        dtype = np.dtype(DTYPES[type])
        return np.frombuffer(self._take(length * dtype.itemsize), dtype).copy()

    def _take(self, size: int) -> memoryview:
        start, self._at = self._at, self._at + size + -size % 8
        return self._data[start : start + size]


# --- To R


def dump(node: Node) -> bytes:
    """Its columns."""
    heads: list[float] = []
    data: list[bytes] = []
    _put(node, heads, data)
    return struct.pack(f"<{1 + len(heads)}d", len(heads), *heads) + b"".join(data)


def _put(node: Node, heads: list[float], data: list[bytes]) -> None:
    length = 0 if node.values is None else len(node.values)
    heads += (node.type, length, len(node.attributes))
    if node.type is Type.CHARACTER:
        texts = b"".join((each or "").encode(errors="surrogateescape") + b"\0" for each in node.values)
        missing = [i for i, each in enumerate(node.values) if each is None]
        heads += (len(texts), len(missing), 2)
        data += (texts, bytes(-len(texts) % 8))
        positions = struct.pack(f"<{len(missing)}i", *missing)
        data += (positions, bytes(-len(positions) % 8))
    elif node.type in DTYPES:
        body = node.values.astype(DTYPES[node.type]).tobytes()
        data += (body, bytes(-len(body) % 8))
    for name, each in node.attributes.items():
        heads.append(ATTRIBUTES.index(name) + 1)
        _put(each, heads, data)
    if node.type is Type.LIST:
        for each in node.values:
            _put(each, heads, data)
