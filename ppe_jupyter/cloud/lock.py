"""Lock: the software that a cluster's nodes had, to be had again.

Frozen and pure; lock_file.py reads and writes it. Must not know how software is installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from .software import KINDS, Packages, Software, Version, digest

# Of the facts, those that are not the machine's; and those of them that are no packages, or of no package manager.
VERSIONS = ("R", "Open MPI", "Rmpi", "mpi4py", "Python")
PROGRAMS = ("R", "Open MPI", "Python")
# Sources that are no repository, where nothing is to be had by its number. R's are RemoteType's of remotes and pak.
ELSEWHERE = {"local", "github", "gitlab", "bitbucket", "git", "git2r", "xgit", "svn", "url"}
Pins = dict[str, dict[str, str]]  # versions by kind and name


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A package, or a program of kind "version", that node ``index`` does not have as the lock wants it.

    ``there`` is "" if it has none. A source is named beside the versions where the number alone does not tell the code.
    """

    index: int
    kind: str
    name: str
    wanted: str
    there: str


@dataclass(frozen=True, kw_only=True)
class Lock:
    """``packages`` are what all nodes had, ``particular`` what single ones, by index, had besides or otherwise.

    Index 0 is the master, whichever it was. ``image_id`` and ``image_name`` are what it was launched from, ``versions``
    its own; ``written`` is the time in ISO 8601.
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
        cls,
        nodes: Mapping[int, Software],
        *,
        master: int = 0,
        cluster: str,
        written: str,
        image_id: str,
        image_name: str,
    ) -> Lock:
        """Of nodes by their index, of which ``master`` is the master's."""
        nodes = dict(sorted((_place(index, master), node) for index, node in nodes.items()))
        first, *others = nodes.values()
        common = {
            kind: {
                name: each
                for name, each in first.packages[kind].items()
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
            architecture=first.facts.get("architecture", ""),
            versions={key: first.facts[key] for key in VERSIONS if first.facts.get(key)},
            packages=common,
            particular={index: packages for index, packages in own.items() if any(packages.values())},
        )

    def changed_as(self, master: Software) -> Lock:
        """The lock for nodes that come later: what was changed on the master since is to be as it is there."""
        packages = {
            kind: {
                name: there
                for name in self.packages.get(kind, {})
                if (there := master.packages[kind].get(name))
            }
            for kind in KINDS
        }
        versions = {key: master.facts.get(key) or each for key, each in self.versions.items()}
        return replace(self, packages=packages, versions=versions)

    def of_node(self, index: int) -> Packages:
        """What that node is to have."""
        own = self.particular.get(index, {})
        return {kind: {**self.packages.get(kind, {}), **own.get(kind, {})} for kind in KINDS}

    @property
    def digest(self) -> str:
        """As ``Software.digest`` of the master."""
        return digest(self.of_node(0))

    def differences(self, nodes: Mapping[int, Software], *, master: int = 0) -> list[Difference]:
        """Where nodes do not have what the lock wants; what they have besides is none."""
        return [
            each
            for index, node in nodes.items()
            for each in (*self._programs(index, node), *self._packages(index, node, master))
        ]

    def _programs(self, index: int, node: Software) -> Iterator[Difference]:
        for name in PROGRAMS:
            wanted, there = self.versions.get(name), node.facts.get(name, "")
            if wanted and there != wanted:
                yield Difference(index=index, kind="version", name=name, wanted=wanted, there=there)

    def _packages(self, index: int, node: Software, master: int) -> Iterator[Difference]:
        for kind, packages in self.of_node(_place(index, master)).items():
            for name, wanted in packages.items():
                there = node.packages[kind].get(name)
                if there is None or there.code != wanted.code:
                    told = _told(wanted, there)
                    yield Difference(index=index, kind=kind, name=name, wanted=told[0], there=told[1])

    def pins(self, nodes: Mapping[int, Software], *, master: int = 0) -> dict[int, Pins]:
        """The versions to install, by node; R and Python packages that are Debian's come with those of apt.

        Those that no repository has are not among them.
        """
        pins: dict[int, Pins] = {}
        for each in self.differences(nodes, master=master):
            wanted = self.of_node(_place(each.index, master)).get(each.kind, {}).get(each.name)
            if wanted and (each.kind == "apt" or _kind_of(wanted.source) not in ("Debian", *ELSEWHERE)):
                pins.setdefault(each.index, {}).setdefault(each.kind, {})[each.name] = wanted.version
        return pins


def _place(index: int, master: int) -> int:
    """The node's index in a lock, and back: the master is 0 there, and that one in its place."""
    return {master: 0, 0: master}.get(index, index)


def _kind_of(source: str) -> str:
    """Without its commit."""
    return source.partition(" ")[0]


def _told(wanted: Version, there: Version | None) -> tuple[str, str]:
    if there is None:
        return wanted.code, ""
    if there.version != wanted.version:
        return wanted.code, there.code
    return f"{wanted.version} ({wanted.source})", f"{there.version} ({there.source})"


def _without(packages: Packages, common: Packages) -> dict[str, dict[str, Version]]:
    return {
        kind: {name: each for name, each in packages[kind].items() if common[kind].get(name) != each}
        for kind in KINDS
    }
