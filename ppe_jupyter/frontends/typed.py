"""What was typed, as arguments: parsers, help and completion generated from the table of verbs.

Whatever is typed wrongly raises UsageError, never SystemExit. Pure.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NoReturn

from ..errors import UsageError
from ..verbs import VERBS, Face, Option, Verb, of, suggestion
from ..verbs.options import ALL


def program(verb: Verb, face: Face) -> str:
    """The verb as it is typed there, such as ``%ppe_launch`` or ``ppe launch``."""
    return f"%{verb.magic}" if face == "magic" else f"ppe {verb.name}"


def help_text(verb: Verb, face: Face) -> str:
    """Usage, what it does and its options."""
    return _parser(verb, face).format_help()


def overall_help(face: Face) -> str:
    """Every verb in a line."""
    width = max(len(program(verb, face)) for verb in of(face).values()) + 2
    verbs = [f"  {program(verb, face):<{width}}{verb.help}" for verb in of(face).values()]
    alone = "%ppe" if face == "magic" else "ppe"
    return "\n".join(
        [f"  {alone:<{width}}who pays, and all clusters", *verbs, "", f"Help of one: {alone} VERB --help"]
    )


def words(line: str) -> list[str]:
    """A line's words as a shell would split it, but a backslash is like any other character (C:\\dir)."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        return list(lexer)
    except ValueError as exc:
        raise UsageError(f"{line.strip()!r}: {str(exc).lower()}") from None


def parse(verb: Verb, typed: str | Sequence[str], *, face: Face) -> argparse.Namespace | None:
    """What was typed after the verb, or None if it asks for help. Raises UsageError.

    For a verb with ``code``, options come first, and the rest is ``.code``, verbatim if ``typed`` is a line; ``.rest``
    are the words behind ``--``.
    """
    code = ""
    if verb.code:
        argv, code = _code_apart(verb, typed)
    else:
        argv = words(typed) if isinstance(typed, str) else list(typed)
    rest: list[str] = []
    if verb.after and "--" in argv:
        dashes = argv.index("--")
        argv, rest = argv[:dashes], argv[dashes + 1 :]
    if "--help" in argv:
        return None
    parser = _parser(verb, face)
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        spellings = [spelling for option in _options(verb, face) for spelling in option.spellings]
        parser.error(f"{unknown[0]!r} is not understood{suggestion(unknown[0], spellings)}")
    arguments.code, arguments.rest = code, rest
    return arguments


def code_before(verb: Verb, before: str) -> str | None:
    """The code at the end of ``before``, what was typed after a verb with code; None while options are typed."""
    found = list(re.finditer(r"\S+", before))
    tokens = [each.group() for each in found]
    unfinished = bool(tokens) and not before[-1:].isspace()
    count = _leading(verb, tokens)
    if count == len(tokens) and (unfinished or _wants_value(verb, tokens)):
        return None
    return before[found[count].start() :] if count < len(tokens) else ""


def _wants_value(verb: Verb, tokens: Sequence[str]) -> bool:
    option = verb.option(tokens[-1]) if tokens else None
    return option is not None and not option.flag and option.bare is None


def complete(before: str, *, face: Face, offers: Mapping[str, Callable[[], Sequence[str]]]) -> list[str]:
    """What could be typed next at the end of ``before``, a line such as ``%ppe launch --ty``.

    ``offers`` has a function for each kind of ``Option.values`` that the front end can list.
    """
    typed = before.lstrip("%").split()
    last = "" if before[-1:].isspace() else typed.pop()
    if not typed:
        return []
    head, *rest = typed
    verb = next((each for each in VERBS if each.magic == head), None)
    if head == "ppe":
        if not rest:
            return [f"{name} " for name in of(face)]
        verb, rest = of(face).get(rest[0]), rest[1:]
    if verb is None:
        return []
    known = _options(verb, face)
    option = verb.option(rest[-1]) if rest else None
    if option and _wants_value(verb, rest):
        return _values(option, offers)
    unused = [o for o in known if o.repeat or not set(o.spellings) & set(rest)]
    options = [o.spellings[0] for o in unused if o.spellings]
    if last.startswith("-"):
        return options
    return [value for o in known if o.nargs for value in _values(o, offers)] + options


def _options(verb: Verb, face: Face) -> list[Option]:
    """Those that can be typed there."""
    return [option for option in verb.options if face in option.faces]


def _values(option: Option, offers: Mapping[str, Callable[[], Sequence[str]]]) -> list[str]:
    offer = offers.get(option.values)
    return [*option.choices, *(offer() if offer else ())]


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        message = message.replace("invalid int value", "not a whole number")
        message = message.replace("invalid float value", "not a number")
        raise UsageError(f"{self.prog}: {message} (help: {self.prog} --help)")


@cache
def _parser(verb: Verb, face: Face) -> _Parser:
    usage_code = f" [{verb.code}]" if verb.code else f" [-- {verb.after} ...]" if verb.after else ""
    parser = _Parser(
        prog=program(verb, face),
        description=f"{verb.help[:1].upper()}{verb.help[1:]}. {verb.detail}".strip(),
        formatter_class=partial(argparse.HelpFormatter, width=100, max_help_position=32),
        add_help=False,
        allow_abbrev=False,
    )
    for option in _options(verb, face):
        _add(parser, option)
    # Whoever reads the arguments need not know where they were typed.
    parser.set_defaults(**{each.attribute: None for each in verb.options if face not in each.faces})
    parser.add_argument("--help", action="store_true", help="show this")
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    parser.usage = (usage + usage_code).replace("%", "%%")
    return parser


def _add(parser: _Parser, option: Option) -> None:
    keywords: dict[str, Any] = {"help": option.help.replace("%", "%%")}
    if option.flag:
        keywords |= {"action": "store_const", "const": option.sets}
    else:
        keywords |= {"type": option.kind, "metavar": option.metavar or option.name.upper()}
        if option.choices:
            keywords |= {"choices": option.choices, "metavar": "|".join(option.choices)}
        if option.repeat:
            keywords |= {"action": "append", "default": []}
        if option.many:
            keywords |= {"action": "extend", "nargs": "+"}
        if option.bare is not None:
            keywords |= {"nargs": "?", "const": option.bare}
        if option.nargs in ("?", "*"):
            keywords["nargs"] = option.nargs
    if option.required:
        keywords["required"] = True
    if option.nargs:
        parser.add_argument(option.attribute, **keywords)
    else:
        parser.add_argument(*reversed(option.spellings), dest=option.attribute, **keywords)


def _code_apart(verb: Verb, typed: str | Sequence[str]) -> tuple[list[str], str]:
    """The leading options, and the rest: only those, because R and shell code is full of dashes."""
    if isinstance(typed, str):
        found = list(re.finditer(r"""(?:"[^"]*"|'[^']*'|\S)+""", typed))
        tokens = [each.group() for each in found]
        ends = [0, *(each.end() for each in found)]
    else:
        tokens, ends = list(typed), []
    count = _leading(verb, tokens)
    dashes = tokens[count : count + 1] == ["--"]
    if isinstance(typed, str):
        argv = [word for token in tokens[:count] for word in words(token)]
        return argv, typed[ends[count + dashes] :].strip(" ")
    rest = tokens[count + dashes :]
    # One word is a command line as it stands; several words stay apart.
    return tokens[:count], rest[0] if len(rest) == 1 else shlex.join(rest)


def _leading(verb: Verb, tokens: Sequence[str]) -> int:
    """How many tokens from the first are options and their values."""
    at = 0
    while at < len(tokens) and re.match(r"--?[A-Za-z]", tokens[at]):
        name, equals, _ = tokens[at].partition("=")
        option = verb.option(name)
        at += 1
        if option is None or option.flag or equals:
            continue  # unknown: the parser names it; also -w5
        if option.bare is None or (at < len(tokens) and (tokens[at].isdecimal() or tokens[at] == ALL)):
            at += 1
    return min(at, len(tokens))
