"""What is told of a map and what becomes of its results: bars, maps that were cut off, results that nobody fetched."""

from __future__ import annotations

import _thread
import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from localcloud_nodes import until

from ppe_jupyter import errors, maps
from ppe_jupyter.node.maps import workers
from ppe_jupyter.node.maps.log import MAGIC, Kind, Log, Records, pack
from ppe_jupyter.remote.outputs import Text
from ppe_jupyter.remote.ranks import mapping

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

# Nodes cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
SOON_SECONDS = 2.0
END = pack(Kind.END, -1, json.dumps({"seconds": 1.0, "slots": 2, "lost": 0, "error": None}).encode())
HEADER = {"count": 9, "entropy": 5, "mark": {}}


def told(path: Path) -> mapping.MapResult:
    result = mapping.MapResult()
    for record in Records().feed(path.read_bytes()[len(MAGIC) :]):
        if record.kind is not Kind.RESULT:
            result.take(record)
    return result


def test_a_map_that_was_cut_off_is_told_from_one_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "a"

    async def run(*records: bytes) -> mapping.MapResult:
        log = Log(path, HEADER)
        for each in records:
            log.append(each)
        log.close()
        return told(path)

    cut = asyncio.run(run(pack(Kind.NOTE, -1, b"a note")))
    assert cut.cut and repr(cut) == "<map: 0 of 9 results, cut off>"
    assert not asyncio.run(run(END)).cut
    assert asyncio.run(run()).cut, "one that goes on from there"
    assert not asyncio.run(run(END)).cut


def test_a_node_that_takes_connections_only_holds_up_no_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 600\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(workers, "PROBE_SECONDS", 0.1)
    assert asyncio.run(workers._silent(["a", "b"])) == ["a", "b"]


def test_the_bar_tells_the_rate_of_what_it_has_seen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])

    def progress(done: int, slots: int, busy: int, failed: int = 0) -> None:
        clock[0] += 10
        shown.progress(mapping.MapProgress(count=100, done=done, failed=failed, busy=busy, slots=slots))

    with maps._Shown(True) as shown:
        progress(40, 0, 0)
        progress(40, 0, 0)
        progress(58, 4, 3, 2)
        words = capfd.readouterr().err.split("\r")[-1]
    assert "60/100 [00:10<00:20,  2.00 tasks/s, 3 of 4 slots busy, 2 failed]" in words
    with maps._Shown(True) as shown:
        clock[0] -= 10 - maps.BAR_SECONDS / 2
        progress(100, 4, 0)
        shown.output(Text("stdout", "[5] hello\n"))
    assert capfd.readouterr() == ("[5] hello\n", ""), "no bar of what is over at once"


def slowly(i: int) -> int:
    time.sleep(0.1)
    return i


def stopped(cluster: Cluster, function: Callable[[int], object]) -> float:
    """Seconds from the press of the stop button, when six tasks are done, to the end of the call."""
    pressed: list[float] = []

    def press(progress: mapping.MapProgress) -> None:
        if progress.done >= 6 and progress.busy and not pressed:
            pressed.append(time.monotonic())
            _thread.interrupt_main()

    job = mapping.MapJob(function=function, items=[(i,) for i in range(12)])
    with pytest.raises(errors.RemoteInterrupted, match=r"last_map\(\) has"):
        mapping.run(cluster.ssh(), job, on_output=lambda text: None, on_progress=press)
    return time.monotonic() - pressed[0]


def deaf(i: int) -> None:
    while i > 5:
        try:
            time.sleep(99)
        except BaseException:
            continue


def waits(i: int) -> None:
    time.sleep(99 if i > 5 else 0)


@pytest.mark.slow
@pytest.mark.parametrize("function", [waits, deaf])
def test_the_stop_button_ends_a_map_within_two_seconds(
    cluster: Cluster, function: Callable[[int], object]
) -> None:
    # A machine that has other work to do may take longer now and then.
    assert any(stopped(cluster, function) < SOON_SECONDS for _ in range(5))
    assert cluster.losses().results == ("6 of 12 results of a map",)
    assert len(cluster.last_map().done) == 6
    assert cluster.losses().results == ()


@pytest.mark.slow
def test_a_map_whose_keeper_is_killed_is_cut_off(cluster: Cluster, manager: Manager) -> None:
    cluster.map(slowly, range(3), progress=False)
    other = manager.cluster(cluster.name)
    failed: list[Exception] = []

    def run() -> None:
        try:
            other.map(slowly, range(3000), progress=False)
        except errors.PpeError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: (now := cluster.last_map()).running and now.done)
    cluster.ssh().run("pkill -9 -f '[n]ode map_keeper'")
    thread.join()
    other.close()
    assert "the ranks' keeper has ended" in str(failed[0])
    assert cluster.losses().results == ("results of a map",)
    cut = cluster.last_map()
    assert cut.cut and not cut.running and 0 < len(cut.done) < 3000
    with pytest.raises(errors.RemoteError, match=r"was cut off.* last_map\(\) has \d+ of 3000 results"):
        cluster.last_map(wait=True)
    assert cluster.map(slowly, range(3), progress=False) == [0, 1, 2]
    assert not cluster.last_map().cut
