"""Python values between a notebook and the ranks of a team: pickles that other versions of numpy and pandas can read.

Names of what is inside numpy and pandas change from release to release (``numpy._core``); those at their top do not.
Standard library; looks at numpy and pandas only if the value is theirs, so they are loaded already.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

# Both ends may be of any Python since 3.9.
PROTOCOL = 5


def reduced(value: Any) -> Any:
    """What a pickler's ``reducer_override`` answers for it."""
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    if root == "numpy":
        import numpy as np

        if kind is np.ndarray:
            return np.ndarray, ((0,),), value.__reduce__()[2]
        if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
            plain = value.item()
            # Nothing of Python's is as long as a longdouble, whose item is one again.
            return NotImplemented if type(plain) is kind else (kind, (plain,))
        if isinstance(value, (np.datetime64, np.timedelta64)):
            return kind, (value.astype("i8").item(), np.datetime_data(value.dtype))
    elif root == "pandas":
        return _pandas(value, kind.__name__)
    return NotImplemented


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return reduced(value)


def _pandas(value: Any, name: str) -> Any:
    import numpy as np
    import pandas as pd

    if name == "DataFrame" and not value.columns.has_duplicates:
        return pd.DataFrame, ({column: value[column] for column in value}, value.index, value.columns)
    if name == "Categorical":
        return pd.Categorical.from_codes, (value.codes, value.categories, value.ordered)
    if name == "RangeIndex":
        return pd.RangeIndex, (value.start, value.stop, value.step, None, False, value.name)
    if name in ("Series", "Index"):
        is_text = str(value.dtype) in ("str", "string")
        values = value.to_numpy(dtype=object) if is_text else value.array
        if isinstance(value.dtype, np.dtype):
            values = value.to_numpy()
        more = (value.index, None, value.name) if name == "Series" else (None, False, value.name)
        return getattr(pd, name), (values, *more)
    return NotImplemented


def dump(value: Any) -> bytes:
    """The pickle. Raises what pickle does: PicklingError, AttributeError, TypeError."""
    file = io.BytesIO()
    _Pickler(file, PROTOCOL).dump(value)
    return file.getvalue()


def load(data: bytes) -> Any:
    """The value. Raises what pickle and the classes of the value do."""
    return pickle.loads(data)  # noqa: S301  # the cluster is the user's own
