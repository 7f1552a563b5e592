"""Progress of something long: a tqdm line in a terminal, a widget in a notebook, plain lines anywhere else.

A notebook keeps one finished line of text (and HTML), not a widget, so that it reads well when it is saved,
converted or opened without a kernel. Knows Progress and nothing of what makes it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..cloud.records import Progress

WIDGET = "application/vnd.jupyter.widget-view+json"


class Display(Protocol):
    """Where progress is shown; made when there is something to show."""

    def update(self, progress: Progress) -> None:
        """Show how far it is."""

    def close(self, summary: str, *, failed: bool) -> None:
        """Leave the summary in its place."""


@contextmanager
def shown(title: str, show: Callable[[str], Display]) -> Iterator[Callable[[Progress], None]]:
    """Show what is reported until the block ends, then how long each phase took."""
    where: Display | None = None
    phases: list[tuple[str, float]] = []
    last: Progress | None = None

    def report(progress: Progress) -> None:
        nonlocal where, last
        where = where or show(title)
        if not phases or phases[-1][0] != progress.phase:
            phases.append((progress.phase, progress.elapsed))
        last = progress
        where.update(progress)

    failed = True
    try:
        yield report
        failed = False
    finally:
        if where and last:
            where.close(f"{title}: {_summary(phases, last, failed=failed)}", failed=failed)


def _summary(phases: list[tuple[str, float]], last: Progress, *, failed: bool) -> str:
    if failed:
        return f"stopped after {last.elapsed:.0f} s"
    ends = [*(start for _, start in phases[1:]), last.elapsed]
    spans = [(phase, end - start) for (phase, start), end in zip(phases, ends, strict=True)]
    each = [f"{phase} {seconds:.0f} s" for phase, seconds in spans if seconds >= 0.5]
    return f"{last.elapsed:.0f} s" + (f" ({', '.join(each)})" if each else "")


def _line(progress: Progress) -> str:
    return " · ".join(part for part in (progress.phase, progress.message) if part)


def _count(progress: Progress) -> str:
    """How many nodes are ready, or how much is done; of one node it says nothing."""
    if progress.unit == "%":
        return f"{progress.ready} %, "
    return f"{progress.ready}/{progress.total} nodes, " if progress.total > 1 else ""


class TerminalProgress:
    """One line that redraws itself."""

    def __init__(self, title: str) -> None:
        from tqdm import tqdm

        self._bar: tqdm[Any] = tqdm(
            desc=title,
            total=0,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} {bar:24} {elapsed}  {unit}",
        )

    def update(self, progress: Progress) -> None:
        """Redraw."""
        self._bar.total, self._bar.n = progress.total, progress.ready
        self._bar.unit = f"{_count(progress)}{_line(progress)}"
        self._bar.refresh()

    def close(self, summary: str, *, failed: bool) -> None:
        """Replace the bar by its summary."""
        self._bar.close()
        print(summary, file=sys.stderr)


class PlainProgress:
    """A line for each change, for logs and pipes."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._title, self._stream, self._last = title, stream or sys.stderr, ("", -1)

    def update(self, progress: Progress) -> None:
        """Print if the phase or the number of nodes changed."""
        if (progress.phase, progress.ready) != self._last:
            self._last = (progress.phase, progress.ready)
            print(
                f"{self._title}: {_count(progress)}{progress.elapsed:.0f} s, {_line(progress)}",
                file=self._stream,
                flush=True,
            )

    def close(self, summary: str, *, failed: bool) -> None:
        """Print the summary."""
        print(summary, file=self._stream, flush=True)


def terminal(title: str) -> Display:
    """For the command line: a bar if someone looks, plain lines if not."""
    return TerminalProgress(title) if sys.stderr.isatty() else PlainProgress(title)


# Whatever is said takes one line, and what is below stays where it is.
ROW = "display: grid; grid-template-columns: minmax(0, 1fr)"
CUT = "overflow: hidden; white-space: nowrap; text-overflow: ellipsis"


class NotebookProgress:
    """A widget while it goes, a line of text and HTML in its place afterwards."""

    def __init__(self, title: str) -> None:
        import ipywidgets
        from IPython.display import display

        self._title = title
        self._bar = ipywidgets.IntProgress(min=0, max=1, layout={"flex": "0 0 14em"})
        self._label = ipywidgets.HTML(layout={"flex": "1 1 0", "min_width": "0"})
        self._box = ipywidgets.HBox([self._bar, self._label], layout={"align_items": "center"})
        self._handle: str = self._box.model_id
        view = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        display({"text/plain": f"{title} …", WIDGET: view}, raw=True, display_id=self._handle)

    def update(self, progress: Progress) -> None:
        """Move the bar; the label says phase, nodes and seconds."""
        from html import escape

        self._bar.max, self._bar.value = max(progress.total, 1), progress.ready
        line = escape(_line(progress))
        text = f"<b>{escape(self._title)}</b> &nbsp; {_count(progress)}{progress.elapsed:.0f} s &nbsp; {line}"
        self._label.value = f'<div style="{ROW}" title="{line}"><div style="{CUT}">{text}</div></div>'

    def close(self, summary: str, *, failed: bool) -> None:
        """Put the summary where the widget was."""
        from html import escape

        from IPython.display import update_display

        mark, colour = ("✗", "#c0392b") if failed else ("✓", "#2e8b57")
        text = f"{mark} {summary}"
        rich = f'<span style="color:{colour}">{mark}</span> {escape(summary)}'
        update_display({"text/plain": text, "text/html": rich}, raw=True, display_id=self._handle)
        self._box.close()
