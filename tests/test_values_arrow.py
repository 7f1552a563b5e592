"""pyarrow's columns and tables to R, and strings that pandas keeps in Arrow's memory."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from host_r import MISSING, host_session
from hypothesis import given
from hypothesis import strategies as st
from test_values import given_in_r, texts

from ppe_jupyter.errors import ValueRefused
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.remote.values import encode

pa = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
NAN = float("nan")


@pytest.fixture(scope="module")
def r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteR]:
    with host_session(tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (pa.array([1, None]), "c(1L, NA)"),
        (pa.array([1.5, None, NAN]), "c(1.5, NA, NaN)"),
        (pa.array(["a", None, "é", "xyz"]).slice(1, 2), "c(NA, 'é')"),
        (pa.array(["a", None], pa.string_view()), "c('a', NA)"),
        (pa.array([True, None]), "c(TRUE, NA)"),
        (pa.nulls(2), "c(NA, NA)"),
        (pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array([None, "c"]).dictionary_encode()]),
         "factor(c('b', 'a', NA, 'c'), c('b', 'a', 'c'))"),
        (pa.array([0, None], pa.timestamp("us", tz="Europe/Rome")), ".POSIXct(c(0, NA), 'Europe/Rome')"),
        (pa.array([dt.date(2024, 1, 1), None]), "as.Date(c('2024-01-01', NA))"),
        (pa.array([dt.timedelta(1), None]), "as.difftime(c(86400, NA), units = 'secs')"),
        (pa.chunked_array([], pa.int64()), "integer()"),
        (pa.table({"a": [1, 2], "s": ["x", None]}), "data.frame(a = 1:2, s = c('x', NA))"),
        (pd.DataFrame({"a": pd.array([1, None], "int64[pyarrow]")}), "data.frame(a = c(1L, NA))"),
    ],
)  # fmt: skip
def test_in_r(r: RemoteR, value: Any, code: str) -> None:
    r.push("x", value)
    assert r.eval(f"identical(x, {code}, single.NA = TRUE)") is True, r.eval("capture.output(dput(x))")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pa.array(["a\0"]), "NUL"),
        (pa.array([[1, 2]]), "list<"),
        (
            pa.table({"ok": [1], "d": [decimal.Decimal("1.5")]}),
            "column 'd' of x: R has no counterpart of Arrow's",
        ),
    ],
)
def test_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        encode(value, "x")
    assert words in str(refused.value)


def test_a_dictionary_may_hold_missing_values_but_none_twice(r: RemoteR) -> None:
    codes = pa.array([0, 1, 2, None, 1], pa.int8())
    r.push("x", pa.DictionaryArray.from_arrays(codes, pa.array(["b", None, "a"])))
    assert r.eval("identical(x, factor(c('b', NA, 'a', NA, NA), levels = c('b', 'a')))")
    r.push("x", pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.array([], pa.string())))
    assert r.eval("identical(x, factor(NA, levels = character()))")
    with pytest.raises(ValueRefused, match="same text"):
        encode(pa.DictionaryArray.from_arrays(codes, pa.array(["b", "a", "b"])), "x")


@given_in_r
@given(st.lists(st.one_of(st.none(), texts), min_size=1))
def test_arrow_strings_come_back(r: RemoteR, strings: list[str | None]) -> None:
    r.push("x", pd.DataFrame({"s": pd.array(strings, dtype="string[pyarrow]")}))
    assert [None if pd.isna(text) else text for text in r.pull("x")["s"]] == strings


def test_bytes_that_are_no_text_arrive_in_a_frame(r: RemoteR) -> None:
    r.eval(
        r"{ d <- data.frame(s = c('a\xe9', NA), f = factor(c('\xe9', 'b'))); names(d)[2] <- '\xfc'; NULL }"
    )
    frame = r.pull("d")
    assert frame["s"].tolist()[0] == "a\udce9"
    assert list(frame.columns) == ["s", "\udcfc"]
    r.push("x", frame)
    assert r.eval("identical(x, d)")
