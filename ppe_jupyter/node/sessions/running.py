"""The evaluation that runs: what the stop button, a question of R's and a lost worker do with it.

When each comes, ladder.py and watch.py know. Must not know the queue, nor how R lives on.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Protocol

from ..r import workers
from ..r.watch import Watch
from ..wire.protocol import Kind, Wish, json_frame
from .asking import Request
from .ladder import Ladder
from .life import RLife
from .state import State

CRASH_MENU, EXIT_WITHOUT_SAVING = b"\n4: exit R saving workspace\nSelection: ", "3"


class Evaluating(Protocol):
    """Where evaluations run. ``number``: of the newest one."""

    current: Request | None
    number: int

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""

    def let_go(self) -> bool:
        """Have whoever waits for the evaluation wait no longer; False if nobody does."""

    def say(self, text: str) -> None:
        """A line for whoever waits for the evaluation."""


class Running:
    """Ladder and watch of a session, and what they do."""

    def __init__(self, evaluations: Evaluating, life: RLife) -> None:
        self.ladder = Ladder(self)
        self._evaluations = evaluations
        self._life = life
        self._watch = Watch(self, life.workers)
        self._suspect = self._full = 0
        self._asked = False
        self._tail = b""

    def begin(self) -> None:
        """An evaluation begins, or its client is another one now."""
        self._asked = False
        self._watch.begin()

    def hear(self, text: bytes) -> None:
        """It prints."""
        self._tail = (self._tail + text)[-256:]

    def forget(self) -> None:
        """R is another one."""
        self._asked = False
        self._tail = b""

    def disturbed(self, number: int) -> bool:
        """Whether workers may have been left in the middle of an MPI call by that evaluation."""
        return number in (self.ladder.pressed, self._suspect)

    def evaluating(self) -> int:
        """The number of the evaluation that runs now, else 0."""
        return self._evaluations.evaluating()

    def say(self, text: str) -> None:
        """A line for whoever waits for the evaluation."""
        self._evaluations.say(text)

    # --- Questions

    def look_for_question(self) -> None:
        """Ask the client, if R waits for a line of input."""
        r = self._life.r
        if self._asked or not r.waits_for_input():
            return
        self._life.stream.catch_up()  # it may wait at its own prompt: an answer to that would be a command
        if not self.evaluating():
            return
        current = self._evaluations.current
        if self._tail.endswith(CRASH_MENU):
            # R's own handler of a segfault asks what to do. There is one good answer: end.
            r.crashed = True
            r.answer(EXIT_WITHOUT_SAVING)
        elif current and current.wish & Wish.BACKGROUND:
            r.answer("")
        elif current and current.client:
            self._asked = True
            current.client.tell(json_frame(Kind.QUESTION, {}, id=current.id))

    def answer(self, line: str) -> None:
        """Type a line for R, if it waits for one."""
        if self._life.state is State.BUSY and self._asked:
            self._asked = False
            self._life.r.answer(line.split("\n", 1)[0])

    # --- Interrupts

    def signal_r(self) -> None:
        """SIGINT to R's process group."""
        r = self._life.r
        ignored = r.ignores_interrupt()
        r.interrupt()
        loop, number = asyncio.get_running_loop(), self._evaluations.number
        # The child's end may be seen before this second look.
        if ignored or r.ignores_interrupt():
            loop.call_later(0.02, self._interrupt_again, number)

    def _interrupt_again(self, number: int) -> None:
        """system() ignores the signal that ended its child: once it is over, R needs one of its own."""
        life = self._life
        if life.state is not State.BUSY or life.stream.ended or number != self._evaluations.number:
            return
        if life.r.ignores_interrupt():
            asyncio.get_running_loop().call_later(0.02, self._interrupt_again, number)
        else:
            life.r.interrupt()

    def count_workers(self) -> int:
        """How many MPI workers R has."""
        return len(workers.listed(self._life.workers))

    async def signal_workers(self) -> None:
        """SIGINT to all of them."""
        await workers.signal_all(self._life.workers, signal.SIGINT)

    async def restart_with_workspace(self) -> bool:
        """Save, restart R and load again, which ends the evaluation; False if R cannot save."""
        return await self._life.save_and_restart("R was restarted: its variables were saved and loaded again")

    def let_go(self) -> bool:
        """Have whoever waits for the evaluation wait no longer; False if nobody does."""
        return self._evaluations.let_go()

    # --- Lost workers

    async def waits_in_mpi(self) -> bool:
        """Whether R is in an MPI call that waits."""
        pid = self._life.r.pid
        return pid is not None and await workers.waits(pid)

    def name_lost(self, lost: list[workers.Worker], fate: str) -> Path | None:
        """Have R's MPI calls end with an error that names them; the file that is there until one has.

        None: the disk does not take it, which was said, once.
        """
        self._suspect = number = self._evaluations.number
        try:
            return workers.name_lost(self._life.run, lost, fate)
        except OSError as exc:  # a full disk, which would not take the workspace either
            if self._full != number:
                self._full = number
                more = f" ({len(lost)} workers in all)" if len(lost) > 1 else ""
                self.say(
                    f"{lost[0]} was {fate}{more}, and this call waits for it. R cannot be told, as the master's disk"
                    f" takes nothing ({exc}): make room there (%%remote_sh works meanwhile), and the call ends"
                )
            return None

    async def rescue(self, lost: workers.Worker, fate: str) -> None:
        """End an evaluation that can never end: save the workspace, restart R, say which worker is lost."""
        self._life.go(State.RESCUED)
        kept = await self._life.r.save_and_quit()
        now = (
            "the variables were saved and loaded again; start workers anew"
            if kept
            else "the variables are gone, because R could not save them"
        )
        self._life.replace(
            "rank",
            f"{lost} was {fate} during an MPI call, which can never end. R was restarted: {now}",
            kept=kept,
            rank=lost.rank,
            node=lost.host,
        )
