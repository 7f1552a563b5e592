"""What software a node has, and how nodes are compared. Pure; keeping/software.py asks the nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

KINDS = ("apt", "r", "python")  # of packages
# Where a number, once given, is never other code's: a change of a package is a new version (Debian's policy, 3.2.2;
# CRAN's repository policy), PyPI takes no file name twice (pypi.org/help, file-name-reuse). RSPM is Posit's CRAN.
ARCHIVES = {"Debian", "CRAN", "RSPM", "PyPI"}


class Version(NamedTuple):
    """Of a package; ``source`` is Debian, a repository's own name (CRAN), PyPI, local, or github and its commit."""

    version: str
    source: str

    @property
    def code(self) -> str:
        """What is the same for the same code: the number, with the source unless that is an archive of numbers."""
        return self.version if self.source in ARCHIVES else f"{self.version} ({self.source})"


Packages = Mapping[str, Mapping[str, Version]]  # by kind and name


@dataclass(frozen=True, kw_only=True)
class Software:
    """One node's: ``facts`` are R, Python, Open MPI, BLAS, CPU, kernel and the like, ``packages`` by kind and name."""

    facts: Mapping[str, str]
    packages: Packages

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Software:
        """What node/setting_up/inventory.py says."""
        packages = {
            kind: {name: Version(*each) for name, each in told["packages"].get(kind, {}).items()}
            for kind in KINDS
        }
        return cls(facts=dict(told["facts"]), packages=packages)

    @property
    def digest(self) -> str:
        """The same for nodes with the same code in their packages."""
        return digest(self.packages)


def digest(packages: Packages) -> str:
    """Of all names, versions and, where they matter, sources."""
    lines = sorted(
        f"{kind} {name} {each.code}" for kind in KINDS for name, each in packages.get(kind, {}).items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
