"""Worker: the one thread that changes a panel's widgets; what may wait is asked in threads of its own.

A click only adds to the queue, so a kernel is never kept. While a cell runs the thread goes on, and so do the updates.
Knows nothing of widgets.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")
Act = Callable[[], object]


class Worker:
    """Runs what is added, one after the other; ``tick`` every ``seconds``; ``failed`` gets what an act raises."""

    def __init__(self, *, tick: Act, seconds: float, failed: Callable[[Exception], object]) -> None:
        self._tick, self._seconds, self._failed = tick, seconds, failed
        self._queue: queue.SimpleQueue[Act | None] = queue.SimpleQueue()
        self._asking: set[str] = set()
        self._next: dict[str, Act] = {}
        self._timers: dict[str, threading.Timer] = {}
        self._closed = False
        # ipykernel 7 finds the cell that a message belongs to in the context.
        self._context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=self._context.run, args=(self._work,), name="ppe-panel", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def is_this(self) -> bool:
        """Whether the caller is its thread: then a widget's change is not the user's."""
        return threading.current_thread() is self._thread

    def do(self, act: Act) -> None:
        """Run it in the thread."""
        self._queue.put(act)

    def ask(
        self,
        key: str,
        call: Callable[[], T],
        then: Callable[[T], object],
        *,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        """Give ``then`` the answer of a call that may wait. Of several of a ``key`` only the last answer counts.

        At most one of a key is under way. From the worker's thread only.
        """
        begin = partial(self._begin, key, call, then, failed or self._failed)
        if key in self._asking:
            self._next[key] = begin
        else:
            begin()

    def later(self, key: str, seconds: float, act: Act) -> None:
        """Run it after that time, unless another of the same key comes before: for what is being typed."""
        if key in self._timers:
            self._timers[key].cancel()
        timer = threading.Timer(seconds, self.do, args=(act,))
        timer.daemon = True
        self._timers[key] = timer
        timer.start()

    def close(self) -> None:
        """End the thread; what is under way ends unheard."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._queue.put(None)

    def _begin(self, key: str, *asked: Callable[..., object]) -> None:
        self._asking.add(key)
        name = "ppe-panel-ask"
        threading.Thread(target=self._call, args=(key, *asked), name=name, daemon=True).start()

    def _call(
        self,
        key: str,
        call: Callable[[], T],
        then: Callable[[T], object],
        failed: Callable[[Exception], object],
    ) -> None:
        try:
            answer: Act = partial(then, call())
        except Exception as exc:
            answer = partial(failed, exc)
        self.do(partial(self._answered, key, answer))

    def _answered(self, key: str, answer: Act) -> None:
        self._asking.discard(key)
        following = self._next.pop(key, None)
        (following or answer)()

    def _work(self) -> None:
        due = time.monotonic() + self._seconds
        while True:
            try:
                act = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                act, due = self._tick, time.monotonic() + self._seconds
            if act is None or self._closed:
                return
            try:
                act()
            except Exception as exc:
                self._failed(exc)
