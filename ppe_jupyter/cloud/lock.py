"""Lock: the software that a cluster's nodes had, to be had again.

Frozen and pure; lock_file.py reads and writes it. Must not know how software is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .software import KINDS, Packages, Software, Version, digest

# Of the facts, those that are not the machine's.
VERSIONS = ("R", "Open MPI", "Rmpi", "mpi4py", "Python")
Pins = dict[str, dict[str, str]]  # versions by kind and name


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A package that node ``index`` does not have as the lock wants it; ``there`` is "" if it has none."""

    index: int
    kind: str
    name: str
    wanted: str
    there: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """``packages`` are what all nodes had, ``particular`` what single ones, by index, had besides or otherwise.

    ``image_id`` and ``image_name`` are what the master was launched from, ``versions`` the master's, to be read;
    ``written`` is the time in ISO 8601.
    """

    cluster: str
    written: str
    image_id: str
    image_name: str
    architecture: str
    versions: Mapping[str, str]
    packages: Packages
    particular: Mapping[int, Packages] = field(default_factory=dict)

    @classmethod
    def of(
        cls, nodes: Mapping[int, Software], *, cluster: str, written: str, image_id: str, image_name: str
    ) -> Lock:
        """Of nodes by their index; the master is the first."""
        master, *others = nodes.values()
        common = {
            kind: {
                name: each
                for name, each in master.packages[kind].items()
                if all(other.packages[kind].get(name) == each for other in others)
            }
            for kind in KINDS
        }
        own = {index: _without(node.packages, common) for index, node in nodes.items()}
        return cls(
            cluster=cluster,
            written=written,
            image_id=image_id,
            image_name=image_name,
            architecture=master.facts.get("architecture", ""),
            versions={key: master.facts[key] for key in VERSIONS if master.facts.get(key)},
            packages=common,
            particular={index: packages for index, packages in own.items() if any(packages.values())},
        )

    def of_node(self, index: int) -> Packages:
        """What that node is to have."""
        own = self.particular.get(index, {})
        return {kind: {**self.packages.get(kind, {}), **own.get(kind, {})} for kind in KINDS}

    @property
    def digest(self) -> str:
        """As ``Software.digest`` of the master."""
        return digest(self.of_node(0))

    def differences(self, nodes: Mapping[int, Software]) -> list[Difference]:
        """Where nodes do not have what the lock wants; what they have besides is none."""
        return [each for index, node in nodes.items() for each in self._differences(index, node)]

    def _differences(self, index: int, node: Software) -> Iterator[Difference]:
        for kind, packages in self.of_node(index).items():
            for name, wanted in packages.items():
                there = node.packages[kind].get(name)
                if there is None or there.version != wanted.version:
                    found = there.version if there else ""
                    yield Difference(index=index, kind=kind, name=name, wanted=wanted.version, there=found)

    def pins(self, nodes: Mapping[int, Software]) -> dict[int, Pins]:
        """The versions to install, by node; R and Python packages that are Debian's come with those of apt."""
        wanted: dict[int, Pins] = {}
        for each in self.differences(nodes):
            source = self.of_node(each.index)[each.kind][each.name].source
            if each.kind == "apt" or source != "Debian":
                wanted.setdefault(each.index, {}).setdefault(each.kind, {})[each.name] = each.wanted
        return wanted


def _without(packages: Packages, common: Packages) -> dict[str, dict[str, Version]]:
    return {
        kind: {name: each for name, each in packages[kind].items() if common[kind].get(name) != each}
        for kind in KINDS
    }
