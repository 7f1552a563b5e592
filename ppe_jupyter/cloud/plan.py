"""Plan: what is to be done, what it will cost, and what is wrong with it; made by ``plan_*``, shown as a review.

A plan with an error among its problems cannot be carried out. Pure; executing the steps is ``launch``'s and
``change``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .. import catalog
from ..errors import SpecError
from .records import ClusterRecord
from .spec import ClusterSpec
from .steps import Step


class Grade(str, Enum):
    """How bad a problem is; an error forbids the launch."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Problem:
    """One thing that the user should know before launching."""

    grade: Grade
    text: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``verb`` would do with a cluster that ``existing`` describes, if it exists.

    ``spec`` is what the cluster will be. ``usd_per_hour`` is what EC2 charges for it afterwards: all nodes with disks
    and addresses (None: unknown). A launch of what runs already has no steps.
    """

    verb: str = "launch"
    spec: ClusterSpec
    name: str
    owner: str
    steps: tuple[Step, ...]
    usd_per_hour: float | None
    problems: tuple[Problem, ...]
    existing: ClusterRecord | None = None
    slots: int = 0
    key_name: str = ""

    @property
    def errors(self) -> list[str]:
        """What forbids the launch."""
        return [problem.text for problem in self.problems if problem.grade is Grade.ERROR]

    def check(self) -> None:
        """Raise SpecError, with all errors, unless the plan can be launched."""
        if self.errors:
            reasons = "; ".join(self.errors)
            raise SpecError(f"cluster {self.name!r} cannot be launched: {reasons}", problems=self.errors)

    def rows(self) -> list[tuple[str, str]]:
        """The review as (what, detail), in the order of doing."""
        if self.existing is not None and not self.errors:
            return [("cluster", f"{self.name} is running already: nothing to launch")]
        rows = [("cluster", f"{self.name}: {self.spec.nodes} nodes, {self.spec.nodes * self.slots} slots")]
        rows += [("step", str(step)) for step in self.steps]
        rows.append(("price", price_text(self.usd_per_hour)))
        rows += [(problem.grade.value, problem.text) for problem in self.problems]
        return rows

    def review(self) -> str:
        """The rows as text."""
        return "\n".join(f"{what:<8} {detail}" for what, detail in self.rows())


def price_text(usd_per_hour: float | None) -> str:
    """The price in words, with what it includes and how old it is."""
    if usd_per_hour is None:
        return "unknown"
    return (
        f"${usd_per_hour:.3f} an hour, ${24 * usd_per_hour:.2f} a day on EC2 with disks and addresses "
        f"(on demand, {catalog.PRICE_REGION}, {catalog.prices_as_of()})"
    )
