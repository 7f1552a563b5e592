"""``Cluster.map``: who gets which tasks, its file and functions' sources without a cluster, the rest on one."""

from __future__ import annotations

import _thread
import asyncio
import dataclasses
import errno
import json
import os
import pickle
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest
from conftest import INSTANCE_TYPE
from hypothesis import given
from hypothesis import strategies as st
from localcloud_nodes import pull_the_plug, until

import ppe_jupyter as ppe
from ppe_jupyter import errors
from ppe_jupyter.node.maps import keeper as map_keeper
from ppe_jupyter.node.maps import workers as map_workers
from ppe_jupyter.node.maps.log import MAGIC, Kind, Log, Records, Refused, pack
from ppe_jupyter.node.maps.run import MapRun
from ppe_jupyter.node.maps.tasks import MOST_LOSSES, Tasks
from ppe_jupyter.node.ranks import functions as there
from ppe_jupyter.node.ranks.client import Client
from ppe_jupyter.node.ranks.frames import Frame
from ppe_jupyter.node.ranks.frames import Kind as Of
from ppe_jupyter.remote.ranks import functions, mapping

if TYPE_CHECKING:
    from notebook_kernel import Kernel

    from ppe_jupyter.cloud.records import Node
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

# Nodes cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


# --- Which tasks go where


@given(
    st.integers(0, 200),
    st.sets(st.integers(0, 199)),
    st.integers(1, 7),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9), st.floats(0, 1), st.booleans()), max_size=60),
)
def test_each_task_is_done_once_whatever_ranks_do(
    count: int, done: set[int], ranks: int, events: list[tuple[int, int, float, bool]]
) -> None:
    done = {index for index in done if index < count}
    tasks = Tasks(count, done=done)
    given_to: dict[int, list[range]] = {rank: [] for rank in range(ranks)}
    for rank in given_to:
        tasks.joins(rank)
    found: list[int] = []

    def deal() -> None:
        for rank in tasks.ranks:
            while (chunk := tasks.chunk(rank)) is not None:
                given_to[rank].append(chunk)

    def answer(rank: int, most: int, seconds: float) -> None:
        chunk = given_to[rank][0]
        assert tasks.first(rank) == chunk.start
        part = chunk[:most]
        last = len(part) == len(chunk)
        tasks.answered(rank, len(part), (), seconds=seconds, last=last)
        found.extend(part)
        given_to[rank][0:1] = [] if last else [chunk[most:]]

    deal()
    for rank, most, seconds, dies in events:
        if rank not in tasks.ranks or not given_to[rank]:
            continue
        if dies and len(tasks.ranks) > 1:
            assert tasks.lost(rank) is None or ranks > MOST_LOSSES
            given_to[rank] = []
        else:
            answer(rank, most, seconds)
        deal()
    given_up = tasks.failed
    while tasks.busy:
        answer(tasks.busy[0], 1000, 0.01)
        deal()
    assert not tasks.unfinished
    assert len(found) == len(set(found)) == count - len(done) - given_up
    assert not done & set(found)


def test_chunks_are_brief_and_end_together() -> None:
    tasks = Tasks(10_000)
    for rank in range(4):
        tasks.joins(rank)
    first = tasks.chunk(0)
    assert first is not None and len(first) == 1 and tasks.chunk(0) is None, "nothing is known yet"
    tasks.answered(0, 1, (), seconds=0.001, last=True)
    assert len(tasks.chunk(0) or ()) == 100 and len(tasks.chunk(0) or ()) == 100 and tasks.chunk(0) is None
    tasks.answered(0, 100, (), seconds=1e-9, last=True)
    assert len(tasks.chunk(1) or ()) <= 10_000 / 8


def test_what_fails_is_tried_again_and_what_loses_ranks_is_given_up() -> None:
    tasks = Tasks(1, retries=1)
    tasks.joins(0)
    tasks.chunk(0)
    assert tasks.answered(0, 1, {0}, seconds=0, last=True) == {0}
    tasks.chunk(0)
    assert tasks.answered(0, 1, {0}, seconds=0, last=True) == set()
    assert (tasks.failed, tasks.done, tasks.unfinished) == (1, 0, False)

    tasks = Tasks(1)
    given_up = []
    for rank in range(MOST_LOSSES):
        tasks.joins(rank)
        tasks.chunk(rank)
        given_up.append(tasks.lost(rank))
    assert given_up == [None, None, 0] and not tasks.unfinished


# --- The file


def header(**changes: Any) -> dict[str, Any]:
    return {"count": 9, "entropy": 5, "mark": {"function": "f", "seed": None}, **changes}


def test_a_file_that_was_cut_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    async def write() -> None:
        log = Log(tmp_path / "a", header())
        log.append(pack(Kind.RESULT, 3, b"three") + pack(Kind.ERROR, 4, b"four"))
        log.append(pack(Kind.RESULT, 5, b"five"))
        log.close()

    async def resumed(data: bytes) -> set[int]:
        path = tmp_path / "cut"
        path.write_bytes(data)
        log = Log(path, header(entropy=77))
        log.append(pack(Kind.RESULT, 8, b"eight"))
        log.close()
        records = list(Records().feed(path.read_bytes()[len(MAGIC) :]))
        assert json.loads(records[0].body)["entropy"] == log.entropy == (5 if records[1].task != 8 else 77)
        assert records[-1].body == b"eight"
        return log.done

    asyncio.run(write())
    whole = (tmp_path / "a").read_bytes()
    start = whole.index(b"three") + 5
    for end, done in ((len(whole), {3, 5}), (len(whole) - 1, {3}), (start, {3}), (start - 1, set())):
        found = asyncio.run(resumed(whole[:end])) if end >= start else {3} - {3}
        assert found == done


def test_another_maps_file_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        Log(tmp_path / "a", header()).close()
        with pytest.raises(Refused, match="its function and seed differ"):
            Log(tmp_path / "a", header(mark={"function": "g", "seed": 3}))
        (tmp_path / "b").write_text("mine")
        with pytest.raises(Refused, match="no checkpoint of a map"):
            Log(tmp_path / "b", header())

    asyncio.run(check())
    assert (tmp_path / "b").read_text() == "mine"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes it has room for."""
    room = [10**6]
    write = os.pwrite

    def pwrite(file: int, data: memoryview, at: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = min(len(data), room[0])
        room[0] -= part
        return write(file, data[:part], at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return room


def test_what_a_full_disk_has_cut_is_not_there(tmp_path: Path, disk: list[int]) -> None:
    async def check() -> None:
        log = Log(tmp_path / "a", header())
        disk[0] = 30
        with pytest.raises(OSError, match="No space"):
            log.append(pack(Kind.RESULT, 3, b"x" * 99))
        assert (tmp_path / "a").stat().st_size == log.end
        disk[0] = 999
        log.append(pack(Kind.RESULT, 4, b"four"))
        log.close()
        assert Log(tmp_path / "a", header()).done == {4}

    asyncio.run(check())


@pytest.mark.parametrize("cut", [0, 4])
def test_zeros_at_a_files_end_are_not_there(tmp_path: Path, cut: int) -> None:
    async def check() -> None:
        log = Log(tmp_path / "a", header())
        log.append(pack(Kind.RESULT, 3, b"three") + pack(Kind.RESULT, 4, b"four"))
        log.close()
        size = log.end - cut
        os.truncate(tmp_path / "a", size)
        os.truncate(tmp_path / "a", size + 99)
        log = Log(tmp_path / "a", header())
        log.close()
        assert log.done == ({3} if cut else {3, 4})

    asyncio.run(check())


def test_a_file_that_has_no_header_yet_gets_one(tmp_path: Path) -> None:
    async def check() -> None:
        (tmp_path / "a").write_bytes(MAGIC)
        Log(tmp_path / "a", header(entropy=6)).close()
        assert Log(tmp_path / "a", header()).entropy == 6

    asyncio.run(check())


# --- A run whose master fails


class Workers:
    """Two ranks that take what they get, and answer nothing but ``says``."""

    def __init__(self, *says: Frame, fault: Exception | None = None) -> None:
        self.inbox: asyncio.Queue[Frame] = asyncio.Queue()
        self.living, self.jobs, self.ended = {0, 1}, 0, False
        self.sent: list[tuple[int, Of]] = []
        self._fault = fault
        for each in says:
            self.inbox.put_nowait(each)

    async def have(self) -> list[str]:
        if self._fault is not None:
            raise self._fault
        return []

    async def end(self) -> None:
        self.ended = True

    def note(self, frame: Frame) -> None:
        pass

    def send(self, rank: int, kind: Of, body: bytes = b"") -> None:
        self.sent.append((rank, kind))


def answer(rank: int, *values: bytes) -> Frame:
    part = {"job": 1, "values": list(values), "failed": [], "said": [], "seconds": 1.0}
    return Frame(rank, Of.DONE, pickle.dumps(part))


def performed(path: Path, workers: Workers) -> tuple[str | None, bool]:
    """What the run says, and whether it is over."""

    async def perform() -> tuple[str | None, bool]:
        request = {"retries": 0, "slots": None, "stop": True}
        run = MapRun(Log(path, header()), request, b"", [b"item"] * 9, workers)  # type: ignore[arg-type]
        return await asyncio.wait_for(run.perform(), 30), run.over

    return asyncio.run(perform())


def test_a_map_ends_whatever_fails_on_the_master(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    error, over = performed(tmp_path / "a", Workers(fault=ValueError("no such number of slots")))
    assert over and "no such number of slots" in (error or "")
    assert "ValueError" in capfd.readouterr().err, "for the keeper's log"


def test_a_full_disk_stops_the_ranks(tmp_path: Path, disk: list[int]) -> None:
    disk[0] = len(MAGIC + pack(Kind.HEADER, -1, json.dumps(header()).encode()))
    workers = Workers(answer(0), answer(1), answer(0, b"value"))
    error, over = performed(tmp_path / "a", workers)
    assert over and "No space left" in (error or "")
    assert (1, Of.INTERRUPT) in workers.sent and workers.ended, "it did not answer"


def test_what_ranks_print_while_they_start_fails_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ranks:
        count = 2

        def __init__(self, *args: Any, heard: Callable[[Frame], Any], **options: Any) -> None:
            self.ready, self._heard = asyncio.Event(), heard

        async def start(self, stack: object) -> None:
            self.starting = asyncio.ensure_future(self.start_both())

        async def start_both(self) -> None:
            await self._heard(Frame(0, Of.STDERR, b"a warning of MPI's\n"))
            for _ in range(9):  # who waits for the first frame has it now
                await asyncio.sleep(0)
            await self._heard(Frame(1, Of.GONE, b"exit status 1"))
            self.ready.set()

    async def check() -> None:
        monkeypatch.setattr(map_workers, "Ranks", Ranks)
        monkeypatch.setattr(map_workers, "hosts", lambda: [("a", 2)])
        workers = map_workers.Workers("map")
        assert await workers.have() == [] and workers.living == {0}, "one was lost at once"

    asyncio.run(check())


def test_who_follows_a_map_gets_nothing_of_the_next(tmp_path: Path) -> None:
    async def check() -> None:
        log = Log(tmp_path / "a", header())
        run = MapRun(log, {"retries": 0}, b"", [], Workers())  # type: ignore[arg-type]
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_unix_connection(sock=ours)
        reader, other = await asyncio.open_unix_connection(sock=theirs)
        keeper = map_keeper.Keeper()
        following = asyncio.ensure_future(keeper._follow(Client(reader, writer), run))
        await reader.readline()
        (tmp_path / "a").unlink()
        Log(tmp_path / "a", header(entropy=6)).close()
        log.append(pack(Kind.NOTE, -1, b"of this map"))
        run.over = True
        await following
        writer.close()
        assert b"of this map" in await reader.read()
        other.close()

    asyncio.run(check())


# --- Functions for another version of Python

FACTOR = 3


def makers() -> list[Callable[[int], Any]]:
    inside = 10

    def plain(x: int) -> Any:
        """Docs."""
        return x * FACTOR + inside

    def recursive(x: int) -> int:
        return 1 if x < 1 else x * recursive(x - 1)

    # Two of them in one line.
    twice, thrice = lambda x: 2 * x, lambda x: 3 * x
    return [
        plain,
        recursive,
        twice,
        thrice,
        Account(4).add,
        factorial,
        lambda x: [
            f"""{y}
  as it is""" for y in range(x)
        ],
    ]  # fmt: skip


def factorial(x: int) -> int:
    try:
        return 1 if x < 1 else x * factorial(x - 1)
    finally:
        pass


class Base:
    def __init__(self, start: int) -> None:
        self.__hidden = start

    def add(self, x: int) -> int:
        return self.__hidden + x


class Account(Base):
    def add(self, x: int) -> int:
        return super().add(x) + FACTOR


@dataclasses.dataclass
class Point:
    x: float
    y: float = 2.0


@pytest.mark.parametrize("which", range(7))
def test_a_function_goes_as_its_source(which: int) -> None:
    function = makers()[which]
    data = functions.dumped(function, "it", source=True)
    assert b"co_code" not in data
    assert there.load(data)(4) == function(4)


def test_code_that_has_no_source_is_refused_in_words() -> None:
    made = eval("lambda x: x")
    with pytest.raises(errors.UsageError, match="<lambda> has no source here"):
        functions.dumped(made, "it", source=True)
    assert there.load(functions.dumped(made, "it", source=False))(3) == 3
    with pytest.raises(errors.UsageError, match="item 7 cannot be sent"):
        functions.dumped((threading.Lock(),), "item 7", source=False)


def draws(generator: Any, item: int) -> Any:
    return generator.random() + item


@pytest.mark.parametrize("source", [True, False])
def test_a_generator_that_each_rank_would_have_a_copy_of_is_refused(source: bool) -> None:
    for made in (np.random.default_rng(1), np.random.RandomState(1), random.Random(1)):
        function = partial(draws, made)
        with pytest.raises(errors.UsageError, match="the function takes a random generator along"):
            functions.dumped(function, "the function", source=source, shared=True)
        functions.dumped((made,), "item 1", source=source)


def test_a_dataclass_goes_as_its_source() -> None:
    point = there.load(functions.dumped(Point(1.0), "it", source=True))
    assert dataclasses.astuple(point) == (1.0, 2.0) and type(point) is not Point
    assert point == type(point)(1.0)


MARK = """
import numpy as np
from ppe_jupyter.remote.ranks.functions import fingerprint
k = [{0}, "a", "a"]
class C:
    def m(self): return k
def g(x, c=C()): return f(x) if x else c.m()
def f(x): return g(x - 1) + {1}
print(fingerprint(f), fingerprint([(1, np.arange(3)), ({{"a": 1}},)]))
"""


def test_fingerprints_are_the_same_in_another_process_and_tell_changes(tmp_path: Path) -> None:
    def mark(*values: int) -> list[str]:
        path = tmp_path / f"m{time.monotonic_ns()}.py"
        path.write_text(MARK.format(*values))
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, again, other_data, other_code = mark(1, 2), mark(1, 2), mark(3, 2), mark(1, 3)
    assert first == again
    assert len({first[0], other_data[0], other_code[0]}) == 3


@pytest.mark.parametrize(
    "wrong", [{"retries": -1}, {"retries": "2"}, {"slots": True}, {"slots": 0}, {"seed": 0.5}]
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError, match=f"{next(iter(wrong))} is a whole number from [01], not"):
        mapping.MapJob(function=abs, items=[], **wrong)


# --- On a cluster


def draw(x: float, rng: np.random.Generator) -> float:
    return x + rng.normal()


def serially(count: int, seed: int) -> list[float]:
    streams = np.random.SeedSequence(seed).spawn(count)
    return [draw(x, np.random.default_rng(stream)) for x, stream in zip(range(count), streams, strict=True)]


def test_results_and_random_numbers_are_the_serial_ones_on_any_number_of_slots(cluster: Cluster) -> None:
    assert cluster.map(draw, range(50), seed=9, progress=False) == serially(50, 9)
    assert cluster.map(draw, range(50), seed=9, slots=1, progress=False) == serially(50, 9)
    assert cluster.map(lambda a, b: a + b, "ab", "xyz", progress=False) == ["ax", "by"]
    assert cluster.map(abs, [], progress=False) == []
    with pytest.raises(errors.UsageError, match="behind the function"):
        cluster.map(abs)

    def legacy(i: int) -> tuple[float, float]:
        import random

        return random.random(), np.random.normal()

    assert cluster.map(legacy, range(9), seed=1) == cluster.map(legacy, range(9), seed=1, slots=2)
    assert cluster.map(legacy, range(9)) != cluster.map(legacy, range(9))


def test_tasks_run_on_mpi_ranks_of_every_slot(cluster: Cluster) -> None:
    def where(i: int) -> Any:
        import socket

        from mpi4py import MPI

        time.sleep(0.02)
        return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, socket.gethostname(), os.environ["OMP_NUM_THREADS"]

    found = set(cluster.map(where, range(60), progress=False))
    assert {(rank, size, threads) for rank, size, _, threads in found} == {(i, 6, "1") for i in range(6)}
    assert len({host for _, _, host, _ in found}) == 3
    assert len(set(cluster.map(lambda i: hash("a"), range(24)))) == 1  # sets have one order


def test_errors_and_output_have_their_index(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    class Odd(ValueError):
        pass

    def task(i: int) -> Point:
        os.system(f"echo child {i}")
        if i == 3:
            raise Odd("not three")
        return Point(i)

    with pytest.raises(errors.TaskFailed, match=r"task 3 of 5: .*Odd: not three") as caught:
        cluster.map(task, range(5), progress=False)
    assert caught.value.index == 3 and "in task" in caught.value.traceback
    if sys.version_info >= (3, 11):
        assert re.search(
            r"in task\n.*\nlast_map\(\) has [0-4] of 5 results$", caught.value.__notes__[0], re.DOTALL
        )
    capfd.readouterr()
    with pytest.warns(RuntimeWarning, match="1 of 5 tasks failed: task 3"):
        found = cluster.map(task, range(5), on_error="collect", progress=False)
    assert isinstance(found[3], errors.TaskFailed) and isinstance(found[3].exception, ValueError)
    assert [point.x for index, point in enumerate(found) if index != 3] == [0, 1, 2, 4]
    assert sorted(capfd.readouterr().out.splitlines()) == [f"[{i}] child {i}" for i in range(5)]
    last = cluster.last_map()
    assert last.done == {0, 1, 2, 4} and set(last.failed) == {3} and not last.running
    assert sorted(last.said) == [(i, "stdout", f"child {i}\n") for i in range(5)]


def test_what_the_nodes_cannot_import_is_said(cluster: Cluster) -> None:
    module = type(sys)("mine")
    exec("def f(x): return x", vars(module))
    sys.modules["mine"] = module
    try:
        with pytest.raises(errors.RemoteError, match=r"No module named 'mine'; cloudpickle\.register"):
            cluster.map(module.f, [1], progress=False)
    finally:
        del sys.modules["mine"]


def test_retries_use_the_same_numbers(cluster: Cluster) -> None:
    def flaky(i: int, rng: np.random.Generator, name: str = f"/tmp/flaky-{time.time_ns()}") -> float:
        value = rng.normal()
        if not Path(f"{name}-{i}").exists():
            Path(f"{name}-{i}").touch()
            raise OSError("the first time")
        return float(value)

    # On one node: what was tried is noted there.
    found = cluster.map(flaky, range(4), seed=2, retries=1, slots=1, progress=False)
    assert found == [np.random.default_rng(s).normal() for s in np.random.SeedSequence(2).spawn(4)]


def stop_at(cluster: Cluster, done: int, function: Callable[[int], Any], count: int, **options: Any) -> None:
    """Press the stop button when so many are done. A master that does not answer that has other words."""
    pressed: list[int] = []

    def press(progress: mapping.MapProgress) -> None:
        if progress.done >= done and progress.busy and not pressed:
            pressed.append(progress.done)
            _thread.interrupt_main()

    job = mapping.MapJob(function=function, items=[(i,) for i in range(count)], **options)
    with pytest.raises(errors.RemoteInterrupted, match=rf"stopped: last_map\(\) has \d+ of {count} results"):
        mapping.run(cluster.ssh(), job, on_output=lambda text: None, on_progress=press)


def tenfold(i: int) -> int:
    time.sleep(0.05)
    return 10 * i


def once(i: int) -> tuple[int, bytes]:
    return tenfold(i), os.urandom(8)


def test_the_stop_button_keeps_what_is_finished_and_a_checkpoint_goes_on(cluster: Cluster) -> None:
    name = f"map-{time.time_ns()}"
    stop_at(cluster, 12, once, 60, checkpoint=name)
    last = cluster.last_map()
    assert len(last.done) >= 12 and all(last.values[i][0] == 10 * i for i in last.done)
    with pytest.raises(errors.RemoteError, match="of another map"):
        cluster.map(once, range(61), checkpoint=name, progress=False)
    found = cluster.map(once, range(60), checkpoint=name, progress=False)
    assert [value for value, _ in found] == [10 * i for i in range(60)]
    assert all(found[i] == last.values[i] for i in last.done), "the rest only"


def test_what_a_task_answers_to_the_stop_button_is_no_result(cluster: Cluster) -> None:
    def swallows(i: int) -> str:
        try:
            time.sleep(0.02 if i < 6 else 99)
        except BaseException:
            return "another answer"
        return "the answer"

    stop_at(cluster, 6, swallows, 12)
    assert set(cluster.last_map().values[6:]) == {None}


@pytest.mark.slow
def test_what_does_not_hear_the_stop_button_is_ended(cluster: Cluster) -> None:
    def deaf(i: int) -> None:
        while i > 5:
            try:
                time.sleep(99)
            except BaseException:
                continue

    cluster.map(tenfold, range(6), progress=False)
    stop_at(cluster, 6, deaf, 12)
    assert cluster.map(tenfold, range(6), progress=False) == [0, 10, 20, 30, 40, 50]


@pytest.mark.slow
def test_tasks_of_lost_ranks_are_done_by_others(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    def lethal(i: int, rng: np.random.Generator, mark: str = f"/tmp/lethal-{time.time_ns()}") -> float:
        if i == 20 and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), 9)
        time.sleep(0.02)
        return float(i + rng.normal())

    found = cluster.map(lethal, range(100), seed=3, progress=False)
    assert found == serially(100, 3)
    assert "was lost: it was ended by SIGKILL; its tasks go to others" in capfd.readouterr().err
    # It may have come to another node, and died there too.
    assert 1 <= cluster.last_map().lost <= 3
    assert cluster.map(draw, range(9), seed=9, progress=False) == serially(9, 9)
    assert cluster.last_map().slots == 6, "whole again"


@pytest.mark.slow
def test_a_task_that_always_takes_its_rank_along_is_a_failed_one(cluster: Cluster) -> None:
    def crash(i: int) -> int:
        if i == 5:
            os.kill(os.getpid(), 11)
        return i

    with pytest.warns(RuntimeWarning, match="the ranks that ran it were lost, the last with: .*SIGSEGV"):
        found = cluster.map(crash, range(10), on_error="collect", slots=2, progress=False)
    assert [value for i, value in enumerate(found) if i != 5] == [0, 1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.slow
def test_a_map_goes_on_without_its_client(cluster: Cluster, manager: Manager) -> None:
    other = manager.cluster(cluster.name)

    def hang_up(progress: mapping.MapProgress) -> None:
        if progress.done:
            other.close()

    # The watchdog looks every 10 s.
    job = mapping.MapJob(function=tenfold, items=[(i,) for i in range(1500)])
    with pytest.raises(errors.SshError):
        mapping.run(other.ssh(), job, on_output=lambda text: None, on_progress=hang_up)
    assert cluster.last_map().running
    until(lambda: "a map (process" in str((told := cluster.watchdog()) and told.working))
    assert cluster.last_map().running
    whole = cluster.last_map(wait=True)
    assert whole.values == [10 * i for i in range(1500)] and not whole.running


@pytest.mark.slow
def test_functions_and_classes_of_a_notebook(kernel: Kernel, cluster: Cluster) -> None:
    kernel.cell(
        "import dataclasses, ppe_jupyter as ppe\n"
        f"c = ppe.Manager().cluster({cluster.name!r})\n"
        "@dataclasses.dataclass\nclass Pair:\n    a: int\n    b: int\n"
        "def pair(i):\n    return Pair(i, factor * i)\nfactor = 5"
    )
    assert kernel.cell("c.map(pair, range(3))[2]").result == "Pair(a=2, b=10)"


@pytest.mark.slow
def test_a_node_that_is_lost_has_its_tasks_done_elsewhere(
    manager: Manager, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = manager.launch(ppe.ClusterSpec(name="map-lost", nodes=2, instance_type=INSTANCE_TYPE))
    try:
        lost: list[Node] = []

        def pull(progress: mapping.MapProgress) -> None:
            if progress.done > 20 and not lost:
                lost.append(cluster.nodes[1])
                pull_the_plug(lost[0].instance_id)

        def task(i: int, rng: np.random.Generator) -> float:
            time.sleep(0.05)
            return float(i + rng.normal())

        job = mapping.MapJob(function=task, items=[(i,) for i in range(300)], seed=4)
        result = mapping.run(cluster.ssh(), job, on_output=lambda text: None, on_progress=pull)
        assert result.values == serially(300, 4) and result.lost == 2
        assert cluster.map(draw, range(9), seed=9) == serially(9, 9)
        assert "no answer, so without the slots there; see %ppe_retry" in capfd.readouterr().err
        assert cluster.last_map().slots == 2
        cluster.retry("replace")
        assert cluster.map(draw, range(9), seed=9, progress=False) == serially(9, 9)
        assert cluster.last_map().slots == 4
    finally:
        cluster.terminate()
