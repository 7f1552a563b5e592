"""How launching grows with the cluster: times at 3, 8 and 16 nodes, SSH connections, API calls; in one run.

Run by `make bench`; prints a table and adds to build/bench.json. The 500 instances are records without containers:
what counts there is the calls, polling apart.

On few cores the time of a large launch is processor time. Of the 0.75 core-seconds that each node more takes on two
busy cores, cloud-init has 0.38, Python on the node (joining, MPI's check, dead-man timer) 0.20, its orteds 0.04; the
rest is sshd, and the master's, the client's and the daemon's part.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import replace
from typing import Any

from results import add

import ppe_jupyter as ppe
from ppe_jupyter import errors, localcloud, ssh
from ppe_jupyter.cloud.account import Account
from ppe_jupyter.cloud.context import Connect
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

TYPE = "m5.large"
SIZES = (3, 8, 16)
ROUNDS = 3
# Whose number follows from the time that instances take, not from how many there are.
POLLS = ("DescribeInstances", "DescribeInstanceStatus")


def connecting_by(connect: Connect) -> Manager:
    """A manager that connects so."""
    manager = Manager()
    manager.__dict__["_account"] = Account(replace(manager._account.context, connect=connect))
    return manager


def launch_seconds(manager: Manager, nodes: int) -> float:
    """The time of one launch; the cluster is terminated again."""
    plan = manager.plan(ppe.ClusterSpec(nodes=nodes, instance_type=TYPE, idle_hours=0))
    started = time.perf_counter()
    cluster = manager.launch(plan)
    seconds = time.perf_counter() - started
    cluster.terminate()
    return seconds


def connections(nodes: int) -> int:
    """SSH connections of the client for a launch and an evaluation."""
    made = []

    def connect(*args: Any, **kwargs: Any) -> ssh.Connection:
        made.append(ssh.connect(*args, **kwargs))
        return made[-1]

    cluster = connecting_by(connect).launch(ppe.ClusterSpec(nodes=nodes, instance_type=TYPE))
    cluster.r().eval("1 + 1")
    cluster.terminate()
    return len(made)


def api_calls(endpoint: localcloud.Endpoint, nodes: int) -> tuple[int, int]:
    """Calls of a plan and launch of so many instances, without and with polling.

    Records stand for them until sshd would be asked; what comes after that, tags and the master's behaviour at
    shutdown, is counted at a launch of two real nodes.
    """
    marks: list[int] = []

    def count(target: ssh.Target, **options: Any) -> ssh.Connection:
        marks.append(len(hooks.calls(endpoint)))
        return ssh.connect(target, **options)

    def refuse(target: ssh.Target, **_: Any) -> ssh.Connection:
        marks.append(len(hooks.calls(endpoint)))
        raise errors.HostKeyMismatch("records have no sshd", host=target.host)

    hooks.reset(endpoint)
    cluster = connecting_by(count).launch(ppe.ClusterSpec(nodes=2, instance_type=TYPE))
    after = hooks.calls(endpoint)[marks[-1] :]
    cluster.terminate()
    hooks.reset(endpoint)
    hooks.set_containerless(endpoint, True)
    with contextlib.suppress(errors.LaunchFailed):
        connecting_by(refuse).launch(ppe.ClusterSpec(nodes=nodes, instance_type=TYPE))
    calls = hooks.calls(endpoint)[: marks[-1]] + after
    hooks.reset(endpoint)
    return sum(call not in POLLS for call in calls), len(calls)


def main() -> None:
    """Measure and print."""
    manager = Manager()
    endpoint = localcloud.ensure(manager.settings)
    launch_seconds(manager, 2)  # what is only the first time slow
    rounds = [{nodes: launch_seconds(manager, nodes) for nodes in SIZES} for _ in range(ROUNDS)]
    median = {nodes: statistics.median(each[nodes] for each in rounds) for nodes in SIZES}
    made, polled = api_calls(endpoint, 500)
    found = {
        **{f"launch_{nodes}_seconds": median[nodes] for nodes in SIZES},
        "launch_8_vs_3": statistics.median(each[8] / each[3] for each in rounds),
        "launch_16_vs_3": statistics.median(each[16] / each[3] for each in rounds),
        "launch_connections_16": connections(16),
        "launch_api_calls_500": made,
        "launch_api_calls_500_with_polling": polled,
    }
    add(found)


if __name__ == "__main__":
    main()
