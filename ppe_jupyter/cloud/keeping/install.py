"""Install: extra apt, R and Python packages on every node of a running cluster, and in its spec for the nodes to come.

The work is done by setup.py on the master, which reaches the workers. Must not know EC2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from ...delivery import FOLDER
from ...errors import PartlyInstalled, SetupFailed
from ...ssh import Connection
from ..configure import run_to_end
from ..pace import Pace, Report
from ..records import named_nodes
from ..spec import ClusterSpec

TITLES = {"apt": "Debian", "r": "R", "python": "Python"}
INSTALL = f"python3 {FOLDER} setup install"


@dataclass(frozen=True, kw_only=True)
class Packages:
    """Names of packages: of the distribution, of R (CRAN) and of Python (PyPI)."""

    apt: tuple[str, ...] = ()
    r: tuple[str, ...] = ()
    python: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: ClusterSpec) -> Packages:
        """What every node of that cluster is to have."""
        return cls(apt=spec.apt_packages, r=spec.r_packages, python=spec.python_packages)

    def added_to(self, spec: ClusterSpec) -> ClusterSpec:
        """The spec whose new nodes get these packages too. Raises SpecError for what is no package's name."""
        return replace(
            spec,
            apt_packages=_union(spec.apt_packages, self.apt),
            r_packages=_union(spec.r_packages, self.r),
            python_packages=_union(spec.python_packages, self.python),
        )


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What was installed: by kind and name the version that each node has, "" for none, by its number."""

    versions: Mapping[str, Mapping[str, Mapping[int, str]]]
    notes: Sequence[str]

    def summary(self) -> str:
        """What all nodes have, such as ``R: glue 1.7.0, zoo 1.8-11; Debian: tree 2.1.0-1``."""
        kinds = []
        for kind, title in TITLES.items():
            named = [
                f"{name} {' or '.join(dict.fromkeys(filter(None, by_node.values())))}".rstrip()
                for name, by_node in self.versions.get(kind, {}).items()
            ]
            kinds += [f"{title}: {', '.join(named)}"] if named else []
        return "; ".join(kinds)

    def differences(self) -> list[str]:
        """A line for each package that is not the same on all nodes."""
        lines = []
        for kind, title in TITLES.items():
            for name, by_node in self.versions.get(kind, {}).items():
                if len(at := _grouped(by_node)) > 1:
                    told = "; ".join(
                        f"{version or 'not there'} on {named_nodes(nodes)}" for version, nodes in at.items()
                    )
                    lines.append(f"{name} ({title}) differs between nodes: {told}")
        return lines


def install(
    connection: Connection, packages: Packages, *, report: Report, pace: Pace, cran_url: str | None = None
) -> Installed:
    """Install the packages on all nodes of the cluster whose master that is. Safe to repeat.

    ``cran_url`` is the repository of R packages, if it is not the usual one. Raises SetupFailed with the end of the
    log of each node at which it failed, PartlyInstalled if the master is none of them; Stopped, and the nodes go on.
    """
    packages.added_to(ClusterSpec())
    task = json.dumps({**asdict(packages), "cran_url": cran_url}).encode()
    done = run_to_end(connection, INSTALL, task, report=report, pace=pace)
    if failed := {int(number): str(why) for number, why in done["failed"].items()}:
        rest = [int(number) for number in done["versions"] if int(number) not in failed]
        lines = [f"{named_nodes(nodes)}: {why}" for why, nodes in _grouped(failed).items()]
        text = "; ".join([*lines, *([f"done on {named_nodes(rest)}"] if rest else [])])
        if done.get("kept"):
            raise PartlyInstalled(f"{text}, and on nodes that come later")
        raise SetupFailed(text)
    versions: dict[str, dict[str, dict[int, str]]] = {}
    for number, kinds in done["versions"].items():
        for kind, names in kinds.items():
            for name, version in names.items():
                versions.setdefault(kind, {}).setdefault(name, {})[int(number)] = version
    return Installed(versions=versions, notes=done["notes"])


def _grouped(by_node: Mapping[int, str]) -> dict[str, list[int]]:
    """Which nodes have the same."""
    found: dict[str, list[int]] = {}
    for number in sorted(by_node):
        found.setdefault(by_node[number], []).append(number)
    return found


def _union(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*old, *new]))
