"""Who hears what R prints, and what the cluster has to say; what was said is logged for those who come later.

Text and plots go to whoever evaluates, or evaluated last, notices to every client; but nothing into the middle of a
result that it is being sent. Must not know R, nor what is said.
"""

from __future__ import annotations

from .clients import Asking
from .eventlog import EventLog
from .notices import Notices
from .protocol import Kind, header, json_frame

LOG_BYTES = 64 * 2**20


class Audience:
    """The clients of a session, its log and its notices."""

    def __init__(self) -> None:
        self.log = EventLog(limit=LOG_BYTES)
        self.notices = Notices(self._broadcast)
        self._clients: set[Asking] = set()
        self._listener: Asking | None = None
        self._receiver: Asking | None = None
        self._held: list[bytes] = []

    def join(self, client: Asking) -> None:
        """Notices go to it from now on."""
        self._clients.add(client)

    def leave(self, client: Asking) -> None:
        """It hears nothing more."""
        self._clients.discard(client)
        if self._listener is client:
            self._listener = None

    def listen(self, client: Asking | None) -> None:
        """It evaluates: it hears what R prints, and later what R's children print."""
        self._listener = client

    def output(self, kind: Kind, body: bytes, *, id: int) -> None:
        """R has printed or drawn something in the listener's evaluation ``id`` (0: after it)."""
        seq = self.log.append(kind, body)
        if self._listener is not None:
            self._tell(self._listener, header(kind, len(body), id=id, seq=seq) + body)

    def begin_result(self, client: Asking | None) -> None:
        """The pieces of a result go to this client now: nothing else may come between them."""
        self._receiver = client

    def end_result(self) -> None:
        """They have gone, or there will be no more."""
        client, self._receiver = self._receiver, None
        held, self._held = self._held, []
        for data in held:
            if client is not None:
                client.tell(data)

    def replay(self, client: Asking, id: int, since: int) -> None:
        """Send the events after ``since`` that the log still has."""
        for event in self.log.since(since):
            client.send(header(event.kind, len(event.body), id=id, seq=event.seq) + event.body)
        client.tell(json_frame(Kind.DONE, {"first": self.log.first}, id=id, seq=self.log.last))

    def _broadcast(self, kind: Kind, body: bytes) -> None:
        data = header(kind, len(body), seq=self.log.append(kind, body)) + body
        for client in list(self._clients):
            self._tell(client, data)

    def _tell(self, client: Asking, data: bytes) -> None:
        if client is self._receiver:
            self._held.append(data)
        else:
            client.tell(data)
