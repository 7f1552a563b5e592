"""Job: an evaluation that nobody need wait for, as any client sees it.

What is known of it is the agent's answer at one moment; asking does not wait for R.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..outputs import OnOutput, Output

if TYPE_CHECKING:
    from .session import RemoteR


class Job:
    """An evaluation of ``remote``'s session; ``outputs`` are the names of the variables that it returns.

    ``console`` makes what ``watch`` shows its output with (default: what the session's evaluations are shown with);
    ``simplify`` is what ``result`` does if it is not told (None: as the session's evaluations).
    """

    def __init__(self, remote: RemoteR, row: Mapping[str, Any], *, outputs: Sequence[str] = ()) -> None:
        self.console: Callable[[], AbstractContextManager[OnOutput]] | None = None
        self.simplify: bool | None = None
        self._remote = remote
        self._outputs = tuple(outputs)
        self._row = row

    def __repr__(self) -> str:
        return f"<Job {self.number}: {self._row['state']}, {self.code!r}>"

    @property
    def number(self) -> int:
        """Its number in its session, for ever."""
        return int(self._row["number"])

    @property
    def code(self) -> str:
        """The first line of its code."""
        return str(self._row["code"])

    @property
    def client(self) -> str:
        """Who asked for it."""
        return str(self._row["client"])

    @property
    def background(self) -> bool:
        """Whether nobody waits for it."""
        return bool(self._row["background"])

    @property
    def ends_cluster(self) -> bool:
        """Whether the cluster is to end when it does."""
        return bool((self._row.get("sequel") or {}).get("end"))

    @property
    def state(self) -> str:
        """Its status when that was last asked for."""
        return str(self._row["state"])

    @property
    def status(self) -> str:
        """queued, running, done, failed, interrupted or lost, as it is now."""
        if self._row["state"] in ("queued", "running"):
            self._row = self._remote.job(self.number)._row
        return str(self._row["state"])

    @property
    def submitted(self) -> datetime:
        """When it was asked for."""
        return datetime.fromtimestamp(self._row["submitted"], timezone.utc)

    @property
    def began(self) -> datetime | None:
        """When it began; None if it has not."""
        return _time(self._row["began"])

    @property
    def ended(self) -> datetime | None:
        """When it ended; None if it had not when its status was last asked for."""
        return _time(self._row["ended"])

    @property
    def seconds(self) -> float | None:
        """How long it ran; None if it has not begun or had not ended."""
        began, ended = self._row["began"], self._row["ended"]
        return None if began is None or ended is None else ended - began

    def output(self) -> list[Output]:
        """What it has printed and displayed by now."""
        found: list[Output] = []
        self._remote.follow(self.number, live=False, on_output=found.append)
        return found

    def watch(self, on_output: OnOutput | None = None, *, timeout: float | None = None) -> None:
        """Show what it has printed, and what it prints, until it ends; the stop button ends only the watching.

        Raises TimeoutError.
        """
        shown = nullcontext(on_output) if on_output or self.console is None else self.console()
        with shown as show:
            self._remote.follow(self.number, on_output=show, timeout=timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Return when it has ended, however it did. Raises TimeoutError."""
        self._remote.follow(self.number, quiet=True, timeout=timeout)

    def result(self, timeout: float | None = None, *, simplify: bool | None = None) -> Any:
        """Wait for its end: the value, or a dict of the outputs that were asked for, or None of a cell.

        ``simplify`` as in ``RemoteR.eval``.
        Raises what R or the agent say went wrong, also that the result is not kept any more; TimeoutError.
        """
        kind, body = self._remote.follow(self.number, quiet=True, timeout=timeout)
        answer = self._remote.answer_of(kind, body, simplify=self.simplify if simplify is None else simplify)
        if len(answer) > 1:
            values = answer[1]
            return dict(zip(self._outputs, values, strict=True)) if self._outputs else values
        return answer[0] if answer else None

    def cancel(self) -> None:
        """Take it out of the queue, or interrupt it; one that has ended is left alone."""
        self._remote.command({"do": "cancel", "job": self.number})

    def follow_up(self, *, notify: Sequence[str] = (), end: bool = False) -> None:
        """What is to come when it has ended: shell commands on the master, or topics of SNS (``arn:aws:sns:…``), with
        PPE_JOB, PPE_STATUS and PPE_CLUSTER in their environment; then the cluster's ``end``, once nothing works.

        Without a client too. Whether that parks or terminates it, its limits say (``Cluster.set_limits(then=)``).
        """
        self._remote.command({"do": "follow up", "job": self.number, "notify": list(notify), "end": end})


def _time(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, timezone.utc)
