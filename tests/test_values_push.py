"""Python's values to R: what each becomes, and what is refused, with its place."""

from __future__ import annotations

import datetime as dt
import decimal
import warnings
from collections import namedtuple
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from host_r import MISSING, host_session
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_values import given_in_r

from ppe_jupyter.cluster import Cluster
from ppe_jupyter.errors import ValueRefused
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.remote.values import encode

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

Point = namedtuple("Point", "x y")
HOUR = dt.timezone(dt.timedelta(hours=1))
NAN = float("nan")
BIG_ENDIAN = (">M8[s]", ">m8[D]", ">M8[us]")


@pytest.fixture(scope="module")
def r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteR]:
    with host_session(tmp_path_factory.mktemp("home")) as session:
        yield session


def array(values: Any, dtype: Any = None) -> Any:
    return np.array(values, dtype)


def endless() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


class TestBecomes:
    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (array(3), "3L"),
            (array(np.datetime64("2024-01-01T00:00", "ns")), "as.POSIXct('2024-01-01', tz = 'UTC')"),
            (array([0.5], "f2"), "0.5"),
            (array([1.5], np.longdouble), "1.5"),
            (array([1 + 2j], "c8"), "1+2i"),
            (array([1, 2], ">i8"), "1:2"),
            (array([5], "u8"), "5L"),
            (np.arange(9)[::-4], "c(8L, 4L, 0L)"),
            (array(["a", "é"], ">U3"), "c('a', 'é')"),
            (array(["a", None], np.dtypes.StringDType(na_object=None)), "c('a', NA)"),
            (array(["2024-01-01T05"], "M8[h]"), "as.POSIXct('2024-01-01 05:00', tz = 'UTC')"),
            (array([3], "M8[25s]"), ".POSIXct(75, 'UTC')"),
            (array(["2024-02"], "M8[M]"), "as.Date('2024-02-01')"),
            (array([1, "NaT"], "m8[D]"), "as.difftime(c(1, NA), units = 'days')"),
            (array(["2024-01-01T00:00:01", "NaT"], ">M8[ms]"), "as.POSIXct(c('2024-01-01 00:00:01', NA), tz = 'UTC')"),
            (np.ma.masked_array(array([1, 2], ">m8[D]"), [0, 1]), "as.difftime(c(1, NA), units = 'days')"),
            (array(["2024-01-01"], ">M8[D]"), "as.Date('2024-01-01')"),
            (array([1], "m8[2h]"), "as.difftime(7200, units = 'secs')"),
            (np.ma.masked_array(["a", "b"], [1, 0]), "c(NA, 'b')"),
            (np.ma.masked_array(array(["2024-01-01"], "M8[D]"), [1]), "as.Date(NA)"),
            (np.ma.masked_array([[1j, 2]], [[1, 0]]), "matrix(c(NA, 2+0i), 1)"),
            (pd.Timestamp("2024-01-01").as_unit("s"), "as.POSIXct('2024-01-01', tz = 'UTC')"),
            (dt.datetime(2024, 1, 1, tzinfo=HOUR), "as.POSIXct('2024-01-01', tz = 'Etc/GMT-1')"),
            (dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Rome"), fold=1),
             ".POSIXct(1729992600, 'Europe/Rome')"),
            (dt.datetime(1, 1, 1), ".POSIXct(-62135596800, 'UTC')"),
            (pd.NaT, ".POSIXct(NA_real_, 'UTC')"),
            (NAN, "NaN"),
            ([NAN, None], "c(NaN, NA)"),
            ([1, NAN], "c(1, NaN)"),
            ([complex(NAN, 1), None], "c(complex(real = NaN, imaginary = 1), NA)"),
            ([1, 2.5, 2**60], "c(1, 2.5, 2^60)"),
            (memoryview(b"ab"), "as.raw(c(0x61, 0x62))"),
            (memoryview(array([1.5, 2])), "c(1.5, 2)"),
            ([b"a", b"b"], "list(as.raw(0x61), as.raw(0x62))"),
            (Point(1, "a"), "list(x = 1L, y = 'a')"),
            (pd.array([2**40, None], "Int64"), "c(2^40, NA)"),
            (pd.arrays.FloatingArray(array([1, NAN, 2.0]), array([False, False, True])), "c(1, NaN, NA)"),
            (pd.arrays.SparseArray([0, 1.5, NAN]), "c(0, 1.5, NaN)"),
            (pd.Categorical([1.5, None, 2]), "factor(c('1.5', NA, '2.0'))"),
            (pd.Series([1, 2], index=["a", None]), "setNames(1:2, c('a', NA))"),
            (pd.Series([1, 2], index=pd.Index([1.5, "a"], name="gone")), "setNames(1:2, c('1.5', 'a'))"),
            (pd.DataFrame({"a": [1]}, index=pd.to_datetime(["2024-01-01"])),
             "data.frame(a = 1L, row.names = '2024-01-01 00:00:00')"),
            (pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="gone")),
             "data.frame(a = 1:2, row.names = c('x', 'y'))"),
            (pd.to_timedelta([1, None], unit="s"), "as.difftime(c(1, NA), units = 'secs')"),
            (pd.DataFrame({"a": [{"x": 1}, None]}), "{ d <- data.frame(a = 1:2); d$a <- list(list(x = 1L), NULL); d }"),
        ],
    )  # fmt: skip
    def test_in_r(self, r: RemoteR, value: Any, code: str) -> None:
        r.push("x", value)
        same = f"{{ y <- {code}; if (inherits(y, 'POSIXct') && is.null(attr(x, 'tzone'))) attr(y, 'tzone') <- NULL; "
        assert r.eval(same + "identical(x, y, single.NA = TRUE) }") is True, r.eval("capture.output(dput(x))")

    @given_in_r
    @given(
        hnp.arrays(
            st.one_of(hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(endianness="?")),
            hnp.array_shapes(max_dims=3),
        )
    )
    def test_integers_of_any_type_cross_exactly_or_not_at_all(self, r: RemoteR, values: Any) -> None:
        try:
            r.push("x", values)
        except ValueRefused:
            assert max(map(abs, map(int, values.ravel()))) > 2**53
            return
        assert np.array_equal(np.asarray(r.pull("x", simplify=False)).reshape(values.shape), values)

    @given_in_r
    @given(
        hnp.arrays("i8", st.integers(2, 5), elements=st.integers(-(10**17), 10**17)),
        st.sampled_from(
            [
                "M8[D]",
                "M8[s]",
                "M8[ms]",
                "M8[us]",
                "M8[ns]",
                "m8[s]",
                "m8[us]",
                "m8[h]",
                "m8[ns]",
                *BIG_ENDIAN,
            ]
        ),
    )
    def test_times_of_any_unit_cross_exactly_or_not_at_all(self, r: RemoteR, counts: Any, dtype: str) -> None:
        unit, _ = np.datetime_data(np.dtype(dtype))
        limit = {"D": 10**5, "h": 10**5, "s": 10**10, "ms": 10**13}.get(unit, 10**18)
        values = (counts % limit).astype(dtype)
        try:
            r.push("x", values)
        except ValueRefused as exc:
            assert "finer" in str(exc)
            return
        assert np.array_equal(r.pull("x").astype(values.dtype), values)


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (np.array([1], np.longdouble) / 3, "float64"),
            (array([2**63], "u8"), "9223372036854775808"),
            (10**400, "1329 bits"),
            (array([b"a"]), "decode it first"),
            (np.zeros(2, [("id", "i4"), ("b", "f8")]), "('id', 'b')"),
            (array([1], "m8"), "without a unit"),
            (array([1], "m8[M]"), "no fixed length"),
            (array([1], "M8[ps]"), "convert it to [ns]"),
            (pd.Series(pd.to_datetime(["2024-01-01T00:00:00.123456789"])), "round"),
            ([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 5)], "a mixture"),
            (dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5.5))), "UTC+05:30"),
            ([dt.datetime(2024, 1, 1, tzinfo=HOUR), dt.datetime(2024, 1, 1)], "tz-naive"),
            (dt.time(1), "datetime.time"),
            (
                pd.DataFrame({"d": [decimal.Decimal(1)]}),
                "column 'd' of x: R has no counterpart of decimal.Decimal",
            ),
            (pd.DataFrame({"i": pd.interval_range(0, 2)}), "column 'i' of x"),
            (pd.period_range("2024", periods=2, freq="M"), "to_timestamp()"),
            (pd.MultiIndex.from_tuples([(1, 2)]), "to_frame()"),
            (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)])), "reset_index()"),
            (pd.Categorical([1, "1"]), "same text"),
            (
                pd.DataFrame([[1, 2]], columns=[1, "1"]),
                "the names of x: two different labels have the same text",
            ),
            (pd.DataFrame({"a": [1, 2]}, index=[1.0, "1.0"]), "two different labels"),
            (pd.Series([1, 2], index=[1, "1"]), "two different labels"),
            (iter([1]), "use list()"),
            (endless(), "contain themselves"),
            ({"a": "\ud800"}, "x['a']: a string that is no Unicode text"),
        ],
    )
    def test_by_its_place(self, value: Any, words: str) -> None:
        with pytest.raises(ValueRefused) as refused:
            encode(value, "x")
        assert words in str(refused.value)
        assert str(refused.value).startswith(("x", "column", "the names of x"))

    def test_integer64_is_advised_where_it_helps(self) -> None:
        with pytest.raises(ValueRefused, match=r"column 'id' of x.*integer64=True"):
            encode(pd.DataFrame({"id": [2**60]}), "x")


class TestInteger64:
    @pytest.fixture
    def r(self, cluster: Cluster) -> RemoteR:
        """A node's R, where package bit64 is."""
        return cluster.r()

    def test_there_and_back(self, r: RemoteR) -> None:
        r.run("x <- bit64::as.integer64(c('9007199254740993', NA, '-5')); d <- data.frame(i = x, j = 1:3)")
        assert r.pull("x").tolist() == [2**53 + 1, pd.NA, -5]
        assert r.eval("bit64::as.integer64('9007199254740993')") == 2**53 + 1
        r.push("y", r.pull("x"))
        r.push("e", r.pull("d").iloc[::-1].iloc[::-1])
        assert r.eval("identical(x, y) && identical(d, e)")

    def test_asked_for(self, r: RemoteR) -> None:
        r.push("x", pd.DataFrame({"i": [1, 2], "id": pd.array([2**62, None], "Int64")}), integer64=True)
        assert r.eval("c(class(x$i), class(x$id), trimws(format(x$id)))").tolist() == [
            "integer", "integer64", str(2**62), "NA",
        ]  # fmt: skip

    def test_changed_columns_stay_so(self, r: RemoteR) -> None:
        r.run("d <- data.frame(id = bit64::as.integer64(2^60) + 1:4)")
        r.push("x", r.pull("d").iloc[1:3] + 1)
        assert r.eval("format(x$id)").tolist() == [str(2**60 + 3), str(2**60 + 4)]
        r.push("x", r.pull("d").iloc[::-1])
        assert r.eval("identical(x$id, rev(d$id))")


def test_nothing_warns_of_missing_times(r: RemoteR) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert r.eval("as.difftime(c(1.5, NA), units = 'hours')")[0] == np.timedelta64(90, "m")
        assert pd.isna(r.eval("as.Date(c(NA, 0.5), origin = '1970-01-01')")[0])
