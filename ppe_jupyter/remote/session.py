"""RemoteR: the R session of a node, over one SSH channel.

One request at a time goes over the channel; its text, plots and tables come back in the order in which R made
them, then its result. What a request and a result are is agreed with node/evaluator.R. Knows nothing of
clusters, EC2 or notebooks.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import person
from ..errors import (
    ConnectionLost,
    RemoteError,
    RemoteInterrupted,
    UsageError,
)
from ..node.protocol import (
    MAIN,
    Header,
    Kind,
    Question,
    Wish,
    ask,
    parse_json,
)
from ..ssh import Connection
from . import wire
from .answers import checked, outputs_of, r_error
from .aside import Aside
from .call import Call
from .jobs import Job
from .line import Hello, Line
from .link import Link, OnProgress
from .notices import Notices, look_for
from .outputs import (
    Display,
    Notice,
    OnNotice,
    OnOutput,
    OnQuestion,
    Output,
    PlotOptions,
    Text,
    write_output,
)
from .requests import Request

__all__ = [
    "Display", "Notice", "OnNotice", "OnOutput", "OnQuestion", "Output", "PlotOptions", "RemoteR", "Text"
]  # fmt: skip

AGENT = "python3 ~/.ppe/node/agent.py"
# R itself gives up earlier (assistance.R), unless it waits for something.
ASKING_SECONDS = 1.5


class RemoteR(Aside):
    """The R session of a node. ``client`` names this client to others who wait for the session.

    ``on_output`` receives what ``eval`` prints (default: this process's standard output and error);
    ``on_question`` answers when R waits for a line of input (default: an empty line); ``on_notice`` is told what the
    cluster has to say, at any time and in any thread while this is attached (default: standard error);
    ``on_progress`` of transfers that take longer than a second; ``on_past``, at first, whose session this was.
    Without ``simplify`` a vector of length 1 stays an array, for stable shapes in programs. Attaches at the first use
    to the session of that name. After a cut it attaches again, over what ``reconnect`` returns, and what it waits for
    goes on. ``compress`` large values: ``on``, ``off``, or ``auto``, when it pays. Several threads take turns.
    """

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

    def eval(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        on_question: OnQuestion | None = None,
        inputs: Mapping[str, Any] | None = None,
        plots: PlotOptions | None = None,
        simplify: bool | None = None,
    ) -> Any:
        """Evaluate ``code`` and return the value of its last expression as Python; nothing is autoprinted.

        ``inputs`` are assigned before it, in the same round trip. Raises RemoteRError, RemoteInterrupted (also
        after ``timeout`` seconds), RSessionDied, RankFailed.
        """
        request = Request(code=code, inputs=inputs or {}, plots=plots)
        answer = self._evaluate(
            request, on_output or self._on_output, timeout, on_question, simplify=simplify
        )
        return answer[0]

    def run(
        self,
        code: str,
        *,
        on_output: OnOutput | None = None,
        on_question: OnQuestion | None = None,
        inputs: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        plots: PlotOptions | None = None,
        timeout: float | None = None,
        simplify: bool | None = None,
    ) -> dict[str, Any]:
        """Run a cell as R's console would: visible values print, plots and data frames are displayed.

        ``inputs`` are assigned before it, the variables named by ``outputs`` are returned after it, in the
        same round trip. An error in R was not shown yet when RemoteRError is raised: ``str()`` of it is what
        the console would print.
        """
        request = Request(code=code, print=True, inputs=inputs or {}, outputs=tuple(outputs), plots=plots)
        answer = self._evaluate(
            request, on_output or self._on_output, timeout, on_question, simplify=simplify
        )
        return dict(zip(outputs, answer[1], strict=True)) if outputs else {}

    def push(self, name: str, value: Any, *, integer64: bool = False) -> None:
        """Assign a Python value to a variable of R's global environment. Raises ValueRefused."""
        self.push_all({name: value}, integer64=integer64)

    def push_all(self, values: Mapping[str, Any], *, integer64: bool = False) -> None:
        """Assign Python values to variables of R's global environment, all or none. Raises ValueRefused.

        With ``integer64`` integers that R's own do not hold become those of R's package bit64; else those
        beyond 2^53 are refused.
        """
        if values:
            self._evaluate(Request(inputs=values, integer64=integer64), self._on_output)

    def pull(self, name: str, *, simplify: bool | None = None) -> Any:
        """The value of a variable as Python; RemoteRError if there is none."""
        return self.pull_all([name], simplify=simplify)[name]

    def pull_all(self, names: Sequence[str], *, simplify: bool | None = None) -> dict[str, Any]:
        """The values of variables as Python, by name; RemoteRError if one is missing."""
        if not names:
            return {}
        answer = self._evaluate(Request(outputs=tuple(names)), self._on_output, simplify=simplify)
        return dict(zip(names, answer[1], strict=True))

    def objects(self) -> list[tuple[str, int, bool]]:
        """R's variables: name, bytes, and whether a client has it too.

        That is, whether it was pulled or pushed and seems unchanged since: of a large value only a sample is compared.
        """
        answer = self._request([ask(Question.OBJECTS)], Kind.ASK, self._on_output)
        names, sizes, known = (np.atleast_1d(column) for column in answer)
        return [
            (str(name), int(size), bool(has)) for name, size, has in zip(names, sizes, known, strict=True)
        ]

    def complete(self, code: str) -> tuple[str, list[str]]:
        """What is being typed at the end of ``code``, and what it could become; nothing, at once, if R is busy."""
        token, found = self._ask_now(Question.COMPLETE, code) or ("", [])
        return token, [str(each) for each in np.atleast_1d(found)]

    def help(self, name: str) -> dict[str, str]:
        """What R knows of ``name``: text and, of a help page, HTML by MIME type; {} if nothing, or if R is busy."""
        text, html = self._ask_now(Question.HELP, name) or (None, None)
        return {"text/plain": text} | ({"text/html": html} if html else {}) if text else {}

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

    # --- Jobs

    def submit(
        self,
        code: str,
        *,
        print: bool = False,
        inputs: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        plots: PlotOptions | None = None,
    ) -> Job:
        """Have ``code`` evaluated as ``eval`` does it (``print``: as ``run``), and return at once."""
        request = Request(code=code, print=print, inputs=inputs or {}, outputs=tuple(outputs), plots=plots)
        end, body, _ = self._called(request.encode(), label=request.label, wish=Wish.BACKGROUND)
        told = parse_json(bytes(body)) if end is Kind.DONE else checked(end, body, None)
        assert isinstance(told, dict)
        return self.job(told["job"], outputs=outputs)

    def jobs(self) -> list[Job]:
        """The evaluations of this session, the oldest first."""
        return [Job(self, row) for row in self.command({"do": "jobs"})["jobs"]]

    def job(self, number: int, *, outputs: Sequence[str] = ()) -> Job:
        """One of them. Raises UsageError if it is not known (any more)."""
        for row in self.command({"do": "jobs"})["jobs"]:
            if row["number"] == number:
                return Job(self, row, outputs=outputs)
        raise UsageError(f"there is no job {number} (any more); see %remote_jobs")

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

    def __enter__(self) -> RemoteR:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

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

    def _evaluate(
        self,
        request: Request,
        on_output: OnOutput,
        timeout: float | None = None,
        on_question: OnQuestion | None = None,
        *,
        simplify: bool | None = None,
    ) -> list[Any]:
        """R's answer to a request, and its output on the way. Raises what R or the agent say went wrong."""
        buffers = request.encode()
        simple = self.simplify if simplify is None else simplify
        return self._request(
            buffers,
            Kind.EVALUATE,
            on_output,
            timeout,
            on_question,
            label=request.label,
            code=request.code or "",
            simplify=simple,
        )

    def _request(
        self,
        buffers: Sequence[wire.Buffer],
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
        buffers: Sequence[wire.Buffer],
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
