"""A full disk on the master: the session goes on, and each thing that the disk does not take is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import host_r
import pytest
from localcloud_nodes import until
from test_evaluator import run

from ppe_jupyter.errors import RemoteError, RemoteRError
from ppe_jupyter.node.r.workers import Worker
from ppe_jupyter.node.sessions.endings import Endings
from ppe_jupyter.node.sessions.running import Running
from ppe_jupyter.remote.sessions.session import Notice

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or host_r.MISSING is not None, reason="mounts a small disk, and needs R"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def fill(disk: Path) -> Path:
    """A file that takes what is free."""
    with (disk / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return disk / "fill"


@pytest.mark.slow
def test_what_has_no_room_is_said_and_the_session_goes_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (disk / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(disk / "tmp"))
    notices: list[Notice] = []

    def told(what: str) -> bool:
        session.command({"do": "here"})
        return any(what in each.text for each in notices)

    with host_r.host_session(disk, on_notice=notices.append) as session:
        session.eval("precious <- rnorm(1e5); invisible(NULL)")
        session.command({"do": "autosave", "minutes": 0.01, "path": "~/saved.RData"})
        until(lambda: session.command({"do": "autosave"})["saved"])
        (disk / "saved.RData").unlink()
        filled = fill(disk)
        assert "A plot is lost" in run(session, "plot(1)").text
        assert session.submit("2 + 2").result() == 4
        with pytest.raises(RemoteError, match=r"disk did not take it .*No space left"):
            session.submit("numeric(1e6)").result()
        with pytest.raises(RemoteRError, match="No space left"):
            session.eval("writeLines(strrep('x', 1e5), '~/text')")
        until(lambda: told("result of job"))
        until(lambda: told("workspace could not be saved to") and told(" are free in "))
        until(lambda: told("output cannot be written"))
        assert session.eval("1 + 1") == 2
        filled.unlink()
        seen = run(session, "plot(1)")
        assert [stream for stream, _ in seen.streams] == ["display"]
        until(lambda: (disk / "saved.RData").exists())
        jobs = disk / ".ppe" / "log" / "main" / "jobs.jsonl"
        until(lambda: '"numeric(1e6)"' in jobs.read_text())


class Evaluations:
    """As Running sees them."""

    current = None
    number = 7

    def __init__(self) -> None:
        self.said: list[str] = []

    def evaluating(self) -> int:
        return self.number

    def say(self, text: str) -> None:
        self.said.append(text)


class Life:
    """As Running sees it."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.workers = run / "slaves.json"


def test_a_lost_worker_is_named_although_r_cannot_be_told(disk: Path) -> None:
    evaluations = Evaluations()
    running = Running(evaluations, Life(disk))  # type: ignore[arg-type]
    filled = fill(disk)
    worker = Worker(3, "ip-10-0-0-4", 151)
    assert running.name_lost([worker], "lost") is None
    assert running.name_lost([worker], "lost") is None
    (said,) = evaluations.said
    assert said.startswith("rank 3 on ip-10-0-0-4 was lost, and this call waits for it. R cannot be told")
    assert "No space left" in said
    filled.unlink()
    word = running.name_lost([worker], "lost")
    assert word is not None
    assert word.read_text() == "rank 3 on ip-10-0-0-4 was lost"


def test_what_is_left_of_a_result_goes_when_r_ends(disk: Path) -> None:
    endings = Endings(SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    part = (disk / "4.part").open("wb")
    endings._file = part
    fill(disk)
    part.write(bytes(100))
    endings.abandon()
    assert not (disk / "4.part").exists()
