"""The dead-man timer and the beacon: what ends a node that nobody looks after, and what does not."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from localcloud_nodes import until
from members import Members

from ppe_jupyter.localcloud import hooks
from ppe_jupyter.node.lifetime import beacon
from ppe_jupyter.node.lifetime.deadman import Deadman

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

LIMITS: dict[str, Any] = {"boot_seconds": 100, "hard_seconds": None, "silence_seconds": 50}
MEMBER = {"secret": "s", "name": "worker", "master": "192.0.2.1", "silence_seconds": 20}
WALL = 1_000_000.0


class TestBeacon:
    def test_a_message_comes_through_once(self) -> None:
        sent = beacon.Signer("secret", "master").sign("heartbeat", deadline=5)
        verifier = beacon.Verifier("secret")
        message = verifier.open(sent)
        assert message is not None
        assert (message["kind"], message["name"], message["deadline"]) == ("heartbeat", "master", 5)
        assert verifier.open(sent) is None

    def test_equal_messages_differ(self) -> None:
        signer, verifier = (
            beacon.Signer("s", "master", clock=lambda: 7),
            beacon.Verifier("s", clock=lambda: 7),
        )
        assert all(verifier.open(signer.sign("end", why="")) for _ in range(3))

    @pytest.mark.parametrize(
        "datagram",
        [b"", b"x" * 20, b"x" * 200, beacon.Signer("other", "master").sign("end")],
        ids=["empty", "short", "long", "another's"],
    )
    def test_what_is_not_signed_is_not_believed(self, datagram: bytes) -> None:
        assert beacon.Verifier("secret").open(datagram) is None

    def test_what_was_changed_or_is_old_is_not_believed(self) -> None:
        sent = beacon.Signer("s", "master").sign("heartbeat")
        assert beacon.Verifier("s").open(sent[:-1] + b" ") is None
        old = beacon.Signer("s", "master", clock=lambda: 1).sign("end")
        assert beacon.Verifier("s").open(old) is None


class TestTimer:
    def timer(self, state: dict[str, Any] | None = None, **limits: Any) -> Deadman:
        return Deadman({**LIMITS, **limits}, state, now=0, wall=WALL)

    def left(self, timer: Deadman, now: float) -> tuple[float, str]:
        return timer.left(now=now, wall=WALL + now)

    def test_a_node_that_nobody_configures(self) -> None:
        seconds, why = self.left(self.timer(), 30)
        assert seconds == 70
        assert "not made a node of a cluster within 100 s" in why

    def test_silence_counts_from_the_last_heartbeat(self) -> None:
        timer, signer = self.timer(), beacon.Signer("s", "master")
        timer.join(MEMBER, now=90)
        assert self.left(timer, 95) == (15, "the master has been silent for 20 s")
        assert timer.hear(signer.sign("heartbeat", deadline=None), now=100) is None
        timer.join(dict(MEMBER), now=105)  # the same membership again
        assert self.left(timer, 110)[0] == 10

    def test_the_deadline_is_kept_and_the_masters_word_moves_it(self) -> None:
        timer, signer = self.timer(hard_seconds=30), beacon.Signer("s", "master")
        assert self.left(timer, 10) == (20, "its time limit is over")
        timer.join(MEMBER, now=10)
        timer.hear(signer.sign("heartbeat", deadline=WALL + 25), now=10)
        assert self.left(timer, 10)[0] == 15
        rebooted = self.timer({"deadline": timer.deadline}, hard_seconds=30)
        assert self.left(rebooted, 0)[0] == 25
        timer.hear(signer.sign("heartbeat", deadline=None), now=10)
        assert self.left(timer, 10)[0] == 20  # the silence

    def test_a_deadline_of_an_earlier_life_leaves_time_for_a_new_one(self) -> None:
        assert self.left(self.timer({"deadline": WALL - 9999}), 0)[0] == 100

    def test_the_master_may_end_it_and_nobody_else(self) -> None:
        timer = self.timer()
        assert (
            timer.hear(beacon.Signer("s", "master").sign("end", why="parked"), now=1) is None
        )  # no member yet
        timer.join(MEMBER, now=1)
        assert timer.hear(beacon.Signer("other", "master").sign("end", why="parked"), now=1) is None
        assert timer.hear(beacon.Signer("s", "master").sign("end", why="parked"), now=1) == "parked"


# Seconds; of a master that has much else to do, nothing may be heard for a while.
SILENCE = 40


@pytest.fixture(scope="module")
def pair(local_cloud: Endpoint) -> Iterator[Members]:
    """A master and a worker that give each other up soon; the worker is a spot instance."""
    with paired(local_cloud, "deadman", market={"MarketType": "spot"}) as members:
        yield members


@contextlib.contextmanager
def paired(local_cloud: Endpoint, name: str, **of_worker: Any) -> Iterator[Members]:
    members = Members(local_cloud, name, boot_seconds=120, silence_seconds=SILENCE)
    try:
        members.launch(0, master=0)
        members.launch(1, **of_worker)
        assert members.set_up(silence_seconds=SILENCE)[-1]["event"] == "done"
        yield members
    finally:
        members.close()


def test_a_node_that_is_never_configured_ends_itself(local_cloud: Endpoint) -> None:
    members = Members(local_cloud, "orphan", boot_seconds=3)
    try:
        (orphan,) = members.launch(0, master=0)
        members.nodes.reaches(orphan.instance_id, "terminated")
    finally:
        members.close()


def test_it_says_what_would_end_it_also_after_a_reboot(pair: Members) -> None:
    worker = pair.members[1]

    def told() -> Any:
        """When process 1 was started, and what the timer says; None while the node does not answer."""
        ask = f"ssh -o ConnectTimeout=1 {worker.name} 'stat -c %Y /proc/1 && sudo ppe-deadman status'"
        done = pair.ssh().run(ask, check=False)
        lines = done.stdout.decode().splitlines()
        return (lines[0], json.loads(lines[1])) if done.status == 0 else None

    first, before = told()
    assert before["running"] and before["why"] == f"the master has been silent for {SILENCE} s"
    pair.nodes.ec2.reboot_instances(InstanceIds=[worker.instance_id])
    _, after = until(lambda: (answer := told()) and answer[0] != first and answer)
    assert after["running"] and after["why"] == before["why"]


@pytest.mark.slow
def test_processor_time_outside_of_r_is_work_on_every_node(pair: Members) -> None:
    for member, words in (
        (pair.members[1], f"processes on {pair.members[1].name}"),
        (pair.master, "outside of R"),
    ):
        loop = "nohup timeout 60 sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"
        pid = pair.elsewhere(member, loop)

        def told(words: str = words) -> bool:
            return any(words in each for each in pair.status()["watchdog"]["working"])

        until(told)
        pair.elsewhere(member, f"kill {pid}")


def test_a_spot_interruption_reaches_clients_and_the_status(pair: Members, local_cloud: Endpoint) -> None:
    worker, notices = pair.members[1], []
    with pair.r(on_notice=notices.append) as r:
        r.eval("1")
        hooks.interrupt_spot(local_cloud, worker.instance_id, seconds=120)
        until(lambda: notices)
        assert re.search(
            rf"EC2 will terminate the spot node {worker.name} at \w{{3}} \d\d \w{{3}} \d\d:\d\d:",
            notices[0].text,
        )
    (spot,) = pair.status()["watchdog"]["spot"]
    assert (spot["node"], spot["action"]) == (worker.name, "terminate")


@pytest.mark.slow
def test_workers_end_when_the_master_is_lost(pair: Members) -> None:
    pair.nodes.ec2.terminate_instances(InstanceIds=[pair.master.instance_id])
    pair.nodes.reaches(pair.members[1].instance_id, "terminated")


@pytest.mark.slow
def test_all_nodes_end_when_the_master_lives_but_hangs(local_cloud: Endpoint) -> None:
    with paired(local_cloud, "hanging") as members:
        members.shell("pkill -STOP -f '[a]gent.py'")
        for member in members.members:
            members.nodes.reaches(member.instance_id, "terminated")
