"""Columns on the wire: a tree of nodes to buffers, and back; the other end is node/columns.R, which tells the layout.

Buffers are used in place: numpy arrays look into the received bytes, and sent ones are not copied. Strings are
joined and split in C. Knows R's types, but no Python value that stands for one.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ValueRefused
from ..node.protocol import ProtocolError

Buffer = bytes | memoryview

NA_INTEGER = np.int32(-(2**31))
# R's NA of doubles: a NaN whose low word is 1954.
NA_REAL = struct.unpack("<d", struct.pack("<Q", 0x7FF00000000007A2))[0]
MAX_BYTES = 2**31 - 1  # of the strings of one vector: R joins them in one string
ATTRIBUTES = ("names", "dim", "dimnames", "levels", "class", "tzone", "units", "row.names")


class Type(enum.IntEnum):
    """R's types of vectors, as numbered in columns.R."""

    NULL = 0
    LOGICAL = 1
    INTEGER = 2
    DOUBLE = 3
    COMPLEX = 4
    CHARACTER = 5
    RAW = 6
    LIST = 7
    OPAQUE = 8


# Type(number) takes ten times as long.
TYPES = list(Type)
DTYPES: dict[Type, np.dtype[Any]] = {
    Type.LOGICAL: np.dtype("<i4"),
    Type.INTEGER: np.dtype("<i4"),
    Type.DOUBLE: np.dtype("<f8"),
    Type.COMPLEX: np.dtype("<c16"),
    Type.RAW: np.dtype("u1"),
}
CODE = struct.Struct("<9d")
NO_INDEXES = np.empty(0, "<i4")


@dataclass(slots=True)
class Node:
    """An R object. Which fields count depends on the type; ``missing`` has the positions of NA strings.

    ``serialized`` is R's serialization of an opaque object, or a character vector as it is sent.
    """

    type: Type
    array: npt.NDArray[Any] | None = None
    strings: list[str] = field(default_factory=list)
    missing: npt.NDArray[np.int32] = field(default_factory=lambda: NO_INDEXES)
    children: list[Node] = field(default_factory=list)
    serialized: bytes = b""
    text: str = ""
    attributes: dict[str, Node] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.array is not None:
            return len(self.array)
        return len(self.strings) if self.type is Type.CHARACTER else len(self.children)


def null() -> Node:
    """R's NULL."""
    return Node(Type.NULL)


def vector(type: Type, array: npt.NDArray[Any], **attributes: Node) -> Node:
    """An atomic vector; ``array`` is converted to the type's layout if it has another one."""
    return Node(type, array=np.ascontiguousarray(array, DTYPES[type]), attributes=attributes)


def characters(strings: list[str], missing: npt.NDArray[Any] = NO_INDEXES, **attributes: Node) -> Node:
    """A character vector; ``missing`` are positions of NA, where ``strings`` has "".

    Raises ValueRefused for strings that R cannot hold.
    """
    indexes = np.ascontiguousarray(missing, "<i4")
    return Node(
        Type.CHARACTER, strings=strings, missing=indexes, serialized=_joined(strings), attributes=attributes
    )


def listing(children: list[Node], names: list[str] | None = None) -> Node:
    """A list, named if ``names`` are given."""
    attributes = {} if names is None else {"names": characters(names)}
    return Node(Type.LIST, children=children, attributes=attributes)


def dump_code(code: str) -> list[Buffer]:
    """What ``dump`` makes of a list of one string: the request for an evaluation, in a tenth of the time."""
    data = _joined([code])
    return [CODE.pack(8, Type.LIST, 1, 0, Type.CHARACTER, 1, 0, len(data), 0), data, bytes(-len(data) % 8)]


def dump(root: Node) -> list[Buffer]:
    """The buffers of a frame's body."""
    heads: list[float] = []
    buffers: list[Buffer] = []
    _dump(root, heads, buffers)
    return [struct.pack(f"<{1 + len(heads)}d", len(heads), *heads), *buffers]


def _dump(node: Node, heads: list[float], buffers: list[Buffer]) -> None:
    heads += (node.type, len(node), len(node.attributes))
    if node.type is Type.CHARACTER:
        heads += (len(node.serialized), len(node.missing))
        _put(node.serialized, buffers)
        if len(node.missing):
            _put(_bytes_of(node.missing), buffers)
    elif node.type is Type.OPAQUE:
        heads += (len(node.serialized), 0)
        _put(node.serialized, buffers)
    elif node.array is not None:
        _put(_bytes_of(node.array), buffers)
    for name, attribute in node.attributes.items():
        heads.append(1 + ATTRIBUTES.index(name))
        _dump(attribute, heads, buffers)
    for child in node.children:
        _dump(child, heads, buffers)


def _put(data: Buffer, buffers: list[Buffer]) -> None:
    if len(data):
        buffers.append(data)
        if len(data) % 8:
            buffers.append(bytes(-len(data) % 8))


def _bytes_of(array: npt.NDArray[Any]) -> Buffer:
    return array.view("u1").data if len(array) else b""


def _joined(strings: list[str]) -> bytes:
    """The strings in UTF-8, each with a 0xFF behind it."""
    if not strings:
        return b""
    try:
        data = ("\0".join(strings) + "\0").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise ValueRefused(f"a string that is no Unicode text: {exc.object[exc.start : exc.end]!r}") from exc
    if data.count(b"\0") != len(strings) or b"\xff" in data:
        raise ValueRefused("a string that contains a NUL character, which R's strings cannot")
    if len(data) > MAX_BYTES:
        raise ValueRefused("more than 2 GB of text in one vector; send it in parts")
    return data.replace(b"\0", b"\xff")


def load(body: bytearray) -> Node:
    """The tree in a frame's body; numpy arrays look into it. Raises ProtocolError."""
    try:
        return _Loader(body).node()
    except (StopIteration, struct.error, ValueError, IndexError, ArithmeticError, RecursionError) as exc:
        raise ProtocolError(f"a damaged value: {exc!r}") from exc


class _Loader:
    def __init__(self, body: bytearray) -> None:
        (count,) = struct.unpack_from("<d", body)
        self._heads = map(int, struct.unpack_from(f"<{int(count)}d", body, 8))
        self._body = body
        self._view = memoryview(body)
        self._at = 8 + 8 * int(count)

    def node(self) -> Node:
        """The next node, with what belongs to it."""
        heads = self._heads
        type, length, kept = TYPES[next(heads)], next(heads), next(heads)
        node = Node(type)
        if type is Type.CHARACTER:
            self._strings(node, length, next(heads), next(heads))
        elif type is Type.OPAQUE:
            size, text = next(heads), next(heads)
            node.serialized = bytes(self._take(size))
            node.text = str(self._take(text), "utf-8", "replace")
        elif type in DTYPES:
            dtype = DTYPES[type]
            node.array = np.frombuffer(self._body, dtype, length, self._at)
            self._take(length * dtype.itemsize)
        for _ in range(kept):
            name = ATTRIBUTES[next(heads) - 1]
            node.attributes[name] = self.node()
        if type is Type.LIST:
            # Not a comprehension: StopIteration ends a damaged value, in whatever it is raised.
            for _ in range(length):
                node.children.append(self.node())
        return node

    def _strings(self, node: Node, length: int, size: int, missing: int) -> None:
        # Bytes that are no UTF-8 (R does not check) survive the way there and back.
        node.strings = str(self._take(size), "utf-8", "surrogateescape").split("\0")
        node.strings.pop()
        if len(node.strings) != length:
            raise ProtocolError("a damaged value: strings are missing")
        if missing:
            node.missing = np.frombuffer(self._body, "<i4", missing, self._at)
            self._take(4 * missing)

    def _take(self, size: int) -> memoryview:
        piece = self._view[self._at : self._at + size]
        if len(piece) != size:
            raise ProtocolError("a damaged value: it ends too early")
        self._at += size + -size % 8
        return piece
