"""Damaged values at both ends: an error, never a crash, a hang or a step out of line."""

from __future__ import annotations

import datetime as dt
import random
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from host_r import MISSING
from hypothesis import given
from hypothesis import strategies as st

import ppe_jupyter.node
from ppe_jupyter.node.wire.protocol import ProtocolError
from ppe_jupyter.remote.values import RArray, RCell, RObject, decode, encode

COLUMNS = ":".join(
    str(Path(ppe_jupyter.node.__file__).parent / "r" / f"{room}.R") for room in ("columns", "decoding")
)
# Of matrix(1:4, 2).
SERIALIZED = bytes.fromhex(
    "420a030000000202040000050300050000005554462d380d020000040000000100000002000000030000000400000002"
    "04000001000000090004000300000064696d0d000000020000000200000002000000fe000000"
)
MATRIX = RObject("", ("matrix", "array"), SERIALIZED)
VALUES: list[Any] = [
    1.5,
    ["a", None, "é"],
    {"a": [1, 2, None], "b": {"c": None}},
    pd.DataFrame(
        {"i": [1, 2], "s": ["x", None], "f": pd.Categorical(["p", "q"]), "d": [dt.date(2024, 1, 1)] * 2}
    ),
    RArray(np.ones((2, 2)), [["a", "b"], None]),
    [dt.datetime(2024, 1, 1), None],
    np.array([1 + 2j, 3]),
    b"bytes",
    pd.DataFrame({"a": [1, 2], "m": [RCell(MATRIX, 1), RCell(MATRIX, 0)]}),
]


def body_of(value: Any) -> bytes:
    return b"".join(encode(value))


def damaged(seed: int) -> bytes:
    """A value's bytes: some of its numbers or bytes replaced, and cut or made longer."""
    chance = random.Random(seed)
    body = bytearray(body_of(chance.choice(VALUES)))
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.6:
            at = 8 * chance.randint(0, min(40, len(body) // 8 - 1))
            number = chance.choice([*range(-2, 12), 0.5, 2.0**40, 1e300, float("nan"), -1e9])
            body[at : at + 8] = struct.pack("<d", number)
        else:
            body[chance.randrange(len(body))] = chance.randrange(256)
    length = chance.choice([0, 0, 0, -1, -8, 8])
    return bytes(body[: len(body) + length] if length <= 0 else body + bytes(length))


def test_python_refuses_or_reads_them() -> None:
    refused, seeds = 0, range(3000)
    for seed in seeds:
        try:
            decode(bytearray(damaged(seed)))
        except ProtocolError:
            refused += 1
    assert refused > len(seeds) / 3


@given(st.binary(max_size=200))
def test_python_refuses_garbage(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(bytearray(struct.pack("<d", 3) + body[:23]))


READ = r"""
for (file in strsplit(Sys.getenv("COLUMNS"), ":")[[1]]) sys.source(file, envir = environment())
con <- file("stdin", "rb", raw = TRUE)
n <- readBin(con, "integer", 1L)
for (i in seq_len(n)) {
  size <- readBin(con, "double", 1L)
  first <- readBin(con, "double", 1L)
  what <- tryCatch({ decode(con, size, first); "value" }, error = function(e) "error")
  if (!identical(readBin(con, "integer", 1L), i)) { cat("out of step at", i, "\n"); quit(status = 1) }
  cat(what, "\n")
}
"""


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_r_consumes_exactly_the_body() -> None:
    bodies = [body for seed in range(2000) if len(body := damaged(seed)) >= 8]
    frames = [struct.pack("<d", len(body)) + body + struct.pack("<i", i + 1) for i, body in enumerate(bodies)]
    done = subprocess.run(
        ["Rscript", "-e", READ],
        input=struct.pack("<i", len(bodies)) + b"".join(frames),
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": COLUMNS, "LC_ALL": "C.UTF-8"},
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-300:]
    told = done.stdout.decode().split()
    assert len(told) == len(bodies)
    assert told.count("error") > 700


WRITE = r"""
for (file in strsplit(Sys.getenv("COLUMNS"), ":")[[1]]) sys.source(file, envir = environment())
block <- 1000
con <- pipe("cat", "wb")
x <- list(1:2500, seq(0.5, 3000), rep(c(TRUE, NA), 1700), sprintf("text %d", 1:3000), as.raw(rep(1:250, 9)),
          structure(as.double(1:2001), class = "Date"), factor(rep(letters, 100)))
write_columns(encode(x), con)
close(con)
"""


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_vectors_that_take_several_blocks(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": COLUMNS, "LC_ALL": "C.UTF-8"}
    body = subprocess.run(
        ["Rscript", "-e", WRITE], capture_output=True, env=environment, timeout=60, check=True
    ).stdout
    whole = decode(bytearray(body))
    assert whole[0].tolist() == list(range(1, 2501))
    assert whole[3].tolist() == [f"text {i}" for i in range(1, 3001)]
    assert len(whole[6]) == 2600
    (tmp_path / "body").write_bytes(body_of(whole))
    read = f"""
    for (file in strsplit(Sys.getenv("COLUMNS"), ":")[[1]]) sys.source(file, envir = environment())
    block <- 1000
    con <- file("{tmp_path / "body"}", "rb")
    back <- decode(con, file.size("{tmp_path / "body"}"), readBin(con, "double", 1L))
    {WRITE.partition("x <- ")[1] + WRITE.partition("x <- ")[2].partition("write_columns")[0]}
    cat(identical(back, x))
    """
    told = subprocess.run(
        ["Rscript", "-e", read], capture_output=True, env=environment, timeout=60, check=True
    )
    assert told.stdout == b"TRUE"
