"""R code that is being typed: which code it is, what it could become, and what R knows of a name in it.

Asked of the session that the cell names, and only while nothing runs there; nothing is waited for in search of an
answer. Must not know of R's syntax more than its words, strings and comments.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import PpeError, UsageError
from ...verbs import find
from .. import typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...remote.sessions.session import RemoteR

# Lines before the cursor's that may have the beginning of a call.
MOST_LINES = 50
QUOTED_OR_COMMENT = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|#.*""")
NAME = r"(?:[\w.]|:::?|[$@])*"


class Nothing:
    """Completions that are none, and that keep other matchers from theirs: Python's names are no R."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def code_before(text: str) -> str | None:
    """The R code before the cursor, at the end of a cell's ``text``; None where Python or options are typed."""
    cell = re.match(r"\s*%%remote_r\b[^\n]*\n", text)
    if cell:
        return text[cell.end() :]
    line = re.search(r"(?:^|=)[ \t]*%{1,2}remote_r[ \t]+(.*)\Z", text, re.MULTILINE)
    return typed.code_before(find("remote_r", face="magic"), line[1]) if line else None


def arguments_of(cell: str) -> argparse.Namespace | None:
    """The options of an R cell or line; None while they are not well-formed."""
    line = re.search(r"%{1,2}remote_r\b(.*)", cell)
    try:
        return typed.parse(find("remote_r", face="magic"), line[1], face="magic") if line else None
    except UsageError:
        return None


def call_before(code: str) -> str:
    """The cursor's line, after what precedes it on one line, without strings and comments that would confuse R."""
    *before, line = code.split("\n")
    parts = [QUOTED_OR_COMMENT.sub('""', each).replace('""', " ") for each in before[-MOST_LINES:]]
    return " ".join([*parts, line])


def name_at(text: str, cursor: int) -> str | None:
    """The name at the cursor of an R cell, or of the function whose arguments it is in; None in other cells."""
    code = code_before(text[:cursor])
    if code is None:
        return None
    before = re.search(f"{NAME}$", code)
    after = re.match(NAME, text[cursor:])
    name = (before[0] if before else "") + (after[0] if after else "")
    return name.strip(":$@") or _function(call_before(code))


def _function(code: str) -> str:
    depth = 0
    for at in range(len(code) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(code[at], 0)
        if depth < 0:
            found = re.search(f"({NAME})\\s*$", code[:at])
            return found[1] if found else ""
    return ""


def completions(code: str, session: RemoteR | None) -> tuple[str, list[str]]:
    """What is being typed at the end of ``code``, and what it could become; nothing if nobody can say at once."""
    try:
        word, found = session.complete(call_before(code)) if session else ("", [])
    except PpeError:
        return "", []
    return (word, found) if code.endswith(word) else ("", [])


def inspect_r(kernel: Any, session: Callable[[str], RemoteR | None]) -> Callable[[], None]:
    """Have the kernel's inspection (Shift-Tab) ask R in R cells; call what is returned to undo that."""
    python: Callable[..., dict[str, Any]] = kernel.do_inspect

    def inspect(code: str, cursor_pos: int, *rest: Any, **more: Any) -> dict[str, Any]:
        name = name_at(code, cursor_pos)
        if name is None:
            return python(code, cursor_pos, *rest, **more)
        data: dict[str, str] = {}
        asked = session(code) if name else None
        if asked:
            try:
                data = asked.help(name)
            except PpeError:
                data = {}
        return {"status": "ok", "found": bool(data), "data": data, "metadata": {}}

    kernel.do_inspect = inspect
    return partial(setattr, kernel, "do_inspect", python)
