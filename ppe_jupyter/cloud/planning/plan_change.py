"""plan_change: a cluster's record and a verb become the plan of changing it.

Pure: the same record, facts and options always make the same plan. What is wrong with the cluster is not raised:
it is among the plan's problems, and the plan then has no steps.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ... import catalog
from ...errors import UsageError
from ..plan import Plan
from ..records import ClusterRecord, ClusterState, InstanceState, Node
from ..steps import (
    AttachVolume,
    InstallRStudio,
    Promote,
    RebootInstances,
    SaveWorkspace,
    StartInstances,
    StopInstances,
    TerminateInstances,
)
from .draft import ChangeFacts, Draft, ids

VERBS = ("reboot", "park", "start", "resize", "retry", "terminate")
CHOICES = ("wait", "replace", "drop")
_S = ClusterState
_STOPPED = (InstanceState.STOPPING, InstanceState.STOPPED)


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
    """The plan of ``verb`` (one of VERBS) on the cluster.

    ``node`` is the only one to reboot (its index, instance id, host name or private address), ``nodes`` how many
    there are to be after resize or start, ``choice`` (one of CHOICES) what retry does with lost nodes. ``force``
    disregards another client at work, what runs on nodes that go, a workspace that cannot be saved, and the disk of a
    master that is there and does not answer. Raises UsageError for an unknown verb, node or choice.
    """
    draft = Draft(record, facts)
    if verb == "reboot":
        _reboot(draft, draft.nodes if node is None else [_named(record, node)], force=force)
    elif verb == "park":
        _park(draft, force=force)
    elif verb == "start":
        _start(draft, nodes)
    elif verb == "resize":
        if nodes is None:
            raise UsageError(f"to how many nodes? %ppe_resize {record.name} --nodes N")
        _resize(draft, nodes, force=force)
    elif verb == "retry":
        if choice not in CHOICES:
            raise UsageError(f"retry {choice!r}: it is one of {', '.join(CHOICES)}")
        _retry(draft, choice, force=force)
    elif verb == "terminate":
        _terminate(draft)
    else:
        raise UsageError(f"{verb!r} is none of {', '.join(VERBS)}")
    size = f" --nodes {nodes}" if nodes else ""
    if verb != "terminate" and not force and record.busy_until and facts.now < record.busy_until:
        draft.error(
            f"a client of {record.owner.split()[0]} may be at work on it till {record.busy_until:%H:%M} UTC; wait, "
            f"or, if that client is dead: %ppe_{verb} {record.name}{size} --force"
        )
    return draft.plan(verb)


# -- verbs --------------------------------------------------------------------------------------------------


def _reboot(draft: Draft, chosen: Collection[Node], *, force: bool) -> None:
    master = draft.master()
    if master is None:
        return
    state = draft.record.state
    if state not in (_S.RUNNING, _S.DEGRADED, _S.REBOOTING) or master.state is not InstanceState.RUNNING:
        start = f"; bring it back with: %ppe_start {draft.record.name}" if master.state in _STOPPED else ""
        draft.error(f"it is {state}: only a cluster that runs can be rebooted{start}")
        return
    asleep = [each for each in chosen if each.state is not InstanceState.RUNNING]
    chosen = [each for each in chosen if each not in asleep]
    if not chosen:
        said = ", ".join(f"node {each.index} is {each.state}" for each in asleep)
        draft.error(f"{said}: only what runs can be rebooted; mend it with: %ppe_retry {draft.record.name}")
    if master in chosen:
        draft.do(SaveWorkspace(must=not force))
        draft.warn("what runs on it ends, jobs and R's workers too; R's workspace is saved and loaded again")
    else:
        draft.warn("what runs there ends; R's workers there are lost, so close them first")
    draft.do(RebootInstances(instance_ids=ids(chosen)))
    draft.configure()


def _park(draft: Draft, *, force: bool) -> None:
    if draft.record.state is _S.PARKED:
        draft.nothing(f"{draft.record.name} is parked already")
        return
    master = draft.master()
    if master is None:
        return
    if master.spot:
        draft.error("its master is a spot instance, which cannot be stopped, only terminated")
    if draft.record.state in (_S.PENDING, _S.CONFIGURING):
        draft.error(f"it is {draft.record.state}: only a cluster that runs can be parked")
    if master.state is InstanceState.RUNNING:
        draft.do(SaveWorkspace(must=not force))
    workers = [each for each in draft.nodes if each is not master]
    if workers:
        draft.do(TerminateInstances(instance_ids=ids(workers)))
    draft.do(StopInstances(instance_ids=(master.instance_id,)))
    draft.nodes = [replace(master, state=InstanceState.STOPPED)]
    disk = catalog.disk_usd_per_hour(draft.spec.root_gb, draft.spec.root_type) * catalog.HOURS_PER_MONTH
    draft.info(f"what runs ends; home and results stay on the master's disk, ${disk:.2f} a month")


def _start(draft: Draft, nodes: int | None) -> None:
    record = draft.record
    if record.state is _S.RUNNING:
        draft.nothing(f"{record.name} is running already")
        return
    master = draft.master()
    if master is None:
        return
    if master.state not in _STOPPED:
        draft.error(f"it is {record.state}, not parked; mend it with: %ppe_retry {record.name}")
        return
    draft.set_size(nodes or record.wanted)
    draft.do(StartInstances(instance_ids=(master.instance_id,)))
    address = "to be given" if draft.public(master=True) else ""
    started = replace(master, state=InstanceState.RUNNING, public_ip=address)
    draft.nodes = [started, *(each for each in draft.nodes if each is not master)]
    draft.add(set(range(draft.spec.nodes)) - {each.index for each in draft.nodes})
    draft.configure()
    draft.info("the master's public address changes; R's workspace is loaded again, its workers are not")
    budget, spent = draft.spec.budget_usd, record.cost_so_far(draft.facts.now)
    if budget is not None and spent is not None and spent >= budget:
        draft.error(
            f"its budget of ${budget:.2f} is used up (${spent:.2f}): it would be parked at once; first raise it with: "
            f"%ppe_limit {record.name} --budget USD"
        )


def _resize(draft: Draft, nodes: int, *, force: bool) -> None:
    record = draft.record
    extra = [each for each in draft.nodes if each.index >= nodes]
    if record.state is _S.RUNNING and nodes == record.wanted == len(draft.nodes):
        draft.nothing(f"{record.name} has {nodes} nodes already")
        return
    if nodes < 1:
        draft.error(f"a cluster has one node at least; to end it: %ppe_terminate {record.name}")
        return
    if record.state in (_S.PARKED, _S.PARKING):
        draft.error(f"it is {record.state}; give it that size with: %ppe_start {record.name} --nodes {nodes}")
    elif record.state is not _S.RUNNING:
        draft.error(f"it is {record.state}; mend it first with: %ppe_retry {record.name}")
    if any(each.role == "master" for each in extra):
        draft.error(f"the master is node {extra[0].index}: that size does not leave it")
    draft.set_size(nodes)
    draft.nodes = [each for each in draft.nodes if each not in extra]
    draft.add(set(range(nodes)) - {each.index for each in draft.nodes})
    draft.configure()
    if not extra:
        draft.info("the R session lives on; its workers use the new nodes when they are spawned anew")
        return
    draft.do(TerminateInstances(instance_ids=ids(extra)))
    for each in extra:
        if what := draft.facts.busy.get(each.instance_id):
            said = f"node {each.index} runs {what}, which ends with it"
            if force:
                draft.warn(said)
            else:
                draft.error(f"{said}; close R's workers and wait for jobs first, or add --force")


def _terminate(draft: Draft) -> None:
    draft.do(TerminateInstances(instance_ids=ids(draft.nodes)))
    draft.nodes = []
    draft.info("all that is on its disks, its security group and its placement group go too")


def _retry(draft: Draft, choice: str, *, force: bool) -> None:
    record = draft.record
    if record.state in (_S.PARKED, _S.PARKING):
        draft.error(f"it is {record.state}; start it with: %ppe_start {record.name}")
        return
    lost = _lost(draft, patient=choice == "wait")
    without_rstudio = draft.spec.rstudio and not draft.facts.rstudio
    if record.state is _S.RUNNING and not lost and not draft.facts.silent:
        if without_rstudio:
            draft.do(InstallRStudio())
        else:
            draft.nothing(f"every node of {record.name} runs and answers")
        return
    for index, why in lost.items():
        draft.info(f"node {index} {why}")
    ending = [each for each in draft.nodes if each.index in lost]
    draft.nodes = [each for each in draft.nodes if each.index not in lost]
    if any(each.role == "master" and each.was_configured for each in ending):
        if not force:
            _keep_master(draft, choice)
            return
        draft.warn("the master's disk, with home and results, goes with it")
    if not draft.nodes and choice != "replace":
        draft.error(f"no node of it is left; remove the rest with: %ppe_terminate {record.name}")
        return
    if ending:
        draft.do(TerminateInstances(instance_ids=ids(ending)))
    if stopped := [each for each in draft.nodes if each.state in _STOPPED]:
        draft.do(StartInstances(instance_ids=ids(stopped)))
    new_master = _succeed(draft, lost, replacing=choice == "replace")
    if choice == "replace":
        draft.add(lost, master=new_master)
    elif choice == "drop":
        draft.set_size(len(draft.nodes))
    draft.configure()
    lost_master = any(each.role == "master" and each.index in lost for each in record.nodes)
    if lost_master:
        for volume_id, mount in draft.spec.mounts():
            draft.do(AttachVolume(volume_id=volume_id, mount=mount))
    if without_rstudio or (draft.spec.rstudio and lost_master):
        draft.do(InstallRStudio())


# -- losses -------------------------------------------------------------------------------------------------


def _lost(draft: Draft, *, patient: bool) -> dict[int, str]:
    """Why each lost node is lost, by index; with patience only those that are gone for good.

    That a node was never configured says nothing of it when the whole launch ended half-way.
    """
    found = {each.index: each for each in draft.nodes}
    launched = any(each.configured for each in draft.nodes)
    silent = draft.facts.silent
    lost = {}
    for index in range(max([draft.record.wanted - 1, *found]) + 1):
        node = found.get(index)
        if node is None:
            lost[index] = "is gone"
        elif patient:
            continue
        elif node.instance_id in silent:
            lost[index] = f"({node.instance_id}) does not answer: {silent[node.instance_id]}"
        elif node.state is not InstanceState.RUNNING:
            lost[index] = f"({node.instance_id}) is {node.state}"
        elif launched and not node.configured and not (node.role == "master" and node.was_configured):
            lost[index] = f"({node.instance_id}) was never configured"
    return lost


def _keep_master(draft: Draft, choice: str) -> None:
    """It may be this client's own network that is down: only the user gives up a disk with home and results."""
    name = draft.record.name
    draft.error(
        "the master is there, with home and results on its disk, and only does not answer: check your network, then "
        f"%ppe_retry {name} --wait; or stop and start it, its disk kept: %ppe_park {name} --force, then "
        f"%ppe_start {name}; or give up that disk: %ppe_retry {name} --{choice} --force"
    )


def _succeed(draft: Draft, lost: Collection[int], *, replacing: bool) -> int | None:
    """If the master is lost, make another node the master, or return 0: the new node of that index is to be it.

    A spot instance can be interrupted and cannot be parked: it becomes the master only when there is no other.
    """
    old = next((each for each in draft.record.nodes if each.role == "master"), None)
    if old is not None and old.index not in lost:
        return None
    reached = [each for each in draft.nodes if each.public_ip] or draft.nodes
    if replacing and 0 in lost and all(each.spot for each in reached):
        draft.warn("the master is lost with its disk: a new node takes its place, with a new R session")
        return 0
    heir = min(reached, key=lambda each: (each.spot, not each.up, each.index))
    draft.do(Promote(instance_id=heir.instance_id))
    draft.nodes = [replace(each, role="master" if each is heir else "worker") for each in draft.nodes]
    draft.warn(
        f"the master is lost with its disk: node {heir.index} becomes the master, with a new R session and none of "
        "its files"
    )
    return None


def _named(record: ClusterRecord, wanted: int | str) -> Node:
    """The node of that index, instance id, host name or private address. Raises UsageError."""
    for each in record.nodes:
        names = (str(each.index), each.instance_id, each.private_dns.partition(".")[0], each.private_ip)
        if each.state.alive and str(wanted) in names:
            return each
    raise UsageError(f"{record.name!r} has no node {wanted!r}; see its nodes with: %ppe_status {record.name}")
