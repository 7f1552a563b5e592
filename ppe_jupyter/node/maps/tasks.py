"""Which tasks of a map go to which rank, and when: chunks of about a tenth of a second, by what tasks took so far.

A chunk is at most half of an equal share of what is left, so that ranks end together. Where tasks are brief and many
the next chunk goes out ahead. A task that fails is tried again ``retries`` times; one that three ranks were
lost with is not tried any more. Pure; must not know what a task is, nor how ranks are reached.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from itertools import groupby

CHUNK_SECONDS = 0.1
BRIEF_SECONDS = 0.25
MOST_LOSSES = 3
# Of what a new measurement counts.
WEIGHT = 0.5


class Tasks:
    """``count`` tasks, but for those that are ``done``."""

    def __init__(self, count: int, *, done: Collection[int] = (), retries: int = 0) -> None:
        self.count = count
        self.done = len(done)
        self.failed = 0
        self._queue = deque(_ranges(index for index in range(count) if index not in done))
        self._given: dict[int, deque[range]] = {}
        self._retries = retries
        self._tries: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()
        self._mean: float | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a task is still to be done, or at work."""
        return bool(self._queue) or any(self._given.values())

    @property
    def ranks(self) -> list[int]:
        """Those that take part."""
        return list(self._given)

    @property
    def busy(self) -> list[int]:
        """Those that are at work."""
        return [rank for rank, given in self._given.items() if given]

    def joins(self, rank: int) -> None:
        """It is ready for chunks."""
        self._given[rank] = deque()

    def chunk(self, rank: int) -> range | None:
        """The next for the rank, if it is to have one now."""
        given = self._given.get(rank)
        if given is None or not self._queue:
            return None
        left = sum(map(len, self._queue))
        ranks = len(self._given)
        brief = self._mean is not None and self._mean < BRIEF_SECONDS
        if len(given) > (brief and left > 2 * ranks):
            return None
        size = 1 if self._mean is None else int(CHUNK_SECONDS / max(self._mean, 1e-7))
        size = max(1, min(size, left // (2 * ranks)))
        first = self._queue.popleft()
        if len(first) > size:
            self._queue.appendleft(first[size:])
        given.append(first[:size])
        return first[:size]

    def first(self, rank: int) -> int:
        """The index of the task that the rank answers next."""
        return self._given[rank][0].start

    def answered(
        self, rank: int, count: int, failed: Collection[int], *, seconds: float, last: bool
    ) -> set[int]:
        """The rank has done so many of its oldest chunk; which of the ``failed`` (indices) are tried again.

        ``last``: it does no more of that chunk.
        """
        given = self._given[rank]
        chunk = given.popleft()
        rest = chunk[count:]
        if not last:
            given.appendleft(rest)  # an empty one too: more is to come
        elif rest:
            self._queue.appendleft(rest)
        if count:
            mean = seconds / count
            self._mean = mean if self._mean is None else WEIGHT * mean + (1 - WEIGHT) * self._mean
        self._tries.update(failed)
        again = {index for index in failed if self._tries[index] <= self._retries}
        self._queue.extendleft(range(index, index + 1) for index in sorted(again, reverse=True))
        self.failed += len(failed) - len(again)
        self.done += count - len(failed)
        return again

    def lost(self, rank: int) -> int | None:
        """The rank is gone; the index of a task that is given up, since it was at work whenever ranks were lost."""
        given = [chunk for chunk in self._given.pop(rank, ()) if chunk]
        if not given:
            return None
        at_work, *later = given
        self._queue.extendleft(reversed(later))
        if len(at_work) > 1:  # one by one, since any of them may be why
            self._queue.extendleft(range(index, index + 1) for index in reversed(at_work))
            return None
        self._losses.update(at_work)
        if self._losses[at_work.start] < MOST_LOSSES:
            self._queue.appendleft(at_work)
            return None
        self.failed += 1
        return at_work.start


def _ranges(indices: Iterable[int]) -> list[range]:
    """Increasing indices as ranges."""
    together = [
        [index for _, index in run] for _, run in groupby(enumerate(indices), lambda at: at[1] - at[0])
    ]
    return [range(run[0], run[-1] + 1) for run in together]
