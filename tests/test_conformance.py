"""The examples of R's own packages print through the evaluator what they print at R's console."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_r import MISSING, host_session
from plain_r import MORE, PROMPT, Lost, PlainR, examples, plain_r

from ppe_jupyter.errors import RemoteError, RemoteRError
from ppe_jupyter.remote.sessions.session import Display, Output, RemoteR, Text

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

PACKAGES = ("base", "stats", "utils", "graphics", "grDevices", "methods")

# As R's own checks do between examples: each begins in a session like a fresh one.
RESET = """
options(menu.graphics = FALSE, help_type = "text", pdfviewer = "/bin/true")
if (identical(getOption("prompt"), "@prompt@")) {
  options(device = function(...) png(tempfile(), width = 1280, height = 960, res = 144),
          browser = function(url) writeLines(url), viewer = function(url) writeLines(url))
}
attach(new.env(), name = "conformance")
local({
  kept <- options()
  attached <- search()
  folder <- getwd()
  assign("fresh", function() {
    while (sink.number() > 0) sink()
    graphics.off()
    for (name in setdiff(search(), attached)) detach(name, character.only = TRUE)
    options(kept)
    setwd(folder)
    Sys.setlocale("LC_ALL", "C.UTF-8")
    rm(list = ls(.GlobalEnv, all.names = TRUE), envir = .GlobalEnv)
    RNGkind("default", "default", "default")
    set.seed(1)
    invisible()
  }, envir = as.environment("conformance"))
})
"""

# Their output is something else than text, is of this process or moment, or R's own console is part of it.
EXPLAINED = {
    "base/Cstack_info": "the evaluator's own frames are below the user's",
    "base/sys.parent": "the evaluator's own frames are below the user's: sys.calls() has them",
    "base/taskCallback": "task callbacks are called by R's own top level only",
    "base/taskCallbackManager": "task callbacks are called by R's own top level only",
    "base/taskCallbackNames": "task callbacks are called by R's own top level only",
    "base/showConnections": "three connections are the evaluator's",
    "base/connections": "lists the folder, where the other R has written",
    "base/c": "lists the options; device, pager, browser and prompt are the evaluator's",
    "base/options": "lists the options; device, pager, browser and prompt are the evaluator's",
    "base/mode": "lists the options; device, pager, browser and prompt are the evaluator's",
    "utils/str": "lists the options; device, pager, browser and prompt are the evaluator's",
    "utils/browseEnv": "lists the options; device, pager, browser and prompt are the evaluator's",
    "base/source": "what is echoed is cut after so many letters, of which the prompt is some",
    "base/Sys.getenv": "variables of the process",
    "base/formatDL": "variables of the process",
    "base/Sys.getpid": "numbers of the process",
    "base/getLoadedDLLs": "addresses and libraries of the process",
    "base/gc": "memory of the process",
    "base/memory.profile": "memory of the process",
    "base/NA": "times",
    "base/as.POSIXlt": "times",
    "base/difftime": "times",
    "base/Random": "a seed from the clock",
    "base/tempfile": "names made up",
    "base/file.access": "lists the folder",
    "base/file.info": "lists the folder",
    "base/detach": "connections that the garbage collector closes, when it does",
    "base/warnings": "connections that the garbage collector closes, when it does",
    "base/with": "connections that the garbage collector closes, when it does",
    "base/save": "the size of a file, which has other options in it",
    "base/unlist": "lists the options; device, pager, browser and prompt are the evaluator's",
    "utils/Question": "R's pager shows one more empty line",
    "utils/data": "R's pager shows one more empty line",
    "utils/help": "R's pager shows one more empty line",
    "utils/RSiteSearch": "a browser, which is not there",
    "utils/help.start": "a port",
    "utils/hashtab": "sorted by address",
    "utils/getParseData": "the evaluator parses a cell as a file is parsed, which keeps such data",
    "utils/sourceutils": "the evaluator's source has a name",
    "base/curlGetHeaders": "the network",
    "base/dcf": "the network",
}

# Warnings, errors, conditions, printing, connections, echo, S4, plots: what the evaluator has a part in.
SAMPLE = {
    "base": [
        "paste",
        "print.default",
        "conditions",
        "warning",
        "stop",
        "try",
        "lapply",
        "factor",
        "table",
        "merge",
        "data.frame",
        "regmatches",
        "sprintf",
        "format",
        "encodeString",
        "iconv",
        "cat",
        "textconnections",
        "scan",
        "readLines",
        "readBin",
        "serialize",
        "on.exit",
        "invisible",
        "withVisible",
        "match.call",
        "do.call",
        "environment",
        "delayedAssign",
        "switch",
        "eval",
        "substitute",
        "traceback",
        "strptime",
        "noquote",
        "funprog",
        "gettext",
    ],
    "stats": ["lm", "glm", "t.test", "dist", "ftable", "aggregate", "Normal", "predict.lm"],
    "utils": ["head", "read.table", "combn", "stack", "type.convert"],
    "graphics": ["layout", "boxplot"],
    "grDevices": ["boxplot.stats", "dev2"],
    "methods": ["show", "new", "slot", "validObject", "callGeneric"],
}

# What is another thing each time, or is named differently: R calls what is typed at its prompt nothing, we "<cell>".
MASKS = [
    (r".\x08", ""),  # underlined on a typewriter
    (r"0x[0-9a-f]{6,}", "0xADDRESS"),
    (r"/tmp/\S*", "TEMP"),
    (r"(plot|file|Rtmp|Rf|Rprof)[0-9a-zA-Z]{6,}", "TEMP"),
    (r"\d\d:\d\d(:\d\d(\.\d+)?)?", "TIME"),
    (r"(?m)^( *\d+\.\d+){3,5} *$", "SECONDS"),
    (r"Warning messages?:\n((\d+: )?(In [^\n]+ :\n? +)?closing unused connection [^\n]*\n)+", ""),
    (r" at <cell>#\d+| at #\d+", ""),
]


def masked(text: str) -> list[str]:
    text = text.replace(PROMPT, "> ").replace(MORE, "+ ")
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    return [line.rstrip() for line in text.split("\n")]


def through_the_evaluator(r: RemoteR, code: str) -> tuple[str, bool]:
    """What is shown, and whether it ended with an error."""
    shown: list[str] = []

    def show(output: Output) -> None:
        shown.append(output.text if isinstance(output, Text) else _plain(output))

    try:
        r.run(code, on_output=show, timeout=60)
    except RemoteRError as error:
        text = re.sub(r"\n\((line \d+ of the cell|calls: )[^\n]*\)$", "", str(error))
        return "".join(shown) + text + "\n", True
    return "".join(shown), False


def _plain(display: Display) -> str:
    text = display.data.get("text/plain")
    return f"{text}\n" if text is not None else ""


def difference(r: RemoteR, plain: PlainR, code: str) -> str:
    """How the two differ, in a line each; empty if they do not. After an error only the console goes on."""
    r.run("fresh()")
    plain.run("fresh()")
    ours, failed = through_the_evaluator(r, code)
    theirs = plain.run(code)
    a, b = masked(theirs), masked(ours)
    if failed:
        a = [*a[: len(b) - 1], ""]
    return "\n".join(difflib.unified_diff(a, b, "console", "evaluator", lineterm="", n=1))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RemoteR, PlainR]]:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    with host_session(tmp_path / "ours") as r, plain_r(tmp_path / "theirs") as plain:
        r.eval(RESET)
        plain.run(RESET.strip())
        yield r, plain


def differences(pair: tuple[RemoteR, PlainR], pages: dict[str, str]) -> dict[str, str]:
    """What differs, by page; an R that was lost is a difference, and the last."""
    found = {}
    for page, code in pages.items():
        try:
            text = difference(*pair, code)
            if page not in EXPLAINED:  # of those it counts that both R live on, with what the page has loaded
                found[page] = text
        except (Lost, RemoteError) as exc:
            found[page] = repr(exc)
            break
    return {page: text for page, text in found.items() if text}


def test_a_sample_of_examples(pair: tuple[RemoteR, PlainR], tmp_path: Path) -> None:
    pages = examples(tmp_path, SAMPLE)
    assert len(pages) == sum(map(len, SAMPLE.values()))
    assert not differences(pair, pages)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("package", PACKAGES)
def test_every_example(pair: tuple[RemoteR, PlainR], tmp_path: Path, package: str) -> None:
    found = differences(pair, examples(tmp_path, {package: []}))
    assert not found, "\n".join(f"{page}\n{text}" for page, text in found.items())
