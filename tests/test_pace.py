"""Waiting, trying again, and being stopped; with a clock that does not need time."""

import threading
from collections.abc import Callable

import pytest

from ppe_jupyter.cloud.pace import Pace, Stopped, Undertaking
from ppe_jupyter.cloud.records import Progress
from ppe_jupyter.errors import CloudError


class Clock:
    """Time that passes only in waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def pace(self) -> Pace:
        return Pace(clock=lambda: self.now, wait=self.wait)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return stop.is_set()


def test_waits_grow_and_the_last_try_is_told() -> None:
    clock = Clock()
    tries = list(clock.pace().tries(seconds=60, first=0.25, longest=10))
    assert tries == [False] * (len(tries) - 1) + [True]
    assert clock.waits[0] == 0.25
    assert max(clock.waits) == 10
    assert clock.now == pytest.approx(60)


def test_insisting_ends_when_it_succeeds_or_time_is_up_or_the_error_is_another() -> None:
    clock = Clock()
    codes = iter(["InUse", "InUse", ""])

    def call() -> str:
        if code := next(codes):
            raise CloudError("no", code=code)
        return "done"

    assert clock.pace().insist(call, codes=("InUse",), seconds=10) == "done"
    with pytest.raises(CloudError, match="always"):
        clock.pace().insist(lambda: fail("always", "InUse"), codes=("InUse",), seconds=10)
    before = clock.now
    with pytest.raises(CloudError, match="else"):
        clock.pace().insist(lambda: fail("else", "Other"), codes=("InUse",), seconds=10)
    assert clock.now == before


def fail(message: str, code: str) -> None:
    raise CloudError(message, code=code)


def test_a_stopped_pace_ends_its_waits_and_cleaning_up_goes_on() -> None:
    pace = Pace()
    pace.stop()
    for wait in (pace.check, lambda: pace.sleep(600), lambda: next(pace.tries(seconds=1))):
        with pytest.raises(Stopped):
            wait()
    pace.to_the_end().sleep(0)
    pace.to_the_end().check()


def two_steps(pace: Pace, cleaned: list[str]) -> Callable[[Callable[[Progress], None]], str]:
    def work(send: Callable[[Progress], None]) -> str:
        try:
            send(Progress("first", 0, 2, 0.0))
            pace.sleep(600)
            return "finished"
        except Stopped:
            send(Progress("removing", 0, 2, 0.0))
            cleaned.append("all")
            raise

    return work


def test_reports_come_in_the_waiting_thread() -> None:
    seen: list[tuple[str, int]] = []

    def work(send: Callable[[Progress], None]) -> int:
        send(Progress("only", 1, 1, 0.0))
        return 7

    undertaking = Undertaking(work, Pace())
    assert undertaking.wait(lambda progress: seen.append((progress.phase, threading.get_ident())))
    assert undertaking.result == 7
    assert seen == [("only", threading.get_ident())]


def test_an_interrupt_lets_the_work_clean_up_even_when_repeated() -> None:
    pace, cleaned, phases = Pace(), [], []  # type: ignore[var-annotated]

    def impatient(progress: Progress) -> None:
        phases.append(progress.phase)
        raise KeyboardInterrupt

    undertaking = Undertaking(two_steps(pace, cleaned), pace)
    assert undertaking.wait(impatient)
    assert (phases, cleaned) == (["first", "removing"], ["all"])
    with pytest.raises(KeyboardInterrupt):
        undertaking.result  # noqa: B018


def test_an_error_of_the_report_is_raised_after_cleaning_up() -> None:
    pace, cleaned = Pace(), []  # type: ignore[var-annotated]

    def broken(progress: Progress) -> None:
        raise ZeroDivisionError

    undertaking = Undertaking(two_steps(pace, cleaned), pace)
    with pytest.raises(ZeroDivisionError):
        undertaking.wait(broken)
    assert cleaned == ["all"]


def test_waiting_may_end_before_the_work() -> None:
    pace, cleaned = Pace(), []  # type: ignore[var-annotated]
    undertaking = Undertaking(two_steps(pace, cleaned), pace)
    assert not undertaking.wait(lambda progress: None, until=lambda progress: progress.phase == "first")
    pace.stop()
    assert undertaking.wait(lambda progress: None)
    assert cleaned == ["all"]
