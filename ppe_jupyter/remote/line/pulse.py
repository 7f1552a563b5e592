"""Whether the agent still answers while an evaluation is waited for, whose R may be silent for days.

After a silence the agent is asked for a sign of life; after another one the user is told that none has come. Must not
know what is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable

from ...node.wire.protocol import Kind, json_frame
from .link import Link

SILENT_SECONDS = 5.0
# Of the questions; no evaluation has it.
ID = 2**31 - 1


class Pulse:
    """``lost``: the agent was asked, and has not answered yet."""

    def __init__(self, host: str, say: Callable[[str], None]) -> None:
        self.lost = False
        self._host = host
        self._say = say
        self._told = False

    def heard(self) -> None:
        """Something has come."""
        if self._told:
            self._say(f"The agent on {self._host} answers again.\n")
        self.lost = self._told = False

    def silent(self, link: Link) -> None:
        """Nothing has come for SILENT_SECONDS."""
        if not self.lost:
            self.lost = True
            link.send(json_frame(Kind.COMMAND, {"do": "here"}, id=ID))
        elif not self._told:
            self._told = True
            self._say(
                f"The agent on {self._host} does not answer. Waiting for it (stop ends the waiting) …\n"
            )

    def words(self) -> str:
        """Why no longer."""
        return (
            f"the agent on {self._host} does not answer; what R evaluates may go on (%remote_jobs shows it when the"
            " agent answers; %ppe_reboot if it never does)"
        )
