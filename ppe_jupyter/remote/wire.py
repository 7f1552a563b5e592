"""Columns on the wire: a tree of nodes to buffers, and back; the other end is node/columns.R, which tells the layout.

Buffers are used in place: numpy arrays look into the received bytes, and sent ones are not copied. Strings are
joined and split in C. Knows R's types, but no Python value that stands for one.
"""

from __future__ import annotations

import enum
import operator
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..errors import ValueRefused
from ..node.protocol import ProtocolError

Buffer = bytes | memoryview

NA_INTEGER = np.int32(-(2**31))
# R's NA of doubles: a NaN whose low word is 1954.
NA_REAL = struct.unpack("<d", struct.pack("<Q", 0x7FF00000000007A2))[0]
MAX_STRING = 2**31 - 1  # bytes, of R
ATTRIBUTES = (
    "names", "dim", "dimnames", "levels", "class", "tzone", "units", "row.names",
    ".ppe_instants", ".ppe_bytes", ".ppe_original", ".ppe_rows",
)  # fmt: skip


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
CODE = struct.Struct("<10d")
NUMBER = struct.Struct("<8d")
ONE_NUMBER = [6, Type.LIST, 1, 0, Type.DOUBLE, 1, 0]
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
    data, encoding = _joined(strings)
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


def dump_code(code: str) -> list[Buffer]:
    """What ``dump`` makes of a list of one string: the request for an evaluation, in a tenth of the time."""
    data, encoding = _joined([code])
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


def _joined(strings: Sequence[str]) -> tuple[bytes, Encoding]:
    """The strings, each with a NUL behind it."""
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
