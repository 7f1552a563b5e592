"""R's objects to Python and back: each is identical() to what it was, or was told to be what it is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from host_r import MISSING, host_session

from ppe_jupyter.cluster import Cluster
from ppe_jupyter.errors import ValueRefused
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.remote.values.objects import RArray, RCell, RObject

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

VECTORS = r"""
c(1, NA, NaN, Inf, -Inf, -0.0)
c(.Machine$integer.max, NA)
c(a = 1, b = NA)
c(a = 1L, b = NA)
setNames(1:2, c("a", NA))
c(NA_character_, NA)
c(a = NA_character_)
c("a", NA, "NA", "NaN", "")
complex(real = c(NA, 1), imaginary = c(0, NaN))
as.raw(1:3)
c(x = as.raw(1))
structure(1:3, label = "x")
structure(5, label = "x")
structure(c(a = TRUE), x = 1L)
structure(c(a = 1, b = NA), label = "x", f = y ~ x)
structure(1:2, levels = c("a", "b"))
I("a")
noquote(c("a", "b"))
factor(c("a", NA, "b"), levels = c("b", "a"))
factor(1:2, ordered = TRUE)
factor(character())
addNA(factor(c("a", NA)))
C(factor(c("a", "b")), contr.sum)
character()
logical()
""".strip().splitlines()
ARRAYS = r"""
scale(matrix(c(1, 2, 3, 4), 2))
matrix(c(1L, NA, 3L, 4L), 2)
matrix(c(TRUE, NA, FALSE, TRUE), 2, dimnames = list(c("a", "b"), NULL))
matrix(c(1L, NA, 3L, 4L), 2, dimnames = list(r = c("a", "b"), c = c("x", "y")))
matrix(NA, 1, 2)
matrix(as.raw(1:4), 2)
matrix(c("a", NA, "b", "c"), 2)
matrix(c(NA_character_, NA), 1)
matrix(c(1+2i, NA), 1)
array(1:3)
array(c(1L, NA), 2)
array(1:24, 2:4, list(NULL, letters[1:3], NULL))
table(c(1.5, 2.5))
prop.table(table(a = c("x", "y"), b = c("p", "q")))
Titanic
xtabs(~ cyl + gear, mtcars)
xtabs(~ cyl, mtcars)
""".strip().splitlines()
TIMES = r"""
as.Date("2024-01-01") + 0:2
as.Date("2024-01-01") + c(0.25, 1/3)
as.Date("2024-01-01") + 0.5
structure(19000:19002, class = "Date")
as.Date(c("2024-01-01", NA))
as.Date(c(NaN, Inf), origin = "1970-01-01")
as.POSIXct("2024-07-01 09:30:00") + 0:1
as.POSIXct("1815-06-18 11:35:00", tz = "Europe/Brussels") + c(0, .1)
.POSIXct(c(1.1, 1e-9, 1e-10, 1/3, NA))
.POSIXct(c(1e12, -1e12), "UTC")
.POSIXct(c(1e15, NA), "Europe/Rome")
.POSIXct(1:3, "UTC")
.POSIXct(c(1729987200, 1729990800, 1729994400, 1711846800), "Europe/Rome")
.POSIXct(c(1730610000, 1730613600, 1730617200, 1710053999, 1710054000))
structure(.POSIXct(1.5), tzone = c("", "CET", "CEST"))
as.difftime(c(1.5, 2), units = "mins")
as.difftime(c(90, NA), units = "mins")
as.difftime(c(1, 2), units = "days")
as.difftime(c(7.152557373046875e-07, 1/3), units = "secs")
structure(c(3600, 10), units = "secs", class = c("hms", "difftime"))
structure(19000:19001, class = c("IDate", "Date"))
as.POSIXlt(c("2024-07-01 10:00", NA), tz = "Europe/Rome")
as.POSIXlt(c("2024-07-01 10:00", "2024-01-01 10:00:00.5"))
""".strip().splitlines()
STRINGS = r"""
{ x <- c("é", "\xe9", "z"); Encoding(x)[2] <- "latin1"; x }
{ x <- c("é", "\xe9", "é"); Encoding(x)[2:3] <- "bytes"; x }
c("a\xe9", "ü", "\xff\xfe")
data.frame(a = c("a\xe9", "ü", NA))
""".strip().splitlines()
LISTS = r"""
as.list(1:100)
as.list(c(0.5, NA, NaN, 2:80))
setNames(as.list(rep(c(TRUE, FALSE), 40)), paste0("n", 1:80))
c(as.list(1:80), list(NULL))
c(as.list(1:80), list(1))
list(as.list(c(-1e300, 1:70)), as.list(1:65), "x")
list(a = 1, a = 2)
setNames(list(1, 2), c("a", NA))
list(1, list(2, list(3, NULL)), x = NULL)
list(list(), NULL, character(), integer(), NULL)
structure(list(), names = character())
structure(list(1, 2), dim = c(1L, 2L))
I(list(1, 2))
gregexpr("a", c("banana", "x"))
{ x <- 1; for (i in 1:300) x <- list(x); x }
""".strip().splitlines()
FRAMES = r"""
iris
CO2
esoph
mtcars[mtcars$cyl == 4, ]
data.frame()[1:3, ]
data.frame(a = 1:3)[c(1, 3), , drop = FALSE]
data.frame(a = 1:2, l = I(list(1, "b")))
{ d <- data.frame(a = 1:2); d$l <- list(1, 2); d }
{ d <- data.frame(a = 1:2, b = 3:4); attr(d$b, "label") <- "B"; attr(d, "note") <- "n"; d }
{ d <- data.frame(a = 1:2, b = 3:4); names(d) <- c("a", "a"); d }
{ d <- data.frame(a = 1:2, b = 3:4); names(d) <- c("a", NA); d }
{ d <- data.frame(a = c(x = 1, y = 2)); d$b <- c(p = 1L, q = NA); d }
data.frame(t = as.POSIXct("2024-07-01 09:30") + 0:1, d = as.Date("2024-01-01") + c(.5, 1), r = as.raw(1:2))
data.frame(e = as.difftime(c(1, 2.5), units = "hours"), f = as.difftime(1:2, units = "days"))
data.frame(s = c(NA_character_, NA))
data.frame(s = character(), d = as.Date(character()), f = factor(character()), t = as.POSIXct(character()))
structure(list(a = 1:2), class = c("tbl_df", "tbl", "data.frame"), row.names = c(NA, -2L))
structure(list(a = 1:2), class = c("odd", "data.frame"), row.names = c(NA, -2L), zz = y ~ x)
na.omit(data.frame(a = c(1, NA, 3)))
model.frame(dist ~ speed, cars)
aggregate(mpg ~ cyl, mtcars, range)
data.frame(m = tapply(mtcars$mpg, mtcars$cyl, mean))
data.frame(t = AirPassengers, y = 1:144)
as.data.frame(EuStockMarkets)
{ d <- data.frame(a = 1:3); d$z <- scale(d$a); d }
{ d <- data.frame(a = 1:3); d$f <- data.frame(p = 1:3, q = letters[1:3]); d }
{ d <- data.frame(a = 1:3); d$m <- matrix(1:6, 3); d }
{ d <- data.frame(a = 1:2); d$t <- as.POSIXlt(c("2024-07-01 10:00", NA), tz = "Europe/Rome"); d }
{ d <- data.frame(a = 1:2); d$t <- as.POSIXlt(c("2024-07-01 10:00:00.25", "1815-06-18 11:35")); d }
{ d <- data.frame(a = 1:3); d$f <- addNA(factor(c("a", NA, "b"))); d }
{ d <- data.frame(a = 1:2); d$v <- numeric_version(c("1.2", "3")); d }
{ d <- data.frame(a = 1:2); d$g <- structure(c("a", NA), class = c("glue", "character")); d }
{ d <- data.frame(a = 1:2); d$g <- structure(1:2, class = c("mine", "factor"), levels = c("a", "b")); d }
{ d <- data.frame(a = 1:2); d$i <- structure(19000:19001, class = c("IDate", "Date")); d }
{ d <- data.frame(a = 1:2); d$h <- as.hexmode(c(10, 255)); d }
{ d <- data.frame(a = 1:2); d$r <- structure(as.raw(1:2), class = "bits"); d }
{ d <- data.frame(a = 1:2); d$s <- survival::Surv(c(1, 2), c(0, 1)); d }
data.frame(a = structure(1:2, labels = c(no = 1L, yes = 2L), class = c("haven_labelled", "vctrs_vctr", "integer")))
{ d <- data.frame(a = 1:2); d$l <- structure(list(1:2, "x"), class = c("list_of", "vctrs_vctr", "list"), ptype = 1); d }
{ d <- data.frame(a = structure(1L, label = "L1"), b = 2L); names(d) <- c("a", "a"); d }
{ d <- data.frame(a = 1L, b = structure(2L, label = "L2")); names(d) <- c("a", "a"); d }
list(a = data.frame(m = I(diag(2))), 1)
""".strip().splitlines()
OPAQUE = r"""
ts(1:10, start = 2000, frequency = 4)
quote(a + b)
expression(a, b)
as.hexmode(10)
numeric_version("1.2.3")
lm(dist ~ speed, cars)
function(x) x + 1
sum
globalenv()
setClass("P", representation(a = "numeric"))(a = 1)
lattice::xyplot(1 ~ 1)
structure(list(a = 1), class = "htest")
structure(list(a = 1:3), class = "data.frame", row.names = 1:2)
structure(5L, levels = "a", class = "factor")
structure("a", class = "Date")
structure(1:3, class = "data.frame")
""".strip().splitlines()


@pytest.fixture(scope="module")
def r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteR]:
    with host_session(tmp_path_factory.mktemp("home")) as session:
        yield session


def assert_identical(r: RemoteR, code: str, *, simplify: bool = True) -> Any:
    r.run(f"original <- {code}", on_output=print)
    value = r.pull("original", simplify=simplify)
    r.push("x", value)
    # A function's environment and source are copies.
    same = "identical(x, original, ignore.srcref = TRUE, ignore.environment = TRUE, ignore.bytecode = TRUE)"
    assert r.eval(same) is True, r.eval("capture.output(str(list(original, x)))")
    return value


class TestThereAndBack:
    @pytest.mark.parametrize("simplify", [True, False])
    @pytest.mark.parametrize("code", [*VECTORS, *ARRAYS, *STRINGS, *LISTS])
    def test_values(self, r: RemoteR, code: str, simplify: bool) -> None:
        value = assert_identical(r, code, simplify=simplify)
        assert not isinstance(value, RObject) or code.startswith(("I(list", "structure(list", "addNA"))

    @pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
    @pytest.mark.parametrize("code", [*TIMES, *FRAMES])
    def test_times_and_frames_in_two_zones(self, r: RemoteR, code: str, zone: str) -> None:
        r.eval(f"Sys.setenv(TZ = '{zone}')")
        try:
            value = assert_identical(r, code, simplify=False)
        finally:
            r.eval("Sys.unsetenv('TZ')")
        # What no client can tell: years beyond 200000.
        assert not isinstance(value, RObject) or "1e15" in code

    @pytest.mark.parametrize("code", OPAQUE)
    def test_what_has_no_python_form(self, r: RemoteR, code: str) -> None:
        assert isinstance(assert_identical(r, code), RObject)

    def test_environments_keep_what_is_in_them(self, r: RemoteR) -> None:
        r.push("x", r.eval("local({ a <- 42; environment() })"))
        assert r.eval("x$a") == 42

    def test_saved_objects_are_read_by_r(self, r: RemoteR, tmp_path: Any) -> None:
        r.eval("lm(dist ~ speed, cars)").save(tmp_path / "fit.rds")
        assert r.eval(f"class(readRDS('{tmp_path / 'fit.rds'}'))") == "lm"


class TestSimplify:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("1", "f"),
            ("1L", "i"),
            ("TRUE", "b"),
            ("'a'", "O"),
            ("1i", "c"),
            ("Sys.Date()", "M"),
            ("Sys.time()", "M"),
        ],
    )
    def test_length_1_stays_an_array(self, r: RemoteR, code: str, kind: str) -> None:
        for value in [
            r.eval(code, simplify=False),
            r.eval(f"list(a = {code})", simplify=False)["a"],
            r.run(f"v <- {code}", outputs=["v"], simplify=False)["v"],
            r.eval(f"data.frame(l = I(list(1, {code})))", simplify=False)["l"][1],
        ]:
            assert value.shape == (1,)
            assert value.dtype.kind == kind
        assert np.ndim(r.eval(code)) == 0

    def test_na_and_null_stay(self, r: RemoteR) -> None:
        assert r.eval("NA", simplify=False).isna().tolist() == [True]
        assert r.eval("NULL", simplify=False) is None


class TestOrigin:
    FRAME = """d <- data.frame(id = 1:3, t = as.difftime(c(1, 2.5, 4), units = "hours"))
        attr(d$id, "label") <- "the number"; attr(d, "note") <- "n"
        class(d) <- c("tbl_df", "tbl", "data.frame"); invisible(d)"""

    def test_is_read_from_python(self, r: RemoteR) -> None:
        matrix = r.eval("scale(matrix(c(1, 2, 3, 4), 2))")
        assert isinstance(matrix, RArray)
        assert matrix.attributes["scaled:center"].tolist() == [1.5, 3.5]
        assert r.eval(self.FRAME).attrs["R"].attributes["note"] == "n"

    def test_changed_values_keep_what_still_applies(self, r: RemoteR) -> None:
        frame = r.eval(self.FRAME)
        frame["id"] = frame["id"] * 10
        frame.loc[0, "t"] = pd.Timedelta(minutes=1)
        r.push("x", frame)
        assert r.eval("attributes(x$id)") == {"label": "the number"}
        assert r.eval("x$id").tolist() == [10, 20, 30]
        assert r.eval("as.double(x$t, units = 'mins')").tolist() == [1, 150, 240]
        assert r.eval("class(x)").tolist() == ["tbl_df", "tbl", "data.frame"]

    def test_fewer_rows_are_not_given_what_was_told_of_all(self, r: RemoteR) -> None:
        r.push("x", r.eval(self.FRAME).iloc[:2])
        assert r.eval("attributes(x)$note") is None
        assert r.eval("attributes(x$id)") is None
        assert r.eval("as.double(x$t, units = 'hours')").tolist() == [1, 2.5]

    def test_one_column_is_not_the_frame(self, r: RemoteR) -> None:
        r.push("x", r.eval(self.FRAME)["t"])
        assert r.eval("identical(x, d$t)")

    def test_duplicate_names_keep_their_own(self, r: RemoteR) -> None:
        r.run("d <- data.frame(a = 1:2, b = 3:4); attr(d$a, 'label') <- 'L1'; names(d) <- c('a', 'a')")
        frame = r.pull("d")
        for some in (frame.iloc[:, [1, 0]], frame.iloc[:, [1]], frame.iloc[:, [1, 1]]):
            r.push("x", some)
            assert not any(r.eval("vapply(x, function(column) 'label' %in% names(attributes(column)), NA)",
                                  simplify=False))  # fmt: skip

    @pytest.mark.parametrize("code", ["c(c = 3, a = 1, b = 2)", "tapply(c(3, 1, 2), c('a', 'b', 'c'), sum)"])
    def test_names_of_values_do_not_stay_behind(self, r: RemoteR, code: str) -> None:
        r.run(
            f"d <- structure(list(x = {code}, k = c(1, 1, 1)), class = 'data.frame', row.names = c(NA, -3L))"
        )
        frame = r.pull("d")
        r.push("x", frame.sort_values("x", ignore_index=True))
        assert r.eval("list(unname(x$x), names(x$x))")[0].tolist() == [1, 2, 3]
        assert r.eval("names(x$x)") is None
        r.push("x", frame.assign(x=5.0, k=frame["x"].to_numpy()).sort_values("k"))
        assert r.eval("names(x$x)") is None
        r.push("x", frame.assign(k=2.0))
        assert r.eval("identical(x$x, d$x)")

    def test_labels_and_classes_stay_with_changed_values(self, r: RemoteR) -> None:
        r.run("""d <- data.frame(q = c(1, 2, 1)); attr(d$q, "labels") <- c(no = 1, yes = 2)
            class(d$q) <- c("haven_labelled", "vctrs_vctr", "double")
            d$g <- structure(c("a", "b", "c"), class = c("glue", "character")); d$s <- ts(1:3, start = 2000)""")
        frame = r.pull("d")
        assert frame["q"].tolist() == [1, 2, 1] and frame["g"].tolist() == ["a", "b", "c"]
        known = frame.attrs["R"].columns[0].attributes
        assert known["labels"].to_dict() == {"no": 1, "yes": 2}
        assert known["class"].tolist()[0] == "haven_labelled"
        frame.loc[0, ["q", "g"]] = [2, "z"]
        r.push("x", frame.assign(s=[3, 2, 1]).astype({"s": "int32"}))
        assert r.eval("identical(attributes(x$q), attributes(d$q)) && identical(class(x$g), class(d$g))")
        assert r.eval("list(unclass(x$q)[1], unclass(x$g)[1], attributes(x$s))")[1:] == ["z", None]

    def test_computed_arrays_are_plain(self, r: RemoteR) -> None:
        matrix = r.eval("scale(matrix(c(1, 2, 3, 4), 2))")
        r.push("x", matrix * 2)
        assert r.eval("names(attributes(x))") == "dim"

    def test_frames_are_copied_joined_and_stored(self, r: RemoteR) -> None:
        frame = r.eval(self.FRAME)
        for other in (copy.deepcopy(frame), pickle.loads(pickle.dumps(frame))):
            r.push("x", other)
            assert r.eval("identical(x, d)")
        assert len(pd.concat([frame, r.eval(self.FRAME)])) == 6

    def test_groups_are_not_sent_back_for_rows_that_may_have_moved(self, r: RemoteR) -> None:
        r.eval("""g <- structure(list(a = 1:2), class = c("grouped_df", "tbl_df", "tbl", "data.frame"),
                  row.names = c(NA, -2L), groups = data.frame(a = 1:2)); invisible(1)""")
        frame = r.pull("g")
        assert isinstance(frame, pd.DataFrame)
        r.push("x", frame)
        assert r.eval("class(x)").tolist() == ["tbl_df", "tbl", "data.frame"]


class TestPackages:
    """What packages make of R's vectors, where they are installed: on a node."""

    @pytest.fixture
    def r(self, cluster: Cluster) -> RemoteR:
        return cluster.r()

    @pytest.mark.parametrize(
        "code",
        [
            "tibble::tibble(a = 1:2, b = c('x', NA), m = matrix(1:4, 2), t = tibble::tibble(p = 1:2))",
            "tibble::tibble(g = glue::glue('a{1:2}'), l = vctrs::list_of(1, 2:3))",
            "tibble::tibble(r = vctrs::new_rcrd(list(a = 1:2, b = 3:4)), i = bit64::as.integer64(2^60) + 1:2)",
            "{ d <- ggplot2::mpg; d$z <- scale(d$cty); d }",
        ],
    )
    def test_tibbles(self, r: RemoteR, code: str) -> None:
        assert isinstance(assert_identical(r, code), pd.DataFrame)
        frame = r.pull("original")
        r.push("x", frame.iloc[::-1])
        assert r.eval(
            "all(mapply(function(a, b) identical(c(a), c(b)), x, original[rev(seq_len(nrow(original))), ]))"
        )


class TestColumnsWithoutAForm:
    """A matrix, a survival time, a data frame in a data frame: R's own, row by row."""

    CODE = """d <- data.frame(a = c(3, 1, 2)); d$m <- matrix(1:6, 3); d$s <- survival::Surv(1:3, c(0, 1, 1))
        d$f <- data.frame(p = 1:3, q = letters[1:3])"""

    @pytest.fixture
    def frame(self, r: RemoteR) -> Any:
        r.run(self.CODE)
        return r.pull("d")

    def test_the_others_are_pandas(self, frame: Any) -> None:
        assert frame["a"].tolist() == [3, 1, 2]
        cell = frame["m"][1]
        assert isinstance(cell, RCell)
        assert (repr(cell), cell.row) == ("<matrix/array, row 2>", 1)
        assert "[3,]" in repr(cell.column)

    def test_a_long_one_is_printed_in_part(self, r: RemoteR) -> None:
        r.run("d <- data.frame(a = 1:50000); d$m <- cbind(d$a, d$a); old <- options('max.print')")
        lines = repr(r.pull("d")["m"][0].column).splitlines()
        assert lines[1].split()[0] == "[1,]" and lines[-1] == "..." and len(lines) == 41
        assert r.eval("identical(options('max.print'), old)")
        assert len(repr(r.eval("lm(dist ~ speed, cars)")).splitlines()) < 20

    def test_one_notice_names_them(self, tmp_path: Any) -> None:
        said: list[str] = []
        with host_session(tmp_path, on_notice=lambda notice: said.append(notice.text)) as r:
            r.run(self.CODE)
            r.eval("list(d, 1)")
            assert len(said) == 1
            assert said[0].endswith(": 'm' (matrix/array), 's' (Surv), 'f' (data.frame)")
            r.submit("d").result()
            assert len(said) == 2
            r.eval("iris")
            r.run("d")
        assert len(said) == 2

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda d: d.sort_values("a"), "d[order(d$a), ]"),
            (
                lambda d: d.sort_values("a", ignore_index=True),
                "{ x <- d[order(d$a), ]; rownames(x) <- NULL; x }",
            ),
            (lambda d: d[d["a"] > 1], "d[d$a > 1, ]"),
            (lambda d: d.iloc[:0], "d[0, ]"),
            (lambda d: d[["s", "a"]], "d[c('s', 'a')]"),
            (lambda d: d.rename(columns={"m": "n"}), "setNames(d, c('a', 'n', 's', 'f'))"),
            (lambda d: d.assign(a=9.0), "transform(d, a = c(9, 9, 9))"),
            (lambda d: d["m"], "d$m"),
            (lambda d: d["s"][1:], "d$s[2:3]"),
            (lambda d: d["f"][2], "d$f[3, ]"),
            (lambda d: pickle.loads(pickle.dumps(d)), "d"),
        ],
    )
    def test_rows_that_are_left_return(self, r: RemoteR, frame: Any, change: Any, code: str) -> None:
        r.push("x", change(frame))
        assert r.eval(f"all.equal(x, {code}, check.attributes = !is.data.frame(x))") is True
        assert r.eval(
            f"!is.data.frame(x) || all(mapply(identical, lapply(x, unclass), lapply({code}, unclass)))"
        )

    def test_rows_of_several_are_refused(self, r: RemoteR, frame: Any) -> None:
        r.eval("d$m <- d$m + 1L; NULL")
        for other in (pd.concat([frame, r.pull("d")]), frame.reindex([0, 1, 5])):
            with pytest.raises(ValueRefused, match="column 'm' of x: rows of different R objects"):
                r.push("x", other)
