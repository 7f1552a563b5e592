"""The watchdog: what counts as work, what ends a cluster and when, and that nothing is lost by it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from localcloud_nodes import until
from members import Members
from test_evaluator import when_begun

from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import RSessionDied
from ppe_jupyter.node.lifetime import activity
from ppe_jupyter.node.lifetime.activity import Meter, Process
from ppe_jupyter.node.lifetime.limits import Limits, Verdict, in_words, judge
from ppe_jupyter.remote.ranks.cells import run_shell

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager
    from ppe_jupyter.remote.outputs import Notice

AGENT = "python3 ~/.ppe/node/agent.py"
NOW = 1_000_000.0


class TestLimits:
    def test_without_limits_nothing_ends(self) -> None:
        assert judge(Limits(), idle_since=NOW, armed=NOW) == Verdict(None)

    def test_idle(self) -> None:
        limits = Limits(idle_seconds=7200)
        verdict = judge(limits, idle_since=NOW, armed=NOW)
        assert (verdict.at, verdict.why) == (NOW + 7200, "nothing has run for 2 h")
        assert judge(limits, idle_since=None, armed=NOW).at is None

    def test_the_budget_is_spent_at_the_present_rate(self) -> None:
        limits = Limits(budget_usd=10, spent_usd=4, usd_per_hour=2, since=NOW)
        verdict = judge(limits, idle_since=None, armed=NOW)
        assert (verdict.at, verdict.why) == (NOW + 3 * 3600, "its budget of 10 USD is spent")
        assert limits.spent(NOW + 3600) == 6
        assert judge(Limits(budget_usd=10), idle_since=None, armed=NOW).at is None  # no price

    def test_the_earliest_counts(self) -> None:
        limits = Limits(
            idle_seconds=100, deadline=NOW + 400, budget_usd=1, usd_per_hour=3600, since=NOW + 600
        )
        assert judge(limits, idle_since=NOW + 200, armed=NOW).at == NOW + 300
        assert judge(limits, idle_since=None, armed=NOW).at == NOW + 400

    def test_what_was_over_in_an_earlier_life_leaves_time_for_other_limits(self) -> None:
        limits = Limits(deadline=NOW - 9999, warn_seconds=300)
        assert judge(limits, idle_since=None, armed=NOW).at == NOW + 300

    def test_warnings_come_in_time_for_short_limits_too(self) -> None:
        verdict = judge(Limits(deadline=NOW + 1000), idle_since=None, armed=NOW)
        assert [verdict.warnings_due(NOW + at) for at in (699, 700, 939, 940)] == [0, 1, 1, 2]
        verdict = judge(Limits(idle_seconds=60), idle_since=NOW, armed=NOW)
        assert [verdict.warnings_due(NOW + at) for at in (0, 29, 30, 45)] == [0, 0, 1, 2]
        assert [verdict.next_event(NOW + at) for at in (0, 30, 50, 70)] == [30, 15, 10, 0]

    @pytest.mark.parametrize(
        "given",
        [{"idle": 5}, {"idle_seconds": -1}, {"idle_seconds": "2h"}, {"then": "stop"}, {"warn_seconds": None},
         {"deadline": True}],
    )  # fmt: skip
    def test_limits_that_make_no_sense_are_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(given))):
            Limits.parse(given)

    def test_they_survive_the_file(self) -> None:
        limits = Limits(idle_seconds=7200, budget_usd=5, then="terminate")
        assert Limits.parse(json.loads(limits.dump())) == limits

    def test_spans_in_words(self) -> None:
        assert [in_words(seconds) for seconds in (5, 90, 7200, 5400)] == ["5 s", "1.5 min", "2 h", "1.5 h"]


def process(pid: int, parent: int, *words: str, seconds: float = 0) -> Process:
    return Process(pid, parent, 1, seconds, words)


class TestActivity:
    # agent 10, mpirun 11, R 12 and its child 13, a worker 14; sshd 20, what came over it 21 to 23; a daemon 30
    FOUND: ClassVar = {
        each.pid: each
        for each in (
            process(10, 1, "/usr/bin/python3", "/home/admin/.ppe/node/agent.py", "serve"),
            process(11, 10, "mpirun", "-np", "1"),
            process(12, 11, "/usr/lib/R/bin/exec/R"),
            process(13, 12, "/usr/lib/R/bin/exec/R", "--worker"),
            process(14, 11, "/usr/lib/R/bin/exec/R"),
            process(20, 1, "sshd: admin@notty"),
            process(21, 20, "python3", "/home/admin/.ppe/node/agent.py", "attach"),
            process(22, 20, "python3", "/home/admin/.ppe/node", "run_cell"),
            process(23, 22, "/usr/bin/mpirun", "--hostfile"),
            process(30, 1, "rsession"),
        )
    }

    def test_what_r_left_to_compute_counts_and_the_session_does_not(self) -> None:
        found = activity.outside(self.FOUND, agent=10, r=[12])
        assert {each.pid for each in found} == {13, 22, 23, 30}
        assert activity.programs(found) == ["a cell (process 22)", "mpirun (process 23)"]

    def test_a_map_without_its_client_counts_and_ranks_that_wait_do_not(self, tmp_path: Path) -> None:
        found = [
            process(40, 1, "python3", "/home/admin/.ppe/node", "map_keeper"),
            process(41, 40, "mpirun", "-np", "6"),
            process(42, 1, "python3", "/home/admin/.ppe/node", "team", "python", "6"),
            process(43, 42, "mpirun", "-np", "6"),
        ]
        for name in ("40.busy", "99.busy", "team-map-0.lock"):
            (tmp_path / name).touch()
        busy = activity.keepers_at_work(tmp_path)
        assert activity.programs(found, busy=busy) == ["a map (process 40)"]
        assert activity.programs(found, busy={42}) == ["a cell on ranks (process 42)"]
        assert activity.programs(found, busy={41, 99}) == []

    def test_on_a_worker_what_belongs_to_mpi_does_not_count(self) -> None:
        found = [
            process(5, 1, "/usr/bin/orted"),
            process(6, 5, "sh"),
            process(7, 6, "R"),
            process(8, 1, "python3"),
        ]
        assert [each.pid for each in activity.on_worker({each.pid: each for each in found})] == [8]

    def test_processor_time_counts_by_the_minute(self) -> None:
        meter = Meter()
        times = [(0, 100.0), (10, 101.0), (20, 103.0), (90, 103.0)]
        shares = [meter.share([process(30, 1, "x", seconds=used)], now=now) for now, used in times]
        assert shares == [0, pytest.approx(1 / 60), pytest.approx(3 / 60), 0]

    def test_what_comes_and_goes_between_two_looks_is_no_work(self) -> None:
        meter = Meter()
        assert [meter.share([process(pid, 1, "x", seconds=5)], now=pid) for pid in (1, 2, 3)] == [0, 0, 0]


@pytest.fixture(scope="module")
def trio(local_cloud: Endpoint) -> Iterator[Members]:
    """A cluster whose master stops and whose workers terminate when they are shut down, without limits."""
    members = Members(local_cloud, "watchdog")
    members.launch(0, 1, 2, master=0)
    assert members.set_up()[-1]["event"] == "done"
    members.stays()
    yield members
    members.close()


# An evaluation that lasts until that file is there.
UNTIL_ON = "unlink('~/on'); while (!file.exists('~/on')) Sys.sleep(0.05)"


def limit(trio: Members, **limits: Any) -> dict[str, Any]:
    """Put limits in force; what the watchdog says then."""
    done = trio.ssh().run(f"{AGENT} limits", stdin=json.dumps(limits).encode())
    return dict(json.loads(done.stdout))


def test_looking_is_no_work(trio: Members) -> None:
    with trio.r() as r:
        r.eval("library(Rmpi); mpi.spawn.Rslaves(nslaves = 2)", on_output=lambda output: None)
        before = limit(trio)["idle_since"]
        for _ in range(5):
            r.replay()
            r.objects()
            trio.status()
        after = limit(trio)
        assert (after["working"], after["idle_since"]) == ([], before)
        r.eval("mpi.close.Rslaves()")


def test_cells_and_evaluations_are_work(trio: Members) -> None:
    cell = threading.Thread(
        target=run_shell,
        args=(trio.ssh(), "until [ -e ~/on ]; do sleep 0.05; done"),
        kwargs={"on_output": lambda output: None},
    )
    cell.start()
    until(lambda: any("a cell" in each for each in limit(trio)["working"]))
    trio.shell("touch ~/on")
    cell.join()
    with trio.r(client="analysis.ipynb") as r:
        evaluation = threading.Thread(target=r.eval, args=(UNTIL_ON,))
        evaluation.start()
        until(lambda: "R evaluates for analysis.ipynb" in trio.status()["watchdog"]["working"])
        assert trio.status()["watchdog"]["idle_since"] is None
        trio.shell("touch ~/on")
        evaluation.join()


def test_limits_are_refused_or_in_force_at_once(trio: Members) -> None:
    refused = trio.ssh().run(f"{AGENT} limits", stdin=b'{"idle_seconds": "soon"}', check=False)
    assert refused.status == 1
    assert b"idle_seconds is 'soon'" in refused.stderr
    deadline = time.time() + 4000
    told = limit(
        trio, deadline=deadline, then="terminate", budget_usd=9, usd_per_hour=1, since=time.time() - 3600
    )
    assert (told["acts_at"], told["then"]) == (deadline, "terminate")
    assert told["spent_usd"] == pytest.approx(1, abs=0.1)
    assert trio.status()["watchdog"]["acts_at"] == deadline
    assert limit(trio)["acts_at"] is None


def test_clients_are_warned_while_they_evaluate_and_while_they_wait(trio: Members) -> None:
    busy: list[Notice] = []
    idle: list[Notice] = []
    with trio.r(on_notice=busy.append) as r, trio.r(on_notice=idle.append) as other:
        other.eval("1")
        evaluation = threading.Thread(target=r.eval, args=(UNTIL_ON,))
        evaluation.start()
        limit(trio, deadline=time.time() + 200)
        until(lambda: busy and idle)
        assert evaluation.is_alive()
        for notice in (busy[-1], idle[-1]):
            assert notice.level == "warning"
            assert "this cluster is parked, because the time that it was launched for is over" in notice.text
        limit(trio)
        until(lambda: "The cluster goes on" in idle[-1].text)
        trio.shell("touch ~/on")
        evaluation.join()
    assert any("this cluster is parked" in getattr(each, "text", "") for each in trio.r().replay())
    late: list[Notice] = []
    limit(trio, deadline=time.time() + 200)
    with trio.r(on_notice=late.append) as r:
        until(lambda: trio.status()["notices"])
        r.eval("1")
        assert ["this cluster is parked" in notice.text for notice in late] == [True]
    limit(trio)
    until(lambda: not trio.status()["notices"])


def test_what_was_never_fetched_is_known(trio: Members) -> None:
    with trio.r() as r:
        r.eval("rm(list = ls()); x <- 1:10; big <- runif(1e6); f <- function() 1")
        r.pull("x")
        r.pull("big")
        r.push("mine", np.arange(5))
        known = {name: pulled for name, _, pulled in r.objects()}
        assert known == {"x": True, "big": True, "mine": True, "f": False}
        assert {name: size for name, size, _ in r.objects()}["big"] > 8e6
        r.eval("x[2] <- 7L; big <- rev(big)")
        assert {name for name, _, pulled in r.objects() if pulled} == {"mine"}
        assert trio.status()["workspace"]["unpulled"] == 3
        r.eval("rm(list = ls())")
        assert r.objects() == []


def test_a_client_saves_the_workspace_of_a_busy_r(trio: Members) -> None:
    with trio.r() as r:
        r.eval("library(MASS); kept <- 'busy'")
        died = pytest.raises(RSessionDied, match="to save the workspace")
        with when_begun(lambda: trio.shell(f"{AGENT} save > ~/saved")) as begun, died:
            r.eval("cat('begun'); Sys.sleep(600)", on_output=begun)
        assert json.loads(trio.shell("cat ~/saved"))["saved"]
        assert r.eval("kept") == "busy"
        trio.shell(f"{AGENT} stop; {AGENT} start")
    notices: list[Notice] = []
    with trio.r(on_notice=notices.append) as r:
        assert r.eval("'package:MASS' %in% search() && kept == 'busy'") is True
        assert "is loaded again: 1 object." in notices[-1].text
    assert "restored.RData" in trio.shell("ls ~/.ppe")


def test_an_idle_cluster_is_parked_and_comes_back(trio: Members) -> None:
    notices: list[Notice] = []
    named = ["first", "second"]
    for name in named:
        with trio.r(session=name) as session:
            session.eval(f"who <- '{name}'")
    with trio.r(on_notice=notices.append) as r:
        r.eval("rm(list = ls()); fit <- lm(dist ~ speed, cars); library(splines)")
        limit(trio, idle_seconds=6)
        for each in trio.members:
            state = "stopped" if each.role == "master" else "terminated"
            trio.nodes.reaches(each.instance_id, state)
    text = "".join(notice.text for notice in notices)
    assert "this cluster is parked, because nothing has run for 6 s" in text
    assert "The cluster is parked now" in text
    trio.nodes.ec2.start_instances(InstanceIds=[trio.master.instance_id])
    trio.nodes.reaches(trio.master.instance_id, "running")
    trio.reconnect()
    back: list[Notice] = []
    with trio.r(on_notice=back.append) as r:
        assert r.eval("round(coef(fit)[['speed']], 2)") == 3.93
        assert r.eval("'package:splines' %in% search()") is True
        assert "when the cluster was ended, because nothing has run for 6 s is loaded again" in back[0].text
        assert [row["name"] for row in r.command({"do": "sessions"})["sessions"]] == ["main", *named]
    for name in named:
        with trio.r(session=name) as session:
            assert session.eval("who") == name


def test_a_cluster_that_is_to_end_is_terminated_though_its_disk_is_full(manager: Manager) -> None:
    cluster = manager.launch(ClusterSpec(name="brief", nodes=1, instance_type="m5.large"))
    try:
        cluster.ssh().run("mkdir ~/.ppe/ended.json")  # so that no note of the end can be written
        cluster.set_limits(idle_hours=3 / 3600, then="terminate")
        found = manager._account.context.ec2.instances
        until(lambda: [str(each.state) for each in found(cluster="brief")] == ["terminated"])
        assert "brief" not in [each.name for each in manager.clusters()]
    finally:
        manager.terminate("brief")
