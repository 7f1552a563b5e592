"""Who hears what R prints, and what the cluster has to say; what was said is logged for those who come later.

A follower hears the events of one job, or of all, from a place in the log on, and then what ended it. One that reads
slowly gets them from the log, as it has room: it neither holds R up nor fills memory. Must not know R, nor what is
said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..wire.pipes import ENOUGH_WAITING
from ..wire.protocol import Kind, header, json_frame
from .asking import Asking
from .eventlog import Event, EventLog, Gap, Kept


class Follower:
    """``client`` hears of ``job`` (0: of all) what comes after event ``after``, under its own ``id``.

    ``quiet``: only how it ends. ``until``: nothing after that event. ``ends``: the job's end is told too.
    """

    def __init__(
        self,
        client: Asking,
        id: int,
        log: EventLog,
        *,
        job: int,
        after: int,
        until: int | None = None,
        quiet: bool = False,
        ends: bool = True,
    ) -> None:
        self.client = client
        self.id = id
        self.job = job
        self.ends = ends
        self.over = False
        self._log = log
        self._at = log.last if quiet else min(after, log.last)
        self._until = until
        self._quiet = quiet
        self._past: Iterator[Kept] | None = None
        self._ending: Iterator[bytes] | None = None

    @property
    def behind(self) -> bool:
        """Whether there is more in the log for it."""
        return self._past is not None or self._at < (self._log.last if self._until is None else self._until)

    def hear(self, event: Event) -> None:
        """An event has been logged."""
        if self._at != event.seq - 1 or self._past is not None:
            return  # it comes from the log, when its client has room
        if self.client.waiting < ENOUGH_WAITING:
            self._at = event.seq
            self._tell(event)

    def end(self, pieces: Iterable[bytes]) -> None:
        """After what it has not heard yet: these, a whole frame."""
        self._until = self._log.last if self._until is None else self._until
        self._ending = iter(pieces)
        self.pump()

    def pump(self) -> None:
        """Go on while the client has room."""
        while not self.over and self.client.waiting < ENOUGH_WAITING:
            if self.behind:
                self._catch_up()
            elif self._ending is None:
                return
            elif (piece := next(self._ending, None)) is not None:
                self.client.send(piece)
            else:
                self.over = True

    def _catch_up(self) -> None:
        if self._past is None:
            self._past = self._log.since(self._at)
        kept = next(self._past, None)
        if kept is None:
            self._past = None
        elif self._until is not None and (kept.seq if isinstance(kept, Event) else kept.first) > self._until:
            self._past, self._at = None, self._until
        elif isinstance(kept, Gap):
            self._at = kept.last
            gap = {"first": kept.first, "last": kept.last}
            if not self._quiet:
                self.client.tell(json_frame(Kind.GAP, gap, id=self.id, seq=kept.last))
        else:
            self._at = kept.seq
            self._tell(kept)

    def _tell(self, event: Event) -> None:
        if not self._quiet and self.job in (0, event.job):
            body = event.body
            self.client.tell(header(event.kind, len(body), id=self.id, seq=event.seq) + body)


class Audience:
    """The clients of a session, and its log."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._clients: set[Asking] = set()
        self._listener: Asking | None = None
        self._followers: list[Follower] = []

    def join(self, client: Asking) -> None:
        """Notices go to it from now on."""
        self._clients.add(client)

    def leave(self, client: Asking) -> None:
        """It hears nothing more."""
        self._clients.discard(client)
        self._followers = [each for each in self._followers if each.client is not client]
        if self._listener is client:
            self._listener = None

    def listen(self, client: Asking | None) -> None:
        """It evaluates: later it hears what R's children print."""
        self._listener = client

    def follow(self, client: Asking, id: int, **how: Any) -> Follower:
        """The client hears of the job from there on (see Follower)."""
        follower = Follower(client, id, self.log, **how)
        self._followers.append(follower)
        follower.pump()
        return follower

    def drop(self, client: Asking, job: int) -> None:
        """The client has heard all of the job."""
        self._followers = [each for each in self._followers if each.client is not client or each.job != job]

    def followed(self, job: int) -> bool:
        """Whether anyone waits for the job's end."""
        return any(each.job == job and each.ends for each in self._followers)

    def behind(self, client: Asking, job: int) -> bool:
        """Whether the client has not been told all that the job has printed."""
        return any(each.client is client and each.job == job and each.behind for each in self._followers)

    def end(self, job: int, ending: Callable[[Follower], Iterable[bytes]]) -> None:
        """The job is over: who follows it hears ``ending`` behind its last event."""
        for follower in [each for each in self._followers if each.job == job]:
            if follower.ends:
                follower.end(ending(follower))
            else:
                follower.over = True
        self._tidy()

    def end_one(self, follower: Follower, pieces: Iterable[bytes]) -> None:
        """It hears this behind the last event that is meant for it."""
        follower.end(pieces)
        self._tidy()

    def output(self, kind: Kind, body: bytes, *, job: int) -> None:
        """R has printed or drawn something in a job (0: after it)."""
        event = self._log(kind, body, job)
        if job == 0 and self._listener is not None and self._listener.waiting < ENOUGH_WAITING:
            self._listener.tell(header(kind, len(body), seq=event.seq) + body)

    def note(self, kind: Kind, body: bytes, *, job: int) -> None:
        """For the log: whoever waits for the job has been told."""
        self._log(kind, body, job)

    def broadcast(self, kind: Kind, body: bytes) -> None:
        """A notice for every client."""
        data = header(kind, len(body), seq=self._log(kind, body, 0).seq) + body
        for client in list(self._clients):
            client.tell(data)

    def drained(self, client: Asking) -> None:
        """The client has room again."""
        for follower in [each for each in self._followers if each.client is client]:
            follower.pump()
        self._tidy()

    def _log(self, kind: Kind, body: bytes, job: int) -> Event:
        event = Event(self.log.append(kind, body, job=job), kind, job, body)
        for follower in self._followers:
            follower.hear(event)
        return event

    def _tidy(self) -> None:
        self._followers = [each for each in self._followers if not each.over]
