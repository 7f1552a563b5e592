"""A client attached to an R session: its line, whose turn it is, and the calls that go over it.

One call at a time: threads take turns, and notices are looked for between them. Must not know what evaluations are of.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ... import person
from ...errors import ConnectionLost, RemoteError, RemoteInterrupted
from ...node.wire.protocol import MAIN, Header, Kind, Question, Wish, ask
from ...ssh import Connection
from ..line.call import Call
from ..line.line import Hello, Line
from ..line.link import Link, OnProgress
from ..outputs import OnNotice, OnOutput, OnQuestion, Text, write_output
from ..values.wire import Buffer
from .answers import checked, outputs_of, r_error
from .aside import Aside
from .notices import Notices, look_for

AGENT = "python3 ~/.ppe/node/agent.py"
# R itself gives up earlier (assistance.R), unless it waits for something.
ASKING_SECONDS = 1.5


class Attached(Aside):
    """Its arguments are RemoteR's, which says what they are."""

    def __init__(
        self,
        connection: Connection,
        *,
        agent: str = AGENT,
        client: str | None = None,
        on_output: OnOutput | None = None,
        on_question: OnQuestion | None = None,
        on_notice: OnNotice | None = None,
        simplify: bool = True,
        on_progress: OnProgress | None = None,
        on_past: Callable[[str], None] | None = None,
        session: str = MAIN,
        compress: str = "auto",
        reconnect: Callable[[], Connection] | None = None,
    ) -> None:
        self.session = session
        self.simplify = simplify
        hello = Hello(agent=agent, client=client or person.client(), session=session, packing=compress)
        self._notices = Notices(session, hello.token, on_notice=on_notice, on_past=on_past)
        self._line = Line(
            connection,
            hello,
            reconnect=reconnect,
            on_notice=self._notices.pass_on,
            on_welcome=self._notices.welcomed,
        )
        self._line.on_progress = self._progress
        self.on_progress = on_progress
        self.wish = Wish(0)  # WATCH, TAKE_OVER: what its evaluations do while another client's runs
        self._on_output = on_output or write_output
        self._on_question = on_question
        self._turn = threading.RLock()
        self._calling = False
        self._watched: Link | None = None
        self._ids = itertools.count(1)

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as this end knows."""
        return self._connection.alive

    @property
    def _connection(self) -> Connection:
        return self._line.connection

    @property
    def _link(self) -> Link | None:
        return self._line.current

    def close(self) -> None:
        """Detach; what R does goes on. Safe to repeat."""
        self._line.close()

    def rest(self) -> bool:
        """Detach if nothing is asked just now, until the next use; whether there was something to leave."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            # This thread itself may be in the middle of a call, and show its output.
            return not self._calling and self._line.rest()
        finally:
            self._turn.release()

    def _attached(self) -> Link:
        link = self._line.link()
        if self._watched is not link:
            self._watched = link
            look_for(weakref.ref(self), link)
        return link

    def look(self, link: Link) -> bool:
        """Pass on the notices that have come over this link, unless it is in use; False when it is no more."""
        if self._link is not link:
            return False
        if self._turn.acquire(blocking=False):
            try:
                link.look()
            except (RemoteError, OSError):
                return False  # the line was cut; the next request will say so, and attach anew
            finally:
                self._turn.release()
        return True

    def _progress(self, up: bool, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(up, done, total)

    def _request(
        self,
        buffers: Sequence[Buffer],
        kind: Kind,
        on_output: OnOutput,
        timeout: float | None = None,
        on_question: OnQuestion | None = None,
        *,
        label: str = "",
        code: str = "",
        simplify: bool = True,
    ) -> list[Any]:
        """R's answer to a frame of this kind. Raises what R or the agent say went wrong."""
        how = {"kind": kind, "label": label, "wish": self.wish if kind is Kind.EVALUATE else Wish(0)}
        end, body, late = self._called(buffers, on_output, timeout, on_question, **how)
        return self.answer_of(end, body, code=code, late=timeout if late else None, simplify=simplify)

    def answer_of(
        self,
        end: Kind,
        body: bytearray,
        *,
        code: str = "",
        late: float | None = None,
        simplify: bool | None = None,
    ) -> list[Any]:
        """What is in the frame that ended an evaluation. Raises what it says went wrong."""
        if end is Kind.FAILURE:
            raise r_error(body, code)
        simple = self.simplify if simplify is None else simplify
        return checked(end, body, late, simplify=simple, say=self._notices.inform)

    def _called(
        self,
        buffers: Sequence[Buffer],
        on_output: OnOutput | None = None,
        timeout: float | None = None,
        on_question: OnQuestion | None = None,
        **how: Any,
    ) -> tuple[Kind, bytearray, bool]:
        """The frame that ends a call, and whether R was interrupted since the time was over."""
        show = on_output or self._on_output
        with self._turn:
            self._attached()
            question = on_question or self._on_question

            def on_frame(head: Header, body: bytearray) -> None:
                if head.kind is Kind.QUESTION:
                    call.reply(call.ask(question) if question else "")
                for output in outputs_of(head.kind, body):
                    show(output)

            call = Call(
                self._line, next(self._ids), on_frame, say=lambda text: show(Text("stderr", text)), **how
            )
            self._calling = True
            try:
                end, body = call.answer(buffers, timeout)
            except BaseException:
                if call.open:
                    self.close()  # out of step: the next request attaches anew
                raise
            finally:
                self._calling = False
        return end, body, call.late

    def _ask_now(self, question: Question, about: str) -> list[Any] | None:
        """R's answer, or None if another thread or client has R at work, or the line is cut."""
        if not self._turn.acquire(blocking=False):
            return None
        try:
            if (link := self._line.current) is not None and link.closed:
                return None
            request = [ask(question, about)]
            end, body, _ = self._called(request, None, ASKING_SECONDS, kind=Kind.ASK, patient=False)
            return self.answer_of(end, body, simplify=True)
        except (RemoteInterrupted, ConnectionLost):
            return None
        finally:
            self._turn.release()
