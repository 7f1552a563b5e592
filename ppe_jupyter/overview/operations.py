"""Operations: launches and changes that run in threads of their own and outlive the view that began them.

What they have done is in EC2 like all else; here is only how far they are, for as long as this process lives. At most
one runs on a cluster at a time. Knows neither plans nor what it runs.
"""

from __future__ import annotations

import contextvars
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from ..cloud.records import Progress
from ..errors import Forgotten, LaunchFailed, Occupied, UsageError
from .pictures import OperationPicture, ProgressPicture, instant, problem

if TYPE_CHECKING:
    from .pictures import Problem

Work = Callable[[Callable[[Progress], None], threading.Event], None]
KEPT = 20  # that have ended


class Event(ProgressPicture):
    """What was reported; ``n`` counts from 1."""

    n: int


class Operation:
    """One of them; ``state`` is running, done, failed or cancelled."""

    def __init__(self, verb: str, cluster: str, *, stoppable: bool, on_change: Callable[[], None]) -> None:
        self.id = secrets.token_hex(8)
        self.verb, self.cluster, self.stoppable = verb, cluster, stoppable
        self.state = "running"
        self.started = datetime.now(timezone.utc)
        self.events: list[Event] = []
        self.problem: Problem | None = None
        self._began = time.monotonic()
        self._elapsed: float | None = None
        self._stop = threading.Event()
        self._on_change = on_change

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"

    def stop(self) -> None:
        """Ask a launch to end, which then undoes itself. Raises UsageError for what cannot be stopped half-way."""
        if not self.stoppable:
            raise UsageError(f"{self.verb} of {self.cluster} cannot be stopped half-way; it ends by itself")
        self._stop.set()

    def picture(self) -> OperationPicture:
        """How far it is."""
        last = self.events[-1] if self.events else None
        stopping = self.running and self._stop.is_set()
        return {
            "id": self.id,
            "verb": self.verb,
            "cluster": self.cluster,
            "state": self.state,
            "started": instant(self.started),
            "phase": "stopping" if stopping else last["phase"] if last else "starting",
            "ready": last["ready"] if last else 0,
            "total": last["total"] if last else 0,
            "unit": last["unit"] if last else "nodes",
            "message": last["message"] if last else "",
            "elapsed": round(self._elapsed or time.monotonic() - self._began, 1),
            "problem": self.problem,
        }

    def run(self, work: Work) -> None:
        """Do it, and note how it went."""
        try:
            work(self._report, self._stop)
            state = "done"
        except Exception as exc:
            undone = self._stop.is_set() and isinstance(exc, LaunchFailed) and not exc.leftovers
            state = "cancelled" if undone else "failed"
            self.problem = None if undone else problem(exc)
        self._elapsed = time.monotonic() - self._began
        self.state = state
        self._on_change()

    def _report(self, progress: Progress) -> None:
        self.events.append(
            {
                "n": len(self.events) + 1,
                "phase": progress.phase,
                "ready": progress.ready,
                "total": progress.total,
                "unit": progress.unit,
                "message": progress.message,
                "elapsed": round(progress.elapsed, 1),
            }
        )
        self._on_change()


class Operations:
    """Those of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Operation] = {}
        self._callbacks: dict[object, Callable[[], None]] = {}

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], object]:
        """Call it, from any thread, whenever an operation is further; returns what ends that."""
        key = object()
        self._callbacks[key] = callback
        return partial(self._callbacks.pop, key, None)

    def start(self, verb: str, cluster: str, work: Work, *, stoppable: bool = False) -> Operation:
        """Run ``work`` (it gets a report function and an event that asks it to stop). Raises Occupied.

        Only a ``terminate`` may come while another is at work there; a launch is asked to stop then.
        """
        operation = Operation(verb, cluster, stoppable=stoppable, on_change=self._changed)
        with self._lock:
            for other in self._running_on(cluster):
                if verb != "terminate" or other.verb == verb:
                    where = f" of {cluster}" if cluster else ""
                    raise Occupied(f"{other.verb}{where} is under way; wait until it has ended")
                if other.stoppable:
                    other.stop()
            self._known[operation.id] = operation
            ended = [each for each in self._known.values() if not each.running]
            for old in ended[: max(0, len(ended) - KEPT)]:
                del self._known[old.id]
        context = contextvars.copy_context()
        # Not a daemon: a process that ends waits for what it has begun in the cloud, or for its undoing.
        threading.Thread(target=context.run, args=(operation.run, work), name=f"ppe-{verb}").start()
        self._changed()
        return operation

    def get(self, id: str) -> Operation:
        """The operation of that id. Raises Forgotten."""
        if id not in self._known:
            raise Forgotten(f"there is no operation {id!r} (any more); the clusters tell what became of it")
        return self._known[id]

    def running_on(self, cluster: str) -> Operation | None:
        """The one that is at work on the cluster."""
        with self._lock:
            return next(iter(self._running_on(cluster)), None)

    def all(self) -> list[Operation]:
        """Those that run and those that have ended lately, the newest first."""
        with self._lock:
            return list(reversed(self._known.values()))

    def _changed(self) -> None:
        for callback in list(self._callbacks.values()):
            callback()

    def _running_on(self, cluster: str) -> list[Operation]:
        return [each for each in self._known.values() if each.running and each.cluster == cluster]
