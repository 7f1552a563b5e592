"""Values as the remote cells and jobs move them: in one request, and in the shape that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from host_r import MISSING, host_session

from ppe_jupyter import verbs
from ppe_jupyter.errors import RemoteRError
from ppe_jupyter.frontends.notebook.cells import CELLS
from ppe_jupyter.frontends.typed import parse
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.sessions import Sessions

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def r(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteR]:
    with host_session(tmp_path_factory.mktemp("home")) as session:
        yield session


def typed(
    r: RemoteR, verb: str, line: str, cell: str | None = None, **variables: Any
) -> tuple[Any, dict[str, Any]]:
    """What a notebook gets: the magic's value, and the variables that it sets."""
    arguments = parse(verbs.find(verb, face="magic"), line, face="magic")
    desk: Any = SimpleNamespace(
        target=lambda name: SimpleNamespace(r=lambda session: r),
        connect=lambda cluster: None,
        progress=lambda of: nullcontext(lambda progress: None),
        lines=None,
    )
    found: dict[str, Any] = {}
    assert arguments is not None
    return CELLS[verb](desk, arguments, cell, variables, found.update), found


class TestOneRequest:
    def test_pushes_and_pulls(self, r: RemoteR) -> None:
        typed(r, "remote_push", "a z=b", a=1, b="x")
        _, found = typed(r, "remote_pull", "a z")
        assert found == {"a": 1, "z": "x"}
        assert [job.code for job in r.jobs()[-2:]] == ["(push a, z)", "(pull a, z)"]
        assert typed(r, "remote_pull", "") == (None, {})

    def test_a_line_brings_its_variables(self, r: RemoteR) -> None:
        before = len(r.jobs())
        value, found = typed(r, "remote_r", "-i a,b -o s,t s <- a + b; t <- a * b; c(s, t)", a=2, b=3)
        assert (value.tolist(), found) == ([5, 6], {"s": 5, "t": 6})
        assert len(r.jobs()) - before == 2

    def test_all_or_none(self, r: RemoteR) -> None:
        r.eval("kept <- 1")
        with pytest.raises(RemoteRError, match="object 'nowhere' not found"):
            r.pull_all(["kept", "nowhere"])
        assert r.pull_all([]) == {}
        r.push_all({})


class TestSimplify:
    @pytest.mark.parametrize(
        ("verb", "line", "cell"),
        [
            ("remote_pull", "x --no-simplify", None),
            ("remote_r", "--no-simplify -o x", "x <- 2"),
            ("remote_r", "--no-simplify -o x x <- 2;", None),
        ],
    )
    def test_in_cells(self, r: RemoteR, verb: str, line: str, cell: str | None) -> None:
        r.eval("x <- 2")
        assert typed(r, verb, line, cell)[1]["x"].tolist() == [2]
        assert typed(r, verb, line.replace("--no-simplify", ""), cell)[1]["x"] == 2

    def test_of_a_job(self, r: RemoteR) -> None:
        job = r.submit("2")
        assert (job.result(), job.result(simplify=False).tolist()) == (2, [2])
        job, _ = typed(r, "remote_r", "--background --no-simplify -o x", "x <- 3")
        assert job.result()["x"].tolist() == [3]

    def test_of_a_session(self, r: RemoteR) -> None:
        class Machine(Sessions):
            def ssh(self) -> Any:
                return r._connection

        machine = Machine()
        remote = machine.r(simplify=False)
        try:
            assert machine.r().eval("2").tolist() == [2]
            assert remote.eval("2", simplify=True) == 2
            assert remote.complete("prin") == r.complete("prin")
            assert machine.r(simplify=True).eval("2") == 2
        finally:
            remote.close()
