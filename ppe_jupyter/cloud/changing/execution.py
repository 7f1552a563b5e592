"""Execution: carry out the plan of a change, step by step, and leave the cluster changed or as it was.

What another client needs in order to go on where this one dies is in the tags before anything irrevocable is
done. What ends a change early, a refusal, a stop, ends the nodes that it had launched; a cluster that was to be
started is parked again. Runs in a thread of its own (``pace``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from ...errors import CapacityError, CloudError, NoSuchCluster, PpeError
from .. import tags
from ..access import refresh_rule
from ..launching.bring_up import attach
from ..launching.purchase import PASSING_CODES
from ..pace import Stopped
from ..records import ClusterRecord, ClusterState, Cost, InstanceState
from ..steps import (
    AttachVolume,
    Configure,
    Promote,
    RebootInstances,
    RunInstances,
    SaveWorkspace,
    StartInstances,
    Step,
    StopInstances,
    TerminateInstances,
)
from . import workspace
from .growth import Growth
from .reboot import reboot
from .work import Work

# What the tags say meanwhile, if it is not what they said before.
STATES = {
    "reboot": ClusterState.REBOOTING,
    "park": ClusterState.PARKING,
    "start": ClusterState.CONFIGURING,
}
# Two clients began to add nodes at the same moment.
OTHER_CLIENT = "IdempotentParameterMismatch"


class Change(Work):
    """One change of one cluster."""

    def run(self) -> ClusterRecord:
        """Carry the plan out; the cluster as it is then, degraded if nodes were lost on the way.

        Raises CloudError (CapacityError for want of machines), which says what the cluster is now.
        """
        self._begin()
        try:
            for step in self._plan.steps:
                self._pace.check()
                self._carry_out(step)
            return self._end()
        except BaseException as exc:
            error = self._failed(exc)
            if error is exc:
                raise
            raise error from exc
        finally:
            if self._done is not None:
                self._done.connection.close()

    def _begin(self) -> None:
        """Mark the cluster as worked on, unless another client has done so since the plan was made."""
        if not self._fleet.before:
            raise NoSuchCluster(f"there is no cluster {self._plan.name!r} any more")
        until = self._fleet.record(self._fleet.before).busy_until
        if until and until != self._record.busy_until and until > self._context.now():
            raise CloudError(f"another client has begun to change {self._plan.name!r}: %ppe_status shows it")
        marks = tags.busy(self._until)
        if state := STATES.get(self._plan.verb):
            marks |= tags.in_state(state)
        if self._plan.verb == "resize" and self._leaving:
            marks |= tags.of_spec(self._plan.spec)
        if self._plan.verb == "start":
            self._begun = self._cost()
            marks |= tags.of_cost(self._begun)
        self._fleet.tag([each.instance_id for each in self._fleet.before], marks)
        with contextlib.suppress(PpeError):  # what is amiss, connecting will tell
            refresh_rule(self._context, self._record)

    def _end(self) -> ClusterRecord:
        if self._done is None:
            return self._fleet.record()
        if self._leaving:
            self._fleet.wait(self._leaving, (InstanceState.TERMINATED,), "terminating")
        if not self._late:
            return self._done.record
        said = tuple(
            f"{instance_id} did not come back from its reboot: {why}"
            for instance_id, why in self._late.items()
        )
        return replace(self._fleet.record(), troubles=said)

    # -- steps ------------------------------------------------------------------------------------------

    def _carry_out(self, step: Step) -> None:
        match step:
            case SaveWorkspace():
                self._save(step)
            case RebootInstances():
                self._reboot(step.instance_ids)
            case TerminateInstances():
                self._fleet.end(step.instance_ids)
            case StopInstances():
                self._fleet.stop(step.instance_ids)
                marks = {**tags.busy(self._context.now()), **tags.in_state(ClusterState.PARKED)}
                self._fleet.tag(step.instance_ids, {**marks, **tags.of_cost(self._cost())})
            case StartInstances():
                self._fleet.start(step.instance_ids)
            case RunInstances():
                self._run_instances(step)
            case Promote():
                self._report("promoting", 0, f"{step.instance_id} becomes the master")
                ids = [each.instance_id for each in self._fleet.instances]
                self._fleet.tag(ids, tags.of_master(step.instance_id))
                self._key.renew()
            case Configure():
                self._configure()
            case AttachVolume():
                assert self._done is not None
                self._done = attach(self._context, self._done, step, pace=self._pace, report=self._send)

    def _save(self, step: SaveWorkspace) -> None:
        self._report("saving", 0, "R's workspace")
        try:
            with self._connect(self._record) as master:
                why = workspace.save(master)
        except (PpeError, TimeoutError) as exc:
            why = str(exc)
        said = f"R's workspace could not be saved: {why}"
        if why and step.must:
            raise CloudError(f"{said}; without it: %ppe_{self._plan.verb} {self._plan.name} --force")
        if why:
            self._report("saving", 0, said)

    def _reboot(self, ids: Sequence[str]) -> None:
        self._rebooting = True
        with self._connect(self._record) as master:
            if len(ids) > 1 and self._record.master.instance_id in ids:
                self._fleet.tag([self._record.master.instance_id], tags.in_state(ClusterState.CONFIGURING))
            self._late = reboot(
                self._context, master, self._record, ids, pace=self._pace, report=self._report
            )
        # What says that it is configured would be believed when this client is no longer at work.
        self._fleet.tag(self._late, tags.in_state(ClusterState.CONFIGURING))
        self._fleet.instances = [each for each in self._fleet.instances if each.instance_id not in self._late]

    def _run_instances(self, step: RunInstances) -> None:
        """Nodes like the others. Raises CapacityError."""
        growth = Growth(
            context=self._context,
            plan=self._plan,
            template=self._fleet.before[0],
            master_id=next((each.tags.get(tags.MASTER, "") for each in self._fleet.instances), ""),
            busy_until=self._until,
            cost=self._cost(),
            host_key=self._host_key,
            cluster_key=self._key.public(self._open_master),
        )
        self._asked = self._unlisted = True
        try:
            bought = growth.buy(step, pace=self._pace, report=self._report)
        except CloudError as exc:
            self._unlisted = exc.code in PASSING_CODES
            raise
        self._unlisted = False
        self._fleet.instances += bought.instances

    def _configure(self) -> None:
        if len(self._fleet.instances) - len(self._leaving & self._ids()) == self._plan.spec.nodes:
            self._fleet.renumber(without=self._leaving)
        staying = [each for each in self._fleet.instances if each.instance_id not in self._leaving]
        self._set_up = True
        done = self._bring_up(self._plan.spec, staying)
        new = set(self._launched())
        if new and new <= set(done.lost):
            raise CloudError(f"no new node came up: {'; '.join(done.record.troubles)}")

    # -- when it fails ----------------------------------------------------------------------------------

    def _failed(self, exc: BaseException) -> BaseException:
        """Undo it; the error to raise."""
        why = "it was stopped" if isinstance(exc, Stopped) else str(exc) or repr(exc)
        self._pace = self._fleet.pace = self._pace.to_the_end()
        self._report("undoing", 0, why)
        try:
            became = self._undo(exc)
        except PpeError as further:
            became = f"undoing it failed too: {further}; mend it with: %ppe_retry {self._plan.name}"
        text = f"{self._plan.verb} of {self._plan.name!r} did not succeed ({became}): {why}"
        if isinstance(exc, CapacityError):
            return CapacityError(text, code=exc.code, operation=exc.operation, tried=exc.tried)
        if isinstance(exc, CloudError):
            return type(exc)(text, code=exc.code, operation=exc.operation)
        return CloudError(text) if isinstance(exc, PpeError | Stopped) else exc

    def _undo(self, exc: BaseException) -> str:
        """End what was launched, have the rest as it was, and say what the cluster is now."""
        verb, name, record = self._plan.verb, self._plan.name, self._record
        if isinstance(exc, CloudError) and exc.code == OTHER_CLIENT:
            return "another client is at the same"
        self._fleet.end(self._launched())
        idle = tags.busy(self._context.now())
        if verb == "start":
            self._park_again(record.master.instance_id)
            return "it is parked again"
        living = {each.instance_id for each in self._fleet.listed()}
        old = [each for each in self._fleet.before if each.instance_id in living]
        ran = record.state is ClusterState.RUNNING and not self._rebooting
        if verb in STATES:
            marks = {**idle, **tags.in_state(ClusterState.RUNNING if ran else ClusterState.CONFIGURING)}
        else:
            marks = {**idle, **tags.of_spec(record.spec or self._plan.spec)}
        self._fleet.tag([each.instance_id for each in old], marks)
        if not ran or len(old) < len(self._fleet.before):
            return f"see %ppe_status {name}; mend it with %ppe_retry {name}, or repeat it"
        if self._set_up:
            self._bring_up(record.spec or self._plan.spec, old)
        return "it is as it was"

    def _park_again(self, master: str) -> None:
        self._save(SaveWorkspace(must=False))
        self._fleet.stop([master])
        now = self._context.now()
        marks = {**tags.busy(now), **tags.in_state(ClusterState.PARKED)}
        if self._begun is not None and (spent := self._begun.at(now)) is not None:
            marks |= tags.of_cost(Cost(spent_usd=spent, usd_per_hour=self._record.usd_per_hour, since=now))
        self._fleet.tag([master], marks)
