"""The agent with this machine's R, without SSH: what may go wrong on the master, and what clients may send."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import host_r
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from localcloud_nodes import until
from test_evaluator import Seen, when_begun

from ppe_jupyter.errors import RemoteError, RemoteInterrupted, RSessionDied, UsageError
from ppe_jupyter.node.r.stream import RStream
from ppe_jupyter.node.sessions import results
from ppe_jupyter.node.sessions.autosave import Autosave
from ppe_jupyter.node.sessions.jobs import Jobs
from ppe_jupyter.node.sessions.ladder import Rung
from ppe_jupyter.node.sessions.workspace import Asker
from ppe_jupyter.node.wire.protocol import (
    MAX_EXACT,
    VERSION,
    Kind,
    Question,
    frame,
    header,
    json_frame,
)
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.remote.values import wire

needs_r = pytest.mark.skipif(host_r.MISSING is not None, reason=host_r.MISSING or "")
needs_disk = pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[RemoteR]:
    with host_r.host_session(home) as session:
        yield session


@pytest.fixture
def r(shared: RemoteR) -> RemoteR:
    """The main session, empty."""
    shared.eval("rm(list = ls()); invisible(NULL)", on_output=Seen().append)
    return shared


def agent(home: Path, command: str) -> Any:
    """What the agent there answers."""
    where = [shutil.which("python3") or "python3", str(home / ".ppe" / "node" / "agent.py"), command]
    done = subprocess.run(where, env={**os.environ, "HOME": str(home)}, capture_output=True, check=False)
    return json.loads(done.stdout or b"{}")


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Until there is room neither for bytes nor for names."""
    with suppress(OSError), (folder / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**12))
    with suppress(OSError):
        for i in range(10**4):
            (folder / f"full {i}").touch()


def empty(folder: Path) -> None:
    for path in folder.glob("full*"):
        path.unlink()


@needs_r
class TestStarting:
    """R cannot start: whoever waits is told why, and the next one who asks has it tried again."""

    def test_a_profile_that_quits(self, home: Path, r: RemoteR) -> None:
        profile = home / ".Rprofile"
        profile.write_text("cat('this is the profile\\n'); quit('no')\n")
        with pytest.raises(RSessionDied, match=r"R does not start: (.|\n)*this is the profile"):
            r.restart()
        with pytest.raises(RSessionDied, match="R does not start"):
            r.eval("1")
        with pytest.raises(RSessionDied, match="R does not start"):
            r.restart()
        profile.unlink()
        r.restart()
        assert r.eval("1 + 1") == 2

    @needs_disk
    def test_no_room_for_its_temporary_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home, temporary = tmp_path / "home", tmp_path / "temporary"
        home.mkdir()
        with small_disk(temporary, "size=1m,nr_inodes=50"):
            monkeypatch.setenv("TMPDIR", str(temporary))
            with host_r.host_session(home) as session:
                assert session.eval("1") == 1
                fill(temporary)
                with pytest.raises(RSessionDied, match="R does not start"):
                    session.restart()
                empty(temporary)
                assert session.eval("2", on_output=Seen().append) == 2

    @needs_disk
    def test_no_room_where_the_agent_meets_it(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        run = home / ".ppe" / "run"
        home.mkdir()
        with small_disk(run, "size=1m,nr_inodes=30"), host_r.host_session(home) as session:
            session.eval("x <- as.double(1:1e6)")
            fill(run)
            assert session.eval("sum(x)") == 500_000_500_000
            assert len(session.pull("x")) == 1_000_000
            answer = agent(home, "save")
            assert not answer["saved"]
            assert session.eval("length(x)") == 1_000_000
            with pytest.raises(UsageError, match="No space left"):
                (home / "some.RData").touch()
                session.restart(restore="some.RData")
            assert session.eval("length(x)") == 1_000_000

    def test_no_pipes_can_be_made(self, home: Path, r: RemoteR) -> None:
        pipe = home / ".ppe" / "run" / "requests"
        pipe.unlink()
        pipe.mkdir()
        with pytest.raises(RSessionDied, match=r"R does not start: .*requests"):
            r.restart()
        with pytest.raises(RSessionDied, match="R does not start"):
            r.eval("1")
        pipe.rmdir()
        assert r.eval("2", on_output=Seen().append) == 2


@needs_r
class TestEnding:
    def test_what_waits_for_variables_that_are_gone_is_not_begun(self, home: Path, r: RemoteR) -> None:
        for end in (r.restart, lambda: os.kill(int(agent(home, "status")["sessions"][0]["pid"]), 9)):
            r.eval("precious <- 1:10")
            running = r.submit("Sys.sleep(60)")
            waiting = r.submit("write(length(ls()), '~/overwritten')")
            not_begun = pytest.raises(RSessionDied, match="not begun")
            with RemoteR(r._connection) as other, when_begun(end) as waits, not_begun:
                other.eval("precious", on_output=waits)
            for job in (running, waiting):
                with pytest.raises(RSessionDied, match="variables are gone"):
                    job.result(60)
            assert r.eval("exists('precious')", on_output=Seen().append) is False
            assert not (home / "overwritten").exists()

    def test_what_waits_goes_on_when_the_variables_are_kept(self, r: RemoteR) -> None:
        r.eval("precious <- 1:10")
        running, waiting = r.submit("repeat Sys.sleep(1)"), r.submit("sum(precious)")
        r.interrupt(Rung.RESTART)
        with pytest.raises(RSessionDied, match="saved and loaded again"):
            running.result(60)
        assert waiting.result(60) == 55

    def test_a_cell_is_let_go_of_an_r_that_nothing_ends(self, home: Path, r: RemoteR) -> None:
        let_go = pytest.raises(RemoteInterrupted, match="let go")
        with when_begun(lambda: r.interrupt(Rung.LET_GO)) as begun, let_go:
            r.eval("cat('begun'); while (!file.exists('~/go')) Sys.sleep(0.02); 1", on_output=begun)
        job = r.jobs()[-1]
        assert job.status == "running"
        (home / "go").touch()
        assert job.result(60) == 1

    def test_the_kernel_killed_r_for_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only the kernel's words are made up; of workers, it is done with real ones."""
        home = tmp_path / "home"
        log, tools = home / "kernel.log", home / "bin"
        tools.mkdir(parents=True)
        (tools / "dmesg").write_text(f"#!/bin/sh\nexec cat {log}\n")
        (tools / "dmesg").chmod(0o755)
        log.touch()
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        with host_r.host_session(home) as session:
            for code in ("cat('begun'); Sys.sleep(600)", None):
                pid = session.eval("Sys.getpid()", on_output=Seen().append)
                log.write_text(
                    f"[1.0] Out of memory: Killed process {pid} (R) total-vm:1kB,"
                    " anon-rss:1500000kB, file-rss:500000kB, shmem-rss:0kB\n"
                )
                if code:
                    said = pytest.raises(RSessionDied, match=r"R was killed: 2\.0 of \d+\.\d GB")
                    with when_begun(lambda pid=pid: os.kill(pid, signal.SIGKILL)) as begun, said:
                        session.eval(code, on_output=begun)
                else:
                    os.kill(pid, signal.SIGKILL)
                    until(lambda: any("R was killed: 2.0" in each["text"] for each in notices(home)))

    def test_an_r_that_is_started_later_gets_the_agents_own_version(self, home: Path, r: RemoteR) -> None:
        """Another version's files take the place of a running agent's when a newer client connects to its host."""
        node = home / ".ppe" / "node"
        ours = node.rename(node.with_name("replaced"))
        shutil.copytree(ours, node)
        for path in node.rglob("*.R"):
            path.write_text("stop('not this version')")
        r.restart()
        assert r.eval("1 + 1") == 2
        shutil.rmtree(node)
        ours.rename(node)


def notices(home: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = agent(home, "status").get("notices", [])
    return found


@needs_r
class TestNamedSessions:
    def test_each_is_saved_and_comes_back(self, home: Path, r: RemoteR) -> None:
        names = ["main", "first", "second"]
        for name in names:
            with RemoteR(r._connection, session=name) as session:
                session.eval(f"who <- '{name}'; more <- 1:{len(name)}")
                saved = session.command({"do": "autosave", "minutes": 0.005})
                until(lambda: session.command({"do": "autosave"})["saved"])
                session.command({"do": "autosave", "minutes": 0})
            here = "autosave.RData" if name == "main" else f"autosave-{name}.RData"
            assert saved["path"] == f"~/{here}"
            assert (home / here).stat().st_size > 0
        with RemoteR(r._connection, session="first") as first:
            first.command({"do": "autosave", "minutes": 60})
            with RemoteR(r._connection, session="second") as second:
                with pytest.raises(UsageError, match="session first is saved to"):
                    second.command({"do": "autosave", "minutes": 60, "path": "autosave-first.RData"})
                assert second.command({"do": "autosave"})["path"] == "~/autosave-second.RData"
        assert agent(home, "save") == {
            "saved": True,
            "objects": 6,
            "bytes": pytest.approx(500, abs=450),
            "ended": False,
        }
        agent(home, "stop")
        for name in names:
            with RemoteR(r._connection, session=name) as session:
                assert session.eval("who", on_output=Seen().append) == name
                assert session.eval("length(more)") == len(name)
        with pytest.raises(RSessionDied, match="agent on the master was ended"):
            r.eval("who")

    def test_what_cannot_be_is_refused_and_changes_nothing(self, r: RemoteR) -> None:
        before = r.command({"do": "autosave"})
        wishes: list[dict[str, Any]] = [
            {"minutes": -1}, {"minutes": "often"}, {"minutes": []}, {"minutes": float("nan")},
            {"minutes": 1, "path": "~no.such.user/x"}, {"minutes": 1, "path": "a\0b"},
        ]  # fmt: skip
        for wish in wishes:
            with pytest.raises(UsageError):
                r.command({"do": "autosave", **wish})
        assert r.command({"do": "autosave"}) == before
        with pytest.raises(UsageError):
            r.restart(restore="~no.such.user/x")
        assert r.eval("1") == 1


def test_a_save_that_has_begun_is_ended(tmp_path: Path) -> None:
    """Else the next fresh R would load a workspace that nobody wished to have back."""

    async def stopped_in_the_middle() -> None:
        began, go, ended = (asyncio.Event() for _ in range(3))

        async def save() -> None:
            began.set()
            await go.wait()
            ended.set()

        autosave = Autosave(tmp_path, default="~/x", save=save, state=lambda: 1, trouble=print)
        autosave.set(1e-6, None)
        await asyncio.wait_for(began.wait(), 10)
        autosave.set(0, None)
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(stopped_in_the_middle())


class TestFramesWithoutABody:
    @pytest.mark.parametrize("text", [b"", b"printed", b"half a character \xc3", b"\x1b]ppe;0123"])
    def test_a_result_of_nothing_ends_its_evaluation(self, text: bytes) -> None:
        """Else the queue would wait for a last piece for ever. What is in the terminal comes before it."""

        async def told() -> list[str]:
            said: list[str] = []
            terminal, results = os.pipe(), os.pipe()
            stream = RStream(_Ways(terminal[0], results[0]), _Ear(said), _Ear(said))  # type: ignore[arg-type]
            stream.begin(1)
            os.write(terminal[1], text)
            os.write(results[1], EMPTY)
            async with asyncio.timeout(10):
                while "on_result_piece" not in said:
                    await asyncio.sleep(0.001)
            stream.close()
            for descriptor in (*terminal, *results):
                os.close(descriptor)
            return said

        assert [*dict.fromkeys(asyncio.run(told()))] == [
            *(["on_text"] if text else []), "on_end", "on_result", "on_result_piece"
        ]  # fmt: skip

    def test_the_agents_own_question_is_answered_too(self) -> None:
        async def answer() -> bytes:
            asker = Asker()
            asker.tell(EMPTY)
            return await asyncio.wait_for(asker.answer, 10)

        assert asyncio.run(answer()) == b""


EMPTY = frame(Kind.RESULT, id=1)


class _Ways:
    """Where R would write."""

    word = "0123456789abcdef"

    def __init__(self, terminal: int, results: int) -> None:
        self.terminal, self.results = terminal, results


class _Ear:
    """Writes down what it is told."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: self._said.append(name)


class Stranger:
    """A client that sends what it likes."""

    def __init__(self, home: Path) -> None:
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(str(home / ".ppe" / "agent.sock"))
        self._line, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"attach"], [theirs.fileno(), theirs.fileno()])

    def say(self, data: bytes) -> bytes:
        """All that it is told until the agent lets go of it, after this and the end of its own."""
        with self._control, self._line:
            self._line.settimeout(30)
            told = bytearray()
            with suppress(BrokenPipeError, ConnectionResetError):
                self._line.sendall(data)
                self._line.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while piece := self._line.recv(2**20):
                    told += piece
            return bytes(told)


HELLO = {"version": VERSION, "client": "stranger"}
odd = st.sampled_from(
    ["", "main", "x", "\ud800", "é", "1", 0, 1, -1, 2**70, 1.5, float("nan"), None, True, [], {}, [[]]]
)
keys = [
    "job",
    "live",
    "quiet",
    "do",
    "name",
    "bytes",
    "minutes",
    "client",
    "token",
    "session",
    "version",
    "x",
]
wishes = st.dictionaries(st.sampled_from(keys), odd).filter(
    # What these are good for is no harm, but would be felt.
    lambda wish: wish.get("session") in ("main", "", None) and (wish.get("minutes") or 0) != 1
)
commands = st.builds(
    lambda wish, do: {**wish, "do": do},
    wishes,
    st.sampled_from(["jobs", "cancel", "sessions", "close", "autosave", "keep", "x", None, 1, []]),
)
code = st.sampled_from(["1", "stop('x')", "cat('x\\n')", "plot(1)", "Sys.sleep(0.01)"])
requests = code.map(lambda text: b"".join(map(bytes, wire.dump_code(text))))
questions = st.builds(
    lambda number, about: struct.pack("<d", number) + about,
    st.one_of(st.sampled_from([float(each) for each in Question if each is not Question.SAVE]), st.floats()),
    st.one_of(
        st.binary(max_size=20), st.sampled_from([b"", b"mea", b"mean", b"x$", b"stats::", b"'", "é".encode()])
    ),
)
small = st.one_of(st.integers(0, 9), st.integers(0, MAX_EXACT))


def as_json(wish: object) -> bytes:
    return json.dumps(wish).encode()


def frames_of(kind: Kind, bodies: st.SearchStrategy[bytes], seqs: st.SearchStrategy[int] = small) -> Any:
    return st.builds(lambda body, id, seq: frame(kind, body, id=id, seq=seq), bodies, small, seqs)


sent = st.one_of(
    frames_of(Kind.HELLO, wishes.map(lambda wish: as_json({**HELLO, **wish}))),
    frames_of(Kind.FOLLOW, wishes.map(as_json)),
    frames_of(Kind.LABEL, st.binary(max_size=30)),
    frames_of(Kind.RESUME, st.just(b"")),
    frames_of(Kind.COMMAND, commands.map(as_json)),
    frames_of(Kind.ASK, questions),
    frames_of(Kind.EVALUATE, requests),
    frames_of(Kind.INTERRUPT, st.just(b""), st.integers(0, 2)),
    frames_of(Kind.ANSWER, st.binary(max_size=30)),
    frames_of(Kind.RESTART, odd.filter(lambda file: file is not None).map(lambda file: as_json({"restore": file}))),
    st.builds(lambda kind, body, id: frame(kind, body, id=id),
              st.sampled_from([kind for kind in Kind if kind is not Kind.RESTART]), st.binary(max_size=60), small),
    st.binary(max_size=60),
    st.just(frame(Kind.COMMAND, b"[" * 10**5)),
    st.just(header(Kind.EVALUATE, 2**21, id=3) + bytes(2**16)),
)  # fmt: skip


def damaged(data: bytes, cut: int | None, at: int, change: bytes) -> bytes:
    """It ends too early, or has other bytes somewhere."""
    if cut is not None:
        return data[: cut % (len(data) + 1)]
    at %= len(data) + 1
    return data[:at] + change + data[at + len(change) :]


@pytest.fixture(scope="module")
def keeper(shared: RemoteR) -> RemoteR:
    """Another client, with something to lose."""
    shared.eval("kept <- 42", on_output=Seen().append)
    return shared


@needs_r
class TestStrangers:
    """Whatever a client sends, it is let go of, and neither the agent, R nor another client is harmed."""

    @settings(max_examples=250, derandomize=True)
    @given(st.lists(sent, min_size=1, max_size=6), st.booleans())
    def test_frames_that_make_no_sense(
        self, home: Path, keeper: RemoteR, frames: list[bytes], polite: bool
    ) -> None:
        self.check(home, keeper, (json_frame(Kind.HELLO, HELLO) if polite else b"") + b"".join(frames))

    @settings(max_examples=150, derandomize=True)
    @given(
        st.lists(sent, min_size=1, max_size=3),
        st.one_of(st.none(), st.integers(0)),
        st.integers(0),
        st.binary(max_size=9),
    )
    def test_frames_that_are_cut_or_damaged(
        self, home: Path, keeper: RemoteR, frames: list[bytes], cut: int | None, at: int, change: bytes
    ) -> None:
        self.check(home, keeper, json_frame(Kind.HELLO, HELLO) + damaged(b"".join(frames), cut, at, change))

    def check(self, home: Path, keeper: RemoteR, data: bytes) -> None:
        Stranger(home).say(data)
        assert keeper.eval("kept", timeout=30, on_output=Seen().append) == 42
        assert "Traceback" not in (home / ".ppe" / "agent.log").read_text()

    @pytest.mark.parametrize("question", [0.0, 1.5, 99.0, -1.0, float("nan"), float("inf")])
    def test_a_question_that_is_none(self, home: Path, keeper: RemoteR, question: float) -> None:
        told = Stranger(home).say(
            json_frame(Kind.HELLO, HELLO) + frame(Kind.ASK, struct.pack("<d", question), id=1)
        )
        assert b"a client does not send ASK" in told
        assert keeper.eval("kept") == 42


class TestKeptResults:
    """Results that nobody has fetched yet, on the disk."""

    @pytest.fixture
    def jobs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
        monkeypatch.setattr(results, "MOST_BYTES", 1000)
        monkeypatch.setattr(results, "MOST_SHARE", 0)
        return Jobs(tmp_path)

    @staticmethod
    def keep(jobs: Jobs, *sizes: int) -> list[int]:
        """Jobs whose results have those sizes, asked for at once and ended in this order; their numbers."""

        async def kept() -> list[int]:
            made = [jobs.add("client", background=True, key=("t", i)) for i in range(len(sizes))]
            for job, size in zip(made, sizes, strict=True):
                file = jobs.results.begin(job.number, size)
                assert file is not None
                file.write(bytes(size))
                jobs.results.keep(job.number, file)
            return [job.number for job in made]

        return asyncio.run(kept())

    @staticmethod
    def there(jobs: Jobs, numbers: list[int]) -> list[bool]:
        found = []
        for number in numbers:
            result = jobs.results.get(number)
            found.append(result is not None)
            if result is not None:
                result[1].close()
        return found

    def test_a_large_one_is_kept_and_takes_no_other_away(self, jobs: Jobs) -> None:
        assert self.there(jobs, self.keep(jobs, 100, 100, 5000)) == [True, True, True]

    def test_the_oldest_go_first(self, jobs: Jobs) -> None:
        assert self.there(jobs, self.keep(jobs, 600, 600, 600, 100)) == [False, False, True, True]

    def test_the_newest_is_what_ended_last(self, jobs: Jobs) -> None:
        async def end(number: int) -> None:
            file = jobs.results.begin(number, 600)
            assert file is not None
            file.write(bytes(600))
            jobs.results.keep(number, file)

        first, *_ = numbers = self.keep(jobs, 0, 600, 600)
        os.utime(jobs._folder / "results" / f"{first}.frame", ns=(0, 0))  # type: ignore[operator]
        asyncio.run(end(first))
        assert self.there(jobs, numbers) == [True, False, True]

    def test_a_disk_with_room_keeps_more(self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(results, "MOST_SHARE", 0.25)
        assert self.there(jobs, self.keep(jobs, 600, 600, 600, 600)) == [True] * 4

    @needs_disk
    def test_older_ones_make_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(results, "SPARE_BYTES", 2**14)
        with small_disk(tmp_path / "log", "size=1m"):
            jobs = Jobs(tmp_path / "log")
            assert self.there(jobs, self.keep(jobs, 300_000, 300_000, 300_000, 500_000)) == [
                False,
                False,
                True,
                True,
            ]
            assert self.there(jobs, self.keep(jobs, 100, 10)) == [True, True]

    @needs_r
    def test_why_there_is_none_is_said(self, r: RemoteR) -> None:
        r.eval("123")
        r.eval("2")
        delivered = r.jobs()[-2]
        with pytest.raises(RemoteError, match="given to the client that waited for it"):
            delivered.result()
        r.eval("invisible(as.double(1:1e6))")
        with pytest.raises(RemoteError, match="given to the client that waited for it"):
            r.jobs()[-1].result()
