"""How R on the master feels in a notebook: completions, help, questions, plots, tables, much text, rpy2's options."""

from __future__ import annotations

import base64
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from localcloud_nodes import until
from nbclient.util import run_sync
from notebook_kernel import Kernel, Outputs, one_message

from ppe_jupyter.errors import RemoteInterrupted
from ppe_jupyter.frontends.notebook import r_help
from ppe_jupyter.manager import Manager
from ppe_jupyter.remote.sessions import attached
from ppe_jupyter.remote.sessions.session import RemoteR

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster


def completed(kernel: Kernel, code: str) -> list[str]:
    """What Tab offers at the end of ``code``, with what is there already."""

    async def ask() -> Any:
        return await kernel.client.kc.complete(code, reply=True, timeout=30)

    content = run_sync(ask)()["content"]
    assert content["cursor_end"] == len(code)
    return [code[: content["cursor_start"]] + each for each in content["matches"]]


def inspected(kernel: Kernel, code: str, at: int | None = None) -> str:
    """What Shift-Tab shows with the cursor at the end of ``code``, or ``at``."""

    async def ask() -> Any:
        return await kernel.client.kc.inspect(code, at, reply=True, timeout=30)

    content = run_sync(ask)()["content"]
    return str(content["data"]["text/plain"]) if content["found"] else ""


class TestTyping:
    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("%%remote_r\nmean(x", "mean(x"),
            ("%%remote_r -i x\nmean(x", "mean(x"),
            ("y = %remote_r -i x mean(x", "mean(x"),
            ("%remote_r ", ""),
            ("%remote_r -i x", None),
            ("%remote_r -i ", None),
            ("%remote_r -n -w 3 x$", "x$"),
            ("%%remote_r --wi", None),
            ("%%remote_sh\nls", None),
            ("x = 1\nmean(x", None),
            ("%remote_r", None),
        ],
    )
    def test_which_code_is_rs(self, text: str, code: str | None) -> None:
        assert r_help.code_before(text) == code

    @pytest.mark.parametrize(
        ("code", "name"),
        [
            ("me|an(x)", "mean"),
            ("x <- df$a|", "df$a"),
            ("stats::s|d(x)", "stats::sd"),
            ("paste(a, |", "paste"),
            ("f(g(1), # not (this\n  'nor (that',\n  |", "f"),
            ("f(1)|", ""),
            ("|", ""),
        ],
    )
    def test_which_name_is_meant(self, code: str, name: str) -> None:
        cell = f"%%remote_r\n{code}"
        assert r_help.name_at(cell.replace("|", ""), cell.index("|")) == name

    def test_tab_completes_from_the_session(self, kernel: Kernel) -> None:
        kernel.cell("%%remote_r\ncities <- data.frame(people = 1, `a b` = 2, check.names = FALSE)")
        assert completed(kernel, "%%remote_r\nx <- citi") == ["%%remote_r\nx <- cities"]
        assert completed(kernel, "%remote_r cities$p") == ["%remote_r cities$people"]
        assert completed(kernel, "%%remote_r\ncities$a") == ["%%remote_r\ncities$`a b`"]
        assert "%%remote_r\nstats::median" in completed(kernel, "%%remote_r\nstats::med")
        assert "%%remote_r\nsample(9, # (don't\n  replace=" in [
            each.replace(" = ", "=") for each in completed(kernel, "%%remote_r\nsample(9, # (don't\n  repl")
        ]
        assert "%%remote_r\nlibrary(survival" in completed(kernel, "%%remote_r\nlibrary(surv")
        assert '%%remote_r\nread.csv("/etc/hostname' in completed(kernel, '%%remote_r\nread.csv("/etc/hostna')
        assert completed(kernel, "%%remote_r\nnosuchthing") == []
        # Python's names are none of R's, and options none of R's code.
        kernel.cell("cities_of_python = 1")
        assert completed(kernel, "%%remote_r\ncities_of") == []
        assert completed(kernel, "cities_of") == ["cities_of_python"]
        assert completed(kernel, "%%remote_r --nore") == ["%%remote_r --noreturn"]

    def test_tab_asks_the_session_that_the_cell_names(self, kernel: Kernel, cluster: Cluster) -> None:
        cluster.r("tabbed").eval("only_there <- 1")
        cell = "%%remote_r --session tabbed\nonly_th"
        until(lambda: completed(kernel, cell) == [f"{cell}ere"])
        # One that is only being typed does not start.
        assert completed(kernel, "%%remote_r --session tabb\nonly_th") == []
        cluster.close_session("tabbed")
        assert completed(kernel, "%%remote_r --session tabb\nonly_th") == []
        assert {row["name"] for row in cluster.sessions()} == {"main"}

    def test_inspection_shows_help_and_data(self, kernel: Kernel) -> None:
        kernel.cell("%remote_r counts <- 1:3;")
        # Within the time that R gives itself; a machine with much else to do may need another try.
        shown = until(lambda: inspected(kernel, "%%remote_r\nmedian(x, "))
        assert shown.startswith("median(x, na.rm = FALSE") and "Median Value" in shown
        assert "int [1:3] 1 2 3" in inspected(kernel, "%%remote_r\ncounts")
        assert inspected(kernel, "%%remote_r\nno.such.thing") == ""
        assert "Return the length" in inspected(kernel, "len") or "number of items" in inspected(
            kernel, "len"
        )

    def test_a_busy_r_is_not_asked(self, r: RemoteR, monkeypatch: pytest.MonkeyPatch) -> None:
        other = RemoteR(r._connection)
        monkeypatch.setattr(attached, "ASKING_SECONDS", 600.0)
        asked: list[bool] = []

        def ask(_: object) -> None:
            asked.append(other.complete("mea") == ("", []) and other.help("mean") == {})
            other.interrupt()

        with other, pytest.raises(RemoteInterrupted):
            other.complete("x")  # attaches
            r.run("cat('begun'); Sys.sleep(600)", on_output=ask)
        assert asked == [True]

    def test_what_is_slow_or_fails_is_no_completion(self, r: RemoteR) -> None:
        r.eval(
            "slow <- structure(list(), class = 'slow'); .DollarNames.slow <- function(x, pattern) Sys.sleep(60)"
        )
        r.eval(
            "bad <- structure(list(), class = 'bad'); .DollarNames.bad <- function(x, pattern) stop('bad')"
        )
        r.eval("noisy <- structure(list(a = 1), class = 'noisy')")
        r.eval(".DollarNames.noisy <- function(x, pattern) { message('noise'); warning('more'); 'a' }")
        assert r.complete("slow$") == ("", [])
        assert r.complete("bad$")[1] == []
        # A machine with much else to do may need more than the time that R gives itself.
        until(lambda: r.complete("noisy$") == ("noisy$", ["noisy$a"]))
        assert r.eval("Sys.sleep(0.4); 1") == 1
        assert (
            r.eval("set.seed(1); runif(1)")
            == (r.eval("set.seed(1)"), r.complete("me"), r.eval("runif(1)"))[2]
        )

    def test_help_is_a_page(self, kernel: Kernel) -> None:
        for code in ("?median", "help('median')"):
            shown = kernel.cell(f"%%remote_r\n{code}")
            assert shown.data("text/plain")[0].startswith("median ") and "\b" not in str(shown)
            assert "<h3>Usage</h3>" in shown.data("text/html")[0] and "href" not in str(shown)
        assert "Median Value" in kernel.cell("%%remote_r\nf <- function() print(?median); f()").stdout
        assert "No documentation for ‘nosuch’" in kernel.cell("%%remote_r\n?nosuch").stdout


class TestQuestions:
    def test_r_asks_in_the_notebook(self, kernel: Kernel) -> None:
        asked = kernel.answered("%%remote_r\nx <- readline('Name? ')\nx", "Ada")
        assert asked == 'Name? [1] "Ada"\n'
        assert kernel.answered("%%remote_r\nmenu(c('a', 'b'))", "2").endswith("Selection: [1] 2\n")
        assert kernel.answered("%%remote_r\nreadLines(stdin(), 1)", "typed") == '[1] "typed"\n'
        assert "[1] 4 4" in kernel.answered("%%remote_r\nscan(n = 2)", "4")
        debugged = kernel.answered("%%remote_r\nf <- function(x) { browser(); x * 2 }\nf(4)", "c")
        assert "Browse[1]> " in debugged and debugged.endswith("[1] 8\n")
        debugged = kernel.answered("%%remote_r\nf <- function(x) x * 2\ndebug(f)\nf(5)\nundebug(f)", "c")
        assert "debug: x * 2" in debugged or "debugging in: f(5)" in debugged
        assert "Browse[2]> " in debugged and debugged.endswith("[1] 10\n")
        assert kernel.answered("y = %remote_r readline()\nprint(y)", "line").endswith("line\n")

    def test_nobody_to_ask_is_said_once(self, kernel: Kernel) -> None:
        shown = kernel.cell("%%remote_r\nreadline('Name? ')\nreadline('Again? ')")
        assert shown.stderr.count("nobody here to ask") == 1
        assert shown.stdout == 'Name? [1] ""\nAgain? [1] ""\n' and shown.error is None


class TestJobs:
    def test_in_the_background(self, kernel: Kernel) -> None:
        job = kernel.cell("%%remote_r --background -o y\ncat('begun\\n'); y <- 6 * 7; y")
        assert re.fullmatch(r"<Job \d+: \w+, .*>", job.result or "")
        watched = kernel.cell("job = _\njob.watch()\nprint(job.result()['y'], job.status)")
        assert watched.stdout == "begun\n[1] 42\n42.0 done\n"
        assert kernel.cell("job = %remote_r --background 6 * 7\njob.result()").result == "42.0"

    def test_while_another_client_evaluates(self, kernel: Kernel, cluster: Cluster) -> None:
        other = Manager().cluster(cluster.name)
        other.r().submit("for (i in 1:10) { cat('tick', i, '\\n'); Sys.sleep(0.1) }")
        watched = kernel.cell("%%remote_r --watch\n'mine'")
        assert "R evaluates for" in watched.stderr
        assert watched.stdout.endswith('tick 10 \n[1] "mine"\n')
        theirs = other.r().submit("Sys.sleep(60)")
        assert kernel.cell("%%remote_r --take-over\n1").stdout == "[1] 1\n"
        assert theirs.status == "interrupted"
        other.close()

    def test_in_a_new_session(self, kernel: Kernel, cluster: Cluster) -> None:
        kernel.cell("%%remote_r --session anew\nold <- 1")
        try:
            assert kernel.cell("%%remote_r --session anew --fresh\nnew <- 1; ls()").stdout == '[1] "new"\n'
        finally:
            cluster.close_session("anew")

    def test_the_log_shows_its_end(self, kernel: Kernel) -> None:
        kernel.cell("%%remote_r\nfor (i in 1:80) { cat('out', i, '\\n'); message('err ', i) }")
        shown = kernel.cell("%remote_r_log")
        assert re.match(r"\(from event \d+ on; --since 0: from the beginning\)\nout \d\d \n", shown.stdout)
        assert "out 80 \n(event" in shown.stdout and "out 9 \n" not in shown.stdout
        whole = kernel.cell("%remote_r_log --since 0 --lines 3")
        assert "out 80 \n(event" in whole.stdout and "from event" not in whole.stdout
        (told,) = [text for text in whole.data("text/plain") if "not shown" in text]
        assert "%remote_r_log" not in told


def test_a_value_that_takes_long_has_a_bar(kernel: Kernel) -> None:
    at_once = "from ppe_jupyter.remote.line import link\nafter, link.SHOWN_AFTER = link.SHOWN_AFTER, 0"
    assert kernel.cell(f"{at_once}\n%remote_r -n x <- as.double(1:2e6)").error is None
    for cell in ("%remote_pull x", "%remote_push x"):
        (bar,) = kernel.cell(cell).data("text/plain")
        assert re.fullmatch(r"✓ values: \d+ s.*", bar)
    kernel.cell("link.SHOWN_AFTER = after")
    assert not kernel.cell("%remote_pull x").data("text/plain")


class TestMuchText:
    def test_head_and_tail_are_shown_and_the_rest_is_counted(self, kernel: Kernel) -> None:
        shown = kernel.cell("%%remote_r\nfor (i in 1:30000) cat('line', i, '\\n')\nplot(1)")
        lines = shown.stdout.splitlines()
        assert [line.rstrip() for line in lines[:2000]] == [f"line {i}" for i in range(1, 2001)]
        assert [line.rstrip() for line in lines[2000:]] == [f"line {i}" for i in range(29_901, 30_001)]
        (told,) = [text for text in shown.data("text/plain") if "not shown" in text]
        assert "27,900 lines" in told and "%remote_r_log" in told
        assert len(shown.data("image/svg+xml")) == 1

    def test_the_limit_can_be_set(self, kernel: Kernel) -> None:
        assert (
            len(kernel.cell("%%remote_r --lines 5000\ncat(1:4000, sep = '\\n')").stdout.splitlines()) == 4000
        )
        few = kernel.cell("%%remote_r --lines 3\nfor (i in 1:500) message(i)\nstop('end')")
        assert few.stderr.split() == [str(i) for i in (1, 2, 3, *range(401, 501))]
        assert "end" in one_message(few)
        assert len(kernel.cell("%%remote_sh --lines 2\nseq 500").stdout.splitlines()) == 102


class TestTables:
    def test_a_data_frame_is_a_table_and_text(self, kernel: Kernel) -> None:
        shown = kernel.cell("%%remote_r\ndata.frame(n = 1:500, s = 'x')")
        assert "500 rows, 2 columns" in shown.data("text/html")[0]
        assert shown.data("text/html")[0].count("<tr>") == 31
        text = shown.data("text/plain")[0].splitlines()
        assert text[1].split() == ["1", "1", "x"] and text[-1] == "[ the first 200 of 500 rows ]"

    def test_a_page_for_a_viewer_is_whole(self, kernel: Kernel) -> None:
        code = """
            dir.create(page <- tempfile()); writeLines("var answer = 42", file.path(page, "a.js"))
            html <- "<p>pages</p><script src=\\"a.js\\"></script><a href=\\"https://r-project.org\\">R</a>"
            writeLines(html, file.path(page, "index.html"))
            for (i in 1:2) getOption("viewer")(file.path(page, "index.html"))
            getOption("viewer")("https://r-project.org")
        """
        shown = kernel.cell(f"%%remote_r\n{textwrap.dedent(code)}")
        script = base64.b64encode(b"var answer = 42\n").decode()
        link = '<a href="https://r-project.org">R</a>'
        page = f'<p>pages</p><script src="data:application/javascript;base64,{script}"></script>{link}'
        assert shown.data("text/html") == [page, page] and shown.stdout == "https://r-project.org\n"

    def test_methods_of_package_repr_are_honoured(self, kernel: Kernel) -> None:
        kernel.cell(
            "%%remote_r\nrepr_html.flag <- function(obj, ...) '<b>flag</b>'\n"
            "repr_svg.flag <- function(obj, ...) '<svg/>'\nprint.flag <- function(x, ...) cat('a flag\\n')"
        )
        shown = kernel.cell("%%remote_r\nstructure(1, class = 'flag')")
        assert shown.data("text/html") == ["<b>flag</b>"] and shown.data("image/svg+xml") == ["<svg/>"]
        assert shown.data("text/plain") == ["a flag"] and shown.stdout == ""
        # What R's console prints as text stays text.
        shown = kernel.cell("%%remote_r\nfactor('a')\nmatrix(1)\nlm(dist ~ speed, cars)")
        assert not shown.data("text/html") and "Levels: a" in shown.stdout and "Coefficients" in shown.stdout


def svgs(outputs: Outputs) -> list[str]:
    return [str(svg) for svg in outputs.data("image/svg+xml")]


class TestPlots:
    def test_large_ones_and_those_that_shall_be_are_png(self, kernel: Kernel) -> None:
        shown = kernel.cell(
            "%%remote_r\nplot(1:10)\nplot(rnorm(20000))\nplot(cumsum(rnorm(1e5)), type = 'l')"
        )
        assert len(svgs(shown)) == 1 and len(shown.data("image/png")) == 2
        assert all(len(svg) < 2**20 for svg in svgs(shown))
        shown = kernel.cell("%%remote_r --png\nplot(1)")
        assert not svgs(shown) and len(shown.data("image/png")) == 1

    def test_each_kind_of_graphics(self, kernel: Kernel) -> None:
        code = (
            "library(lattice); xyplot(dist ~ speed, cars)\ngrid::grid.newpage(); grid::grid.circle()\n"
            "par(mfrow = c(1, 2)); hist(cars$speed); boxplot(cars)\nlegend('top', 'a legend')\ndev.off()\n"
            "f <- function() { pie(1:3); for (i in 1:2) barplot(i) }; f()"
        )
        shown = kernel.cell(f"%%remote_r\n{code}")
        assert len(svgs(shown)) == 6
        identifiers = [set(re.findall(r' id="(.*?)"', svg)) for svg in svgs(shown)]
        assert sum(map(len, identifiers)) == len(set.union(*identifiers))

    def test_a_notebook_keeps_them(self, kernel: Kernel, tmp_path: Path) -> None:
        import nbformat

        kernel.cell("%%remote_r -w 300 -h 200\nplot(1)")
        nbformat.write(kernel.client.nb, tmp_path / "n.ipynb")
        (output,) = nbformat.read(tmp_path / "n.ipynb", as_version=4).cells[-1].outputs
        assert 'width="300" height="200"' in output.data["image/svg+xml"]


RPY2_CELLS = [
    "%%R -i x -o y\ny <- x * 2",
    "%%R -i x,n -o y,s -o t\ny <- x + n; s <- sum(x)\nt <- 'text'",
    "%%R -i given=x -o y\ny <- rev(given)",
    "%%R -i box.inner -o y\ny <- box.inner + 1",
    "%%R --input x --output y\ny <- range(x)",
    "%R -i x -o y y <- cumsum(x)",
    "y = %R -i x mean(x)",
    "y = %R z <- c(1, 4); sd(z); mean(z)",
    "y = %R -n 1 + 1",
    "y = %R 1 + 1;",
    "y = %R NULL",
    "%%R -i df -o y\ny <- aggregate(n ~ g, df, sum)",
    "%%R -c rules -i x -o y\ny <- x^2",
    "%%R -d showing\nx <- 7\nx * 6",
    "%%R -w 300 -h 200 -p 10 -b white -u px -r 100 --type cairo --noisolation -o y\nplot(1)\ny <- 1",
    "%%R --width 4 --height 3 --units in --pointsize 9 --bg grey -o y\nplot(1)\ny <- 1",
    "%%R y <- 40\n#\ny <- y + 2\n",
]
SETUP = """
import warnings; warnings.simplefilter('ignore')
import numpy as np, pandas as pd
from types import SimpleNamespace
from rpy2.robjects import default_converter, numpy2ri
rules = default_converter + numpy2ri.converter
x, n, box = np.array([3.0, 1.0, 2.0]), 10, SimpleNamespace(inner=np.array([1.5]))
df = pd.DataFrame({'g': ['a', 'b', 'a'], 'n': [1.0, 2.0, 3.0]})
def showing(value, arguments):
    global y
    y = np.array([value[0], arguments.display == 'showing'])
def plain(v):
    if isinstance(v, pd.DataFrame):
        return {str(k): each for k, each in v.to_dict('list').items()}
    return None if v is None else np.atleast_1d(np.asarray(v)).tolist()
"""


def test_cells_for_rpy2_run_with_the_name_replaced(kernel: Kernel) -> None:
    pytest.importorskip("rpy2")
    assert kernel.cell(f"{SETUP}\n%load_ext rpy2.ipython").error is None
    results: dict[str, list[str | None]] = {}
    for magic in ("R", "remote_r"):
        for cell in RPY2_CELLS:
            kernel.cell("y = s = t = 'unset'")
            done = kernel.cell(cell.replace("%R", f"%{magic}"))
            assert done.error is None, (magic, cell, done)
            results.setdefault(cell, []).append(kernel.cell("plain(y), plain(s), plain(t)").result)
    assert {cell: ours for cell, (_, ours) in results.items()} == {
        cell: theirs for cell, (theirs, _) in results.items()
    }
    assert "unset" not in str(results[RPY2_CELLS[1]])
    for cell in ("%remote_push x n\n%remote_push given=x", "%%remote_r --noreturn\nx + n"):
        assert kernel.cell(cell).error is None
    assert "no attribute 'missing'" in one_message(kernel.cell("%remote_r -i box.missing 1"))
