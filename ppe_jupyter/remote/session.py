"""RemoteR: the R session of a node, over one SSH channel.

One request at a time goes over the channel; its text, plots and tables come back in the order in which R made
them, then its result. What a request and a result are is agreed with node/evaluator.R. Knows nothing of
clusters, EC2 or notebooks.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any

import numpy as np

from ..errors import RankFailed, RemoteError, RemoteInterrupted, RemoteRError, RSessionDied
from ..node.protocol import Header, Kind, Question, ask, frame, parse_json
from ..person import host, os_user
from ..ssh import Connection
from . import values, wire
from .link import Call, Link
from .outputs import Display, Notice, OnNotice, OnOutput, OnQuestion, Output, PlotOptions, Text

__all__ = [
    "Display", "Notice", "OnNotice", "OnOutput", "OnQuestion", "Output", "PlotOptions", "RemoteR", "Text"
]  # fmt: skip

AGENT = "python3 ~/.ppe/node/agent.py"
# How often an idle client looks for notices.
NOTICE_SECONDS = 1.0
# Of the notices from before a client came, older ones are history.
YOUNG_SECONDS = 3600.0
# R itself gives up much earlier (assistance.R).
ASKING_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What R is to do: assign ``inputs``, run ``code``, send ``outputs``."""

    code: str | None = None
    print: bool = False
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    plots: PlotOptions | None = None
    integer64: bool = False

    def encode(self) -> list[wire.Buffer]:
        """The buffers of a frame's body. Raises ValueRefused."""
        if not (self.code is None or self.print or self.inputs or self.outputs or self.plots):
            return wire.dump_code(self.code)
        names = list(self.inputs)
        inputs = [values.node(self.inputs[name], name, integer64=self.integer64) for name in names]
        items = [
            values.node(self.code, "the code"),
            values.node(self.print or None),
            wire.listing(inputs, names) if names else wire.null(),
            wire.characters(list(self.outputs)) if self.outputs else wire.null(),
            _plots(self.plots) if self.plots else wire.null(),
        ]
        # R reads the fewer numbers the faster.
        while items[-1].type is wire.Type.NULL:
            items.pop()
        return wire.dump(wire.listing(items))


class RemoteR:
    """The R session of a node. ``client`` names this client to others who wait for the session.

    ``on_output`` receives what ``eval`` prints (default: this process's standard output and error);
    ``on_question`` answers when R waits for a line of input (default: an empty line); ``on_notice`` is told what the
    cluster has to say, at any time and in any thread while this is attached (default: standard error). Without
    ``simplify`` a vector of length 1 stays an array, for stable shapes in programs. Attaches at
    the first use, and again at the next use after the line was cut. Several threads may use it; they take turns.
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
    ) -> None:
        self._connection = connection
        self._agent = agent
        self._simplify = simplify
        self._client = client or f"{os_user()}@{host()}, process {os.getpid()}"
        self._on_output = on_output or _write
        self._on_question = on_question
        self._on_notice = on_notice or _write_notice
        self._noticed = time.time() - YOUNG_SECONDS
        self._turn = threading.RLock()
        self._link: Link | None = None
        self._ids = itertools.count(1)

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as this end knows."""
        return self._connection.alive

    def eval(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        on_question: OnQuestion | None = None,
        plots: PlotOptions | None = None,
        simplify: bool | None = None,
    ) -> Any:
        """Evaluate ``code`` and return the value of its last expression as Python; nothing is autoprinted.

        Raises RemoteRError, RemoteInterrupted (also after ``timeout`` seconds), RSessionDied, RankFailed.
        """
        request = Request(code=code, plots=plots)
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
        """Assign a Python value to a variable of R's global environment. Raises ValueRefused.

        With ``integer64`` integers that R's own do not hold become those of R's package bit64; else those
        beyond 2^53 are refused.
        """
        self._evaluate(Request(inputs={name: value}, integer64=integer64), self._on_output)

    def pull(self, name: str, *, simplify: bool | None = None) -> Any:
        """The value of a variable as Python; RemoteRError if there is none."""
        return self._evaluate(Request(outputs=(name,)), self._on_output, simplify=simplify)[1][0]

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
        """R's answer, or None if another thread or client has R at work."""
        if not self._turn.acquire(blocking=False):
            return None
        try:
            return self._request([ask(question, about)], Kind.ASK, self._on_output, ASKING_SECONDS)
        except RemoteInterrupted:
            return None
        finally:
            self._turn.release()

    def interrupt(self) -> None:
        """Interrupt whatever R evaluates now, for any client; may be called from another thread."""
        (self._link or self._attached()).send(frame(Kind.INTERRUPT))

    def restart(self) -> None:
        """End R and start it anew, without its variables. Evaluations that run or wait end with RSessionDied."""
        with self._new_link() as link:
            link.send(frame(Kind.RESTART, id=1))
            while link.next_frame()[0].kind is not Kind.DONE:
                pass

    def replay(self, since: int = 0) -> list[Output]:
        """What was printed and displayed after event ``since`` (0: all that the log still has)."""
        found: list[Output] = []
        with self._new_link() as link:
            link.send(frame(Kind.REPLAY, id=1, seq=since))
            while True:
                head, body = link.next_frame()
                if head.kind is Kind.DONE:
                    return found
                found += outputs_of(head.kind, body)

    def close(self) -> None:
        """Detach; what R does goes on. Safe to repeat."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def __enter__(self) -> RemoteR:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _new_link(self) -> Link:
        return Link(self._connection, self._agent, self._client)

    def _attached(self) -> Link:
        if self._link is None:
            self._link = Link(self._connection, self._agent, self._client, on_notice=self._notice)
            threading.Thread(
                target=_look_for_notices,
                args=(weakref.ref(self), self._link),
                daemon=True,
                name="ppe notices",
            ).start()
        return self._link

    def _notice(self, told: dict[str, Any]) -> None:
        """Pass a notice on, once; what goes wrong in that must not disturb the evaluation that it came in."""
        if told["time"] <= self._noticed:
            return
        self._noticed = told["time"]
        try:
            self._on_notice(Notice(told["level"], told["text"], told["time"]))
        except Exception:
            traceback.print_exc()

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
        simple = self._simplify if simplify is None else simplify
        code = request.code or ""
        return self._request(
            buffers, Kind.EVALUATE, on_output, timeout, on_question, code=code, simplify=simple
        )

    def _request(
        self,
        buffers: Sequence[wire.Buffer],
        kind: Kind,
        on_output: OnOutput,
        timeout: float | None = None,
        on_question: OnQuestion | None = None,
        *,
        code: str = "",
        simplify: bool = True,
    ) -> list[Any]:
        """R's answer to a frame of this kind. Raises what R or the agent say went wrong."""
        with self._turn:
            link = self._attached()
            question = on_question or self._on_question

            def on_frame(head: Header, body: bytearray) -> None:
                if head.kind is Kind.QUESTION:
                    link.send(frame(Kind.ANSWER, (call.ask(question) if question else "").encode()))
                for output in outputs_of(head.kind, body):
                    on_output(output)

            call = Call(link, next(self._ids), on_frame, kind=kind)
            try:
                end, body = call.answer(buffers, timeout)
            except BaseException:
                if call.open:
                    self.close()  # out of step: the next request attaches anew
                raise
        if end is Kind.FAILURE:
            raise _r_error(body, code)
        return _checked(end, body, timeout if call.late else None, simplify=simplify)


def _look_for_notices(who: weakref.ref[RemoteR], link: Link) -> None:
    """While nothing is evaluated, pass notices on; ends with the link or its owner."""
    while True:
        time.sleep(NOTICE_SECONDS)
        remote = who()
        if remote is None or remote._link is not link:
            return
        if remote._turn.acquire(blocking=False):
            try:
                link.look()
            except (RemoteError, OSError):
                return  # the line was cut; the next request will say so, and attach anew
            finally:
                remote._turn.release()
        del remote


def outputs_of(kind: Kind, body: bytearray) -> list[Output]:
    """What a frame shows: one output, or none."""
    if kind in (Kind.STDOUT, Kind.STDERR):
        return [Text("stdout" if kind is Kind.STDOUT else "stderr", body.decode(errors="replace"))]
    if kind is Kind.DISPLAY:
        data, metadata = values.decode(body)
        return [Display(data, metadata or {})]
    if kind is Kind.QUEUED:
        busy = parse_json(bytes(body))
        since = time.strftime("%H:%M:%S", time.localtime(busy["since"]))
        return [Text("stderr", f"R evaluates for {busy['client']} since {since}; this waits for it\n")]
    if kind is Kind.NOTICE:  # from the log
        return [Text("stderr", f"{parse_json(bytes(body))['text']}\n")]
    if kind is Kind.FAILURE:  # of an evaluation whose client had gone, from the log
        return [Text("stderr", f"{values.decode(body)[4]}\n")]
    return []


def _plots(options: PlotOptions) -> wire.Node:
    names = [option.name for option in fields(options)]
    return wire.listing([values.node(value) for value in astuple(options)], names)


def _checked(kind: Kind, body: bytearray, late: float | None, *, simplify: bool = True) -> list[Any]:
    """R's answer: value, outputs. Raises what it says went wrong."""
    if kind is Kind.FAILED:
        raise _failure(parse_json(bytes(body)))
    if kind is Kind.INTERRUPTED:
        why = f"no end within {late:g} s, so R was interrupted" if late is not None else "interrupted"
        raise RemoteInterrupted(f"{why}; the R session and its variables are still there")
    answer: list[Any] = values.decode(body, simplify=simplify)
    return answer


def _r_error(body: bytearray, code: str) -> RemoteRError:
    """R's error as its console words it, with the way to it."""
    message, call, trace, line, text = values.decode(body)
    frames = [trace] if isinstance(trace, str) else list(trace)
    names = [frame.partition("(")[0] for frame in frames if not frame.startswith("stop(")]
    way = [f"line {line} of the cell"] if "\n" in code.strip() and "of the cell" not in text else []
    way += [f"calls: {' -> '.join(names)}"] if len(names) > 1 else []
    if way:
        text = f"{text}\n({'; '.join(way)})"
    return RemoteRError(message, call=call, traceback=frames, line=line, text=text)


def _failure(told: dict[str, Any]) -> RemoteError:
    message = told["message"]
    if told["reason"] == "rank":
        return RankFailed(message, rank=told["rank"], node=told["node"])
    if told["reason"] in ("died", "restarted"):
        return RSessionDied(message)
    return RemoteInterrupted(message)


def _write_notice(notice: Notice) -> None:
    """Where no one says otherwise, notices go to standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S', time.localtime(notice.time))} {notice.text}\n")
    sys.stderr.flush()


def _write(output: Output) -> None:
    """Where no one says otherwise, text goes where Python's own goes."""
    if isinstance(output, Text):
        stream = sys.stdout if output.stream == "stdout" else sys.stderr
        stream.write(output.text)
        stream.flush()
    else:
        text = output.data.get("text/plain", f"<{', '.join(output.data)}>")
        sys.stdout.write(f"{text!s}\n")
