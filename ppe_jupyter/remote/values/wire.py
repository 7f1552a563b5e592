"""Columns on the wire: a tree of nodes to buffers, and back; the other end is node/r/columns.R, which tells the layout.

Buffers are used in place: numpy arrays look into the received bytes, and sent ones are not copied. Strings are
joined and split in C.
"""

from __future__ import annotations

import operator
import struct
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ...node.r import types
from ...node.wire.protocol import ProtocolError
from .nodes import DTYPES, MANY, Encoding, Node, Scalars, Type, characters, joined, vector

Buffer = bytes | memoryview

ATTRIBUTES = (*types.ATTRIBUTES, ".ppe_instants", ".ppe_bytes", ".ppe_original", ".ppe_rows")
# Type(number) takes ten times as long.
TYPES = list(Type)
CODE = struct.Struct("<10d")
NUMBER = struct.Struct("<8d")
ONE_NUMBER = [6, Type.LIST, 1, 0, Type.DOUBLE, 1, 0]


def dump_code(code: str) -> list[Buffer]:
    """What ``dump`` makes of a list of one string: the request for an evaluation, in a tenth of the time."""
    data, encoding = joined([code])
    head = CODE.pack(9, Type.LIST, 1, 0, Type.CHARACTER, 1, 0, len(data), 0, encoding)
    return [head, data, bytes(-len(data) % 8)]


def dump(root: Node) -> list[Buffer]:
    """The buffers of a frame's body."""
    heads: list[float] = []
    buffers: list[Buffer] = []
    _dump(root, heads, buffers)
    return [struct.pack(f"<{1 + len(heads)}d", len(heads), *heads), *buffers]


def _dump(node: Node, heads: list[float], buffers: list[Buffer]) -> None:
    heads += (node.type, len(node) if node.type is not Type.OPAQUE else 1, len(node.attributes))
    if node.type is Type.CHARACTER:
        heads += (len(node.data), len(node.missing), node.encoding)
        _put(node.data, buffers)
        if len(node.missing):
            _put(_bytes_of(node.missing), buffers)
    elif node.type is Type.OPAQUE:
        heads += (len(node.data), 0)
        _put(node.data, buffers)
    elif node.array is not None:
        _put(_bytes_of(node.array), buffers)
    for name, attribute in node.attributes.items():
        if name in ATTRIBUTES:
            heads.append(1 + ATTRIBUTES.index(name))
        else:
            heads.append(0)
            _dump(characters([name]), heads, buffers)
        _dump(attribute, heads, buffers)
    if isinstance(node.children, Scalars):
        heads += [node.children.vector.type, 1, 0] * len(node.children)
        _put(_bytes_of(node.children.padded()), buffers)
        return
    for child in node.children:
        _dump(child, heads, buffers)


def _put(data: Buffer, buffers: list[Buffer]) -> None:
    if len(data):
        buffers.append(data)
        if len(data) % 8:
            buffers.append(bytes(-len(data) % 8))


def _bytes_of(array: npt.NDArray[Any]) -> Buffer:
    return array.view("u1").data if len(array) else b""


def load_number(body: bytearray) -> float | None:
    """What ``load`` would find to be a list of one plain double, the answer to many an evaluation; else None."""
    if len(body) != NUMBER.size:
        return None
    *heads, number = NUMBER.unpack(body)
    return number if heads == ONE_NUMBER else None


def load(body: bytearray) -> Node:
    """The tree in a frame's body; numpy arrays look into it. Raises ProtocolError."""
    try:
        return _Loader(body).node()
    except (StopIteration, struct.error, ValueError, IndexError, ArithmeticError, RecursionError) as exc:
        raise ProtocolError(f"a damaged value: {exc!r}") from exc


class _Loader:
    def __init__(self, body: bytearray) -> None:
        (count,) = struct.unpack_from("<d", body)
        self._known = [*map(int, struct.unpack_from(f"<{int(count)}d", body, 8))]
        self._heads = iter(self._known)
        self._body = body
        self._view = memoryview(body)
        self._at = 8 + 8 * int(count)

    def node(self) -> Node:
        """The next node, with what belongs to it."""
        heads = self._heads
        type, length, kept = TYPES[next(heads)], next(heads), next(heads)
        node = Node(type)
        if length < 0 or kept < 0:
            raise ProtocolError("a damaged value: a negative length")
        if type is Type.CHARACTER:
            self._strings(node, length, next(heads), next(heads), next(heads))
        elif type is Type.OPAQUE:
            size, text = next(heads), next(heads)
            node.data = bytes(self._take(size))
            node.text = str(self._take(text), "utf-8", "replace")
        elif type in DTYPES:
            dtype = DTYPES[type]
            node.array = np.frombuffer(self._body, dtype, length, self._at) if length else np.empty(0, dtype)
            self._take(length * dtype.itemsize)
        for _ in range(kept):
            number = next(heads)
            name = ATTRIBUTES[number - 1] if number > 0 else self.node().strings[0]
            node.attributes[name] = self.node()
        if type is Type.LIST:
            node.children = self._scalars(length) or [self.node() for _ in range(length)]
        return node

    def _scalars(self, length: int) -> Scalars | None:
        """The elements of a list, if they are many and scalars of one type."""
        at = len(self._known) - operator.length_hint(self._heads)
        if not MANY <= length <= (len(self._known) - at) // 3:
            return None
        type = self._known[at]
        numbers = type in (Type.LOGICAL, Type.INTEGER, Type.DOUBLE)
        if not numbers or self._known[at : at + 3 * length] != [type, 1, 0] * length:
            return None
        next(islice(self._heads, 3 * length, 3 * length), None)
        step = 8 // DTYPES[TYPES[type]].itemsize
        array = np.frombuffer(self._take(8 * length), DTYPES[TYPES[type]])[::step]
        return Scalars(vector(TYPES[type], array))

    def _strings(self, node: Node, length: int, size: int, missing: int, encoding: int) -> None:
        node.data, node.count, node.encoding = bytes(self._take(size)), length, Encoding(encoding)
        if node.data.count(b"\0") != length or (node.data and not node.data.endswith(b"\0")):
            raise ProtocolError("a damaged value: strings are missing")
        if missing:
            node.missing = np.frombuffer(self._body, "<i4", missing, self._at)
            self._take(4 * missing)
            if node.missing.min() < 0 or node.missing.max() >= length:
                raise ProtocolError("a damaged value: NA beyond the end")

    def _take(self, size: int) -> memoryview:
        piece = self._view[self._at : self._at + size]
        if len(piece) != size:
            raise ProtocolError("a damaged value: it ends too early")
        self._at += size + -size % 8
        return piece
