"""The command line: what it prints and its exit status; the same verbs on a launched cluster."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ppe_jupyter.cloud.records import ClusterState, Progress
from ppe_jupyter.cluster import Cluster
from ppe_jupyter.frontends import cli, desk, progress
from ppe_jupyter.settings import Settings


class Paid:
    """Stands for a Manager of AWS, which no test may reach."""

    def __init__(self) -> None:
        self.settings, self.is_free = Settings(cloud="aws"), False
        self.done: list[str] = []

    def whose(self) -> str:
        return "AWS account 123456789012, region us-east-1, profile default"

    def plan(self, spec: Any, *, dry_run: bool, lock: Any) -> Any:
        return Namespace(
            name="lab",
            existing=None,
            usd_per_hour=1.234,
            rows=lambda: [("price", "$1.234 an hour")],
            check=lambda: None,
        )

    def launch(self, plan: Any, *, report: Any, wait: bool) -> Any:
        self.done.append("launch")
        now = datetime.now(timezone.utc)
        record = Namespace(wanted=2, slots=4, launched=now, usd_per_hour=1.234, troubles=())
        state = ClusterState.RUNNING
        return Namespace(name="lab", state=state, nodes=(), record=record, is_free=False, cost_so_far=0.0)


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paid]:
    manager = Paid()
    monkeypatch.setattr(desk.Desk, "manager", lambda *_: manager)
    yield manager


def ppe(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(words)
    out, err = capsys.readouterr()
    return status, out, err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ppe(capsys, "--help")
    assert status == 0 and "ppe launch" in out and "remote_r" not in out
    status, out, _ = ppe(capsys, "launch", "--help")
    assert status == 0 and "--nodes N" in out
    assert re.fullmatch(r"ppe \d+\.\d+\.\d+\n", ppe(capsys, "--version")[1])


def test_typed_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    assert ppe(capsys, "lunch")[::2] == (
        2,
        "there is no verb 'lunch'; did you mean launch? (help: ppe --help)\n",
    )
    status, _, err = ppe(capsys, "launch", "--nodes", "three")
    assert status == 2 and "'three' is not a whole number" in err


@pytest.fixture
def own_config(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPE_CONFIG", str(tmp_path / "config"))


@pytest.mark.usefixtures("own_config")
def test_config_is_set_and_shown_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ppe(capsys, "config", "proxy=http://me:secret@proxy:3128")
    assert (status, err) == (0, "") and "secret" not in out
    assert ppe(capsys, "config", "max_nodes", "8")[0] == 0
    _, out, _ = ppe(capsys, "config")
    assert out.startswith("local cloud: free\n")
    assert re.search(r"max_nodes +8", out) and "http://***@proxy:3128" in out
    assert "credentials: " in out
    assert not re.search(r"max_nodes +8", ppe(capsys, "config", "max_nodes=")[1])
    status, _, err = ppe(capsys, "config", "max_node", "8")
    assert status == 2 and "did you mean max_nodes?" in err
    status, _, err = ppe(capsys, "config", "cloud", "moon")
    assert status == 1 and "moon" in err


@pytest.mark.usefixtures("own_config")
def test_settings_are_shown_when_aws_cannot_be_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPE_CLOUD", "aws")
    monkeypatch.setenv("PPE_REGION", "us-east-1")
    status, out, err = ppe(capsys, "config")
    assert status == 0 and "no AWS credentials" in err and re.search(r"cloud +aws", out)


@pytest.mark.usefixtures("own_config")
def test_the_ancestors_settings_are_converted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("awsAccessKey=AK\nawsSecretKey=secret\nkeyName=mine\n")
    (tmp_path / "config").chmod(0o600)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    status, _, err = ppe(capsys, "list")
    assert status == 1 and f"convert it with: ppe config import {tmp_path / 'config'}" in err
    status, out, _ = ppe(capsys, "config", "import")
    assert status == 0 and "secret" not in out
    assert re.search(r"key_name +mine", ppe(capsys, "config")[1])


def test_nobody_to_ask_is_an_error_with_the_price(
    paid: Paid, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    status, out, err = ppe(capsys, "launch", "lab")
    assert status == 2 and not paid.done and out.startswith("pays     AWS account 123456789012")
    assert "AWS account 123456789012" in err and "--yes" in err and "$1.23 an hour" in err


@pytest.mark.parametrize(("answer", "done"), [("y", ["launch"]), ("n", []), ("", [])])
def test_money_is_spent_after_yes_only(
    answer: str,
    done: list[str],
    paid: Paid,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = io.StringIO(f"{answer}\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", typed)
    assert ppe(capsys, "launch", "lab")[0] == 0 and paid.done == done


def test_a_command_that_would_take_the_launch_along_is_none(
    paid: Paid, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = ppe(capsys, "launch", "lab", "--yes", "--no-wait")
    assert status == 2 and "'--no-wait' is not understood" in err and "did you mean --no-wait" not in err
    assert paid.done == [] and "no-wait" not in ppe(capsys, "launch", "--help")[1]


def test_progress_without_a_terminal_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), progress.shown("launching lab", progress.terminal) as report:
        report(Progress("booting", 1, 3, 2.0))
        report(Progress("booting", 1, 3, 3.0))
        report(Progress("configuring", 1, 3, 4.0, "names"))
        raise KeyError
    assert capsys.readouterr().err.splitlines() == [
        "launching lab: 1/3 nodes, 2 s, booting",
        "launching lab: 1/3 nodes, 4 s, configuring · names",
        "launching lab: stopped after 4 s",
    ]


def test_the_verbs_on_a_cluster(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["list"]):
        status, out, _ = ppe(capsys, *words)
        assert status == 0 and out.startswith("local cloud: free\n")
        assert re.search(rf"{cluster.name} +running +3 +6", out)
    status, out, _ = ppe(capsys, "status", cluster.name)
    assert status == 0 and all(node.private_ip in out for node in cluster.nodes)
    status, out, _ = ppe(capsys, "ssh")
    assert status == 0 and out.startswith("ssh ") and cluster.master.address in out
    status, out, _ = ppe(capsys, "ssh", "--node", "2", "echo", "a  b", ";", "hostname", "-I")
    assert status == 0 and "a  b" in out
    status, _, err = ppe(capsys, "ssh", "--node", "7", "true")
    assert status == 1 and "has no node '7'" in err
    status, _, err = ppe(capsys, "status", "nowhere")
    assert status == 1 and "nowhere" in err and "%ppe" not in err
    status, out, _ = ppe(capsys, "launch", cluster.name, "--dry-run", "--nodes", "2000")
    assert status == 1


def test_the_ssh_command_line_works(cluster: Cluster) -> None:
    command = str(Path(sys.executable).with_name("ppe"))
    line = subprocess.run([command, "ssh"], capture_output=True, text=True, check=True).stdout.strip()
    options = "-o StrictHostKeyChecking=yes -o BatchMode=yes"
    ran = subprocess.run(["sh", "-c", f"{line} {options} hostname -I"], capture_output=True, text=True)
    assert cluster.master.private_ip in ran.stdout, ran.stderr
    # A worker without a public address is reached through the master.
    assert cluster.record.spec is not None
    nodes = (cluster.master, *(replace(node, public_ip="") for node in cluster.nodes[1:]))
    spec = replace(cluster.record.spec, public_addresses="master")
    private = Cluster(cluster._account, replace(cluster.record, nodes=nodes, spec=spec))
    line = f"{private.ssh_command(private.nodes[1])} {options} 'hostname -I; echo $SSH_CONNECTION'"
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    worker, came_from = (words.split()[0] for words in ran.stdout.splitlines())
    assert (worker, came_from) == (nodes[1].private_ip, cluster.master.private_ip), ran.stderr
