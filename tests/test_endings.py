"""What a client does at the end of a run: for whom results are fetched, and whose cluster is terminated."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ppe_jupyter import person, remote
from ppe_jupyter.errors import ConnectionLost, NothingToDo, RemoteCommandFailed, TransferFailed, UsageError
from ppe_jupyter.frontends import typed
from ppe_jupyter.frontends.actions import endings, runs
from ppe_jupyter.frontends.notebook import background
from ppe_jupyter.remote.sessions.watchdog import Losses
from ppe_jupyter.runs import Run, Runs, others
from ppe_jupyter.verbs import find

ROW = {
    "name": "sim-1", "script": "sim.R", "client": "ann@desk, process 1", "began": 0.0, "ended": 1.0, "state": "done",
    "status": 0, "then": "terminate", "discard": False, "own": True, "fetch": ["out/*"], "store": "",
    "notify": [], "fetched": False, "followed": False, "troubles": [], "ends_cluster": True,
}  # fmt: skip
ME = person.client()


class Over(Run):
    """A run that is over; what follows it is known at the second look."""

    noted: bool | None = None
    looks = 0

    def __init__(self, **row: Any) -> None:
        super().__init__(lambda: pytest.fail("nobody is to be asked"), {**ROW, **row})

    def fetch(self, to: str | Path, *, note: bool = True, on_progress: Any = None) -> Any:
        self.noted = note
        return Namespace(base=to), []

    def refresh(self) -> Over:
        self.looks += 1
        if self.looks > 1:
            self._row = {**self._row, "followed": True, "troubles": ["`mail` ended with status 1"]}
        return self


class Held(Runs):
    """A cluster that notes what its master is to do."""

    name = "lab"

    def __init__(self, owner: str = "me") -> None:
        self.record = Namespace(owner=owner)
        self.ended = 0
        self.prepared: list[tuple[str, bool]] = []
        self.running: list[Run] = [Over()]
        self.discards = False

    def prepare_end(self, then: Any, *, discard: bool = False) -> bool:
        self.prepared.append((then, discard))
        return True

    def runs(self) -> list[Run]:
        return self.running

    def ssh(self) -> Any:
        told = json.dumps({"sessions": [{"name": "main", "discards": self.discards}]}).encode()
        return Namespace(run=lambda command, **how: Namespace(stdout=told))

    @property
    def mine(self) -> bool:
        return bool(self.record.owner == "me")

    def terminate(self) -> None:
        self.ended += 1

    def losses(self) -> Losses:
        return Losses(objects=(), files=(), jobs=("the run sim-1", "a client at the run sim-1"))

    def run(self, *about: Any, **how: Any) -> Run:
        raise TransferFailed("the disk is full")


class Desk:
    """Says what was said and done; nobody is there to ask."""

    sign, keep = "%ppe_", None

    def __init__(self) -> None:
        self.said: list[str] = []
        self.say = self.said.append

    def manager(self, arguments: Any) -> Any:
        mine = lambda record: record.owner == "me"  # noqa: E731
        return Namespace(mine=mine, whose=lambda: "account 1")

    def notice(self, level: str, text: str) -> None:
        self.said.append(text)

    def forget(self, name: str, arguments: Any) -> None:
        pass

    def agree(self, question: str, *, unless: object) -> None:
        if not unless:
            raise NothingToDo(question)

    @contextmanager
    def progress(self, title: str) -> Any:
        yield lambda progress: None


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.runs, "TICK_SECONDS", 0.0)


def conclude(run: Over, *, owner: str = "me") -> tuple[int, list[str]]:
    """How often the cluster was terminated, and what was said."""
    desk: Any = Desk()
    cluster: Any = Held(owner)
    endings.conclude(desk, Namespace(to=None), cluster, run)
    return cluster.ended, desk.said


def test_who_started_a_run_has_its_cluster_terminated_and_hears_of_troubles_first() -> None:
    run = Over(client=ME)
    ended, said = conclude(run)
    assert (ended, run.noted) == (1, True)
    assert said[-2:] == ["`mail` ended with status 1", "lab is terminated; nothing of it is left"]
    assert conclude(Over(client=f"{person.os_user()}@elsewhere, process 1", own=False))[0] == 1


@pytest.mark.parametrize(("owner", "own"), [("ann", True), ("ann", False), ("me", False)])
def test_nobody_else_ends_it_or_has_its_results(owner: str, own: bool) -> None:
    run = Over(own=own)
    ended, said = conclude(run, owner=owner)
    assert (ended, run.noted) == (0, False)
    assert "parks itself instead of being terminated, since that is for ann@desk" in said[-1]
    ended, said = conclude(Over(own=own, store="s3://b/", fetched=True), owner=owner)
    assert ended == 0 and said[1] == "its results are in s3://b/sim-1/"
    assert said[-1] == "lab terminates itself, once nothing else works there"


@pytest.mark.parametrize(
    ("row", "fate", "why"),
    [
        ({"state": "failed"}, "parks", "sim.R has failed"),
        ({"state": "lost"}, "parks", "sim.R is lost"),
        ({"then": "park"}, "parks", ""),
        ({"discard": True}, "terminates", ""),
        ({"ends_cluster": False}, "stays", ""),
    ],
)
def test_what_becomes_of_a_cluster_is_known_without_a_front_end(
    row: dict[str, Any], fate: str, why: str
) -> None:
    cluster = Held()
    found = cluster.conclude(Over(client=ME, **row))
    assert (found.fate, found.why, cluster.ended) == (fate, why, 0)
    held = Losses(objects=(("x", 8, False),), files=(), jobs=())
    cluster.losses = lambda: held  # type: ignore[method-assign]
    found = cluster.conclude(Over(client=ME))
    assert (found.fate, found.lost, cluster.ended) == ("parks", held, 0)
    of_runs = [("runs/sim-1/a", 1), ("runs/sim-2/b", 1), ("runs/sim-3/c", 1), ("mine", 1)]
    cluster.losses = lambda: replace(held, objects=(), files=tuple(of_runs))  # type: ignore[method-assign]
    cluster.running = [Over(), Over(name="sim-2", fetched=True), Over(name="sim-3")]
    for own, files in ((True, of_runs[2:3]), (False, of_runs[2:])):
        found = cluster.conclude(Over(client=ME, own=own))
        assert found.lost and found.lost.files == tuple(files)
    assert cluster.conclude(Over(client=ME), missing=["out/*"]).why == "results are missing"


def test_another_watcher_and_a_namesake_are_work_besides() -> None:
    run = Over()
    mine = ["the run sim-1", "a client at the run sim-1"]
    assert others(run, mine) == []
    assert others(run, [*mine, mine[1]]) == [mine[1]]
    assert others(run, [*mine, "the run sim-1-2"]) == ["the run sim-1-2"]


def test_who_let_a_run_go_is_known_by_name() -> None:
    assert Over(client="a by b.ipynb by joe@lab").user == "joe"
    assert Over(client="joe@lab, process 7").user == "joe"


def test_an_end_that_discards_is_taken_back_if_nothing_begins() -> None:
    cluster = Held()
    with pytest.raises(ConnectionLost), cluster.ending("terminate", discard=True):
        raise ConnectionLost("cut")
    assert cluster.prepared == [("terminate", True), ("park", False)]
    with cluster.ending("terminate", discard=True):
        pass
    with pytest.raises(ConnectionLost), cluster.ending("park"):
        raise ConnectionLost("what has begun perhaps is not to be terminated")
    assert cluster.prepared[2:] == [("terminate", True), ("park", False)]


def test_nothing_begins_beside_a_run_that_discards_all() -> None:
    cluster = Held()
    cluster.running = [Over(state="running", discard=True)]
    with pytest.raises(UsageError, match="sim-1 terminates the cluster when it ends"):
        cluster.check_end(discard=False)
    cluster.running = [Over(discard=True)]
    cluster.check_end(discard=True)
    cluster.check_end(discard=False)
    cluster.discards = True
    cluster.check_end(discard=True)
    with pytest.raises(UsageError, match="a job of the R session main terminates the cluster when it ends"):
        background.check(Desk(), cluster, typed_behind(""))  # type: ignore[arg-type]


def test_a_cluster_that_was_launched_for_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    desk: Any = Desk()
    monkeypatch.setattr(runs, "_cluster", lambda desk, arguments: (Held(), True))
    arguments = typed.parse(find("run", face="magic"), "sim.R", face="magic")
    assert arguments
    with pytest.raises(TransferFailed):
        runs.run(desk, arguments)
    assert "lab was launched for sim.R" in desk.said[-1] and "%ppe_terminate lab" in desk.said[-1]


def typed_behind(words: str) -> argparse.Namespace:
    arguments = typed.parse(find("remote_r", face="magic"), f"--background {words}", face="magic")
    assert arguments
    return arguments


def test_a_background_job_ends_nobody_elses_cluster_unasked() -> None:
    desk: Any = Desk()
    cluster: Any = Held("ann")
    with pytest.raises(NothingToDo, match="Terminate lab after this, which ann launched"):
        background.check(desk, cluster, typed_behind("--then terminate"))
    background.check(desk, cluster, typed_behind("--then park --yes"))
    background.check(desk, cluster, typed_behind("--notify true"))
    assert cluster.prepared == [], "nothing has begun"


def test_a_job_that_does_not_begin_ends_nothing() -> None:
    cluster: Any = Held()
    typed_words = typed_behind("--then terminate --discard --notify true")
    with pytest.raises(ConnectionLost), background.followed(cluster, typed_words) as sequel:
        assert sequel == {"notify": ["true"], "end": True, "discard": True}
        assert cluster.prepared == [("terminate", True)]
        raise ConnectionLost("cut")
    assert cluster.prepared[-1] == ("park", False)
    with background.followed(cluster, typed_behind("--notify true")) as sequel:
        assert sequel == {"notify": ["true"], "end": False, "discard": False}


def test_who_stops_a_run_that_discards_has_the_cluster_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    desk: Any = Desk()
    cluster = Held("ann")
    cluster.running = [Over(state="running", discard=True)]
    monkeypatch.setattr(desk, "cluster", lambda name, arguments: cluster, raising=False)
    monkeypatch.setattr(Over, "stop", lambda run: None)
    monkeypatch.setattr(Over, "refresh", lambda run: run)
    stop = typed.parse(find("run", face="magic"), "--stop", face="magic")
    assert stop
    with pytest.raises(NothingToDo, match="End sim-1 on lab, which ann launched"):
        runs.run(desk, stop)
    stop.yes = True
    runs.run(desk, stop)
    assert cluster.prepared == [("park", False)]
    assert desk.said == ["sim-1 is being ended; lab stays, and is parked at its limits instead of terminated"]


def test_nodes_without_runs_have_jobs_all_the_same() -> None:
    def old(*command: Any, **how: Any) -> Any:
        said = "/usr/bin/python3: can't find '__main__' module in '/home/admin/.ppe/node'\n"
        raise RemoteCommandFailed(said, command="", status=1, stderr=said)

    desk: Any = Desk()
    cluster: Any = Held()
    cluster.runs = lambda: remote.runs.runs(lambda: Namespace(run=old))  # type: ignore[arg-type,return-value]
    runs.show(desk, cluster)
    assert desk.said == [
        "scripts that run there are not listed: its nodes were set up by another version of ppe_jupyter, and do not"
        " know these runs; %ppe_reboot sets them up anew"
    ]
