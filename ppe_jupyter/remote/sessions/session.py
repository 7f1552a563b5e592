"""RemoteR: the R session of a node, over one SSH channel.

One request at a time goes over the channel; its text, plots and tables come back in the order in which R made
them, then its result. What a request and a result are is agreed with node/r/evaluator.R. Knows nothing of
clusters, EC2 or notebooks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import UsageError
from ...node.wire.protocol import Kind, Question, Wish, ask, parse_json
from ..outputs import Display, Notice, OnNotice, OnOutput, OnQuestion, Output, PlotOptions, Text
from .answers import checked
from .attached import AGENT, Attached
from .jobs import Job
from .requests import Request

__all__ = [
    "AGENT", "Display", "Notice", "OnNotice", "OnOutput", "OnQuestion", "Output", "PlotOptions", "RemoteR", "Text"
]  # fmt: skip


class SessionState(NamedTuple):
    """Of an R session: RNGkind(), the last ppe.lapply's seed ([]: none), packages attached and only loaded, with their
    versions, and .Random.seed ([]: no number was drawn yet)."""

    kinds: list[str]
    seed: list[int]
    attached: list[str]
    loaded: list[str]
    stream: list[int]


class RemoteR(Attached):
    """The R session of a node. ``client`` names this client to others who wait for the session.

    ``on_output`` receives what ``eval`` prints (default: this process's standard output and error);
    ``on_question`` answers when R waits for a line of input (default: an empty line); ``on_notice`` is told what the
    cluster has to say, at any time and in any thread while this is attached (default: standard error);
    ``on_progress`` of transfers that take longer than a second; ``on_past``, at first, whose session this was.
    Without ``simplify`` a vector of length 1 stays an array, for stable shapes in programs. Attaches at the first use
    to the session of that name. After a cut it attaches again, over what ``reconnect`` returns, and what it waits for
    goes on. ``compress`` large values: ``on``, ``off``, or ``auto``, when it pays. Several threads take turns.
    """

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

    def state(self) -> SessionState | None:
        """What results depend on beside the code; None if R is busy."""
        answer = self._ask_now(Question.STATE, "now")
        if not answer:
            return None
        columns = (np.atleast_1d([] if each is None else each).tolist() for each in answer)
        return SessionState(*columns)

    # --- Jobs

    def submit(
        self,
        code: str,
        *,
        print: bool = False,
        inputs: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        plots: PlotOptions | None = None,
        notify: Sequence[str] = (),
        end: bool = False,
        discard: bool = False,
    ) -> Job:
        """Have ``code`` evaluated as ``eval`` does it (``print``: as ``run``), and return at once.

        ``notify`` and ``end`` are what follows it (``Job.follow_up``), whatever becomes of this client; ``discard``
        says to others that the end is to be without regard to what was not fetched.
        """
        sequel = {"notify": list(notify), "end": end, "discard": discard} if notify or end else None
        request = Request(code=code, print=print, inputs=inputs or {}, outputs=tuple(outputs), plots=plots)
        kind, body, _ = self._called(
            request.encode(), label=request.label, wish=Wish.BACKGROUND, sequel=sequel
        )
        told = parse_json(bytes(body)) if kind is Kind.DONE else checked(kind, body, None)
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

    def __enter__(self) -> RemoteR:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

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
