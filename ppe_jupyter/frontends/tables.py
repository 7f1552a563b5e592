"""How things look: a table of many alike, a sheet of facts about one, money, times and sizes; as text and HTML.

Knows nothing of what is shown.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pandas as pd

# Else Jupyter takes what is between two dollar signs for TeX.
TABLE = '<table class="mathjax_ignore tex2jax_ignore">'
NOWRAP = "white-space:nowrap;"
COLOURS = {"error": "#c0392b", "warning": "#b9770e", "notice": "#b9770e", "info": "#5d6d7e"}
PARTS = ("instances", "disks", "addresses", "snapshots")  # of costs, USD
MOST_ROWS = 25  # of a table in a notebook


class Table(pd.DataFrame):
    """A DataFrame with words to the left and money in sensible digits; parts of it are plain DataFrames.

    In a notebook the first ``MOST_ROWS`` are shown; ``text()`` is all of it.
    """

    def __repr__(self) -> str:
        return self.text(MOST_ROWS)

    __str__ = __repr__

    def text(self, most: int | None = None) -> str:
        """As lines of text; at most so many rows."""
        columns = [
            [cell.rjust(width) if numeric else cell.ljust(width) for cell in cells]
            for cells, numeric in self._shown(most)
            for width in [max(map(len, cells))]
        ]
        lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
        return "\n".join([*lines, *self._rest(most)])

    def _repr_html_(self) -> str:
        columns = [
            [f'{NOWRAP}text-align:{"right" if numeric else "left"}">{html.escape(cell)}' for cell in cells]
            for cells, numeric in self._shown(MOST_ROWS)
        ]
        header, *rows = zip(*columns, strict=True)
        head = "".join(f'<th style="{cell}</th>' for cell in header)
        body = "".join(
            f"<tr>{''.join(f'<td style={chr(34)}{cell}</td>' for cell in row)}</tr>" for row in rows
        )
        rest = "".join(f"<p><i>{html.escape(line)}</i></p>" for line in self._rest(MOST_ROWS))
        return f"{TABLE}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"

    def _shown(self, most: int | None) -> list[tuple[list[str], bool]]:
        """For each column, the index among them: header and cells as text, and whether they are numbers."""
        frame = pd.DataFrame(self).head(most or len(self)).reset_index()
        return [
            (
                [str(name), *(_cell(value, _digits(str(name))) for value in frame[name])],
                pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name]),
            )
            for name in frame.columns
        ]

    def _rest(self, most: int | None) -> list[str]:
        return [f"… and {len(self) - most} more"] if most and len(self) > most else []


@dataclass(frozen=True)
class Sheet:
    """Facts as (what, detail), in sections of one "what" each."""

    rows: Sequence[tuple[str, str]]

    def lines(self) -> list[tuple[str, str]]:
        """The rows; of several of a kind only the first says which."""
        kinds = ["", *(what for what, _ in self.rows)]
        return [
            ("" if before == what else what, detail)
            for (before, what), (_, detail) in zip(pairwise(kinds), self.rows, strict=True)
        ]

    def __str__(self) -> str:
        width = max(7, *(len(what) for what, _ in self.rows))
        return "\n".join(f"{what:<{width}}  {detail}" for what, detail in self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = "text-align:left;vertical-align:top;padding:2px 10px"
        cells: list[str] = []
        for (what, detail), (kind, _) in zip(self.lines(), self.rows, strict=True):
            line = "border-top:1px solid #8884;" if what and cells else ""
            colour = COLOURS.get(kind, "inherit")
            cells.append(
                f'<tr style="background:none"><th style="{line}{left};{NOWRAP}color:{colour}">'
                f'{html.escape(what)}</th><td style="{line}{left}">{html.escape(detail)}</td></tr>'
            )
        return f"{TABLE}{''.join(cells)}</table>"


@dataclass(frozen=True)
class Line:
    """One line in the colour of its ``level``: info, warning or error."""

    level: str
    text: str

    def __repr__(self) -> str:
        return f"{self.level}: {self.text}" if self.level != "info" else self.text

    def _repr_html_(self) -> str:
        colour = COLOURS.get(self.level, "inherit")
        text = html.escape(self.text)
        return f'<div style="color:{colour};border-left:3px solid {colour};padding-left:8px">{text}</div>'


def framed(frame: pd.DataFrame) -> Table:
    """A DataFrame of the manager's, shown as the tables here."""
    made: Table = Table(frame)
    return made


def table(rows: Sequence[Mapping[str, object]]) -> Table:
    """The rows, at least one; the first column as the index."""
    made: Table = Table(pd.DataFrame(rows).set_index(next(iter(rows[0]))))
    return made


def dollars(usd: float | None) -> str:
    """An amount in US dollars, at least two digits of it."""
    if usd is None:
        return "an unknown amount"
    if usd and abs(usd) < 0.1:
        return f"${usd:.2g}" if abs(usd) >= 0.001 else "less than $0.001"
    return f"${usd:,.2f}"


def age(since: datetime) -> str:
    """How long ago that was."""
    return span(datetime.now(timezone.utc) - since)


def span(time: timedelta) -> str:
    """A duration in the two units that matter."""
    minutes = max(0, int(time.total_seconds() // 60))
    if minutes < 1:
        return "< 1 min"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def local_time(moment: datetime) -> str:
    """The time of day here, with the date unless that is today."""
    here = moment.astimezone()
    same_day = here.date() == datetime.now().astimezone().date()
    return f"{here:%H:%M}" if same_day else f"{here:%a %d %b %H:%M}"


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _digits(column: str) -> str:
    """How a number of that column is written."""
    if "$" in column or "USD" in column or column in PARTS:
        return ".4f" if "core" in column else ".2f" if "so far" in column else ".3f"
    return "g"


def _cell(value: object, digits: str) -> str:
    if value is None or value != value:  # NaN: a price that is not known
        return "?"
    if isinstance(value, bool):
        return "✓" if value else ""
    if isinstance(value, datetime):
        return local_time(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value))
    return f"{value:{digits}}" if isinstance(value, float) else str(value)
