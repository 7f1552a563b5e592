"""When R is told that a worker is lost: once, and again only where a call waits or more are lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ppe_jupyter.node.r import watch, workers
from ppe_jupyter.node.r.workers import Worker


class Watched:
    """An evaluation, and how often it was told."""

    def __init__(self, word: Path) -> None:
        self.word, self.told, self.waits = word, 0, False

    def evaluating(self) -> int:
        return 1

    def look_for_question(self) -> None: ...

    async def waits_in_mpi(self) -> bool:
        return self.waits

    def name_lost(self, lost: list[Worker], fate: str) -> Path:
        self.told += 1
        self.waits = False  # it ends the call
        self.word.touch()
        return self.word

    async def rescue(self, lost: Worker, fate: str) -> None:
        raise AssertionError("nothing hangs")


def test_r_is_told_again_only_if_more_are_lost_or_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [Worker(1, "ip-10-0-0-4", 151)]

    async def lost(path: Path) -> list[Worker]:
        return gone

    async def fate(worker: Worker) -> str:
        return "lost"

    monkeypatch.setattr(workers, "lost", lost)
    monkeypatch.setattr(workers, "fate", fate)
    monkeypatch.setattr(watch, "WORD_SECONDS", 0)
    watched = Watched(tmp_path / "lost")
    looks = watch.Watch(watched, tmp_path / "slaves.json")

    def told() -> int:
        asyncio.run(looks._check_ranks(1))
        watched.word.unlink(missing_ok=True)  # R has taken it up
        return watched.told

    assert told() == 1
    assert told() == 1, "it goes on without that one"
    gone.append(Worker(2, "ip-10-0-0-4", 152))
    assert told() == 2
    watched.waits = True
    assert told() == 3
