"""Reboot: nodes of a running cluster, until each has really been booted anew.

EC2 only queues a reboot, and an instance's state stays ``running`` all the while: the one proof is another boot id.
Must not know what is to be done with the nodes then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ... import ssh
from ...errors import CloudError, RemoteError
from ..access import target
from ..context import Context
from ..launching.boot import PhaseReport
from ..launching.probe import boot_id, probe
from ..pace import Pace
from ..records import ClusterRecord, Node

# While a machine goes down and up, a packet is lost rather than refused: short tries.
TRY_SECONDS = 5.0


def reboot(
    context: Context,
    master: ssh.Connection,
    record: ClusterRecord,
    instance_ids: Sequence[str],
    *,
    pace: Pace,
    report: PhaseReport,
) -> dict[str, str]:
    """Reboot these nodes and wait for them; why each that did not come back is lost, by id.

    ``master`` is cut if the master is among them. Raises CloudError when the master does not come back.
    """
    chosen = [each for each in record.nodes if each.instance_id in instance_ids]
    workers = [each for each in chosen if each.role != "master"]
    before = {instance_id: seen.boot for instance_id, seen in probe(master, chosen).items()}
    masters = boot_id(master)
    deadline = pace.elapsed + context.settings.boot_timeout
    report("rebooting", 0, "")
    context.ec2.reboot_instances(instance_ids)
    back = len(chosen) - len(workers)
    if back:
        master.close()
        master = _master_again(context, record, masters, deadline, pace)
    late = _late(master, workers, before, deadline, pace, lambda up: report("rebooting", back + up, ""))
    if back:
        master.close()
    return late


def _master_again(
    context: Context, record: ClusterRecord, before: str, deadline: float, pace: Pace
) -> ssh.Connection:
    """A connection to the master after its reboot."""
    key = context.keys.opening(record.key_name)
    wanted = target(context, record.master, user=record.login_user, key=key)
    timeout = min(TRY_SECONDS, context.settings.connect_timeout)
    why = "it was not rebooted"
    for last in pace.tries(seconds=deadline - pace.elapsed, longest=1.0):
        try:
            connection = context.connect(wanted, timeout=timeout)
            if boot_id(connection) != before:
                return connection
            connection.close()
        except (RemoteError, TimeoutError) as exc:
            why = str(exc)
        if last:
            raise CloudError(f"the master did not come back from its reboot: {why}")
    raise AssertionError("the last try returns or raises")


def _late(
    master: ssh.Connection,
    workers: Sequence[Node],
    before: dict[str, str],
    deadline: float,
    pace: Pace,
    report_up: Callable[[int], None],
) -> dict[str, str]:
    """Why each worker that is not back when the time is over is not."""
    late = {each.instance_id: "it was not rebooted" for each in workers}
    for last in pace.tries(seconds=deadline - pace.elapsed, longest=5.0):
        waiting = [each for each in workers if each.instance_id in late]
        for instance_id, seen in probe(master, waiting).items() if waiting else ():
            if seen.error:
                late[instance_id] = seen.error
            elif seen.boot != before.get(instance_id):
                del late[instance_id]
        report_up(len(workers) - len(late))
        if last or not late:
            break
    return late
