"""Rmpi's own demos, as the package brings them: all compute pi.

But for cslavePI: its program in C writes to a pointer that points nowhere, so that its processes end with SIGSEGV while
R waits for their sum (mpi.reduce), which only a restart of R ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ppe_jupyter.remote.sessions.session import RemoteR

DEMO = "demo('{}', package = 'Rmpi', ask = FALSE, echo = FALSE)"


@pytest.fixture
def workers(r: RemoteR) -> RemoteR:
    """The session with three of Rmpi's workers, which are closed at the end of the test's own code."""
    r.eval("library(Rmpi); mpi.spawn.Rslaves(nslaves = 3, quiet = TRUE)")
    return r


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "call", "error"),
    [
        ("simplePI", "simple.pi(1e5)", 1e-9),
        ("slave1PI", "master1PI(1e5, 1e4)", 1e-9),
        ("slave2PI", "master2PI(1e5, 1e4)", 1e-9),
        ("simPI", "{ png(tempfile()); mpi.setup.rngstream(1); pi <- simPI(1e5); dev.off(); pi }", 0.05),
    ],
)
def test_those_for_workers_run(workers: RemoteR, name: str, call: str, error: float) -> None:
    found = workers.eval(f"{DEMO.format(name)}; found <- {call}; mpi.close.Rslaves(); found", timeout=60)
    assert found == pytest.approx(3.141592653589793, abs=error)


@pytest.mark.slow
def test_that_which_starts_its_processes_itself_runs(r: RemoteR) -> None:
    """It leaves the number of processes to the default, is run when it is loaded, and again."""
    r.eval(f"{DEMO.format('masterslavePI')}; found <- master()", timeout=60)
    assert r.eval("found") == pytest.approx(3.141592653589793, abs=1e-7)
    r.eval("mpi.spawn.Rslaves(quiet = TRUE); size <- mpi.comm.size(1) - 1; mpi.close.Rslaves()", timeout=60)
    assert r.eval("size") == 6
