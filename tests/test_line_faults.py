"""What a client meets when the agent is frozen, or its line is reset or goes dead, also behind a jump host."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from localcloud_nodes import Nodes, first_process, until
from test_evaluator import Seen, press_stop, soon, when_begun
from test_private_network import jump_host
from test_sessions import LOOP, cut_off, go_on, in_the_result, lines, own, port_of, printed, said

from ppe_jupyter.errors import ConnectionLost, RemoteError, RemoteInterrupted
from ppe_jupyter.manager import Manager
from ppe_jupyter.remote.line import call, link
from ppe_jupyter.remote.sessions.session import AGENT, Output, RemoteR

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.settings import Settings

__all__ = ["jump_host", "own"]  # the fixtures

# But the resets themselves.
RESET = "tcp flags & rst != rst reject with tcp reset"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(call, "GRACE", 2.0)


@pytest.mark.usefixtures("impatient")
class TestFrozenAgent:
    @staticmethod
    @contextmanager
    def frozen(r: RemoteR) -> Iterator[None]:
        pid = json.loads(r._connection.run(f"{AGENT} status").stdout)["pid"]
        r._connection.run(f"kill -STOP {pid}")
        try:
            yield
        finally:
            r._connection.run(f"kill -CONT {pid}")

    def test_it_is_said_and_the_cell_goes_on_afterwards(self, r: RemoteR, own: RemoteR) -> None:
        seen = Seen()

        def freeze() -> None:
            until(lambda: "line 3 " in seen.text)
            with self.frozen(r):
                until(lambda: "does not answer. Waiting for it (stop ends the waiting)" in said(seen))
            go_on(r)

        thread = threading.Thread(target=freeze)
        thread.start()
        own.run(LOOP.format(n=40), on_output=seen.append)
        thread.join()
        assert "answers again" in said(seen)
        assert printed(seen) == lines(40) + '[1] "end"\n'

    @pytest.mark.slow
    def test_a_silent_r_is_no_silent_agent(self, own: RemoteR, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(call, "SILENT_SECONDS", 4.0)
        seen = Seen()
        assert own.eval("Sys.sleep(10); 1", on_output=seen.append) == 1
        assert seen == []

    def test_one_press_of_stop_ends_the_waiting(self, r: RemoteR, own: RemoteR) -> None:
        own.eval("0")
        mute = pytest.raises(RemoteInterrupted, match=r"agent on .* does not answer")
        with self.frozen(r), when_begun(press_stop) as waits, mute:
            own.eval("Sys.sleep(60)", on_output=waits)
        assert own.eval("6 * 7", on_output=Seen().append, timeout=60) == 42

    def test_one_press_of_stop_ends_an_upload(self, r: RemoteR, own: RemoteR) -> None:
        own.eval("x <- 'old'")
        array = np.random.default_rng(3).random(8_000_000)  # more than all the buffers on the way hold
        with self.frozen(r), soon(1, press_stop), pytest.raises(RemoteInterrupted, match="transfer was"):
            own.push("x", array)
        assert own.eval("x", on_output=Seen().append, timeout=60) == "old"

    def test_a_time_out_says_whose_fault_it_is(self, r: RemoteR, own: RemoteR) -> None:
        own.eval("0")
        with self.frozen(r), pytest.raises(RemoteInterrupted, match=r"agent on .* does not answer"):
            own.eval("Sys.sleep(60)", on_output=Seen().append, timeout=1)
        assert own.eval("6 * 7", on_output=Seen().append, timeout=60) == 42

    def test_a_verb_does_not_wait_for_ever(
        self, r: RemoteR, own: RemoteR, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with self.frozen(r), monkeypatch.context() as brief:
            brief.setattr(link, "GREETING_SECONDS", 1.0)
            with pytest.raises(ConnectionLost, match="does not answer within 1 s"):
                own.jobs()
        assert own.jobs()


Cut = Callable[[], AbstractContextManager[None]]


def evaluates(client: RemoteR, cut: Cut) -> None:
    """An evaluation whose line is cut ends as if nothing had been."""
    seen = Seen()
    with ExitStack() as later:

        def show(output: Output) -> None:
            before = "line 3 " in seen.text
            seen.append(output)
            if "line 3 " in seen.text and not before:
                later.enter_context(cut())
            if "Connected again" in said(seen):
                go_on(client)

        client.run(LOOP.format(n=10), on_output=show)
    assert printed(seen) == lines(10) + '[1] "end"\n'
    assert len(seen.displays) == 1
    assert "Connected again" in said(seen)


def sends(client: RemoteR, cut: Cut) -> None:
    """A value that is cut off on its way arrives whole, and once."""
    array = np.random.default_rng(2).random(8_000_000)
    client.eval("0", on_output=Seen().append)
    with ExitStack() as later, soon(0.05, lambda: later.enter_context(cut())):
        client.push("x", array)
    assert client.eval("sum(x)", on_output=Seen().append) == pytest.approx(array.sum(), rel=1e-12)


def receives(client: RemoteR, cut: Cut) -> None:
    """A result that is cut off is an error, and never a part."""
    client.eval("x <- as.double(1:4e6)", on_output=Seen().append)
    with ExitStack() as later:
        done = in_the_result(client, lambda: later.enter_context(cut()))
        with pytest.raises(RemoteError, match="pull that again"):
            client.eval("x", on_output=Seen().append)
    assert done
    assert client.pull("x").sum() == client.eval("sum(x)", on_output=Seen().append)


PHASES = [evaluates, sends, receives]
phases = pytest.mark.parametrize("phase", PHASES)


@phases
def test_a_line_that_is_reset(own: RemoteR, phase: Callable[[RemoteR, Cut], None]) -> None:
    port = port_of(own)
    phase(own, lambda: cut_off(port, RESET))


@pytest.fixture
def behind(
    cluster: Cluster, r: RemoteR, settings: Settings, jump_host: tuple[Nodes, str]
) -> Iterator[RemoteR]:
    """A client whose line, which it makes again, goes through the jump host."""
    nodes, instance = jump_host
    (group,) = {each["GroupId"] for each in nodes.describe(cluster.master.instance_id)["SecurityGroups"]}
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": nodes.group}]}
    nodes.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh])
    there = Manager(replace(settings, proxy_jump=f"admin@{nodes.address(instance)}")).cluster(cluster.name)
    connect = there._account.clusters.connect
    client = RemoteR(connect(there.record), reconnect=lambda: connect(there.record), client="behind.ipynb")
    yield client
    client.close()
    client._connection.close()
    nodes.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[ssh])


@pytest.mark.slow
@pytest.mark.parametrize("how", [RESET, "drop"])
@pytest.mark.parametrize("leg", ["to the jump host", "behind it"])
def test_a_line_through_a_jump_host(
    behind: RemoteR, jump_host: tuple[Nodes, str], leg: str, how: str
) -> None:
    nodes, instance = jump_host
    address, inside = nodes.address(instance), ["nsenter", "-t", str(first_process(instance)), "-n"]

    def cut() -> AbstractContextManager[None]:
        if leg == "behind it":
            return cut_off(port, how, where=inside)
        command = ["ss", "-Htn", "state", "established", "dst", f"{address}:22"]
        (line,) = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return cut_off(line.split()[2].rpartition(":")[2], how)

    for phase in PHASES:
        behind.eval("0", on_output=Seen().append)
        port = port_of(behind)
        phase(behind, cut)
