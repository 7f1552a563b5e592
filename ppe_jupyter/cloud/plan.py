"""Plan: what is to be done, what it will cost, and what is wrong with it; made by ``plan_*``, shown as a review.

A plan with an error among its problems cannot be carried out. Pure; executing the steps is ``launch``'s and
``change``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import SpecError
from .bill import Bill, hourly, hours, limits
from .records import ClusterRecord
from .spec import ClusterSpec
from .steps import Step

# Whoever does these should see what will end the cluster.
LIMITING = ("launch", "start", "limit")


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

    ``spec`` is what the cluster will be, the settings' limits filled in. ``usd_per_hour`` is what EC2 charges for it
    afterwards: all nodes with disks and addresses (None: unknown), ``bill`` its parts, for a launch. ``boot_seconds``
    is how long its nodes may take to be set up. A launch of what runs already has no steps.
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
    bill: Bill | None = None
    boot_seconds: float = 0.0

    @property
    def errors(self) -> list[str]:
        """What forbids it."""
        return [problem.text for problem in self.problems if problem.grade is Grade.ERROR]

    @property
    def warnings(self) -> list[str]:
        """What the user should think about."""
        return [problem.text for problem in self.problems if problem.grade is Grade.WARNING]

    def check(self) -> None:
        """Raise SpecError, with all errors, unless the plan can be carried out."""
        if self.errors:
            what = "cannot be launched" if self.verb == "launch" else f"{self.verb} is not possible"
            raise SpecError(f"cluster {self.name!r}: {what}: {'; '.join(self.errors)}", problems=self.errors)

    def rows(self) -> list[tuple[str, str]]:
        """The review as (kind, text): cluster, step, price, limit, error, warning, info; in the order of reading."""
        problems = sorted(self.problems, key=lambda problem: list(Grade).index(problem.grade))
        said = [(problem.grade.value, problem.text) for problem in problems]
        if self.verb == "launch" and self.existing is not None:
            return said or [("cluster", f"{self.name} is running already: nothing to launch")]
        slots = self.spec.nodes * self.slots
        rows = [("cluster", f"{self.name}: {_number(self.spec.nodes, 'node')}, {_number(slots, 'slot')}")]
        rows += [("step", str(step)) for step in self.steps]
        if self.bill is not None:
            rows += [("price", text) for text in self.bill.rows()]
        else:
            rows.append(("price", "unknown" if self.usd_per_hour is None else hourly(self.usd_per_hour)))
        if self.verb in LIMITING:
            rows += [("limit", text) for text in limits(self.spec, self.bill)]
        if self.boot_seconds:
            ends = f"a node that is not set up {hours(self.boot_seconds / 3600)} after its boot ends itself"
            rows.append(("limit", f"{ends}, even if this client is gone by then"))
        return rows + said

    def review(self) -> str:
        """The rows as text."""
        return "\n".join(f"{what:<8} {detail}" for what, detail in self.rows())


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
