"""Copy as magic: what one would type in a notebook for what was clicked, from the table of verbs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import verbs
from ..cloud.spec import ClusterSpec
from ..verbs import Option

OFF = ("idle_hours", "max_hours", "budget_usd")  # of which 0 is typed as a word
SCRIPT = "bootstrap.sh"  # where whoever types would have the script


def line(verb: str, values: Mapping[str, Any], *, words: Sequence[str] = ()) -> str:
    """The magic for ``verb`` with the option values (by their attribute, None: not typed), ``words`` first."""
    known = verbs.find(verb, face="magic")
    options = [option for option in known.options if not option.nargs]
    typed = [word for option in options for word in _typed(option, values.get(option.attribute))]
    return " ".join([f"%{known.magic}", *map(_quoted, [*words, *typed])])


def launch(spec: ClusterSpec) -> str:
    """The magic that launches it."""
    usual = ClusterSpec()
    chosen = {
        option.attribute: getattr(spec, option.attribute)
        for option in verbs.find("launch", face="magic").options
        if hasattr(spec, option.attribute)
        and getattr(spec, option.attribute) != getattr(usual, option.attribute)
    }
    if "bootstrap" in chosen:
        chosen["bootstrap"] = SCRIPT
    chosen.setdefault("nodes", spec.nodes)
    return line("launch", chosen, words=[spec.name] if spec.name else [])


def _typed(option: Option, value: Any) -> Iterator[str]:
    spelling = option.spellings[0]
    if value is None:
        return
    if option.flag:
        if value == option.sets:
            yield spelling
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (spelling, f"{key}={each}")
    elif option.attribute.endswith("_packages"):
        yield from (spelling, ",".join(value))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from (spelling, str(each))
    elif option.attribute in OFF and value == 0:
        yield from (spelling, "off")
    else:
        yield from (spelling, f"{value:.10g}" if isinstance(value, float) else str(value))


def _quoted(word: str) -> str:
    """As ``%magic`` lines are split: a backslash is like any other character."""
    if not word or shlex.quote(word) != word:
        return f'"{word}"' if '"' not in word else f"'{word}'"
    return word
