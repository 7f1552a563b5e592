"""Plain values of R's on Python ranks: against the other implementation of the columns, and refusals by type."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_jupyter.node.ranks import plain
from ppe_jupyter.remote import values

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31) + 1, 2**31 - 1),
    st.floats(allow_nan=False),
    TEXTS,
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.dictionaries(TEXTS.filter(bool), inner, max_size=4),
        st.lists(st.dictionaries(TEXTS.filter(bool), inner, max_size=2), max_size=4),
    ),
    max_leaves=12,
)


def there(value: Any) -> Any:
    """What a rank gets of ``value`` in R."""
    return plain.load(b"".join(bytes(each) for each in values.encode(value)))


def back(value: Any) -> Any:
    """What R, here the notebook's codec, gets of a rank's value."""
    return values.decode(bytearray(plain.dump(value)))


@given(NESTED)
def test_lists_and_scalars_cross_and_return(value: Any) -> None:
    assert there(value) == value
    assert plain.load(plain.dump(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        np.arange(5, dtype="i4"),
        np.array([1.5, np.inf, -0.0]),
        np.array([True, False]),
        np.array([1 + 2j, 3 - 1j]),
        np.arange(12.0).reshape(3, 4),
        np.arange(24, dtype="i4").reshape(2, 3, 4),
        np.empty(0),
    ],
)
def test_arrays_cross_and_return(value: Any) -> None:
    for found in (there(value), back(value), plain.load(plain.dump(value))):
        np.testing.assert_array_equal(np.asarray(found), value)
        assert np.asarray(found).dtype == value.dtype


def test_na_is_a_mask_of_integers_and_none_of_strings() -> None:
    whole = there(pd.Series([1, None, 3], dtype="Int32").array)
    assert list(whole.filled(-9)) == [1, -9, 3]
    assert there(["a", None, "ü"]) == ["a", None, "ü"]
    assert math.isnan(there([1.5, None])[1])
    assert plain.load(plain.dump(whole)).tolist() == [1, None, 3]
    for value in ([1, None], [True, None], ["a", None], np.ma.masked_array([1, 2], [False, True])):
        assert pd.isna(list(back(value))[1])


def test_tables_and_factors_cross_and_return() -> None:
    frame = pd.DataFrame(
        {
            "n": [1, 2, 3],
            "x": [0.5, math.nan, 2.0],
            "s": ["a", "ü", ""],
            "f": pd.Categorical(["u", None, "v"], ["v", "u"]),
            "o": pd.Categorical(["lo", "hi", "lo"], ["lo", "hi"], ordered=True),
            "m": pd.array([1, None, 3], "Int32"),
            "b": pd.array([True, None, False], "boolean"),
        },
        index=["r1", "r2", "r3"],
    ).astype({"n": "i4"})
    for found in (there(frame), back(frame), plain.load(plain.dump(frame))):
        assert list(found.columns) == list(frame.columns)
        assert list(found.index) == ["r1", "r2", "r3"]
        assert found["f"].isna().tolist() == [False, True, False]
        assert list(found["f"].cat.categories) == ["v", "u"] and found["o"].cat.ordered
        assert found["m"].isna().tolist() == found["b"].isna().tolist() == [False, True, False]
        assert list(found["s"]) == ["a", "ü", ""] and list(found["n"]) == [1, 2, 3]
    plain_rows = back(pd.DataFrame({"a": [1, 2]}))
    assert list(plain_rows.index) == [0, 1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime.date(2020, 1, 2), "an R object of class Date"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-02 03:04"])}), "class POSIXct/POSIXt, in column 't'"),
        ({"a": [datetime.timedelta(1)] * 2}, "class difftime"),
    ],
)
def test_what_ranks_have_no_form_for_is_refused_with_its_class(value: Any, said: str) -> None:
    with pytest.raises(plain.Unplain, match=said):
        there(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "a value of Python's type object"),
        ({1, 2}, "a value of Python's type set"),
        ([1, {"a": lambda: 1}], "a value of Python's type function"),
        ({1: 2}, "a dict with a key of type int"),
        (2**60, "beyond 2\\^53"),
        ([2**60 + 1, 1.5], "beyond 2\\^53"),
        ("a\0b", "a string with a NUL"),
        (np.array(["2020-01-02"], "M8[D]"), "a numpy array of datetime64"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-02"])}), "in column 't'"),
        (pd.Timestamp("2020-01-02"), "a value of pandas' type Timestamp"),
    ],
)
def test_what_r_has_no_plain_form_for_is_refused_with_its_type(value: Any, said: str) -> None:
    with pytest.raises(plain.Unplain, match=said):
        plain.dump(value)


def test_an_r_object_is_refused_with_its_class() -> None:
    from ppe_jupyter.remote.values.wire import Node, Type, characters, dump

    node = Node(Type.OPAQUE, data=b"x" * 9, attributes={"class": characters(["lm"])})
    with pytest.raises(plain.Unplain, match="an R object of class lm"):
        plain.load(b"".join(bytes(each) for each in dump(node)))


def test_a_name_that_occurs_twice_loses_nothing() -> None:
    frame = pd.DataFrame([[1.5, 2.5]], columns=["x", "x"])
    found = plain.load(plain.dump(frame))
    assert (list(found.columns), found.to_numpy().tolist()) == (["x", "x"], [[1.5, 2.5]])
    from ppe_jupyter.remote.values.wire import Node, Type, characters, dump

    one = Node(Type.DOUBLE, data=np.array([1.0]))
    node = Node(Type.LIST, data=[one, one], attributes={"names": characters(["a", "a"])})
    with pytest.raises(plain.Unplain, match="a list with the name 'a' twice"):
        plain.load(b"".join(bytes(each) for each in dump(node)))


def test_the_users_own_values_stay_as_they_are() -> None:
    array = np.ma.masked_array(np.array(["a", "b"], object), [True, False])
    frame = pd.DataFrame({"s": pd.Series(["a", math.nan], dtype=object)})
    for value in (array, np.ma.masked_array(["a", "b"], [True, False])):
        assert plain.load(plain.dump(value)) == [None, "b"]
    assert plain.load(plain.dump(frame))["s"].isna().tolist() == [False, True]
    assert array.data.tolist() == ["a", "b"]
    assert math.isnan(frame["s"][1])
