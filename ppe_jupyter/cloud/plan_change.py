"""plan_change: a cluster's record and a verb become the plan of changing it.

Pure: the same record, facts and options always make the same plan. Never raises for what is wrong with the
cluster: that is among the plan's problems, and the plan then has no steps. Indices have no holes: what is added
goes on counting, and who is left after a loss moves down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from .. import catalog
from ..catalog import InstanceType
from ..errors import UsageError
from .facts import Caps, Image, Subnet
from .plan import Grade, Plan, Problem
from .records import ClusterRecord, ClusterState, InstanceState, Node, usd_per_hour
from .spec import ClusterSpec
from .steps import (
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

CHOICES = ("wait", "replace", "drop")
_S = ClusterState
_STOPPED = (InstanceState.STOPPING, InstanceState.STOPPED)


@dataclass(frozen=True, kw_only=True)
class ChangeFacts:
    """What a change is decided from, beside the record; what only new nodes need may be missing otherwise.

    ``subnet`` is the cluster's. ``silent`` says why a node that runs does not answer, ``busy`` what the user runs
    on a node beside the R session itself; both by instance id.
    """

    now: datetime
    caps: Caps = field(default_factory=Caps)
    subnet: Subnet | None = None
    image: Image | None = None
    instance_type: InstanceType | None = None
    silent: Mapping[str, str] = field(default_factory=dict)
    busy: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Draft:
    """A plan in the making; ``nodes`` are those that there will be, ``nothing`` why there is nothing to do."""

    spec: ClusterSpec
    nodes: list[Node]
    steps: list[Step] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    nothing: str = ""

    def error(self, text: str) -> None:
        self.problems.append(Problem(Grade.ERROR, text))

    def warn(self, text: str) -> None:
        self.problems.append(Problem(Grade.WARNING, text))

    def info(self, text: str) -> None:
        self.problems.append(Problem(Grade.INFO, text))


def plan_change(
    record: ClusterRecord,
    verb: str,
    facts: ChangeFacts,
    *,
    node: int | str | None = None,
    nodes: int | None = None,
    choice: str = "wait",
    force: bool = False,
) -> Plan:
    """The plan of ``verb`` on the cluster: reboot, park, start, resize, retry or terminate.

    ``node`` is the only one to reboot (its index, instance id or host name), ``nodes`` how many there are to be after
    resize or start, ``choice`` what retry does with lost nodes. ``force`` disregards another client at work, and
    what runs on nodes that go. Raises UsageError for an unknown verb, node or choice.
    """
    draft = _Draft(spec=_spec(record), nodes=[each for each in record.nodes if each.state.alive])
    if verb == "reboot":
        _reboot(draft, record, facts, node)
    elif verb == "park":
        _park(draft, record)
    elif verb == "start":
        _start(draft, record, facts, nodes)
    elif verb == "resize" and nodes is not None:
        _resize(draft, record, facts, nodes, force=force)
    elif verb == "retry" and choice in CHOICES:
        _retry(draft, record, facts, choice)
    elif verb == "terminate":
        _terminate(draft, record)
    else:
        raise UsageError(f"{verb} {choice if verb == 'retry' else ''} is not understood".replace("  ", " "))
    if verb != "terminate" and not force and record.busy_until and facts.now < record.busy_until:
        draft.error(
            f"{record.owner} may be at work on it till {record.busy_until:%H:%M} UTC; wait, or, if that client "
            f"is dead: %ppe_{verb} {record.name} --force"
        )
    return _finished(draft, record, verb)


def _finished(draft: _Draft, record: ClusterRecord, verb: str) -> Plan:
    if draft.nothing:
        draft.steps, draft.problems = [], [Problem(Grade.INFO, draft.nothing)]
    if any(problem.grade is Grade.ERROR for problem in draft.problems):
        draft.steps = []
    return Plan(
        verb=verb,
        spec=draft.spec,
        name=record.name,
        owner=record.owner,
        steps=tuple(draft.steps),
        usd_per_hour=usd_per_hour(draft.nodes, root_gb=draft.spec.root_gb),
        problems=tuple(draft.problems),
        existing=record,
        slots=_slots(record),
        key_name=record.key_name,
    )


# -- verbs ----------------------------------------------------------------------------------------------------


def _reboot(draft: _Draft, record: ClusterRecord, facts: ChangeFacts, node: int | str | None) -> None:
    chosen = draft.nodes if node is None else [_named(record, node)]
    master = _usable_master(draft, record, facts)
    if master is None or record.state not in (_S.RUNNING, _S.DEGRADED, _S.REBOOTING):
        draft.error(f"it is {record.state}: only a cluster that runs can be rebooted")
        return
    chosen = [each for each in chosen if each.state is InstanceState.RUNNING]
    if master in chosen:
        draft.steps.append(SaveWorkspace())
        draft.warn("what runs on it ends, jobs and R's workers too; R's workspace is saved and loaded again")
    else:
        draft.warn("what runs there ends; R's workers on it are lost, so close them first")
    draft.steps.append(RebootInstances(instance_ids=_ids(chosen)))
    draft.steps.append(_configure(draft, record))


def _park(draft: _Draft, record: ClusterRecord) -> None:
    if record.state is _S.PARKED:
        draft.nothing = f"{record.name} is parked already"
        return
    master = _alive_master(draft, record)
    if master is None:
        return
    if master.spot:
        draft.error("its master is a spot instance, which cannot be stopped: only terminated")
    if record.state not in (_S.RUNNING, _S.DEGRADED, _S.PARKING, _S.REBOOTING):
        draft.error(f"it is {record.state}: only a cluster that runs can be parked")
    if master.state is InstanceState.RUNNING:
        draft.steps.append(SaveWorkspace())
    workers = [each for each in draft.nodes if each is not master]
    if workers:
        draft.steps.append(TerminateInstances(instance_ids=_ids(workers)))
    draft.steps.append(StopInstances(instance_ids=(master.instance_id,)))
    draft.nodes = [replace(master, state=InstanceState.STOPPED)]
    disk = catalog.disk_usd_per_hour(draft.spec.root_gb) * catalog.HOURS_PER_MONTH
    draft.info(f"what runs ends; home and results stay on the master's disk, ${disk:.2f} a month")


def _start(draft: _Draft, record: ClusterRecord, facts: ChangeFacts, nodes: int | None) -> None:
    if record.state is _S.RUNNING:
        draft.nothing = f"{record.name} is running already"
        return
    master = _alive_master(draft, record)
    if master is None:
        return
    if master.state not in _STOPPED:
        draft.error(f"it is {record.state}, not parked; mend it with: %ppe_retry {record.name}")
        return
    _set_nodes(draft, nodes or record.wanted)
    draft.steps.append(StartInstances(instance_ids=(master.instance_id,)))
    started = replace(master, state=InstanceState.RUNNING, public_ip=_address(draft.spec, facts, master=True))
    workers = [each for each in draft.nodes if each is not master]
    missing = set(range(draft.spec.nodes)) - {each.index for each in draft.nodes}
    draft.nodes = [started, *workers]
    _add(draft, record, facts, missing)
    draft.steps.append(_configure(draft, record))
    _check_budget(draft, record, facts)
    draft.info(
        "the master gets a new public address; R's workspace is loaded again, its workers are to be spawned"
    )


def _resize(draft: _Draft, record: ClusterRecord, facts: ChangeFacts, nodes: int, *, force: bool) -> None:
    extra = [each for each in draft.nodes if each.index >= nodes]
    if nodes == record.wanted == len(draft.nodes) and record.state is _S.RUNNING:
        draft.nothing = f"{record.name} has {nodes} nodes already"
        return
    if nodes < 1:
        draft.error("a cluster has one node at least; to end it: %ppe_terminate " + record.name)
        return
    if record.state is _S.PARKED:
        draft.error(f"it is parked; give it that size with: %ppe_start {record.name} --nodes {nodes}")
    elif record.state is not _S.RUNNING and not (force and record.state is _S.CONFIGURING):
        draft.error(f"it is {record.state}; mend it first with: %ppe_retry {record.name}")
    if any(each.role == "master" for each in extra):
        draft.error(f"the master is node {record.master.index}, which that size does not leave")
    _set_nodes(draft, nodes)
    draft.nodes = [each for each in draft.nodes if each not in extra]
    if extra:
        draft.steps.append(_configure(draft, record))
        draft.steps.append(TerminateInstances(instance_ids=_ids(extra)))
        _warn_of_work(draft, facts, extra, force=force)
        return
    _add(draft, record, facts, set(range(nodes)) - {each.index for each in draft.nodes})
    draft.steps.append(_configure(draft, record))
    draft.info(
        "the R session lives on; it can use the new nodes after %remote_restart, which keeps the workspace"
    )


def _retry(draft: _Draft, record: ClusterRecord, facts: ChangeFacts, choice: str) -> None:
    if record.state in (_S.PARKED, _S.PARKING):
        draft.error(f"it is {record.state}; start it with: %ppe_start {record.name}")
        return
    lost = _lost(record, facts, patient=choice == "wait")
    if record.state is _S.RUNNING and not lost:
        draft.nothing = f"every node of {record.name} runs and answers"
        return
    kept = [each for each in draft.nodes if each.index not in lost]
    if not kept and (choice != "replace" or not draft.nodes):
        draft.error(f"no node of it is left; remove the rest with: %ppe_terminate {record.name}")
        return
    for index, why in lost.items():
        draft.info(f"node {index} {why}")
    ending = [each for each in draft.nodes if each.index in lost and choice != "wait"]
    stopped = [each for each in kept if each.state in _STOPPED]
    if ending:
        draft.steps.append(TerminateInstances(instance_ids=_ids(ending)))
    if stopped:
        draft.steps.append(StartInstances(instance_ids=_ids(stopped)))
    draft.nodes = kept
    new_master = _succeed(draft, record, lost, replacing=choice == "replace")
    if choice == "replace":
        _add(draft, record, facts, lost, master=new_master)
    elif choice == "drop":
        _set_nodes(draft, len(kept))
    draft.steps.append(_configure(draft, record))


def _terminate(draft: _Draft, record: ClusterRecord) -> None:
    draft.steps.append(TerminateInstances(instance_ids=_ids(draft.nodes)))
    draft.nodes = []
    draft.info("its disks, with all that is on them, its security group and its placement group go too")


# -- nodes ----------------------------------------------------------------------------------------------------


def _lost(record: ClusterRecord, facts: ChangeFacts, *, patient: bool) -> dict[int, str]:
    """Why each lost node is lost, by index; with patience only those that are gone for good, and those silent.

    That a node was never configured says nothing of it when the whole launch ended half-way.
    """
    found = {each.index: each for each in record.nodes if each.state.alive}
    launched = any(each.configured for each in found.values())
    lost = {}
    for index in range(max([record.wanted - 1, *found]) + 1):
        node = found.get(index)
        if node is None:
            lost[index] = "is gone"
        elif patient:
            continue
        elif node.instance_id in facts.silent:
            lost[index] = f"({node.instance_id}) does not answer: {facts.silent[node.instance_id]}"
        elif node.state is not InstanceState.RUNNING:
            lost[index] = f"({node.instance_id}) is {node.state}"
        elif launched and not node.configured:
            lost[index] = f"({node.instance_id}) was never configured"
    return lost


def _succeed(draft: _Draft, record: ClusterRecord, lost: Collection[int], *, replacing: bool) -> int | None:
    """If the master is lost, make another node the master; the index of a new one that is to be it, else None.

    A spot instance can be interrupted and not be parked, so it becomes the master only if nothing else is left.
    """
    old = next((each for each in record.nodes if each.role == "master"), None)
    if old is not None and old.index not in lost:
        return None
    reached = [each for each in draft.nodes if each.public_ip] or draft.nodes
    able = [each for each in reached if not (replacing and each.spot)]
    if not able:
        draft.warn("the master is lost: a new node takes its place, with a new R session")
        return 0
    heir = min(able, key=lambda each: (each.spot, not each.up, each.index))
    draft.steps.append(Promote(instance_id=heir.instance_id))
    draft.nodes = [replace(each, role="master" if each is heir else "worker") for each in draft.nodes]
    draft.warn(
        f"the master is lost with its disk: node {heir.index} becomes the master, with a new R session and none "
        "of the old one's files"
    )
    return None


def _add(
    draft: _Draft,
    record: ClusterRecord,
    facts: ChangeFacts,
    indices: Collection[int],
    *,
    master: int | None = None,
) -> None:
    """Run new nodes under these indices, ``master`` (if given) as the master; cap by the settings."""
    for wanted, what in [
        (record.spec, "its specification, a tag, is damaged"),
        (facts.image, "its image is gone"),
        (facts.subnet, "its subnet is gone"),
    ]:
        if indices and not wanted:
            draft.error(f"nodes cannot be added: {what}")
            return
    for first, count in _ranges(indices, apart=master):
        step = _run_step(draft.spec, record, facts, first, count, master=first == master)
        draft.steps.append(step)
        draft.nodes += _to_be(record, step, draft.spec, facts, master=first == master)
    rate = usd_per_hour(draft.nodes, root_gb=draft.spec.root_gb)
    most = facts.caps.max_usd_per_hour
    if facts.caps.max_nodes is not None and len(draft.nodes) > facts.caps.max_nodes:
        draft.error(f"{len(draft.nodes)} nodes are more than max_nodes = {facts.caps.max_nodes} allows")
    if most is not None and (rate is None or rate > most):
        said = "an unknown price" if rate is None else f"${rate:.3f} an hour"
        draft.error(f"{said} is more than max_usd_per_hour = {most:g} allows")


def _run_step(
    spec: ClusterSpec, record: ClusterRecord, facts: ChangeFacts, first: int, count: int, *, master: bool
) -> RunInstances:
    assert facts.image and facts.subnet
    kind = facts.instance_type
    spot = spec.spot and not master
    return RunInstances(
        count=count,
        first_index=first,
        instance_type=spec.instance_type,
        image=facts.image,
        subnets=(facts.subnet,),
        root_gb=spec.root_gb,
        cores=kind.cores if kind and kind.one_thread_per_core and spec.threads_per_core != 2 else None,
        public=bool(_address(spec, facts, master=master)),
        spot=spot,
        spot_max_usd=spec.spot_max_usd if spot else None,
        spot_fallback=spot and spec.spot_fallback,
        price=_price(record, spec.instance_type, spot=spot),
    )


def _to_be(
    record: ClusterRecord, step: RunInstances, spec: ClusterSpec, facts: ChangeFacts, *, master: bool
) -> Iterator[Node]:
    """What the step's nodes will be, as far as a price needs it."""
    for index in range(step.first_index, step.first_index + step.count):
        yield replace(
            record.nodes[0],
            instance_id="",
            index=index,
            role="master" if master else "worker",
            state=InstanceState.RUNNING,
            public_ip=_address(spec, facts, master=master),
            price=step.price,
            spot=step.spot,
        )


def _address(spec: ClusterSpec, facts: ChangeFacts, *, master: bool) -> str:
    """Something, if such a node gets a public address."""
    wanted = spec.public_addresses == "all" or (master and spec.public_addresses == "master")
    return "public" if wanted and facts.subnet is not None and facts.subnet.public else ""


def _price(record: ClusterRecord, instance_type: str, *, spot: bool) -> float | None:
    """As the cluster's own nodes of that kind were priced, else the catalog's."""
    own = [each.price for each in record.nodes if each.spot == spot and each.price is not None]
    return own[0] if own else catalog.usd_per_hour(instance_type, root_gb=0, public_address=False)


def _ranges(indices: Iterable[int], *, apart: int | None) -> Iterator[tuple[int, int]]:
    """(first, count) of each unbroken run: one request each; the index ``apart`` alone."""
    first = count = 0
    for index in sorted(indices):
        if count and index == first + count and first != apart and index != apart:
            count += 1
            continue
        if count:
            yield first, count
        first, count = index, 1
    if count:
        yield first, count


def renumbered(nodes: Iterable[Node]) -> dict[str, int]:
    """New indices by instance id, so that there are no holes: the last move into them, the others stay."""
    nodes = sorted(nodes, key=lambda each: each.index)
    holes = iter(sorted(set(range(len(nodes))) - {each.index for each in nodes}))
    return {each.instance_id: next(holes) for each in nodes if each.index >= len(nodes)}


# -- what is said -----------------------------------------------------------------------------------------------


def _usable_master(draft: _Draft, record: ClusterRecord, facts: ChangeFacts) -> Node | None:
    """The master, if it runs; one that is silent may come back by a reboot."""
    master = _alive_master(draft, record)
    return master if master is not None and master.state is InstanceState.RUNNING else None


def _alive_master(draft: _Draft, record: ClusterRecord) -> Node | None:
    for each in draft.nodes:
        if each.role == "master":
            return each
    draft.error(f"it has lost its master; mend it with: %ppe_retry {record.name} replace")
    return None


def _warn_of_work(draft: _Draft, facts: ChangeFacts, nodes: Iterable[Node], *, force: bool) -> None:
    for each in nodes:
        if what := facts.busy.get(each.instance_id):
            said = f"node {each.index} ({each.instance_id}) runs {what}, which ends with it"
            if force:
                draft.warn(said)
            else:
                draft.error(f"{said}; close R's workers and wait for jobs first, or add --force")


def _check_budget(draft: _Draft, record: ClusterRecord, facts: ChangeFacts) -> None:
    budget, spent = draft.spec.budget_usd, record.cost_so_far(facts.now)
    if budget is not None and spent is not None and spent >= budget:
        draft.error(
            f"its budget of ${budget:.2f} is used up (${spent:.2f}): the watchdog would park it at once"
        )


def _spec(record: ClusterRecord) -> ClusterSpec:
    if record.spec is not None:
        return record.spec
    return ClusterSpec(name=record.name, nodes=len(record.nodes), instance_type=record.nodes[0].instance_type)


def _set_nodes(draft: _Draft, nodes: int) -> None:
    """A master alone has no spot workers."""
    if nodes == 1 and draft.spec.spot:
        draft.spec = replace(draft.spec, nodes=1, spot=False, spot_max_usd=None, spot_fallback=False)
    else:
        draft.spec = replace(draft.spec, nodes=nodes)


def _configure(draft: _Draft, record: ClusterRecord) -> Configure:
    return Configure(nodes=len(draft.nodes), slots=_slots(record))


def _slots(record: ClusterRecord) -> int:
    return max((each.slots for each in record.nodes), default=1)


def _ids(nodes: Iterable[Node]) -> tuple[str, ...]:
    return tuple(each.instance_id for each in nodes)


def _named(record: ClusterRecord, wanted: int | str) -> Node:
    """The node of that index, instance id or host name. Raises UsageError."""
    for each in record.nodes:
        names = (str(each.index), each.instance_id, each.private_dns.partition(".")[0], each.private_ip)
        if each.state.alive and str(wanted) in names:
            return each
    raise UsageError(
        f"{record.name!r} has no node {wanted!r}; it has 0 to {len(record.nodes) - 1}, see: %ppe_status"
    )
