"""SessionInfo: what a cluster's results depend on, as text for a paper and as tables. Pure.

What is the same on all nodes is told once; what differs is marked, with the nodes that have it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .cloud.software import KINDS, Software

if TYPE_CHECKING:
    import pandas as pd

DIFFERS = "≠"
ALL = "all"
ABSENT = "absent"
TITLES = {"apt": "Debian packages", "r": "R packages", "python": "Python packages"}
WIDTH = 80  # characters, of the text


class Row(NamedTuple):
    """A fact; ``nodes`` are ``all``, or the indices of those of which it is true. ``what`` is marked if it differs."""

    what: str
    value: str
    nodes: str


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """``about`` are facts of the cluster as a whole, ``types`` the nodes' instance types, ``software`` theirs by index.

    ``attached`` and ``loaded`` are packages of the R session with their versions; None while R was busy.
    """

    about: Mapping[str, str]
    types: Mapping[int, str]
    software: Mapping[int, Software]
    attached: Sequence[str] | None = None
    loaded: Sequence[str] | None = None

    def rows(self) -> Iterator[Row]:
        """The cluster, machines and versions; then every package that is not the same on all nodes."""
        yield from (Row(what, value, ALL) for what, value in self.about.items())
        yield from self._told("instance type", self.types)
        facts = dict.fromkeys(what for node in self.software.values() for what in node.facts)
        for what in facts:
            yield from self._told(what, {i: node.facts.get(what, "") for i, node in self.software.items()})
        for kind, title in TITLES.items():
            versions = self.versions(kind)
            same = {name for name, found in versions.items() if len(set(found.values())) == 1}
            yield Row(title, f"{len(same)} in the same version", ALL)
            for name, found in versions.items():
                if name not in same:
                    yield from self._told(name, found)

    def versions(self, kind: str) -> dict[str, dict[int, str]]:
        """Of the packages of that kind, by name and node."""
        names = sorted(
            {name for node in self.software.values() for name in node.packages[kind]}, key=str.lower
        )
        return {
            name: {
                index: found.code if (found := node.packages[kind].get(name)) else ABSENT
                for index, node in self.software.items()
            }
            for name in names
        }

    def frame(self) -> pd.DataFrame:
        """The rows, ``what`` as the index."""
        import pandas as pd

        found: pd.DataFrame = pd.DataFrame(list(self.rows()), columns=list(Row._fields)).set_index("what")
        return found

    def packages(self) -> pd.DataFrame:
        """Every package: kind and name as the index, its source, whether nodes differ, and its version on each."""
        import pandas as pd

        rows = []
        for kind in KINDS:
            for name, found in self.versions(kind).items():
                having = [
                    node.packages[kind][name]
                    for node in self.software.values()
                    if name in node.packages[kind]
                ]
                sources = "/".join(sorted({each.source for each in having}))
                row: dict[str, object] = {"kind": kind, "package": name, "source": sources}
                row["differs"] = len(set(found.values())) > 1
                rows.append(row | {f"node {index}": version for index, version in found.items()})
        table: pd.DataFrame = pd.DataFrame(rows).set_index(["kind", "package"])
        return table

    def text(self) -> str:
        """All of it, Debian's packages left out, in lines of 80 characters."""
        rows = list(self.rows())
        width = max(len(row.what) for row in rows)
        lines = []
        for row in rows:
            where = "" if row.nodes == ALL else f"  (node {row.nodes})"
            lines += _wrapped(f"{row.what:<{width}}  {row.value}{where}", indent=width + 2)
        for title, packages in self._lists():
            lines += ["", *_wrapped(f"{title}: {', '.join(packages)}", indent=2)]
        return "\n".join(lines)

    __str__ = text

    def _lists(self) -> Iterator[tuple[str, list[str]]]:
        if self.attached is not None:
            yield "Attached in the R session", list(self.attached) or ["none beside R's own"]
        if self.loaded:
            yield "Loaded, not attached", list(self.loaded)
        for kind in ("r", "python"):
            found = {name: set(versions.values()) for name, versions in self.versions(kind).items()}
            yield TITLES[kind], [f"{name} {'|'.join(sorted(each))}" for name, each in found.items()]

    def _told(self, what: str, values: Mapping[int, str]) -> Iterator[Row]:
        nodes: dict[str, list[int]] = {}
        for index, value in values.items():
            nodes.setdefault(value, []).append(index)
        for value, having in nodes.items():
            if len(nodes) == 1:
                yield Row(what, value, ALL)
            else:
                yield Row(f"{DIFFERS} {what}", value or ABSENT, ", ".join(map(str, having)))


def _wrapped(text: str, *, indent: int) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
