"""The interrupt ladder: what each press of the stop button does while an evaluation does not end.

SIGINT to R; SIGINT to its MPI workers; save, restart R and load again; at last the cell is let go, so that what ends
R without its workspace can be typed where the press came from. A step is offered some seconds
after the one before it, in a line that says how to take it, and a press takes it only then: whoever presses five times
in a second means one interrupt. Steps can be asked for by name at any time. An R that does not evaluate is never
signalled. Must not know how any of it is done.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Protocol

OFFER_SECONDS = 3.0


class Rung(enum.IntEnum):
    """A step of the ladder; in the ``seq`` of an INTERRUPT frame."""

    NEXT = 0
    R = 1
    WORKERS = 2
    RESTART = 3
    LET_GO = 4


class Interruptible(Protocol):
    """What is interrupted."""

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""

    def signal_r(self) -> None:
        """SIGINT to R's process group."""

    def count_workers(self) -> int:
        """How many MPI workers R has."""

    async def signal_workers(self) -> None:
        """SIGINT to all of them."""

    async def restart_with_workspace(self) -> bool:
        """Save, restart R, load again, which ends the evaluation; False if R cannot save."""

    def let_go(self) -> bool:
        """Have whoever waits for the evaluation wait no longer; False if nobody does."""

    def say(self, text: str) -> None:
        """A line for whoever waits for the evaluation."""


class Ladder:
    """Where the present evaluation is on it. ``pressed``: which evaluation was interrupted last."""

    def __init__(self, target: Interruptible) -> None:
        self.pressed = 0
        self._target = target
        self._at = Rung.NEXT
        self._offered = False
        self._climbing: asyncio.Task[None] | None = None

    def press(self, wanted: Rung = Rung.NEXT) -> None:
        """Take a step: ``wanted``, or the one that is offered, or the last one again."""
        number = self._target.evaluating()
        climbing = self._climbing if self._climbing and not self._climbing.done() else None
        if not number or (climbing and wanted is Rung.NEXT):
            return
        if number != self.pressed:
            self.pressed, self._at, self._offered = number, Rung.NEXT, False
        if wanted is Rung.NEXT:
            wanted = self._above() if self._offered or self._at is Rung.NEXT else Rung.R
        self._at = max(self._at, wanted)
        self._offered = False
        self._climbing = asyncio.ensure_future(self._take(wanted, number, climbing))

    def _above(self) -> Rung:
        above = Rung(min(self._at + 1, Rung.LET_GO))
        return Rung.RESTART if above is Rung.WORKERS and not self._target.count_workers() else above

    async def _take(self, rung: Rung, number: int, before: asyncio.Task[None] | None) -> None:
        target = self._target
        if before:
            await before
        if target.evaluating() != number:
            return
        if rung is Rung.R:
            target.signal_r()
        elif rung is Rung.WORKERS:
            count = target.count_workers()
            await target.signal_workers()
            target.say(f"SIGINT was sent to R's {count} workers" if count else "R has no workers")
        elif rung is Rung.RESTART:
            target.say("R is told to save its workspace and to end, and starts anew with it")
            if await target.restart_with_workspace():
                return
            self._at = Rung.RESTART
        elif rung is Rung.LET_GO and target.let_go():
            return
        asyncio.get_running_loop().call_later(
            0 if rung >= Rung.RESTART else OFFER_SECONDS, self._offer, number
        )

    def _offer(self, number: int) -> None:
        """Still not ended: say what is next."""
        if self._target.evaluating() != number or self._offered or self.pressed != number:
            return
        self._offered = True
        offers = {
            Rung.WORKERS: f"interrupts its {self._target.count_workers()} workers (%remote_interrupt --workers)",
            Rung.RESTART: "saves the workspace and restarts R with it (%remote_interrupt --restart)",
        }
        above = self._above()
        if above in offers:
            before = "R was interrupted (SIGINT) but has" if self._at is Rung.R else "R has"
            self._target.say(f"{before} not ended yet; the next press of stop {offers[above]}")
        else:
            self._target.say(
                "R does not save its workspace either: %remote_restart ends it without, %ppe_reboot --force reboots"
                " the nodes; the next press of stop lets go of this cell"
            )
