"""How an evaluation's result gets to whoever waits for it: as it comes, from memory after a cut line, or from the disk.

A small result is told at once and kept until its client asks for something else; nothing waits for a slow reader. A
large one goes to its client as R writes it, and only then; with no client there, or one that is still reading what was
printed, it goes to the disk first. Must not know R, nor what a result is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..wire.pipes import ENOUGH_WAITING
from ..wire.protocol import HEADER, Header, Kind, header, json_frame
from .asking import Asking, Request
from .audience import Audience, Follower
from .jobs import SMALL_RESULT, Job, Jobs, JobState

PIECE = 2**20
# A client that takes nothing of its result for so long is dropped: others wait.
STALL_SECONDS = 30.0
STATES = {Kind.RESULT: JobState.DONE, Kind.INTERRUPTED: JobState.INTERRUPTED}


class Endings:
    """The endings of a session's jobs."""

    def __init__(self, jobs: Jobs, audience: Audience) -> None:
        self._jobs = jobs
        self._audience = audience
        self._request: Request | None = None
        self._kind = Kind.RESULT
        self._body = bytearray()
        self._large = False
        self._receiver: Asking | None = None
        self._file: BinaryIO | None = None
        self._taken = 0

    def begin(self, request: Request, head: Header) -> None:
        """The result of this request begins."""
        self._request, self._kind = request, head.kind
        self._body = bytearray()
        self._large = head.size > SMALL_RESULT
        if not self._large:
            return
        client, job = request.client, request.job
        id = request.id if client is not None or job is None else job.number
        data = header(head.kind, head.size, id=id, seq=self._audience.log.last)
        if client is not None and (job is None or not self._audience.behind(client, job.number)):
            self._receiver = client
            client.promise(len(data) + head.size)
            client.send(data)
        elif job is not None and (file := self._jobs.results.begin(job.number, head.size)) is not None:
            self._file = file
            self._write(data)

    def take(self, data: memoryview, left: int) -> bool:
        """A piece of it; True: wait until the client has room."""
        if not self._large:
            self._body += data
            return False
        if self._file is not None:
            self._write(data)
        client = self._receiver
        if client is None:
            return False
        client.send(data)
        self._taken += len(data)
        if client.waiting <= ENOUGH_WAITING:
            return False
        asyncio.get_running_loop().call_later(
            STALL_SECONDS, self._drop_stalled, client, self._taken, client.waiting
        )
        return True

    def end(self) -> None:
        """It has come whole."""
        request, kind, body = self._request, self._kind, bytes(self._body)
        receiver, file = self._receiver, self._file
        self._request = self._receiver = self._file = None
        assert request is not None
        job, last = request.job, self._audience.log.last
        if job is None:
            if not self._large and request.client is not None:
                request.client.tell(header(kind, len(body), id=request.id, seq=last) + body)
            return
        if receiver is not None:
            job.told = True
            self._audience.drop(receiver, job.number)
        if file is not None:
            self._jobs.results.keep(job.number, file)
        self.close(job, kind, None if self._large else body, state=STATES.get(kind, JobState.FAILED))
        if kind is Kind.FAILURE and not self._large:
            self._audience.note(kind, body, job=job.number)

    def abandon(self) -> None:
        """There will be no more of it: R is gone."""
        receiver, self._receiver = self._receiver, None
        if self._file is not None:
            part = Path(self._file.name)
            with contextlib.suppress(OSError):  # what is in its buffer may have no room
                self._file.close()
            with contextlib.suppress(OSError):
                part.unlink()
        self._file = self._request = None
        if receiver is not None:
            receiver.close()

    def lose(self, client: Asking) -> None:
        """The client is gone: the rest of its result is dropped."""
        if self._receiver is client:
            self._receiver = None

    def close(self, job: Job, kind: Kind, body: bytes | None, *, state: JobState) -> None:
        """The job is over; ``body`` None: what ended it is on the disk, or was sent as it came."""
        last = self._audience.log.last if job.began else 0
        followed = self._audience.followed(job.number)
        if body is None:
            self._jobs.end(job, kind, body, last=last, state=state)
            self._audience.end(job.number, lambda follower: self._pieces(job, follower))
        else:  # whoever waits comes first
            job.told = followed
            size, told = len(body), body
            self._audience.end(
                job.number, lambda follower: [header(kind, size, id=follower.id, seq=last) + told]
            )
            self._jobs.end(job, kind, body, last=last, state=state)
        if job.background or not followed:
            self._jobs.keep_small(job)

    def fail(self, request: Request, reason: str, message: str, **more: object) -> None:
        """The request ends so, without a result of R's."""
        client, job = request.client, request.job
        if job is not None:
            told = {"reason": reason, "message": message, **more}
            body = json.dumps(told, ensure_ascii=False).encode(errors="replace")
            state = JobState.INTERRUPTED if reason in ("interrupted", "aborted") else JobState.FAILED
            self.close(job, Kind.FAILED, body, state=state)
            self._audience.note(Kind.STDERR, f"{message}\n".encode(), job=job.number)
        if client is not None:
            if job is None or not job.began:
                client.fail(request.id, reason, message, **more)
            client.resume()  # the rest of a large request is read, and dropped

    def tell(self, client: Asking, id: int, job: Job, *, after: int, quiet: bool = False) -> None:
        """What the job, which is over, has printed after that event, and how it ended."""
        after = max(after, job.first - 1)
        follower = self._audience.follow(client, id, job=job.number, after=after, until=job.last, quiet=quiet)
        self._audience.end_one(follower, self._pieces(job, follower))

    def _pieces(self, job: Job, follower: Follower) -> Iterable[bytes]:
        seq = job.last
        if job.ending is not None:
            kind, body = job.ending
            self._jobs.fetched(job)
            return [header(kind, len(body), id=follower.id, seq=seq) + body]
        if (found := self._jobs.results.get(job.number)) is not None:
            return self._handed(job, _from_disk(follower, *found))
        if job.state is JobState.LOST:
            told = {
                "reason": "died",
                "message": f"job {job.number} was lost, with R: the agent on the master was ended",
            }
        else:
            why = "its line was cut on the way, or later ones took its place"
            if job.told:
                why = "it was given to the client that waited for it"
            elif job.trouble:
                why = f"the master's disk did not take it ({job.trouble})"
            told = {
                "reason": "result",
                "message": f"job {job.number} has ended ({job.state.value}), but its result is not kept: {why}."
                " R has what it assigned: pull that again",
            }
        return [json_frame(Kind.FAILED, dict(told), id=follower.id, seq=seq)]

    def _handed(self, job: Job, pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        self._jobs.fetched(job)

    def _write(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
        except OSError as exc:
            assert self._request is not None
            assert self._request.job is not None
            self._jobs.results.give_up(self._request.job.number, self._file, exc)
            self._file = None

    def _drop_stalled(self, client: Asking, taken: int, waiting: int) -> None:
        if self._receiver is client and self._taken == taken and client.waiting == waiting:
            client.close()


def _from_disk(follower: Follower, head: bytes, file: BinaryIO) -> Iterator[bytes]:
    with file:
        _, kind, _, seq, size = HEADER.unpack(head)
        follower.client.promise(HEADER.size + int(size))
        yield HEADER.pack(head[:8], kind, follower.id, seq, size)
        while piece := file.read(PIECE):
            yield piece
