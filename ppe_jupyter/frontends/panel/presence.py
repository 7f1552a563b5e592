"""Presence: whether somebody looks at the panel. A view scrolled away, behind another tab, closed or lost is none.

A view says so while it is seen, and once when it is not; of a lost page there is only silence. While a cell runs its
words wait behind that: only time in which the kernel was free counts, and whoever has a view may be looking at it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .page import Seen

GONE_TICKS = 10  # of 4 seconds: two signs of life and more
UNBORN = ""  # the view that a new panel is about to have


class Presence:
    """``tick`` regularly in the thread that ``do`` runs things in; there ``changed`` is called when that changes."""

    def __init__(
        self,
        changed: Callable[[], object],
        *,
        do: Callable[[Callable[[], object]], object],
        loop: Any = None,
        viewed: Callable[[], object] = lambda: False,
    ) -> None:
        """``viewed`` tells whether there is a view at all, ``loop`` is what runs cells."""
        self.widget = Seen()
        self.widget.on_msg(lambda _, told, buffers: do(partial(self._told, told["view"], told["seen"])))
        self._changed, self._loop, self._viewed = changed, loop, viewed
        self._silent = {UNBORN: 0}  # ticks without a word, by view
        self._free, self._busy = True, False

    @property
    def present(self) -> bool:
        """Whether a view is looked at, as far as is known."""
        return bool(self._silent) or (self._busy and bool(self._viewed()))

    def tick(self) -> None:
        """Time passes."""
        before = self.present
        self._busy = not self._free
        if self._free:
            self._silent = {view: ticks + 1 for view, ticks in self._silent.items() if ticks < GONE_TICKS}
        if self._loop is not None:
            self._free = False
            self._loop.add_callback(self._is_free)
        if self.present != before:
            self._changed()

    def _is_free(self) -> None:
        self._free = True

    def _told(self, view: str, seen: bool) -> None:
        before = self.present
        self._silent.pop(UNBORN, None)
        self._silent.pop(view, None)
        if seen:
            self._silent[view] = 0
        if self.present != before:
            self._changed()
