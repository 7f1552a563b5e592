"""What follows a run or a job, whatever has gone wrong: a full disk, a killed supervisor, a lost worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import host_r
import pytest
from localcloud_nodes import until
from test_agent import agent, needs_disk, needs_r, small_disk
from test_runs import Service, printed, scripts, service

import ppe_jupyter.node
from ppe_jupyter.node.files.listing import entries, expanded
from ppe_jupyter.node.lifetime import aftermath, sns
from ppe_jupyter.node.runs import lost_work, runs, termination
from ppe_jupyter.node.runs import script as run_script

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster

__all__ = ["scripts", "service"]


WAITS = "echo $$ > pid; exec sleep 600"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login user's home, for this process and those that it starts."""
    (tmp_path / ".ppe").mkdir()
    (tmp_path / ".ppe" / "node").symlink_to(Path(ppe_jupyter.node.__file__).parent)
    (tmp_path / "runs").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(aftermath, "END", tmp_path / ".ppe" / "end.json")
    monkeypatch.setattr(run_script, "ask", lambda command: {})
    return tmp_path


def begin(home: Path, name: str, code: str, **about: Any) -> runs.Run:
    """A shell script that runs there."""
    (home / "runs" / name).mkdir()
    (home / "runs" / name / "it.sh").write_text(code)
    told = json.dumps({"script": "it.sh", **about})
    command = [sys.executable, str(home / ".ppe" / "node"), "runs", "start", name]
    subprocess.run(command, cwd=home / ".ppe", input=told.encode(), check=True, capture_output=True)
    return runs.load(name)


def kill_supervisor(run: runs.Run) -> None:
    """Of a script that waits, some time after its begin; end that too."""
    os.kill(run.pid, signal.SIGKILL)
    until(lambda: run.state == "lost")
    os.kill(
        int(until(lambda: (run.folder / "pid").exists() and (run.folder / "pid").read_text())), signal.SIGKILL
    )
    run.change(began=0.0)


def followed(name: str) -> runs.Run:
    """The run, after all that follows it."""
    until(lambda: runs.load(name).followed)
    return runs.load(name)


def test_results_are_found_once_whatever_the_patterns(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    code = "mkdir out; touch a.csv a[1].csv out/b.rds; echo it"
    begin(home, "sim", code, fetch=["output.log", "*.csv", "a*", "out/*", "out", "*", "no"])
    found, missing = followed("sim").results()
    names = [entry.path for entry in entries(expanded(found))[0]]
    assert sorted(names) == ["a.csv", "a[1].csv", "b.rds", "it.sh", "out", "out/b.rds", "output.log"]
    assert missing == ["no"]


def test_results_of_one_name_keep_their_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    code = "mkdir -p a b/c; touch out a/out b/c/out b/other a/output.log"
    begin(home, "sim", code, fetch=["*/output.log", "**/out", "b/other"])
    found, missing = followed("sim").results()
    folder = home / "runs" / "sim"
    names = [entry.path for entry in entries(expanded([f"{folder}/{each}" for each in found]))[0]]
    assert sorted(names) == ["a/out", "a/output.log", "b/c/out", "other", "out", "output.log"]
    assert missing == []


@needs_disk
def test_a_run_that_fills_the_disk_is_followed_by_all_that_was_asked_for(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path.parent / f"{tmp_path.name}.told"
    with small_disk(home / "runs", "size=1m"):
        begin(home, "sim", "yes; sleep 600", then="park", notify=[f"echo $PPE_STATUS > {told}"])
        until(lambda: os.statvfs(home / "runs").f_bavail == 0)
        os.kill(runs.load("sim").pid, signal.SIGTERM)
        run = followed("sim")
        assert (run.state, run.troubles, told.read_text()) == ("stopped", [], "stopped\n")
    (home / ".ppe" / "end.json").mkdir()  # so that it cannot be written
    aftermath.ask_for_end("it has ended", "the run sim")
    assert (asked := aftermath.asked_end()) and asked.jobs == ("the run sim",)
    aftermath.forget_end()
    assert aftermath.asked_end() is None


def test_a_run_whose_supervisor_was_killed_is_followed_by_the_end(home: Path) -> None:
    wishes = {"then": "park", "notify": ["echo $PPE_STATUS > told"]}
    begin(home, "sim-2", "exit 1", **wishes)
    assert followed("sim-2").state == "failed"
    run = begin(home, "sim", WAITS, **wishes)
    until((run.folder / "pid").exists)
    assert not run.abandoned and run.ends_cluster
    kill_supervisor(run)
    assert not run.ends_cluster, "an end that another run has asked for"
    assert runs.load("sim").abandoned
    lost_work.follow_run("sim", end=True)
    run = followed("sim")
    assert (run.state, (run.folder / "told").read_text()) == ("lost", "lost\n")
    assert run.ends_cluster and not run.abandoned
    assert runs.load("sim-2").ends_cluster, "who asked first has asked, too"
    told = json.loads(aftermath.END.read_text())
    aftermath.END.write_text(json.dumps({**told, "life": "of the node before its boot"}))
    assert not run.ends_cluster


def test_what_could_not_be_stored_is_not_terminated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"done": {"failures": {}, "left_out": ["out/data (a link)"]}})
    assert run_script.unstored(said, "") == "left out: out/data (a link)"
    monkeypatch.setattr(run_script, "store", lambda run: run_script.unstored(said, ""))
    wishes = {
        "then": "terminate",
        "discard": True,
        "store": "s3://bucket/",
        "notify": ["echo $PPE_TROUBLE > told"],
    }
    begin(home, "sim", "exit 0")
    run = followed("sim").change(followed=False, **wishes)
    run_script.follow(run)
    run = runs.load("sim")
    assert (run.fetched, run.troubles, run.ends_cluster) == (False, ["left out: out/data (a link)"], False)
    assert (run.folder / "told").read_text() == "left out: out/data (a link)\n"
    monkeypatch.setattr(run_script, "store", lambda run: "")
    run_script.follow(run)
    assert (runs.load("sim").fetched, runs.load("sim").ends_cluster) == (True, True)


def test_a_cluster_is_terminated_where_nothing_else_would_be_lost(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_script, "store", lambda run: "")
    for name, wishes in (("a", {"store": "s3://b/", "then": "terminate"}), ("b", {"then": "park"})):
        begin(home, name, "exit 0")
        run_script.follow(followed(name).change(followed=False, **wishes))
        asked = aftermath.asked_end()
        assert asked and asked.stored == (name == "a"), "b is nowhere else"
    idle: dict[str, Any] = {
        "workspace": {"unpulled": 0},
        "sessions": [{"unfetched": 0}],
        "watchdog": {"working": []},
    }
    found: dict[str, Any] = {
        "files": [("runs/a/x", 1)],
        "count": 1,
        "rstudio": [],
        "suspended": 0,
        "silent": [],
        "unfetched": [],
    }
    monkeypatch.setattr(termination.belongings, "everywhere", lambda: found)
    monkeypatch.setattr(termination, "ask", lambda command: idle)
    a, b = runs.load("a"), runs.load("b")
    assert termination.lost([a], [b]) == ""
    assert termination.lost([a], [b.change(fetch=["x"])]) == "the results of b were not fetched"
    for where, value, said in (
        (idle, {"workspace": None}, "R cannot be asked what it holds"),
        (idle, {"workspace": {"unpulled": 2}}, "R has variables that nobody has fetched"),
        (idle, {"sessions": [{"unfetched": 1}]}, "R has results of jobs that nobody has fetched"),
        (idle, {"watchdog": {"working": ["a map"]}}, "there is work: a map"),
        (found, {"files": [("runs/b/x", 1), ("y", 1)]}, "there are other files: runs/b/x, y"),
        (found, {"unfetched": ["5 of 9 results of a map"]}, "5 of 9 results of a map that nobody has"),
        (found, {"suspended": 7}, "RStudio has an R session"),
        (found, {"silent": ["worker"]}, "worker cannot be asked for files"),
    ):
        with monkeypatch.context() as patch:
            for key, changed in value.items():
                patch.setitem(where, key, changed)
            assert termination.lost([a], []) == said
    monkeypatch.setitem(found, "files", [("y", 1), ("runs/c/x", 1)])
    assert termination.lost([a.change(own=True)], []) == "there are other files: runs/c/x"


def test_what_a_message_leaves_in_the_background_is_not_waited_for(home: Path) -> None:
    how: dict[str, Any] = {"job": "it", "status": "done", "end": False, "folder": home}
    begun = [f"sleep 600 & echo $! > {home}/pid; echo well; exit 3"]
    assert aftermath.follow(notify=begun, **how) == [f"`{begun[0]}` ended with status 3: well"]
    os.kill(int((home / "pid").read_text()), signal.SIGKILL)


def test_what_two_write_about_a_run_is_kept(home: Path) -> None:
    run = begin(home, "sim", "exit 0")
    followed("sim")
    kept = []

    def write(name: str) -> None:
        kept.extend(
            getattr(run.change(**{name: i}), name) == i == getattr(runs.load("sim"), name) for i in range(99)
        )

    threads = [threading.Thread(target=write, args=(name,)) for name in ("pid", "status")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 198 and all(kept)


def test_secrets_do_not_go_by_a_proxy(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert sns.credentials(service)["AccessKeyId"] == "AK"
    monkeypatch.setattr(Service, "keys", {"AccessKeyId": "AK"})
    with pytest.raises(sns.Refused, match="gives no credentials"):
        sns.credentials(service)


@needs_r
def test_what_was_lost_with_the_agent_is_followed(home: Path) -> None:
    (home / ".ppe" / "node").unlink()
    with host_r.host_session(home) as session:
        wishes = {"notify": [f"echo $PPE_JOB $PPE_STATUS > {home}/told"], "end": True, "discard": True}
        job = session.submit("Sys.sleep(600)", **wishes)
        assert agent(home, "status")["sessions"][0]["discards"]
        (log,) = until(lambda: [*(home / ".ppe").rglob("jobs.jsonl")]) or []
        until(lambda: '"sequel": {' in log.read_text())
        run = begin(home, "sim", WAITS, then="park", notify=["echo $PPE_STATUS > told"])
        until((run.folder / "pid").exists)
        kill_supervisor(run)
        os.kill(agent(home, "status")["pid"], signal.SIGKILL)
        agent(home, "start")
        agent(home, "start")  # a client that sets the cluster up is somebody who is there
        until((home / "told").exists)
        until(lambda: (home / "told").read_text() == f"job {job.number} lost\n")
        assert (followed("sim").folder / "told").read_text() == "lost\n"
        assert aftermath.asked_end() is None
        assert f'"number": {job.number}' in log.read_text().splitlines()[-1]


LOSES = """
state <- path.expand("~/shared/killed")
squares <- ppe.sapply(1:40, function(i) {
  if (i == 7 && file.create(paste0(state, Sys.getpid())) && length(Sys.glob(paste0(state, "*"))) == 1)
    tools::pskill(Sys.getpid(), 9)
  Sys.sleep(0.05)
  i^2
})
cat("sum", sum(squares), "\\n")
Rmpi::mpi.remote.exec(1)
cat("not so far\\n")
"""


@pytest.mark.slow
def test_a_script_goes_on_without_a_worker_that_is_lost(cluster: Cluster, scripts: Path) -> None:
    (scripts / "loses.R").write_text(LOSES)
    try:
        run = cluster.run("loses.R")
        said = printed(run)
    finally:
        cluster.ssh().run("rm -f ~/shared/killed*")
    assert "sum 22140" in said and "not so far" not in said
    assert run.state == "failed"
    left = cluster.ssh().run(f"ls ~/.ppe/runs/{run.name}").stdout.decode()
    assert "slaves.json" not in left


@pytest.mark.slow
def test_ppe_lapply_in_rstudio_goes_on_without_a_worker_that_is_lost(cluster: Cluster) -> None:
    session = """
        mkdir -p ~/lone ~/.ppe/rstudio && cat >~/lone/loses.R && cd ~/lone
        printf '#!/bin/sh\\nexec Rscript ~/lone/loses.R\\n' >rsession && chmod 755 rsession
        echo '{"program": "'$PWD'/rserver"}' >~/.ppe/rstudio/rserver.json
        setsid python3 ~/.ppe/node rstudio session >said 2>&1 </dev/null & echo $! >pid
    """
    code = LOSES.partition("Rmpi::mpi.remote.exec")[0]
    try:
        cluster.ssh().run(session, stdin=code.encode())
        said = until(
            lambda: (
                (told := cluster.ssh().run("cat ~/lone/said", check=False).stdout)
                and b"sum " in told
                and told
            )
        )
        assert b"sum 22140" in said and b"was lost; " in said
    finally:
        # Without its parent the watch ends.
        cluster.ssh().run("kill -9 $(cat ~/lone/pid); rm -rf ~/shared/killed*", check=False)
        until(lambda: cluster.ssh().run("pgrep -f 'node lone_[r]'", check=False).status == 1)
        cluster.ssh().run("rm -rf ~/lone ~/.ppe/rstudio")
