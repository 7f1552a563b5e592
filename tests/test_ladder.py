"""The interrupt ladder by itself: which press takes which step."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from ppe_jupyter.node.r.exits import signal_first_thread
from ppe_jupyter.node.sessions import ladder
from ppe_jupyter.node.sessions.ladder import Ladder, Rung


class Deaf:
    """An evaluation that nothing ends but a restart, if that."""

    def __init__(self, *, workers: int = 6, saves: bool = True) -> None:
        self.number = 1
        self.did: list[str] = []
        self.said: list[str] = []
        self._workers = workers
        self._saves = saves

    def evaluating(self) -> int:
        return self.number

    def signal_r(self) -> None:
        self.did.append("R")

    def count_workers(self) -> int:
        return self._workers

    async def signal_workers(self) -> None:
        self.did.append("workers")

    async def restart_with_workspace(self) -> bool:
        self.did.append("restart")
        return self._saves

    def let_go(self) -> bool:
        self.did.append("let go")
        return True

    def say(self, text: str) -> None:
        self.said.append(text)


async def until(true: Callable[[], object]) -> None:
    async def wait() -> None:
        while not true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 10)


def climb(target: Deaf, presses: Callable[[Ladder], Awaitable[None]]) -> None:
    async def run() -> None:
        await presses(Ladder(target))

    asyncio.run(run())


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "OFFER_SECONDS", 0.05)


@pytest.mark.parametrize("workers", [6, 0])
def test_a_press_takes_the_step_that_is_offered(workers: int) -> None:
    target = Deaf(workers=workers)
    steps = ["R", "workers", "restart"] if workers else ["R", "restart"]

    async def presses(ladder: Ladder) -> None:
        for count in range(1, len(steps) + 1):
            said = len(target.said)
            ladder.press()
            await until(lambda count=count: len(target.did) == count)  # type: ignore[misc]
            if count < len(steps):
                await until(lambda said=said: "next press" in " ".join(target.said[said:]))  # type: ignore[misc]

    climb(target, presses)
    assert target.did == steps


def test_five_presses_at_once_are_interrupts_of_r_only() -> None:
    target = Deaf()

    async def presses(ladder: Ladder) -> None:
        for _ in range(5):
            ladder.press()
            await asyncio.sleep(0)

    climb(target, presses)
    assert set(target.did) == {"R"}


def test_nothing_is_signalled_when_nothing_is_evaluated() -> None:
    target = Deaf()
    target.number = 0

    async def presses(ladder: Ladder) -> None:
        for rung in Rung:
            ladder.press(rung)
            await asyncio.sleep(0)

    climb(target, presses)
    assert target.did == [] and target.said == []


def test_the_next_evaluation_begins_at_the_bottom() -> None:
    target = Deaf()

    async def presses(ladder: Ladder) -> None:
        ladder.press()
        await until(lambda: target.said)
        target.number = 2
        ladder.press()
        await until(lambda: len(target.did) == 2)

    climb(target, presses)
    assert target.did == ["R", "R"]


def test_a_step_that_is_named_is_taken_whatever_was_before() -> None:
    target = Deaf()

    async def presses(ladder: Ladder) -> None:
        ladder.press()
        ladder.press(Rung.RESTART)
        await until(lambda: len(target.did) == 2)

    climb(target, presses)
    assert target.did == ["R", "restart"]


def test_of_an_r_that_cannot_save_the_cell_is_let_go() -> None:
    target = Deaf(saves=False)

    async def presses(ladder: Ladder) -> None:
        ladder.press(Rung.RESTART)
        await until(lambda: "%ppe_reboot" in " ".join(target.said))
        assert target.did == ["restart"]
        ladder.press()
        await until(lambda: len(target.did) == 2)

    climb(target, presses)
    assert target.did == ["restart", "let go"]


# Its first thread is as in a handler of the signal, and another one is there to take it.
IN_A_HANDLER = """
import signal, sys, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
sys.stdin.read()
sys.exit(42 if signal.SIGUSR1 in signal.sigpending() else 1)
"""


def test_r_is_told_to_save_on_its_own_thread_while_it_does_so_already() -> None:
    command, pipe = [sys.executable, "-c", IN_A_HANDLER], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        signal_first_thread(process.pid, signal.SIGUSR1)
        process.communicate()
    assert process.returncode == 42
    signal_first_thread(process.pid, signal.SIGUSR1)
