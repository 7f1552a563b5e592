"""``ppe``: the verbs on the command line.

Exit status: 0 done, 1 refused or failed, 2 typed wrongly, 130 Ctrl-C; of ``run`` the script's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import __version__
from ..errors import NothingToDo, PpeError, RunFailed, UsageError
from ..verbs import find
from . import progress, typed
from .desk import Desk


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the result and the review go to stdout, progress and errors to stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _run(words)
    except NothingToDo as nothing:
        print(_for_a_terminal(str(nothing)))
    except UsageError as error:
        return _failed(error, 2)
    except RunFailed as error:
        return _failed(error, error.status)
    except PpeError as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader, such as head, has enough
        return 0
    return 0


def _run(words: list[str]) -> None:
    from .actions import actions

    desk = Desk(
        say=partial(print, flush=True),
        show=_show,
        ask=_ask,
        display=progress.terminal,
        notice=_notice,
        sign="ppe ",
    )
    if words[:1] == ["--version"]:
        print(f"ppe {__version__}")
    elif words[:1] == ["--help"]:
        print(typed.overall_help("cli"))
    elif not words:
        _show(actions.overview(desk))
    else:
        verb = find(words[0], face="cli")
        arguments = typed.parse(verb, words[1:], face="cli")
        if arguments is None:
            print(typed.help_text(verb, "cli"), end="")
        else:
            _show(actions.ACTIONS[verb.name](desk, arguments))


def _show(result: Any) -> None:
    if result is not None:
        print(_for_a_terminal(result.text() if hasattr(result, "text") else str(result)), flush=True)


def _ask(question: str, instead: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is nobody here to ask; add {instead}.")
    return input(f"{question} ").strip().lower()


def _notice(level: str, text: str) -> None:
    colours = {"error": "\x1b[31m", "warning": "\x1b[33m"} if sys.stderr.isatty() else {}
    plain = "\x1b[0m" if level in colours else ""
    print(f"{colours.get(level, '')}{_for_a_terminal(text)}{plain}", file=sys.stderr, flush=True)


def _failed(error: PpeError, status: int) -> int:
    _notice("error", str(error))
    return status


def _for_a_terminal(text: str) -> str:
    """What to do next, said with this front end's verbs."""
    # A command has no connection to keep: looking is what is left of connecting.
    return text.replace("%ppe_connect", "ppe status").replace("%ppe_", "ppe ")
