"""``map`` for a class that knows its connection: a function on all slots of a cluster, as the built-in map is on one.

Says which machine is meant, and shows how far it is; ``remote.ranks.mapping`` does the rest.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

from .errors import UsageError
from .remote.outputs import Text
from .ssh import Connection

if TYPE_CHECKING:
    from tqdm import tqdm

    from .remote.ranks.mapping import MapProgress, MapResult

# A map that is over before shows no bar.
BAR_SECONDS = 0.5


class Maps:
    """``map`` and ``last_map``."""

    def ssh(self) -> Connection:
        """The connection to the master."""
        raise NotImplementedError

    def map(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        seed: int | None = None,
        on_error: Literal["stop", "collect"] = "stop",
        retries: int = 0,
        checkpoint: str | None = None,
        slots: int | None = None,
        progress: bool = True,
    ) -> list[Any]:
        """``list(map(function, *iterables))``, the calls spread over Python ranks (mpi4py) on all slots, or ``slots``.

        Task i has random numbers of its own, the same on any number of slots: those of
        ``numpy.random.SeedSequence(seed).spawn(n)[i]``. A parameter ``rng`` of the function's gets a generator of
        them, and ``numpy.random.normal()`` and ``random.random()`` begin at a state that is drawn from them.

        A failed task is tried ``retries`` times more, with the same numbers. Then it ends the map as TaskFailed; or,
        with ``on_error="collect"``, stands as such an error in its place, with a warning. What tasks print is shown
        behind their index. The stop button ends the map within 2 s; ``last_map()`` has what was finished.

        ``checkpoint`` names a file on the master that keeps the results while they come: the same call again does the
        rest only, another one is refused. A lost rank or node has its tasks done by others. A lost line stops nothing:
        ``last_map(wait=True)``. Raises TaskFailed, RemoteInterrupted, ConnectionLost, RemoteError, UsageError.
        """
        from .remote.ranks import mapping

        __tracebackhide__ = True  # what IPython shows of an error begins with the user's line
        if not iterables:
            raise UsageError("map wants something to go through behind the function")
        items = list(zip(*iterables))  # noqa: B905  # as map does: to the end of the shortest
        job = mapping.MapJob(
            function=function,
            items=items,
            seed=seed,
            on_error=on_error,
            retries=retries,
            checkpoint=checkpoint,
            slots=slots,
        )
        if not items:
            return []
        with _Shown(progress) as shown:
            result = mapping.run(self.ssh(), job, on_output=shown.output, on_progress=shown.progress)
        if not result.failed:
            return result.values
        first = result.failed[min(result.failed)]
        if on_error == "stop":
            if sys.version_info >= (3, 11):
                first.add_note(f"{first.traceback}last_map() has {len(result.done)} of {len(items)} results")
            raise first from first.exception
        warnings.warn(
            f"{len(result.failed)} of {len(items)} tasks failed: {first}", RuntimeWarning, stacklevel=2
        )
        return [result.failed.get(index, value) for index, value in enumerate(result.values)]

    def last_map(self, *, wait: bool = False) -> MapResult:
        """What the last map has brought, whoever ran it: of one that was stopped, failed, or still runs.

        ``wait`` follows it to its end, as the call would have. Raises NothingToDo if there was none.
        """
        from .remote.ranks import mapping

        __tracebackhide__ = True
        if not wait:
            return mapping.last(self.ssh())
        with _Shown(True) as shown:
            return mapping.last(self.ssh(), wait=True, on_output=shown.output, on_progress=shown.progress)

    def end_map_ranks(self) -> None:
        """End the processes of ``map``, which wait for the next one."""
        from .remote.ranks import mapping

        mapping.end(self.ssh())


class _Shown:
    """What tasks say and how far they are: with a bar as soon as that takes a moment, if one is wanted."""

    def __init__(self, bar: bool) -> None:
        self._opened = time.time()
        self._wanted = bar
        self._bar: tqdm[Any] | None = None
        # When the ranks began, and how many tasks were done before.
        self._start: tuple[float, int] | None = None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def output(self, text: Text) -> None:
        """What a task has printed, or a note."""
        stream = sys.stdout if text.stream == "stdout" else sys.stderr
        with nullcontext() if self._bar is None else self._bar.external_write_mode(file=stream):
            stream.write(text.text)

    def progress(self, state: MapProgress) -> None:
        """How far it is."""
        finished = state.done + state.failed
        if self._start is None or not state.slots:
            self._start = time.time(), finished
        if not self._wanted or time.time() < self._opened + BAR_SECONDS:
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=state.count, unit=" tasks", smoothing=0, dynamic_ncols=True)
        self._bar.start_t, self._bar.initial = self._start
        self._bar.n = finished
        self._bar.set_postfix_str(_words(state))  # which shows it anew


def _words(state: MapProgress) -> str:
    failed = f", {state.failed} failed" if state.failed else ""
    if not state.slots and state.done + state.failed < state.count:
        return f"starting ranks{failed}"
    return f"{f'{state.busy} of ' if state.busy else ''}{state.slots} slots{' busy' if state.busy else ''}{failed}"
