"""Presence: whether a page still has the panel. A page that was closed or lost says nothing to the kernel.

So it is asked: a hidden Play widget is started, and a page that has it moves its value at once, hidden or not. While a
cell runs its answer waits behind that; only time in which the kernel was free counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

ASK_TICKS = 15  # from one question to the next
GONE_TICKS = 30  # without an answer, while the kernel was free


class Presence:
    """``tick`` regularly; ``present`` says what is known, ``back`` is called when a page answers after all."""

    def __init__(self, back: Callable[[], object], *, loop: Any = None) -> None:
        self.widget = widgets.Play(min=0, max=1, value=0, interval=100, layout={"display": "none"})
        self.widget.observe(self._moved, "value")
        self._back, self._loop = back, loop
        self._ticks = self._unanswered = 0
        self._free = True

    @property
    def present(self) -> bool:
        """Whether a page has answered lately, or could not."""
        return self._unanswered < GONE_TICKS

    def tick(self) -> None:
        """Ask now and then; from the panel's worker."""
        self._ticks += 1
        if self._ticks % ASK_TICKS == 0 and not self.widget.playing:
            self.widget.value = 0
            self.widget.playing = True
        if self.widget.playing and self.widget.value == 0 and self._free:
            self._unanswered += 1
        if self._loop is not None:
            self._free = False
            self._loop.add_callback(self._is_free)

    def _is_free(self) -> None:
        self._free = True

    def _moved(self, change: Any) -> None:
        if change["new"]:
            gone, self._unanswered = not self.present, 0
            if gone:
                self._back()
