"""What R prints and displays while it evaluates, what the cluster has to say, and how plots are to be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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


@dataclass(frozen=True)
class Notice:
    """What the cluster itself has to say: that it will end, that a spot node will. ``time``: seconds since 1970."""

    level: Literal["info", "warning", "error"]
    text: str
    time: float


Output = Text | Display
OnNotice = Callable[[Notice], None]
OnOutput = Callable[[Output], None]
OnQuestion = Callable[[], str]


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """R's png(): size in ``units`` (px, in, cm, mm), ``res`` in pixels per inch, ``pointsize`` in 1/72 inch.

    ``scale`` is how many pixels of a PNG a pixel of the screen has (2: sharp on HiDPI screens). ``format`` is what is
    wanted: a page that would be larger than 1 MB as SVG is a PNG all the same.
    """

    width: float = 640
    height: float = 480
    units: Literal["px", "in", "cm", "mm"] = "px"
    res: float = 72
    pointsize: float = 12
    bg: str = "white"
    scale: float = 2
    format: Literal["svg", "png"] = "svg"


def write_notice(notice: Notice) -> None:
    """Where no one says otherwise, notices go to standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S', time.localtime(notice.time))} {notice.text}\n")
    sys.stderr.flush()


def write_output(output: Output) -> None:
    """Where no one says otherwise, text goes where Python's own goes."""
    if isinstance(output, Text):
        stream = sys.stdout if output.stream == "stdout" else sys.stderr
        stream.write(output.text)
        stream.flush()
    else:
        text = output.data.get("text/plain", f"<{', '.join(output.data)}>")
        sys.stdout.write(f"{text!s}\n")
