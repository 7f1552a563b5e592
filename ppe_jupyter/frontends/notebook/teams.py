"""What was typed for a cell on MPI ranks, as what the ranks are to do; and what came back, as variables.

``x:scatter`` and ``y:concat`` are of the language here. Must not know how ranks are reached.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import UsageError
from ...remote.ranks.team import Language, TeamCell, joined
from .variables import listed

SCATTER, CONCAT = "scatter", "concat"
# Of %%remote_r's, what a rank has no place for.
OF_THE_SESSION = (
    "no_simplify", "noreturn", "width", "height", "units", "res", "pointsize", "bg", "png", "converter", "display",
    "background", "watch", "take_over",
)  # fmt: skip


def on_ranks(arguments: argparse.Namespace) -> bool:
    """Whether the cell is for ranks. Raises UsageError for options that only these have."""
    if arguments.ranks is not None:
        return True
    words = ["stream", "from_r", "to_r", *([] if "converter" in arguments else ["fresh", "input", "output"])]
    if typed := [f"--{word.replace('_', '-')}" for word in words if getattr(arguments, word)]:
        raise UsageError(f"{' and '.join(typed)}: only with --ranks")
    return False


def team_cell(
    arguments: argparse.Namespace, code: str, language: Language, value: Callable[[str], Any]
) -> TeamCell:
    """What the ranks are to do; ``value`` gives the notebook's. Raises UsageError."""
    given = vars(arguments)
    if typed := [f"--{word.replace('_', '-')}" for word in OF_THE_SESSION if given.get(word)]:
        raise UsageError(f"{' and '.join(typed)}: not with --ranks")
    inputs: dict[str, Any] = {}
    scattered: dict[str, Any] = {}
    for word in listed(arguments.input):
        path, part = _parted(word, SCATTER)
        name, _, variable = path.rpartition("=")
        (scattered if part else inputs)[name or variable] = value(variable)
    from_r = [_parted(word, SCATTER) for word in listed(arguments.from_r)]
    return TeamCell(
        code=code,
        language=language,
        ranks=arguments.ranks,
        inputs=inputs,
        scattered=scattered,
        outputs=[_parted(word, CONCAT)[0] for word in listed(arguments.output)],
        from_r=[name for name, part in from_r if not part],
        scattered_r=[name for name, part in from_r if part],
        to_r=listed(arguments.to_r),
    )


def gathered(found: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The variables for the notebook: a list by rank, or one value."""
    variables: dict[str, Any] = {}
    for word in listed(arguments.output):
        name, as_one = _parted(word, CONCAT)
        parts = [outputs[name] for outputs in found]
        variables[name] = joined(parts) if as_one else parts
    return variables


def _parted(word: str, wanted: str) -> tuple[str, bool]:
    name, colon, how = word.partition(":")
    if colon and how != wanted:
        raise UsageError(f"{word}: after the colon only {wanted} is known")
    return name, bool(colon)
