"""RemoteR: the R session of a cluster's master, over one SSH channel.

One request at a time goes over the channel; its text, plots and tables come back in the order in which R made
them, then its result. An exception in the caller (the stop button too) interrupts R and waits for the end of the
evaluation, so the framing never breaks. Knows nothing of clusters, EC2 or notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..ssh import Connection

AGENT = "python3 ~/.ppe/node/agent.py"


@dataclass(frozen=True)
class Text:
    """Text that R, its C code or a child process printed; ``stderr`` for messages, warnings and errors."""

    stream: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True)
class Display:
    """A plot or a table: MIME type -> str, or bytes for PNG. ``metadata`` is Jupyter's, by MIME type."""

    data: Mapping[str, str | bytes]
    metadata: Mapping[str, Any] = field(default_factory=dict)


Output = Text | Display


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """R's png(): size in ``units`` (px, in, cm, mm), ``res`` in pixels per inch, background colour.

    ``scale`` is how many pixels a pixel of the screen has (2: sharp on HiDPI screens).
    """

    width: float = 640
    height: float = 480
    units: Literal["px", "in", "cm", "mm"] = "px"
    res: float = 72
    pointsize: float = 12
    bg: str = "white"
    scale: float = 2


class RemoteR:
    """The R session. ``client`` names this client to others who wait for the session.

    ``on_output`` receives what ``eval`` prints (default: this process's standard output and error).
    """

    def __init__(
        self,
        connection: Connection,
        *,
        agent: str = AGENT,
        client: str | None = None,
        on_output: Callable[[Output], None] | None = None,
    ) -> None: ...

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as this end knows."""
        raise NotImplementedError

    def eval(
        self, code: str, *, timeout: float | None = None, on_output: Callable[[Output], None] | None = None
    ) -> Any:
        """Evaluate ``code`` and return the value of its last expression as Python; nothing is autoprinted.

        Raises RemoteRError, RemoteInterrupted (also after ``timeout`` seconds), RSessionDied, RankFailed.
        """
        raise NotImplementedError

    def run(
        self,
        code: str,
        *,
        on_output: Callable[[Output], None] | None = None,
        inputs: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        plots: PlotOptions | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Run a cell as R's console would: visible values print, plots and data frames are displayed.

        ``inputs`` are assigned before it, the variables named by ``outputs`` are returned after it, in the
        same round trip. An error in R was not yet shown when RemoteRError is raised: ``str()`` of it is what
        the console would print.
        """
        raise NotImplementedError

    def push(self, name: str, value: Any) -> None:
        """Assign a Python value to a variable of R's global environment. Raises ValueRefused."""
        raise NotImplementedError

    def pull(self, name: str) -> Any:
        """The value of a variable as Python; RemoteRError if there is none."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Interrupt whatever R evaluates now, for any client; may be called from another thread."""
        raise NotImplementedError

    def restart(self) -> None:
        """End R and start it anew, without its variables."""
        raise NotImplementedError

    def replay(self, since: int = 0) -> list[Output]:
        """What was printed and displayed after event ``since`` (0: all that the log still has)."""
        raise NotImplementedError

    def close(self) -> None:
        """Detach; what R does goes on. Safe to repeat."""
        raise NotImplementedError
