"""When a cluster ends without its user: what its watchdog keeps, and what would be lost. The part of Cluster for it."""

from __future__ import annotations

from typing import TypeVar

from .cloud.launching.relimit import relimit
from .cloud.plan import Plan
from .cloud.planning.plan_limits import plan_limits
from .cloud.records import ClusterState
from .held import Held
from .remote.sessions import watchdog
from .remote.sessions.watchdog import Losses, Watchdog
from .runs import Then

T = TypeVar("T", bound="Limits")


class Limits(Held):
    """The limits of a cluster; the watchdog on its master keeps them."""

    def watchdog(self) -> Watchdog | None:
        """When and why its watchdog will park or terminate it; None when its agent does not run."""
        return watchdog.watchdog(self.ssh())

    def set_limits(
        self: T,
        *,
        idle_hours: float | None = None,
        max_hours: float | None = None,
        budget_usd: float | None = None,
        then: str | None = None,
    ) -> T:
        """Change those limits of its watchdog that are given (``ClusterSpec``); 0 is no limit."""
        given = {"idle_hours": idle_hours, "max_hours": max_hours, "budget_usd": budget_usd}
        plan = self.plan_limits(then=then, **given)
        plan.check()
        connection = None if self.state is ClusterState.PARKED else self.ssh()
        relimit(self._account.context, connection, plan)
        self._account.note("limit", self.refresh().record)
        return self

    def prepare_end(self, then: Then, *, discard: bool = False) -> bool:
        """Have its master do that when it shuts itself down, without a client or its credentials.

        Only what may be lost (``discard``) is terminated so. It becomes what happens at its limits, too; whether that
        is another thing than before. Raises SpecError, CloudError, SshError.
        """
        wanted = "terminate" if then == "terminate" and discard else "park"
        spec = self.refresh().record.spec
        changed = then != "nothing" and (spec is None or spec.then != wanted)
        if changed:
            self.set_limits(then=wanted)
        return changed

    def plan_limits(self, *, then: str | None = None, **limits: float | None) -> Plan:
        """What ``set_limits`` with the same would come to; its warnings say what may cost or lose more."""
        context = self._account.context
        usual = context.settings.idle_hours
        record = self.refresh().record
        return plan_limits(record, context.now(), usual_idle_hours=usual, then=then, **limits)

    def losses(self) -> Losses:
        """What would be lost if it ended now: objects of every R session, jobs' results, files, running work."""
        with self.visiting():
            return watchdog.losses(self.ssh(), self.r)
