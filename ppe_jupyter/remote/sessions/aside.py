"""What an R session is asked beside its evaluations: to be interrupted, restarted, told about, followed.

The agent answers, mostly over a link of the question's own, so that it waits for no evaluation. Must not know how one
is made.
"""

from __future__ import annotations

import time
from typing import Any

from ...errors import ConnectionLost, RemoteError
from ...node.sessions.ladder import Rung
from ...node.wire.protocol import ENDS, MAX_EXACT, Kind, frame, json_frame, parse_json
from ..line.line import Line
from ..line.link import Link
from ..outputs import OnOutput, Output
from .answers import done, failure, outputs_of


class Aside:
    """For a class that has a line, and somewhere to show output."""

    _line: Line
    _on_output: OnOutput

    def interrupt(self, rung: Rung = Rung.NEXT) -> None:
        """Interrupt whatever R evaluates now, for any client; may be called from another thread.

        A named ``rung`` of the ladder (ladder.py) is taken at once: R, its WORKERS, or RESTART with its workspace.
        """
        link = self._line.current
        if link is not None and not link.closed:
            link.send(frame(Kind.INTERRUPT, seq=rung))
        else:
            with self._line.aside() as other:
                other.send(frame(Kind.INTERRUPT, seq=rung))
                self._told(other, {"do": "jobs"})  # it has been heard when this is answered

    def restart(self, *, restore: str | None = None) -> int | None:
        """End R and start it anew, without its variables, or with those in the file ``restore`` on the master.

        Evaluations that run or wait end with RSessionDied. Returns the number of objects loaded, if any were.
        """
        with self._line.aside() as link:
            link.send(json_frame(Kind.RESTART, {"restore": restore} if restore else {}, id=1))
            restored = done(link)["restored"]
        if isinstance(restored, str):
            raise RemoteError(f"R was restarted, but {restore} could not be loaded: {restored}")
        count: int | None = restored
        return count

    def replay(self, since: int = 0) -> list[Output]:
        """What was printed and displayed after event ``since`` (0: all that the log still has)."""
        found: list[Output] = []
        self.follow(since=since, live=False, on_output=found.append)
        return found

    def last_event(self) -> int:
        """The number of the last event in the log."""
        _, body = self.follow(since=MAX_EXACT, live=False)
        return int(parse_json(bytes(body))["last"])

    def follow(
        self,
        job: int = 0,
        *,
        since: int = 0,
        live: bool = True,
        quiet: bool = False,
        on_output: OnOutput | None = None,
        timeout: float | None = None,
    ) -> tuple[Kind, bytearray]:
        """Show what ``job`` (0: any) printed after event ``since``, and, ``live``, what it will; until its end.

        The frame that ended it (DONE: it was not waited for). ``quiet``: only that. Raises TimeoutError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        wish, show = {"job": job, "live": live, "quiet": quiet}, on_output or self._on_output
        link = self._line.aside()
        while True:
            try:
                with link:
                    link.send(json_frame(Kind.FOLLOW, wish, id=1, seq=since))
                    if deadline is None:
                        link.greet()
                    for head, body in link.frames(deadline):
                        if head.id and (head.kind is Kind.DONE or (job and head.kind in ENDS)):
                            return head.kind, body
                        if head.kind is Kind.FAILED:
                            raise failure(parse_json(bytes(body)))
                        since = head.seq or since
                        for output in outputs_of(head.kind, body):
                            show(output)
            except ConnectionLost as lost:
                link = self._line.aside_again(lost)

    def command(self, wish: dict[str, Any]) -> dict[str, Any]:
        """The agent's answer to what is no evaluation; does not wait for R. Raises UsageError."""
        with self._line.aside() as link:
            return self._told(link, wish)

    def _told(self, link: Link, wish: dict[str, Any]) -> dict[str, Any]:
        link.send(json_frame(Kind.COMMAND, wish, id=2))
        return done(link)
