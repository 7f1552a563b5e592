"""Scripts that go on without a client: what they can do, who sees them, and what becomes of their cluster."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from localcloud_nodes import until

import ppe_jupyter as ppe
from ppe_jupyter.errors import RemoteCommandFailed, TransferFailed, UsageError
from ppe_jupyter.frontends import cli, typed
from ppe_jupyter.frontends.notebook.cells import CELLS
from ppe_jupyter.node.lifetime import sns
from ppe_jupyter.node.lifetime.activity import Process, programs
from ppe_jupyter.remote import runs
from ppe_jupyter.remote.outputs import Text
from ppe_jupyter.runs import Run
from ppe_jupyter.verbs import find

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

R_SCRIPT = """
cat("arguments:", commandArgs(trailingOnly = TRUE), "\\n")
message("squares ", sum(ppe.sapply(1:4, function(i) i^2, seed = 1)), " of ", read.csv("data.csv")$x)
dir.create("out"); saveRDS(1, "out/one.rds"); saveRDS(2, "out/two.rds")
cat(Rmpi::mpi.comm.size(1) - 1, "workers, which are not closed\\n")
quit(status = 3)
"""
PY_SCRIPT = """
from mpi4py import MPI
total = MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank)
if MPI.COMM_WORLD.rank == 0:
    print(MPI.COMM_WORLD.size, "ranks", total)
"""


@pytest.fixture
def scripts(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of scripts, which is this process's; the runs are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("x\n7\n")
    (tmp_path / "squares.R").write_text(R_SCRIPT)
    (tmp_path / "ranks.py").write_text(PY_SCRIPT)
    (tmp_path / "wait.sh").write_text("echo begun; cat; sleep 60 & sleep 60; echo ended")
    yield tmp_path
    for run in cluster.runs():
        run.stop()
        until(lambda run=run: run.state != "running")
    cluster.ssh().run("rm -rf ~/runs ~/.ppe/runs")


def printed(run: Run, **how: Any) -> str:
    """What it prints till its end."""
    said: list[str] = []
    run.watch(lambda output: said.append(output.text), **how)
    return "".join(said)


@pytest.mark.slow
def test_r_reaches_all_slots_and_its_results_come_home(cluster: Cluster, scripts: Path) -> None:
    run = cluster.run("squares.R", "a", "b c", files=["*.csv"], fetch=["out/*", "none"])
    assert (run.script, run.then) == ("squares.R", "nothing")
    assert printed(run) == "arguments: a b c \nsquares 30 of 7\n6 workers, which are not closed\n"
    assert (run.state, run.status) == ("failed", 3)
    done, missing = run.fetch(scripts / "results")
    assert (done.files, missing, run.fetched) == (3, ["none"], False)
    assert sorted(each.name for each in (scripts / "results").iterdir()) == [
        "one.rds",
        "output.log",
        "two.rds",
    ]
    left = cluster.ssh().run("pgrep -c mpirun", check=False).stdout
    assert int(left) == len(cluster.sessions()), "an mpirun has outlived its run"


def test_the_command_line_ends_as_the_script_does(
    cluster: Cluster, scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scripts / "fails.sh").write_text('echo "$@"; exit 7')
    assert cli.main(["run", "fails.sh", "--cluster", cluster.name, "--", "-x", "y z"]) == 7
    out, err = capsys.readouterr()
    assert "\n-x y z\n" in out and "has failed, with status 7" in err
    assert cli.main(["run", "--stop", "--cluster", cluster.name]) == 0
    assert "is over: failed" in capsys.readouterr().out


@pytest.mark.slow
def test_python_runs_on_every_slot(cluster: Cluster, scripts: Path) -> None:
    assert "6 ranks 15" in printed(cluster.run("ranks.py", ranks=-1))


@pytest.mark.slow
def test_a_run_is_seen_and_ended_by_another_client(
    cluster: Cluster, manager: Manager, scripts: Path, kernel: Kernel
) -> None:
    mine = cluster.run("wait.sh", notify=["echo $PPE_JOB: $PPE_STATUS on $PPE_CLUSTER > told; exit 2"])
    other = manager.cluster(cluster.name)
    assert [(each.name, each.state) for each in other.runs()] == [(mine.name, "running")]
    until(
        lambda: (told := other.watchdog()) and f"the run {mine.name}" in told.working
    )  # it looks every 10 s
    assert mine.name in str(kernel.cell(f"%remote_jobs --cluster {cluster.name}"))
    other.find_run(mine.name).stop()
    assert printed(mine) == "begun\n"
    assert mine.state == "stopped"
    until(lambda: mine.refresh().troubles)
    assert "ended with status 2" in mine.troubles[0]
    told = (
        cluster.ssh().run(f"cat {mine.folder}/told; pgrep -c -u $(id -u) sleep", check=False).stdout.decode()
    )
    assert told == f"the run {mine.name}: stopped on {cluster.name}\n0\n"
    other.close()


def test_what_cannot_be_run_is_said_before_anything_is_launched(
    scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scripts / "notes.txt").write_text("")
    topic = "arn:aws:sns:us-east-1:123456789012:done"
    for words, said in (
        (["none.R"], "there is no script none.R"),
        (["notes.txt"], "a script ends in .R, .py or .sh"),
        (["wait.sh", "--ranks", "2"], "a shell script has no MPI ranks"),
        (["squares.R", "--with", "nothing.csv"], "there is no nothing.csv to send along"),
        (["squares.R", "--with", "/nowhere/*.csv"], "there is no /nowhere/*.csv to send along"),
        (["squares.R", "--notify", topic], "--instance-profile"),
        (["squares.R", "--discard"], "discard is for then = terminate"),
        (["squares.R", "--nodes", "2", "--cluster", "test"], "for one that is launched"),
    ):
        assert cli.main(["run", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_dry_run_on_a_cluster_that_runs_does_nothing(
    cluster: Cluster, scripts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "squares.R", "--cluster", cluster.name, "--with", str(scripts / "*.csv"), "--dry-run"]
    assert cli.main([*words, "--then", "terminate", "--discard"]) == 0
    assert f"squares.R would run on {cluster.name}; when it is over" in capsys.readouterr().out
    assert cluster.runs() == []
    with pytest.raises(TransferFailed):
        cluster.run("squares.R", files=["none"], then="terminate", discard=True)
    assert (spec := cluster.refresh().record.spec) and spec.then == "park", "what does not begin ends nothing"


def test_a_watcher_whose_line_is_cut_goes_on(
    cluster: Cluster, scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it had been silent for as long as a cut may last.
    monkeypatch.setattr(runs, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(runs, "AGAIN_PAUSE_SECONDS", 0.0)
    (scripts / "slow.sh").write_text("echo begun; sleep 2; echo ended")
    run, said = cluster.run("slow.sh"), []

    def hear(output: Text) -> None:
        said.append(output.text)
        if len(said) == 1:
            cluster.close()

    run.watch(hear)
    assert "".join(said) == "begun\nended\n" and run.state == "done"


def test_nothing_is_discarded_with_another_run(cluster: Cluster, scripts: Path) -> None:
    run = cluster.run("wait.sh")
    with pytest.raises(UsageError, match=rf"{run.name} would be lost"):
        cluster.run("wait.sh", then="terminate", discard=True)
    with pytest.raises(UsageError, match="then = terminate"):
        cluster.run("wait.sh", then="park", discard=True)


CLIENT = """
import sys
from ppe_jupyter.frontends import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_whose_client_is_killed_parks_its_cluster(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.sh").write_text("echo begun; sleep 10; mkdir out; echo kept > out/result; echo ended")
    words = ["run", "long.sh", "--nodes", "2", "--type", "m5.large", "--name", "alone"]
    # Terminated only by who has fetched: parked without.
    words += ["--fetch", "out/*", "--then", "terminate"]
    try:
        with subprocess.Popen([sys.executable, "-c", CLIENT, *words], stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            until(lambda: client.stdout.readline() == b"begun\n")
            client.send_signal(signal.SIGKILL)
        until(lambda: str(manager.cluster("alone").state) == "parked")
        cluster = manager.cluster("alone").start()
        (run,) = cluster.runs()
        assert (run.state, run.ends_cluster, run.fetched) == ("done", False, False)
        assert printed(run) == "begun\nended\n"
        # Watched again, it is fetched, and the cluster that was started by hand stays.
        assert cli.main(["run", "--watch", "--cluster", "alone"]) == 0
        assert (tmp_path / run.name / "result").read_text() == "kept\n"
        assert str(cluster.refresh().state) == "running"
        costs = manager.costs()
        assert "alone" in str(costs)
    finally:
        manager.terminate("alone")


@pytest.mark.slow
def test_who_watches_to_the_end_may_have_it_terminated(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.sh").write_text("echo $1 > result; [ $1 = well ]")
    words = [
        "run",
        "quick.sh",
        "--type",
        "m5.large",
        "--nodes",
        "1",
        "--fetch",
        "result",
        "--then",
        "terminate",
    ]
    assert cli.main([*words, "--name", "ended", "--notify", "sleep 3; exit 4", "--", "well"]) == 0
    assert "`sleep 3; exit 4` ended with status 4" in capsys.readouterr().err, "it was terminated too early"
    assert "ended" not in [each.name for each in manager.clusters()]
    try:
        assert cli.main([*words, "--name", "failed", "--", "ill"]) == 1
        until(lambda: str(manager.cluster("failed").state) == "parked")
        results = sorted(path.read_text() for path in tmp_path.glob("quick-*/result"))
        assert results == ["ill\n", "well\n"]
    finally:
        manager.terminate("failed")


@pytest.mark.slow
def test_a_background_job_is_followed_by_a_message_and_the_end(manager: Manager) -> None:
    cluster = manager.launch(ppe.ClusterSpec(name="sequel", nodes=1, instance_type="m5.large"))
    try:
        cluster.prepare_end("park")
        interrupted = cluster.r().submit("Sys.sleep(60)")
        interrupted.follow_up(notify=["echo $PPE_STATUS >> told"], end=True)
        interrupted.cancel()
        failed = cluster.r().submit("stop('so')")
        failed.wait()
        failed.follow_up(notify=["echo $PPE_JOB $PPE_STATUS >> told", "exit 5"])
        until(lambda: told(cluster) == 2)
        watchdog = cluster.watchdog()
        assert watchdog and "job" not in watchdog.why, "an interrupted job has ended the cluster"
        done = cluster.r().submit("Sys.sleep(2); x <- 1")
        done.follow_up(end=True)
        cluster.close()
        until(lambda: str(manager.cluster("sequel").state) == "parked")
        cluster = manager.cluster("sequel").start()
        lines = cluster.ssh().run("cat told").stdout.decode().splitlines()
        assert lines == ["interrupted", f"job {failed.number} failed"]
        assert cluster.r().pull("x") == 1
    finally:
        manager.terminate("sequel")


def told(cluster: Cluster) -> int:
    """How many lines its messages have left."""
    return len(cluster.ssh().run("cat told", check=False).stdout.splitlines())


def test_options_of_an_end_are_for_what_runs_without_a_client() -> None:
    arguments = typed.parse(find("remote_r", face="magic"), "--then park", face="magic")
    nobody: Any = None
    with pytest.raises(UsageError, match="--then: only with --background"):
        CELLS["remote_r"](nobody, arguments or nobody, "1", {}, nobody)


def test_words_behind_two_dashes_are_the_scripts() -> None:
    arguments = typed.parse(find("run", face="magic"), "sim.R --nodes 2 -- --seed 1 'a b'", face="magic")
    assert arguments and (arguments.script, arguments.nodes, arguments.rest) == (
        "sim.R",
        2,
        ["--seed", "1", "a b"],
    )


def test_a_run_is_work_and_so_is_who_watches_it() -> None:
    found = [
        Process(5, 1, 1, 0, ("python3", "/home/admin/.ppe/node", "run_script", "sim-1")),
        Process(6, 5, 1, 0, ("mpirun", "-np", "1")),
        Process(7, 1, 1, 0, ("python3", "/home/admin/.ppe/node", "runs", "watch", "sim-2", "0")),
        Process(8, 1, 1, 0, ("python3", "/home/admin/.ppe/node", "runs", "list")),
    ]
    assert programs(found) == ["the run sim-1", "a client at the run sim-2"]


# --- Topics


class Service(BaseHTTPRequestHandler):
    """The metadata service, with a role's credentials, and SNS."""

    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []
    status: ClassVar[int] = 200
    keys: ClassVar[dict[str, str]] = {"AccessKeyId": "AK", "SecretAccessKey": "secret", "Token": "session"}

    def do_PUT(self) -> None:
        self.answer(b"token")

    def do_GET(self) -> None:
        self.answer(json.dumps(self.keys).encode() if self.path.endswith("/role") else b"role\n")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.answer(b"<no/>", self.status)

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Service.got.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    Service.status = 200


def test_a_topic_gets_a_request_that_is_signed_as_the_sdk_signs(service: str) -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:done"
    sns.publish(topic, subject="über", message="a run & more", metadata=service, endpoint=service)
    ((headers, body),) = Service.got
    assert b"Message=a+run+%26+more" in body and b"Subject=%3Fber" in body
    names = ("content-type", "host", "x-amz-date", "x-amz-security-token")
    request = AWSRequest("POST", f"{service}/", data=body, headers={name: headers[name] for name in names})
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AK", "secret", "session"), "sns", "eu-west-1")
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert headers["authorization"].endswith(f"Signature={signature}")
    assert time.strftime("%Y%m%d", time.gmtime()) in headers["authorization"]


def test_a_topic_that_cannot_be_told_says_why(service: str) -> None:
    Service.status = 403
    topic = "arn:aws:sns:eu-west-1:123456789012:done"
    with pytest.raises(sns.Refused, match="SNS answers 403: <no/>"):
        sns.publish(topic, subject="", message="", metadata=service, endpoint=service)
    with pytest.raises(sns.Refused, match="launch it with --instance-profile"):
        sns.credentials("http://127.0.0.1:9")


def test_a_run_that_is_not_there_is_named(cluster: Cluster, scripts: Path) -> None:
    with pytest.raises(UsageError, match="no run 'other'"):
        cluster.find_run("other")
    with pytest.raises(RemoteCommandFailed, match="no run 'other'"):
        cluster.ssh().run("python3 ~/.ppe/node runs stop other")


@pytest.mark.slow
def test_a_cluster_that_holds_more_is_not_terminated(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.sh").write_text("echo 1 > result")
    (tmp_path / "long.sh").write_text("sleep 600")
    spec = ppe.ClusterSpec(name="used", nodes=1, instance_type="m5.large", then="terminate")
    cluster = manager.launch(spec)
    try:
        run = cluster.run("long.sh", then="park")
        assert cluster.record.spec and cluster.record.spec.then == "park", "its master would be terminated"
        cluster.reboot()
        assert run.state in ("stopped", "lost") and not run.ends_cluster
        cluster.r().eval("kept <- 1:10; invisible(NULL)")
        words = ["run", "quick.sh", "--cluster", "used", "--fetch", "result", "--then", "terminate"]
        assert cli.main(words) == 0
        assert (
            "used parks itself instead of being terminated, since more would be lost"
            in capsys.readouterr().err
        )
        until(lambda: "quick-" in (told.why if (told := cluster.watchdog()) else ""))
        # Whoever sets limits keeps it.
        cluster.set_limits(idle_hours=5)
        assert (told := cluster.watchdog()) and "nothing has run" in told.why
    finally:
        manager.terminate("used")
