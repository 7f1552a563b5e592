"""Who asks R for something, and for what: between a client's line and a session's queue.

Must not know how either works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..wire.pipes import Bytes
from ..wire.protocol import Kind
from .jobs import Job


@dataclass
class Request:
    """An evaluation that a client asked for, or a question about the workspace (``kind`` ASK).

    ``whole``: its body has come; a larger one comes when R takes it. ``client`` may go and come back: what it asks
    for is known by its ``token``, and as ``job`` once it is whole.
    """

    client: Asking | None
    id: int
    size: int
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    kind: Kind = Kind.EVALUATE
    token: str = ""
    wish: int = 0  # of Wish, which takes longer to look at
    job: Job | None = None

    @property
    def asker(self) -> str:
        """Whose it is."""
        if self.job is not None:
            return self.job.client
        return self.client.name if self.client else "a client that is gone"


class Asking(Protocol):
    """Whoever makes requests."""

    name: str
    token: str

    @property
    def waiting(self) -> int:
        """Bytes that it has not taken."""

    def tell(self, data: Bytes) -> None:
        """Send it a frame that it may miss."""

    def promise(self, size: int) -> None:
        """The next ``size`` bytes sent are one frame: nothing else may come between them."""

    def send(self, data: Bytes) -> None:
        """Send it a piece of a frame."""

    def close(self) -> None:
        """Drop it: it is in the middle of a frame that will not end."""

    def fail(self, id: int, reason: str, message: str, **more: object) -> None:
        """End its request with an error."""

    def resume(self) -> None:
        """Its large request is taken now."""
