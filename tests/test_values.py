"""Values to R and back, with a real R at the other end."""

from __future__ import annotations

import datetime as dt
import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from host_r import MISSING, host_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppe_jupyter.errors import RemoteRError, ValueRefused
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.remote.values import encode
from ppe_jupyter.remote.values.objects import RArray, RList, RObject

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
given_in_r = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteR]:
    with host_session(tmp_path_factory.mktemp("home")) as session:
        yield session


def there_and_back(r: RemoteR, value: Any) -> Any:
    r.push("x", value)
    return r.pull("x")


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array, "<f8").tobytes()


# Any Unicode but NUL, which R cannot hold.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
dates = st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))
times = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))


class TestScalars:
    @pytest.mark.parametrize(
        ("code", "value"),
        [
            ("1 + 1", 2.0),
            ("2L", 2),
            ("TRUE", True),
            ("'a\\u00e9\\u4e2d\\U1F600'", "aé中😀"),
            ("1+2i", 1 + 2j),
            ("NULL", None),
            ("as.raw(1:3)", b"\1\2\3"),
            ("raw(0)", b""),
            ("as.Date('2024-02-29')", dt.date(2024, 2, 29)),
            ("structure(19000L, class = 'Date')", dt.date(2022, 1, 8)),
            (
                "as.POSIXct('2024-02-29 12:00:00.5', tz = 'UTC')",
                pd.Timestamp("2024-02-29 12:00:00.5", tz="UTC"),
            ),
            ("as.POSIXlt('2024-02-29', tz = 'UTC')", pd.Timestamp("2024-02-29", tz="UTC")),
            ("as.difftime(90, units = 'mins')", pd.Timedelta(hours=1.5)),
            ("Inf", math.inf),
            (".Machine$integer.max", 2**31 - 1),
        ],
    )
    def test_from_r(self, r: RemoteR, code: str, value: Any) -> None:
        found = r.eval(code)
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize("code", ["NA", "NA_integer_", "NA_character_"])
    def test_na(self, r: RemoteR, code: str) -> None:
        assert r.eval(code) is pd.NA

    def test_na_of_doubles_is_no_nan_in_r(self, r: RemoteR) -> None:
        na, nan = r.eval("NA_real_"), r.eval("NaN")
        assert math.isnan(na)
        assert math.isnan(nan)
        r.push("x", [na, nan, 1.0])
        assert r.eval("is.na(x) & !is.nan(x)").tolist() == [True, False, False]

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (True, "TRUE"),
            (1, "1L"),
            (2**31, "2147483648"),
            (-(2**31), "-2147483648"),
            (2**53, "2^53"),
            (1.5, "1.5"),
            ("é", "'\\u00e9'"),
            (None, "NULL"),
            (pd.NA, "NA"),
            (b"ab", "as.raw(c(0x61, 0x62))"),
            (dt.date(2024, 2, 29), "as.Date('2024-02-29')"),
            (dt.timedelta(hours=1), "as.difftime(3600, units = 'secs')"),
            (
                pd.Timestamp("2024-02-29 12:00", tz="Europe/Rome"),
                "as.POSIXct('2024-02-29 12:00', tz = 'Europe/Rome')",
            ),
            (np.float32(0.5), "0.5"),
            (np.int64(7), "7L"),
            (np.datetime64("2024-02-29"), "as.Date('2024-02-29')"),
            ([1, 2, 3], "1:3"),
            ([1, 2.5], "c(1, 2.5)"),
            ([1, None], "c(1L, NA)"),
            (["a", None], "c('a', NA)"),
            ([True, False], "c(TRUE, FALSE)"),
            ([1, "a"], "list(1L, 'a')"),
            ([], "list()"),
            ((1.0, 2.0), "c(1, 2)"),
            (range(3), "0:2"),
            (
                {"a": 1, "b": {"c": [None, {}]}},
                "list(a = 1L, b = list(c = list(NULL, structure(list(), names = character()))))",
            ),
            (RList([1, 2]), "list(1L, 2L)"),
            (RList([1, 2], names=["a", ""]), "list(a = 1L, 2L)"),
            (np.array([[1, 2], [3, 4]]), "matrix(c(1L, 3L, 2L, 4L), 2)"),
            (np.zeros((2, 0)), "matrix(0, 2, 0)"),
            (np.ma.masked_array([1, 2], [False, True]), "c(1L, NA)"),
            (pd.Series([1.0, 2.0], index=["a", "b"]), "c(a = 1, b = 2)"),
            (pd.Categorical(["b", None, "a"], ["a", "b"]), "factor(c('b', NA, 'a'))"),
            (
                pd.Categorical(["b", "a"], ["b", "a"], ordered=True),
                "factor(c('b', 'a'), c('b', 'a'), ordered = TRUE)",
            ),
            (pd.array([1, None], "Int64"), "c(1L, NA)"),
            (pd.array([True, None], "boolean"), "c(TRUE, NA)"),
            (pd.array([1.5, None], "Float64"), "c(1.5, NA)"),
        ],
    )
    def test_to_r(self, r: RemoteR, value: Any, code: str) -> None:
        r.push("x", value)
        assert r.eval(f"identical(x, {code})") is True, r.eval("capture.output(str(x))")


class TestVectors:
    @given_in_r
    @given(hnp.arrays(np.float64, st.integers(0, 50), elements={"allow_nan": True, "allow_subnormal": True}))
    def test_doubles_come_back_bit_for_bit(self, r: RemoteR, array: Any) -> None:
        assert bits(there_and_back(r, array)) == bits(array)

    @given_in_r
    @given(hnp.arrays(hnp.integer_dtypes(sizes=(8, 16, 32)), st.integers(2, 50)))
    def test_integers(self, r: RemoteR, array: Any) -> None:
        assert there_and_back(r, array).tolist() == array.tolist()

    @given_in_r
    @given(st.lists(st.one_of(st.none(), texts), min_size=2).filter(any))
    def test_strings(self, r: RemoteR, strings: list[str | None]) -> None:
        back = there_and_back(r, strings)
        assert [None if value is pd.NA else value for value in back] == strings

    @given_in_r
    @given(
        st.lists(st.one_of(st.none(), st.booleans()), min_size=2).filter(
            lambda v: any(x is not None for x in v)
        )
    )
    def test_logicals(self, r: RemoteR, values: list[bool | None]) -> None:
        assert [None if value is pd.NA else value for value in there_and_back(r, values)] == values

    @given_in_r
    @given(hnp.arrays(np.complex128, st.integers(2, 20), elements={"allow_nan": False}))
    def test_complex(self, r: RemoteR, array: Any) -> None:
        assert there_and_back(r, array).tolist() == array.tolist()

    @given_in_r
    @given(st.lists(dates, min_size=2))
    def test_dates(self, r: RemoteR, values: list[dt.date]) -> None:
        assert there_and_back(r, values).tolist() == values

    @given_in_r
    @given(st.lists(times, min_size=2))
    def test_times_without_a_zone(self, r: RemoteR, values: list[dt.datetime]) -> None:
        back = there_and_back(r, values)
        assert back.astype("datetime64[us]").tolist() == values

    @given_in_r
    @given(
        hnp.arrays(
            st.sampled_from(
                [np.dtype("<f8"), np.dtype(">f8"), np.dtype("i4"), np.dtype("f4"), np.dtype(bool)]
            ),
            hnp.array_shapes(min_dims=2, max_dims=4),
        ),
        st.sampled_from("CF"),
    )
    def test_arrays_of_any_order(self, r: RemoteR, array: Any, order: str) -> None:
        back = there_and_back(r, np.asarray(array, order=order))
        assert back.shape == array.shape
        assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
        assert r.eval("dim(x)").tolist() == list(array.shape)

    def test_a_zone_is_kept(self, r: RemoteR) -> None:
        index = pd.date_range("2024-03-30", periods=3, freq="12h", tz="Europe/Rome")
        back = there_and_back(r, index)
        assert (back == index).all()
        assert str(back.tz) == "Europe/Rome"
        assert r.eval("format(x[1])") == "2024-03-30"

    def test_wall_clock_of_another_session_zone(self, r: RemoteR) -> None:
        r.eval("Sys.setenv(TZ = 'America/New_York')")
        try:
            r.push("x", pd.Timestamp("2024-07-01 09:30"))
            assert r.eval("format(x)") == "2024-07-01 09:30:00"
            assert r.eval("as.POSIXct('2024-07-01 09:30')") == pd.Timestamp("2024-07-01 09:30")
        finally:
            r.eval("Sys.unsetenv('TZ')")

    def test_every_encoding_arrives(self, r: RemoteR) -> None:
        code = "x <- c('\\u00e9', '\\xe9', NA, ''); Encoding(x)[2] <- 'latin1'; x"
        assert r.eval(code).tolist() == ["é", "é", pd.NA, ""]

    def test_names_of_arrays(self, r: RemoteR) -> None:
        code = "matrix(1:4, 2, dimnames = list(NULL, c('a', 'b')))"
        matrix = r.eval(code)
        assert isinstance(matrix, RArray)
        assert matrix.dimnames == [None, ["a", "b"]]
        r.push("x", matrix)
        assert r.eval(f"identical(x, {code})")
        assert not hasattr(matrix + 1, "dimnames") or (matrix + 1).dimnames is None

    def test_tables(self, r: RemoteR) -> None:
        r.push("x", r.eval("table(c('a', 'b', 'a'), c(1, 1, 2))"))
        assert r.eval("identical(x, table(c('a', 'b', 'a'), c(1, 1, 2)))")

    def test_lists_come_back_as_lists(self, r: RemoteR) -> None:
        for code in ["list(1, 2)", "list(a = 1, b = list('x', NULL))", "list(a = 1, 2)", "list()"]:
            r.push("x", r.eval(code))
            assert r.eval(f"identical(x, {code})"), code

    def test_a_long_vector_of_text(self, r: RemoteR) -> None:
        strings = [f"text {i}" for i in range(200_000)]
        r.push("x", strings)
        assert r.eval("x[200000]") == "text 199999"
        assert r.pull("x").tolist() == strings


columns = st.one_of(
    st.just("f8"), st.just("i4"), st.just("bool"), st.just("str"), st.just("Int32"), st.just("boolean"),
    st.just("category"), st.just("datetime64[ns]"), st.just("datetime64[s]"), st.just("datetime64[ns, UTC]"),
)  # fmt: skip


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 8))
    names = draw(st.lists(texts.filter(bool), max_size=5, unique=True))
    values = {}
    for name in names:
        dtype = draw(columns)
        one: st.SearchStrategy[Any] = {
            "f8": st.floats(),
            "i4": st.integers(-(2**31) + 1, 2**31 - 1),
            "bool": st.booleans(),
            "str": st.one_of(st.none(), texts),
            "Int32": st.one_of(st.none(), st.integers(-(2**31) + 1, 2**31 - 1)),
            "boolean": st.one_of(st.none(), st.booleans()),
            "category": st.sampled_from(["x", "é", None]),
            "datetime64[s]": dates,
        }.get(dtype, times)
        series = pd.Series(draw(st.lists(one, min_size=rows, max_size=rows)), dtype=object)
        if dtype == "category":
            values[name] = pd.Categorical(series, categories=["x", "é"])
        elif "64[" in dtype:
            values[name] = pd.to_datetime(series, utc="UTC" in dtype).astype(dtype)  # type: ignore[call-overload]
        else:
            values[name] = series.astype(dtype)
    return pd.DataFrame(values, index=pd.RangeIndex(rows))


def same_frame(one: pd.DataFrame, other: pd.DataFrame) -> None:
    # A column without any NA has the plain dtype when it returns.
    plain = {"Int32": "int32", "boolean": "bool"}
    for i, dtype in enumerate(one.dtypes):
        if str(dtype) in plain and not one.iloc[:, i].isna().any():
            one = one.copy()
            one.isetitem(i, one.iloc[:, i].astype(plain[str(dtype)]))
    pd.testing.assert_frame_equal(other, one, check_column_type=False)


class TestFrames:
    @given_in_r
    @given(frames())
    def test_there_and_back(self, r: RemoteR, frame: pd.DataFrame) -> None:
        back = there_and_back(r, frame)
        assert r.eval("class(x)") == "data.frame"
        same_frame(frame, back)

    @pytest.mark.parametrize(
        "code",
        [
            "cars",
            "iris",
            "mtcars",
            "mtcars[mtcars$cyl == 4, ]",
            "data.frame()",
            "data.frame(a = 1)[0, , drop = FALSE]",
            "data.frame(matrix(0, 3, 0))",
            "data.frame(a = 1, a = 2, check.names = FALSE)",
            "data.frame(d = as.Date('2024-01-01') + 0:2, t = as.POSIXct('2024-01-01', tz = 'UTC') + 0:2)",
            "data.frame(x = c(1, NA, NaN), i = c(1L, NA, 3L), s = c('a', NA, 'c'), l = c(TRUE, NA, FALSE))",
            "data.frame(f = factor(c('b', 'a'), levels = c('b', 'a')), o = factor(1:2, ordered = TRUE))",
            "{ d <- data.frame(a = 1:2); d$l <- list(1:3, 'x'); d }",
        ],
    )
    def test_from_r_and_back(self, r: RemoteR, code: str) -> None:
        frame = r.eval(code)
        assert isinstance(frame, pd.DataFrame)
        r.push("x", frame)
        # all.equal: row names c(NA, -3) and 1:3 differ for identical(), for nothing else.
        assert r.eval(f"all.equal(x, {code})") is True, r.eval("capture.output(str(x))")

    def test_doubles_in_frames_come_back_bit_for_bit(self, r: RemoteR) -> None:
        special = struct.unpack("<3d", struct.pack("<3Q", 0x7FF00000000007A2, 0xFFF8000000000001, 1))
        frame = pd.DataFrame({"x": np.array(special)})
        assert bits(there_and_back(r, frame)["x"]) == bits(special)

    def test_labels(self, r: RemoteR) -> None:
        back = there_and_back(r, pd.DataFrame({"a": [1.0, 2.0]}, index=["é", "b"]))
        assert list(back.index) == ["é", "b"]
        assert r.eval("rownames(x)").tolist() == ["é", "b"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (2**53 + 1, "2^53"),
            (10**30, "2^53"),
            ([1, 2**60], "2^53"),
            (np.array([1, 2**53 + 1]), "9007199254740993"),
            (pd.DataFrame({"id": [2**60]}), "column 'id'"),
            (pd.DataFrame({"mix": [1, "a"]}), "column 'mix' of x: a mixture of int and str"),
            (pd.Series([1, "a"]), "mixture"),
            ("a\0b", "NUL"),
            (pd.DataFrame({"s": ["a\0b"]}), "column 's' of x"),
            ({1: 2}, "names"),
            ({"a": {"b": object()}}, "x['a']['b']: R has no counterpart of object"),
            (pd.DataFrame({"p": pd.period_range("2024", periods=2, freq="M")}), "column 'p'"),
            (pd.DataFrame({("a", "b"): [1]}), "several levels"),
            (pd.DataFrame({"a": [1, 2]}, index=["x", "x"]), "reset_index"),
            ({1, 2}, "set"),
        ],
    )
    def test_what_r_cannot_hold(self, value: Any, words: str) -> None:
        with pytest.raises(ValueRefused) as refused:
            encode(value, "x")
        assert words in str(refused.value)

    def test_nothing_is_assigned(self, r: RemoteR) -> None:
        r.push("x", 1)
        with pytest.raises(ValueRefused, match=r"^x: "):
            r.push("x", object())
        assert r.eval("x") == 1
        with pytest.raises(RemoteRError, match="object 'nothing' not found"):
            r.pull("nothing")


RPY2 = """
import os
import sys
from pathlib import Path
from host_r import host_session

with host_session(Path(sys.argv[1])) as r:
    fit = r.eval("lm(dist ~ speed, cars)")
    assert "rpy2" not in sys.modules
    libraries = os.environ.get("LD_LIBRARY_PATH")
    local = fit.to_rpy2()
    assert os.environ.get("LD_LIBRARY_PATH") == libraries
    from rpy2 import robjects
    assert round(robjects.r["coef"](local)[1], 3) == 3.932
    r.push("add", robjects.r("function(x) x + 1"))
    r.push("fit", local)
    assert r.eval("add(41)") == 42
    assert r.eval("class(fit)") == "lm"

    from ppe_jupyter.errors import ValueRefused
    from ppe_jupyter.frontends.notebook import borrowed
    made = dict(
        model="lm(dist ~ speed, cars)", fun="function(x, y = 2) x + y", plot="lattice::xyplot(dist ~ speed, cars)",
        s4="stats4::mle(function(m = 1) (m - 3)^2, method = 'BFGS')", date="Sys.Date()", d="iris",
        **{"odd name": "1:3"})
    for name, code in made.items():
        r.run(f"`{name}` <- {code}")
    borrowed.pull_to_r(r, list(made))
    assert robjects.r("fun(40)")[0] == 42
    assert robjects.r("isVirtualClass(class(s4)) || stats4::coef(s4) > 2.9")[0]
    assert robjects.r("identical(d, iris) && inherits(plot, 'trellis') && class(date) == 'Date'")[0]
    robjects.r("env <- new.env(); assign('a', 1, env); scale <- function(x) x * 10")
    borrowed.push_from_r(r, {"env": "env", "ten": "scale", "odd": "odd name", "s4": "s4", "plot": "plot"})
    assert r.eval("ten(env$a)") == 10
    assert r.eval("c(odd, isVirtualClass(class(s4)), class(plot) == 'trellis')").tolist() == [1, 2, 3, 0, 1]
    try:
        borrowed.push_from_r(r, {"x": "nothing"})
    except ValueRefused as refused:
        assert "no variable 'nothing'" in str(refused)
    else:
        raise AssertionError("nothing was pushed")
"""


class TestOpaque:
    @pytest.mark.skipif(find_spec("rpy2") is None, reason="rpy2 is not installed")
    def test_objects_of_a_local_r(self, tmp_path: Path) -> None:
        # A process of its own: rpy2 starts an R in this one, and changes its signals.
        subprocess.run(
            [sys.executable, "-c", RPY2, tmp_path], check=True, cwd=Path(__file__).parent, timeout=60
        )

    def test_a_model_is_a_handle(self, r: RemoteR) -> None:
        fit = r.eval("lm(dist ~ speed, cars)")
        assert isinstance(fit, RObject)
        assert fit.r_class == ("lm",)
        assert "Coefficients:" in repr(fit)
        r.push("fit", fit)
        r.push("both", {"fit": fit, "n": 1})
        assert r.eval("all.equal(coef(fit), coef(lm(dist ~ speed, cars)))") is True
        assert r.eval("class(both$fit)") == "lm"

    @pytest.mark.parametrize(
        "code", ["function(x) x", "quote(a + b)", "new.env()", "y ~ x", "structure(1, class = 'odd')"]
    )
    def test_everything_crosses(self, r: RemoteR, code: str) -> None:
        r.push("x", r.eval(code))
        assert r.eval(f"all.equal(class(x), class({code}))") is True
