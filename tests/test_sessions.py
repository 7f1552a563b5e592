"""A session that outlives its clients: cut lines, jobs, logs, several sessions, others' evaluations."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import host_r
import numpy as np
import pytest
from localcloud_nodes import until
from test_evaluator import Seen, press_stop, run, soon, when_begun

from ppe_jupyter.errors import (
    RemoteError,
    RemoteInterrupted,
    RemoteRError,
    RSessionDied,
    SshError,
    TransferFailed,
    UsageError,
)
from ppe_jupyter.manager import Manager
from ppe_jupyter.node.wire.protocol import VERSION, Kind, Wish, frame, json_frame
from ppe_jupyter.remote.sessions.session import AGENT, Output, RemoteR, Text
from ppe_jupyter.remote.values import wire
from ppe_jupyter.ssh import connection as ssh_connection
from ppe_jupyter.ssh.connection import MAX_CHANNELS

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster

# In the middle it waits until it may go on, by ``go_on``.
LOOP = """unlink('~/on'); for (i in 1:{n}) {{
  cat('line', i, '\\n'); if (i %% 10 == 0) plot(i)
  if (i == {n} / 2) while (!file.exists('~/on')) Sys.sleep(0.02)
}}; 'end'"""


def go_on(client: RemoteR) -> None:
    client._connection.run("touch ~/on")


def lines(n: int) -> str:
    return "".join(f"line {i} \n" for i in range(1, n + 1))


def printed(seen: Seen) -> str:
    """What R printed, without what was said of the line."""
    return "".join(each.text for each in seen if isinstance(each, Text) and each.stream == "stdout")


def said(seen: Seen) -> str:
    return "".join(each.text for each in seen if isinstance(each, Text) and each.stream == "stderr")


@pytest.fixture
def own(cluster: Cluster, r: RemoteR) -> Iterator[RemoteR]:
    """A client with a connection of its own, that it may lose, and makes again."""
    connect = cluster._account.clusters.connect
    client = RemoteR(connect(cluster.record), reconnect=lambda: connect(cluster.record), client="own.ipynb")
    yield client
    client.close()
    client._connection.close()


def server_process(client: RemoteR) -> str:
    """The sshd of its connection."""
    return client._connection.run("echo $PPID").stdout.decode().strip()


@contextmanager
def cut_off(port: str, how: str = "drop", *, where: Sequence[str] = ()) -> Iterator[None]:
    """Packets of the SSH connection from that port are dropped both ways, or answered by a reset."""
    table = f"""table inet ppe_cut_{port} {{
        chain out {{ type filter hook output priority 0; tcp sport {port} tcp dport 22 {how}; }}
        chain into {{ type filter hook input priority 0; tcp dport {port} tcp sport 22 {how}; }}
    }}"""
    subprocess.run([*where, "nft", "-f", "-"], input=table, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*where, "nft", "delete", "table", "inet", f"ppe_cut_{port}"], check=True)


def port_of(client: RemoteR) -> str:
    """From which the node sees its connection come."""
    return client._connection.run("echo $SSH_CONNECTION").stdout.split()[1].decode()


def silence(client: RemoteR) -> AbstractContextManager[None]:
    """The packets of its connection are dropped, both ways."""
    return cut_off(port_of(client))


def in_the_result(client: RemoteR, act: Callable[[], object]) -> list[bool]:
    """Do it when 4 MB of a result have come; what is returned has an element then."""
    link = client._attached()
    next_event = link._event
    done: list[bool] = []

    def event() -> Any:
        if link.receiving_result and len(link._body) > 2**22 and not done:
            done.append(True)
            act()
        return next_event()

    link._event = event  # type: ignore[method-assign]
    return done


class TestCut:
    def test_the_evaluation_goes_on_in_the_same_cell(self, r: RemoteR, own: RemoteR) -> None:
        n = 40
        process = server_process(own)
        seen = Seen()

        def cut() -> None:
            until(lambda: "line 12 " in seen.text)
            r._connection.run(f"sudo kill -9 {process}")
            until(lambda: "Connected again" in said(seen))
            go_on(r)

        thread = threading.Thread(target=cut)
        thread.start()
        own.run(LOOP.format(n=n), on_output=seen.append)
        thread.join()
        assert printed(seen) == lines(n) + '[1] "end"\n'
        assert len(seen.displays) == n // 10
        assert "was cut; R goes on" in said(seen)
        assert "Connected again" in said(seen)
        assert own.eval("6 * 7") == 42

    def test_a_result_that_came_while_nobody_listened(self, r: RemoteR, own: RemoteR) -> None:
        process = server_process(own)
        with soon(0.5, lambda: r._connection.run(f"sudo kill -9 {process}")):
            assert own.eval("Sys.sleep(1); x <- 1:3; x", on_output=Seen().append).tolist() == [1, 2, 3]
        with soon(0.3, lambda: own._connection.close()), pytest.raises(RemoteRError, match="told late"):
            own.eval("Sys.sleep(1); stop('told late')", on_output=Seen().append)

    def test_it_runs_once(self, r: RemoteR, own: RemoteR) -> None:
        r.eval("n <- 0")
        for after in (0.0, 0.002, 0.005, 0.01, 0.1):
            own.eval("0", on_output=Seen().append)
            with soon(after, lambda: own._connection.close()):
                own.eval("n <- n + 1; Sys.sleep(0.02); n", on_output=Seen().append)
        assert r.eval("n") == 5

    def test_what_did_not_come_whole_is_sent_again(self, r: RemoteR, own: RemoteR) -> None:
        array = np.random.default_rng(1).random(8_000_000)
        own.eval("0")
        with soon(0.05, lambda: own._connection.close()):
            own.push("x", array)
        assert r.eval("sum(x)") == pytest.approx(array.sum(), rel=1e-12)
        assert r.eval("length(x)") == len(array)

    def test_a_large_result_that_was_cut_is_an_error_and_never_a_part(self, r: RemoteR, own: RemoteR) -> None:
        r.eval("x <- as.double(1:4e6)")
        cut = in_the_result(own, lambda: own._connection.close())
        with pytest.raises(RemoteError, match="pull that again"):
            own.eval("x", on_output=Seen().append)
        assert cut
        assert own.pull("x").sum() == r.eval("sum(x)")

    def test_the_stop_button_ends_a_transfer_at_once(self, r: RemoteR, own: RemoteR) -> None:
        r.eval("x <- as.double(1:1e7)")
        assert in_the_result(own, press_stop) == []
        with pytest.raises(RemoteInterrupted, match="transfer was stopped"):
            own.pull("x")
        assert own.eval("length(x)", on_output=Seen().append) == 1e7

    @pytest.mark.slow
    def test_a_silent_drop_while_it_waits_is_noticed(self, own: RemoteR) -> None:
        seen = Seen()
        with ExitStack() as later:

            def show(output: Output) -> None:
                before = "line 3 " in seen.text  # it may come in pieces
                seen.append(output)
                if "line 3 " in seen.text and not before:
                    later.enter_context(silence(own))
                if "Connected again" in said(seen):
                    go_on(own)

            own.run(LOOP.format(n=10), on_output=show)
        assert printed(seen) == lines(10) + '[1] "end"\n'
        assert "Connected again" in said(seen)

    @pytest.mark.slow
    def test_a_silent_drop_while_it_sends_is_noticed(self, own: RemoteR) -> None:
        array = np.arange(2e7)
        own.eval("0")
        with silence(own):
            own.push("x", array)
        assert own.eval("sum(x)") == array.sum()

    @pytest.mark.slow
    def test_a_silent_drop_while_it_receives_is_noticed(self, own: RemoteR) -> None:
        with ExitStack() as later:
            in_the_result(own, lambda: later.enter_context(silence(own)))
            with pytest.raises(RemoteError, match="pull that again"):
                own.eval("x <- as.double(1:1e7)", on_output=Seen().append)
        assert own.eval("length(x)") == 1e7

    def test_who_follows_a_job_goes_on_too(self, r: RemoteR, own: RemoteR) -> None:
        job = own.submit(LOOP.format(n=20))
        seen = Seen()

        def cut() -> None:
            own._connection.close()
            go_on(r)

        with when_begun(cut) as begun:
            job.watch(lambda output: (seen.append(output), begun(output))[0])
        assert printed(seen) == lines(20)
        assert len(seen.displays) == 2

    def test_the_stop_button_ends_the_waiting(self, r: RemoteR, own: RemoteR) -> None:
        own.eval("0")
        own._line._reconnect = lambda: _refuse()
        seen = Seen()

        def show(output: Output) -> None:
            seen.append(output)
            if "was cut" in said(seen):
                press_stop()
            else:
                own._connection.close()

        wait = "while (!file.exists('~/on')) Sys.sleep(0.02)"
        with pytest.raises(RemoteInterrupted, match="%remote_jobs"):
            own.eval(f"unlink('~/on'); cat('begun'); {wait}; kept <- 'on'", on_output=show)
        go_on(r)
        assert r.eval("kept", on_output=Seen().append) == "on"

    def test_the_agent_is_killed_meanwhile(self, r: RemoteR, own: RemoteR) -> None:
        kill = (  # once the job is written down, which one that is short never is
            "until grep -q before ~/.ppe/log/main/jobs.jsonl; do sleep 0.02; done; "
            f"kill -9 $({AGENT} status | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"pid\"])')"
        )
        died = pytest.raises(RSessionDied, match="agent")
        with when_begun(lambda: r._connection.run(kill)) as begun, died:
            own.eval("cat('before'); Sys.sleep(60)", on_output=begun)
        with suppress(RSessionDied):
            r.eval("0")
        job = own.jobs()[-1]
        assert (job.status, job.code) == ("lost", "cat('before'); Sys.sleep(60)")
        assert Seen(job.output()).text == "before"


def _refuse() -> None:
    from ppe_jupyter.errors import Unreachable

    raise Unreachable("no network", host="nowhere")


class TestJobs:
    def test_in_the_background(self, r: RemoteR) -> None:
        code = "cat('begun\\n'); while (!file.exists('~/go')) Sys.sleep(0.02); plot(1); cat('ended\\n'); invisible(1:3)"
        job, other = r.submit(code), r.submit("unlink('~/go'); first <- 'second'")
        assert (job.status, other.status) == ("running", "queued")
        r._connection.run("touch ~/go")
        watched = Seen()
        job.watch(watched.append)
        assert watched.text == "begun\nended\n"
        assert len(watched.displays) == 1
        assert job.result().tolist() == [1, 2, 3]
        assert job.status == "done"
        assert Seen(job.output()).text == "begun\nended\n"
        other.wait(60)
        assert r.eval("first") == "second"
        named = r.submit("y <- x * 2", print=True, inputs={"x": [1.0, 2.0]}, outputs=["y"])
        assert named.result()["y"].tolist() == [2, 4]

    def test_any_client_finds_it_later(self, r: RemoteR) -> None:
        job = r.submit("cat('kept\\n'); as.double(1:1e6)")
        job.wait(60)
        with RemoteR(r._connection) as other:
            found = other.job(job.number)
            assert found.result().sum() == 500_000_500_000
            assert Seen(found.output()).text == "kept\n"
            failed = r.submit("stop('no good')")
            with pytest.raises(RemoteRError, match="no good"):
                other.job(failed.number).result(60)
        assert failed.status == "failed"
        with pytest.raises(UsageError, match="there is no job 99999"):
            r.job(99_999)

    def test_cancel(self, r: RemoteR) -> None:
        runs, waits = r.submit("Sys.sleep(60)"), r.submit("1")
        with pytest.raises(TimeoutError):
            runs.result(0.1)
        waits.cancel()
        with pytest.raises(RemoteInterrupted, match="taken back"):
            waits.result(60)
        runs.cancel()
        with pytest.raises(RemoteInterrupted):
            runs.result(60)
        assert (runs.status, waits.status) == ("interrupted", "interrupted")

    def test_a_question_in_the_background_is_answered_by_nobody(self, r: RemoteR) -> None:
        assert r.submit("readline('Name? ')").result(60) == ""

    def test_a_client_that_is_killed_is_followed_by_another(
        self, cluster: Cluster, r: RemoteR, tmp_path: Path
    ) -> None:
        script = f"""
            import ppe_jupyter as ppe
            r = ppe.Manager().cluster({cluster.name!r}).r()
            print("attached", r.eval("0"), flush=True)
            r.run({LOOP.format(n=40)!r})
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert any("line 5" in line for line in process.stdout)
            process.send_signal(signal.SIGKILL)
        with RemoteR(r._connection) as after:
            job = after.jobs()[-1]
            assert job.status == "running"
            go_on(r)
            seen = Seen()
            job.watch(seen.append)
            assert printed(seen) == lines(40) + '[1] "end"\n'
            assert len(seen.displays) == 4
            assert job.status == "done"

    def test_a_client_that_does_not_read_holds_nobody_up(self, r: RemoteR) -> None:
        body = b"".join(wire.dump_code("for (i in 1:300) cat(strrep('x', 99999), '\\n'); 'done'"))
        with r._connection.popen(f"{AGENT} attach") as channel:
            hello = json_frame(Kind.HELLO, {"version": VERSION, "client": "slow", "token": "slow"})
            channel.send_all(hello + frame(Kind.EVALUATE, body, id=1))
            assert r.eval("1", on_output=Seen().append, timeout=60) == 1
            text = b""
            while b"done" not in text[-1000:]:
                text += channel.recv()
        assert text.count(b"x" * 1000) > 0
        assert text.count(b"x") >= 300 * 99999

    def test_the_list_is_a_history(self, r: RemoteR) -> None:
        before = r.jobs()[-1].number
        r.eval("1; 2")
        with pytest.raises(RemoteRError):
            r.eval("\n\nstop('x')\n2")
        r.push("pushed", 1)
        found = [job for job in r.jobs() if job.number > before]
        assert [(job.number, job.state, job.code) for job in found] == [
            (before + 1, "done", "1; 2"),
            (before + 2, "failed", "stop('x')"),
            (before + 3, "done", "(push pushed)"),
        ]


class TestOthers:
    def test_several_sessions(self, cluster: Cluster, r: RemoteR, tmp_path: Path) -> None:
        r.eval("here <- 1")
        second = cluster.r("second")
        assert second.eval("exists('here')") is False
        assert second.eval("Sys.getpid()") != r.eval("Sys.getpid()")
        folder = second.eval("setwd(tempdir()); getwd()")
        busy = second.submit("Sys.sleep(60)")
        assert cluster.upload(__file__, session="second").base == folder
        assert cluster.upload(__file__, session="second", node=1).base == folder
        assert cluster.download(Path(__file__).name, to=tmp_path, session="second").files == 1
        with pytest.raises(TransferFailed, match="there is no R session third"):
            cluster.upload(__file__, session="third")
        assert r.eval("1", timeout=60) == 1
        rows = {row["name"]: row for row in cluster.sessions()}
        assert rows["second"]["state"] == "busy"
        assert [job.code for job in second.jobs()][-1] == "Sys.sleep(60)"
        cluster.close_session("second")
        assert [row["name"] for row in cluster.sessions()] == ["main"]
        assert cluster.r("second").job(busy.number).status == "failed"
        cluster.close_session("second")
        with pytest.raises(UsageError, match="there is no session"):
            cluster.close_session("second")
        with pytest.raises(RemoteError, match="no name of a session"):
            RemoteR(r._connection, session="../x").eval("1")

    def test_watch_and_take_over(self, r: RemoteR) -> None:
        with RemoteR(r._connection, client="other.ipynb") as other:
            seen = Seen()
            job = other.submit("for (i in 1:20) { cat('tick', i, '\\n'); Sys.sleep(0.1) }")
            r.wish = Wish.WATCH
            assert r.eval("1", on_output=seen.append) == 1
            assert "R evaluates for other.ipynb" in seen.text
            assert "tick 20 \n" in seen.text
            job = other.submit("Sys.sleep(60)")
            r.wish = Wish.TAKE_OVER
            assert r.eval("2", on_output=Seen().append) == 2
            assert job.status == "interrupted"
            r.wish = Wish(0)

    @pytest.mark.slow
    def test_eight_sessions_leave_room_for_a_verb(self, cluster: Cluster, r: RemoteR) -> None:
        others = [cluster.r(f"s{n}") for n in range(MAX_CHANNELS)]
        assert [each.eval(f"x <- {n}; x") for n, each in enumerate(others)] == list(range(MAX_CHANNELS))
        assert {row["name"] for row in cluster.sessions()} == {"main", *(each.session for each in others)}
        # Who had to let go comes again, to what it had.
        assert [each.eval("x") for each in others] == list(range(MAX_CHANNELS))
        for each in others:
            cluster.close_session(each.session)

    def test_where_all_channels_are_busy_that_is_said(
        self, r: RemoteR, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ssh_connection, "FREE_SECONDS", 0)
        with ExitStack() as busy, pytest.raises(SshError, match=f"all {MAX_CHANNELS} channels"):
            for _ in range(MAX_CHANNELS + 1):
                busy.enter_context(r._connection.popen("cat"))  # ends with its channel
        assert r.eval("1") == 1

    def test_eight_clients_at_once(self, cluster: Cluster, r: RemoteR) -> None:
        r.eval("n <- 0")
        connect = cluster._account.clusters.connect
        connections = [connect(cluster.record) for _ in range(2)]
        clients = [RemoteR(connections[i % 2]) for i in range(8)]
        seen = [Seen() for _ in clients]

        def work(i: int) -> None:
            for k in range(5):
                assert (
                    clients[i].eval(
                        f"cat('client {i}\\n'); n <- n + 1; {i * 100 + k}", on_output=seen[i].append
                    )
                    == i * 100 + k
                )

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert r.eval("n") == 40
        assert [printed(each) for each in seen] == [f"client {i}\n" * 5 for i in range(8)]
        for client in clients:
            client.close()
        for connection in connections:
            connection.close()

    def test_whose_session_it_was_is_said_to_python_too(
        self, cluster: Cluster, r: RemoteR, capsys: pytest.CaptureFixture[str]
    ) -> None:
        r.eval("1")
        other = Manager().cluster(cluster.name)
        assert other.r().eval("1") == 1
        other.close()
        assert "R session of " in capsys.readouterr().err

    def test_whose_session_it_was_is_said_once(self, r: RemoteR) -> None:
        said: list[str] = []
        r.eval("a <- b <- c <- 1")
        with RemoteR(r._connection, on_past=said.append) as other:
            other.eval("1")
            other.eval("2")
        assert len(said) == 1
        assert said[0].startswith("R session of ")
        assert ", 3 objects; --fresh for a new one" in said[0]


class Enough(Exception):
    """Seen, that is."""


def room(pid: int | str) -> str:
    """A command that prints a process's resident memory (kB) and its number of open descriptors."""
    return f"grep VmRSS /proc/{pid}/status | tr -dc 0-9; echo; ls /proc/{pid}/fd | wc -l"


@pytest.mark.slow
def test_ten_thousand_evaluations_leave_nothing_behind(r: RemoteR) -> None:
    """What is bounded (the log's end in memory, the list of jobs) has reached its bound after the first ones."""
    ends = [r.eval("Sys.getpid()"), json.loads(r._connection.run(f"{AGENT} status").stdout)["pid"]]

    def evaluate(numbers: range) -> list[list[int]]:
        for i in numbers:
            assert r.eval(f"cat(strrep('x', 3000), {i}); x <- {i}; x", on_output=lambda output: None) == i
        r.eval("invisible(gc())")
        gc.collect()
        here = subprocess.run(["sh", "-c", room(os.getpid())], capture_output=True, check=True).stdout
        return [
            list(map(int, said.split()))
            for said in (here, *(r._connection.run(room(e)).stdout for e in ends))
        ]

    before = evaluate(range(2000))
    after = evaluate(range(2000, 10_000))
    for (kb_before, open_before), (kb_after, open_after) in zip(before, after, strict=True):
        assert open_after == open_before
        assert kb_after < kb_before + 4000  # half a kB each


class TestLog:
    def test_all_is_shown_again_in_order(self, r: RemoteR) -> None:
        before = Seen()
        r.follow(live=False, on_output=before.append)
        run(r, "cat('logged 1\\n'); plot(1); cat('logged 2\\n')")
        after = Seen(r.replay())
        assert after[: len(before)] == before
        assert after.streams[-3:] == [
            ("stdout", "logged 1\n"),
            ("display", "image/svg+xml"),
            ("stdout", "logged 2\n"),
        ] or (after.text.endswith("logged 1\nlogged 2\n"))

    def test_it_is_bounded_and_says_what_is_missing(self, r: RemoteR) -> None:
        with RemoteR(r._connection, session="brief") as brief:
            try:
                brief.command({"do": "keep", "bytes": 2_000_000})
                run(brief, "cat('first\\n')")
                seen = run(brief, "for (i in 1:80) cat(i, strrep('x', 99999), '\\n')")
                found = Seen(brief.replay())
                assert "is no longer in the log]" in said(found)
                assert "first" not in found.text
                assert len(printed(found)) < 6_000_000
                assert seen.text.endswith(printed(found))
            finally:
                brief.command({"do": "keep", "bytes": 2**28})
                r.command({"do": "close", "name": "brief"})

    def test_it_can_be_followed(self, r: RemoteR) -> None:
        seen = Seen()
        with pytest.raises(TimeoutError):
            r.follow(since=10**9, on_output=seen.append, timeout=0.1)

        def follow() -> None:
            with pytest.raises(Enough):
                r.follow(since=10**9, on_output=enough, timeout=120)

        def enough(output: Output) -> None:
            seen.append(output)
            if "followed" in seen.text:
                raise Enough

        thread = threading.Thread(target=follow)
        thread.start()
        until(lambda: "followed" in (run(r, "cat('followed\\n')").text and seen.text))
        thread.join()

    @pytest.mark.skipif(
        os.getuid() != 0 or host_r.MISSING is not None, reason="mounts a small disk, and needs R"
    )
    def test_a_full_disk_loses_nothing_of_the_newest(self, tmp_path: Path) -> None:
        log = tmp_path / ".ppe" / "log"
        with host_r.host_session(tmp_path) as full:
            log.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(log)], check=True)
            try:
                seen = run(full, "for (i in 1:60) cat(i, strrep('x', 99999), '\\n')")
                assert len(seen.text) > 6e6
                assert full.eval("1 + 1") == 2
                assert printed(Seen(full.replay())).endswith(seen.text)
                full.close()
            finally:
                subprocess.run(["umount", "--lazy", str(log)], check=True)


class TestSaving:
    def test_autosave_and_restore(self, r: RemoteR) -> None:
        try:
            r.eval("precious <- 1:5")
            assert r.command({"do": "autosave", "minutes": 0.01, "path": "~/saved.RData"})["minutes"] == 0.01
            until(lambda: r.command({"do": "autosave"})["saved"])
            r.command({"do": "autosave", "minutes": 0})
            r.eval("precious <- NULL")
            r.restart()
            assert r.eval("exists('precious')") is False
            assert r.restart(restore="~/saved.RData") == 1
            assert r.eval("sum(precious)") == 15
            assert r._connection.run("ls ~/saved.RData").status == 0
            with pytest.raises(UsageError, match="there is no file"):
                r.restart(restore="~/nothing.RData")
            assert r.eval("sum(precious)") == 15
        finally:
            r.command({"do": "autosave", "minutes": 0})
