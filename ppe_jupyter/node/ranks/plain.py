"""R values as plain Python ones on a rank, and back: vectors, lists, tables.

NULL is None; a vector of length 1 a scalar, a longer one a numpy array, masked where integers or truth values are NA
(NA of doubles is R's own NaN; of strings None, and strings are in a list); a vector with names a pandas Series; a
list a list, with names a dict; a matrix an array, without its names; a factor a Categorical; a data frame a
DataFrame. Whatever else there is, dates and objects with a class, is refused with its type: Unplain. Standard library
and numpy; pandas for what it has a form for. Must not know how columns are laid out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..r.types import NA_INTEGER, NA_REAL, Type
from . import columns
from .columns import Node

FACTOR, ORDERED, FRAME = ["factor"], ["ordered", "factor"], ["data.frame"]
MOST_EXACT = 2**53
TOO_LARGE = "an integer beyond 2^53"


class Unplain(TypeError):
    """A value that has no form on the other side; ``str()`` names its type."""


# --- From R


def load(data: bytes) -> Any:
    """The value in columns. Raises Unplain; ValueError and struct.error for damaged bytes."""
    return _python(columns.load(data))


def _python(node: Node) -> Any:
    kind = node.strings("class")
    if kind == FRAME and node.type is Type.LIST:
        return _frame(node)
    if kind in (FACTOR, ORDERED) and node.type is Type.INTEGER:
        import pandas as pd

        codes = node.values.copy()
        codes[codes == NA_INTEGER] = 0
        levels = pd.Index(node.strings("levels"), dtype=object)
        return pd.Categorical.from_codes(codes - 1, levels, ordered=kind == ORDERED)
    if node.type is Type.OPAQUE or kind:
        raise Unplain(f"an R object of class {'/'.join(kind)}")
    if odd := node.attributes.keys() - {"names", "dim", "dimnames"}:
        raise Unplain(f"an R vector with {', '.join(sorted(odd))}")
    if node.type is Type.LIST:
        children = [_python(each) for each in node.values]
        if "names" not in node.attributes:
            return children
        names = node.strings("names")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise Unplain(f"a list with the name {twice[0]!r} twice")
        return dict(zip(names, children))
    return _vector(node)


def _vector(node: Node) -> Any:
    if node.type is Type.NULL:
        return None
    if node.type is Type.RAW:
        return node.values.tobytes()
    values = _column(node)
    if "dim" in node.attributes:
        import numpy as np

        flat = np.array(values, object) if isinstance(values, list) else values
        return flat.reshape(node.attributes["dim"].values, order="F")
    if "names" in node.attributes:
        import pandas as pd

        return pd.Series(_for_pandas(values), index=node.strings("names"))
    if len(values) != 1:
        return values
    return values[0] if isinstance(values, list) else None if _masked(values)[0] else values[0].item()


def _column(node: Node) -> Any:
    """A vector's values: strings in a list, else an array, masked if there is an NA."""
    if node.type not in (Type.LOGICAL, Type.INTEGER):
        return node.values
    import numpy as np

    missing = node.values == NA_INTEGER
    values = node.values.astype(bool) if node.type is Type.LOGICAL else node.values
    return np.ma.masked_array(values, missing) if missing.any() else values


def _frame(node: Node) -> Any:
    import pandas as pd

    found = []  # names may occur twice
    names = node.strings("names")
    for name, each in zip(names, node.values):  # Python 3.9
        if "names" in each.attributes or "dim" in each.attributes:
            raise Unplain(f"a column {name!r} that is a matrix, or has names")
        try:
            found.append(_python(each) if each.attributes else _for_pandas(_column(each)))
        except Unplain as exc:
            raise Unplain(f"{exc}, in column {name!r}") from None
    rows = node.attributes["row.names"]
    automatic = len(rows.values) == 2 and rows.values[0] == NA_INTEGER
    index = range(abs(int(rows.values[1]))) if automatic else rows.values
    frame = pd.DataFrame(dict(enumerate(found)), index=index)
    frame.columns = names
    return frame


def _for_pandas(values: Any) -> Any:
    """With pandas' own NA of integers and truth values."""
    import pandas as pd

    missing = None if isinstance(values, list) else _masked(values)
    if missing is None or not missing.any():
        return values
    kind = pd.arrays.BooleanArray if values.dtype == bool else pd.arrays.IntegerArray
    return kind(values.data, missing)


def _masked(values: Any) -> Any:
    import numpy as np

    return np.ma.getmaskarray(values)


# --- To R


def dump(value: Any) -> bytes:
    """Its columns. Raises Unplain."""
    return columns.dump(_node(value))


def _node(value: Any) -> Node:
    import numpy as np

    if value is None:
        return Node(Type.NULL)
    if isinstance(value, str):
        return Node(Type.CHARACTER, _checked([value]))
    if isinstance(value, (bytes, bytearray)):
        return Node(Type.RAW, np.frombuffer(bytes(value), "u1"))
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return _array(np.asarray(value).reshape(1))
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        if odd := next((each for each in value if not isinstance(each, str)), None):
            raise Unplain(f"a dict with a key of type {type(odd).__name__}")
        names = Node(Type.CHARACTER, _checked(list(value)))
        return Node(Type.LIST, [_node(each) for each in value.values()], {"names": names})
    if isinstance(value, (list, tuple, range)):
        return _sequence(list(value))
    if type(value).__module__.partition(".")[0] == "pandas":
        return _of_pandas(value)
    raise Unplain(f"a value of Python's type {type(value).__name__}")


def _sequence(values: list[Any]) -> Node:
    """A vector, if all elements are scalars of one kind (None: NA), else a list."""
    import numpy as np

    known = {type(each) for each in values if each is not None}
    if known == {str}:
        return Node(Type.CHARACTER, _checked(values))
    if known and known in ({bool}, {int}, {float}, {int, float}):
        if float in known and any(isinstance(each, int) and abs(each) > MOST_EXACT for each in values):
            raise Unplain(TOO_LARGE)
        if None not in values:
            return _array(np.array(values))
        if known <= {float, int} and float in known:
            return _array(np.array([NA_REAL if each is None else each for each in values]))
        missing = [each is None for each in values]
        return _array(np.ma.masked_array([each or 0 for each in values], missing))
    return Node(Type.LIST, [_node(each) for each in values])


def _array(value: Any) -> Node:
    import numpy as np

    flat, kind = value.ravel(order="F"), value.dtype.kind
    missing = np.ma.getmaskarray(flat)
    flat = np.ma.getdata(flat)
    known = flat[~missing]
    if kind == "b" or (kind in "iu" and _fits(known)):
        whole = flat.astype("<i4")
        whole[missing] = NA_INTEGER
        node = Node(Type.LOGICAL if kind == "b" else Type.INTEGER, whole)
    elif kind in "iuf" and value.dtype.itemsize <= 8:
        if kind in "iu" and max(-int(known.min()), int(known.max())) > MOST_EXACT:
            raise Unplain(TOO_LARGE)
        whole = flat.astype("<f8")
        whole[missing] = NA_REAL
        node = Node(Type.DOUBLE, whole)
    elif kind == "c" and value.dtype.itemsize <= 16 and not missing.any():
        node = Node(Type.COMPLEX, flat)
    elif kind == "U" or (kind == "O" and all(isinstance(each, (str, type(None))) for each in known)):
        texts = [None if gone else each for each, gone in zip(flat.tolist(), missing)]  # Python 3.9
        node = Node(Type.CHARACTER, _checked(texts))
    else:
        raise Unplain(f"a numpy array of {value.dtype}")
    if value.ndim > 1:
        node.attributes["dim"] = Node(Type.INTEGER, np.array(value.shape))
    return node


def _fits(whole: Any) -> bool:
    """Whether R's integers, whose least is NA, hold all."""
    return not len(whole) or (int(whole.min()) > NA_INTEGER and int(whole.max()) < -NA_INTEGER)


def _checked(texts: list[Any]) -> list[Any]:
    if any(each is not None and "\0" in each for each in texts):
        raise Unplain("a string with a NUL")
    return texts


def _of_pandas(value: Any) -> Node:
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        if not all(isinstance(name, str) for name in value.columns):
            raise Unplain("a DataFrame whose columns' names are no strings")
        parts = [_of_column(value.iloc[:, at], str(name)) for at, name in enumerate(value.columns)]
        names = Node(Type.CHARACTER, _checked(list(value.columns)))
        texts = all(isinstance(each, str) for each in value.index) and len(value.index) > 0
        rows = Node(Type.INTEGER, np.array([NA_INTEGER, -len(value)], "<i4"))
        if texts:
            rows = Node(Type.CHARACTER, _checked(list(value.index)))
        kind = Node(Type.CHARACTER, FRAME)
        return Node(Type.LIST, parts, {"names": names, "class": kind, "row.names": rows})
    if isinstance(value, pd.Categorical):
        value = pd.Series(value)
    if isinstance(value, pd.Series):
        node = _of_column(value, str(value.name))
        if len(value) and all(isinstance(each, str) for each in value.index):
            node.attributes["names"] = Node(Type.CHARACTER, _checked(list(value.index)))
        return node
    if isinstance(value, pd.Index):
        return _array(value.to_numpy())
    if value is pd.NA:
        return Node(Type.LOGICAL, np.array([NA_INTEGER], "<i4"))
    raise Unplain(f"a value of pandas' type {type(value).__name__}")


def _of_column(column: Any, name: str) -> Node:
    import numpy as np
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = [str(each) for each in column.cat.categories]
        codes = column.cat.codes.to_numpy().astype("<i4") + 1
        codes[codes == 0] = NA_INTEGER
        kind = Node(Type.CHARACTER, ORDERED if column.cat.ordered else FACTOR)
        return Node(Type.INTEGER, codes, {"levels": Node(Type.CHARACTER, _checked(levels)), "class": kind})
    missing = column.isna().to_numpy()
    if column.dtype.kind in "biu":
        more = {"na_value": False} if missing.any() else {}
        plain = bool if column.dtype.kind == "b" else "i8"
        values = np.ma.masked_array(column.to_numpy(dtype=plain, **more), missing)
    elif column.dtype.kind == "O" or str(column.dtype) in ("string", "str"):
        values = np.ma.masked_array(column.to_numpy(dtype=object), missing)
    else:
        values = column.to_numpy()
    try:
        return _array(values)
    except Unplain as exc:
        raise Unplain(f"{exc}, in column {name!r}") from None
