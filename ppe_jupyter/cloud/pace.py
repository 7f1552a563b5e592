"""Pace: how cloud work waits, tries again, and is stopped by a Ctrl-C in good order.

Work that creates things runs in a thread of its own, so that a KeyboardInterrupt, which Python raises between
any two instructions of the main thread, never falls between a call to the cloud and the note of what it made.
It only asks the work to stop, which the work does at its next wait. Knows nothing of the cloud.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import CloudError, CredentialsError
from .records import Progress

T = TypeVar("T")
Report = Callable[[Progress], None]
IGNORE: Report = lambda progress: None  # noqa: E731


class Stopped(Exception):
    """The work was asked to stop."""


class Pace:
    """The clock of one piece of work; seconds. ``stop`` ends its present and later waits by Stopped."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._clock = clock
        self._wait = wait
        self._began = clock()
        self._stop = threading.Event()

    @property
    def elapsed(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._began

    def stop(self) -> None:
        """Ask the work to stop."""
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped if that was asked for."""
        if self._stop.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Stopped."""
        if self._wait(self._stop, seconds):
            raise Stopped

    def to_the_end(self) -> Pace:
        """A pace with the same clock that cannot be stopped, for cleaning up."""
        pace = Pace(clock=self._clock, wait=self._wait)
        pace._began = self._began
        return pace

    def tries(self, *, seconds: float, first: float = 0.25, longest: float = 10.0) -> Iterator[bool]:
        """Yield at once and after growing waits, until ``seconds`` have passed; True means the last time."""
        began = self._clock()
        for exponent in itertools.count():
            self.check()
            left = began + seconds - self._clock()
            yield left <= 0
            if left <= 0:
                return
            self.sleep(min(first * 1.4**exponent, longest, max(left, 0.01)))

    def insist(self, call: Callable[[], T], *, codes: tuple[str, ...], seconds: float) -> T:
        """Repeat ``call`` while it raises a CloudError with one of ``codes``, for ``seconds`` at most.

        Want of credentials does not pass by itself, with a code or without.
        """
        for last in self.tries(seconds=seconds):
            try:
                return call()
            except CloudError as exc:
                if last or exc.code not in codes or isinstance(exc, CredentialsError):
                    raise
        raise AssertionError("the last try returns or raises")


class Undertaking(Generic[T]):
    """Work in a thread that reports to the thread that waits for it. ``work`` gets a report function."""

    def __init__(self, work: Callable[[Report], T], pace: Pace) -> None:
        self._work = work
        self._pace = pace
        self._reports: queue.SimpleQueue[Progress | None] = queue.SimpleQueue()
        self._result: list[T] = []
        self._error: BaseException | None = None
        # Not a daemon: an interpreter that ends waits for the work, or for its cleaning up.
        self._thread = threading.Thread(target=self._run, name="ppe-undertaking")
        self._thread.start()

    def wait(
        self,
        report: Report,
        *,
        until: Callable[[Progress], bool] = lambda progress: False,
        stop: threading.Event | None = None,
    ) -> bool:
        """Pass reports on until the work ends (True) or ``until`` holds of one (False). ``stop`` is as a Ctrl-C.

        Whatever is raised meanwhile in this thread, KeyboardInterrupt or by ``report``, asks the work to stop
        and is raised when the work has ended; asking again changes nothing.
        """
        interruption: BaseException | None = None
        while True:
            try:
                progress = self._next(stop)
                if progress is None:
                    break
                report(progress)
                if interruption is None and until(progress):
                    return False
            except BaseException as exc:  # a second Ctrl-C included
                interruption = interruption or exc
                self._pace.stop()
        self._thread.join()
        if interruption is not None and not isinstance(interruption, KeyboardInterrupt):
            raise interruption
        return True

    @property
    def result(self) -> T:
        """What the work returned, once it has ended; raises what it raised, KeyboardInterrupt if it was stopped."""
        if isinstance(self._error, Stopped):
            raise KeyboardInterrupt from self._error
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _next(self, stop: threading.Event | None) -> Progress | None:
        # With a time-out, because on Windows an endless wait cannot be interrupted.
        while True:
            if stop is not None and stop.is_set():
                self._pace.stop()
            try:
                return self._reports.get(timeout=0.5)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            self._result.append(self._work(self._reports.put))
        except BaseException as exc:
            self._error = exc
        finally:
            self._reports.put(None)
