"""Install: extra apt, R and Python packages on every node of a running cluster, and in its spec for the nodes to come.

The work is done by setup.py on the master, which reaches the workers. Must not know EC2.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from ...delivery import FOLDER
from ...ssh import Connection
from ..configure import run_setup
from ..pace import Pace, Report
from ..records import Progress
from ..spec import ClusterSpec

INSTALL = f"python3 {FOLDER}/setup.py install"


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


def install(connection: Connection, packages: Packages, *, report: Report, pace: Pace) -> None:
    """Install the packages on all nodes of the cluster whose master that is. Safe to repeat.

    Raises SetupFailed with the end of the log of the node at which it failed; Stopped, and the nodes go on.
    """
    packages.added_to(ClusterSpec())
    task = json.dumps(asdict(packages)).encode()
    for event in run_setup(connection, INSTALL, task, pace=pace):
        if event["event"] == "progress":
            ready, total = int(event.get("ready", 0)), int(event.get("total", 0))
            report(Progress(event["phase"], ready, total, pace.elapsed, str(event.get("message", ""))))


def _union(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*old, *new]))
