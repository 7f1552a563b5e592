"""What a launch costs does not grow with its size: API calls, SSH connections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import ppe_jupyter as ppe
from ppe_jupyter import ssh
from ppe_jupyter.cloud.account import Account
from ppe_jupyter.cloud.context import Connect
from ppe_jupyter.errors import HostKeyMismatch, LaunchFailed
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint

MOST_CALLS = 25


def connecting_by(connect: Connect) -> Manager:
    manager = Manager()
    manager.__dict__["_account"] = Account(replace(manager._account.context, connect=connect))
    return manager


def test_five_hundred_instances_are_planned_and_launched_by_a_few_calls(local_cloud: Endpoint) -> None:
    """Instances without containers: up to the moment at which the master's sshd would be asked."""
    hooks.reset(local_cloud)
    hooks.set_containerless(local_cloud, True)
    reached: list[list[str]] = []

    def connect(target: ssh.Target, **_: Any) -> ssh.Connection:
        reached.append(hooks.calls(local_cloud))
        raise HostKeyMismatch("records have no sshd", host=target.host)

    try:
        with pytest.raises(LaunchFailed, match="Everything it had made was removed"):
            connecting_by(connect).launch(ppe.ClusterSpec(nodes=500, instance_type="m5.xlarge"))
    finally:
        hooks.reset(local_cloud)
    calls = reached[0]
    assert calls.count("RunInstances") == 1
    # One describe call lists them before, and polling is one for each interval whatever the size.
    assert sum(call != "DescribeInstances" for call in calls) <= MOST_CALLS - 3, calls
    assert calls.count("DescribeInstances") <= 10, calls


@pytest.mark.slow
def test_sixteen_nodes_are_reached_by_one_connection(local_cloud: Endpoint) -> None:
    made = []

    def connect(target: ssh.Target, **options: Any) -> ssh.Connection:
        made.append(ssh.connect(target, **options))
        return made[-1]

    cluster = connecting_by(connect).launch(ppe.ClusterSpec(nodes=16, instance_type="m5.large"))
    try:
        hello = "mpirun --hostfile ~/ompi-hostfile --map-by ppr:1:node hostname"
        names = cluster.ssh().run(hello, timeout=60).stdout.decode().split()
        assert sorted(names) == sorted(node.private_dns.split(".")[0] for node in cluster.nodes)
        assert cluster.r().eval("Rmpi::mpi.universe.size()") == 16 + 1  # R itself takes no slot of the users'
        assert len(made) == 1
    finally:
        cluster.terminate()
