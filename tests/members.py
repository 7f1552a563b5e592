"""Nodes that setup.py makes a cluster, without the client's own launch: user data, SSH to the master, a task."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from localcloud_nodes import Nodes, connected

from ppe_jupyter import ssh
from ppe_jupyter.cloud.userdata import NodeLimits, user_data
from ppe_jupyter.delivery import deliver
from ppe_jupyter.localcloud import Endpoint
from ppe_jupyter.remote.sessions.session import RemoteR

SLOTS = 2


@dataclass
class Member:
    """A node as setup.py is told of it."""

    index: int
    instance_id: str
    role: str
    launch_host_key: str
    private_ip: str
    private_dns: str
    slots: int = SLOTS
    host_key: str = ""
    configured: bool = False

    @property
    def name(self) -> str:
        return self.private_dns.split(".")[0]


class Members:
    """A cluster in the making; ``close`` removes all of it."""

    def __init__(self, endpoint: Endpoint, name: str, **limits: Any) -> None:
        self.nodes = Nodes(endpoint, name)
        members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.nodes.group}]}
        self.nodes.ec2.authorize_security_group_ingress(GroupId=self.nodes.group, IpPermissions=[members])
        self.cluster_key = ssh.generate_key_pair(f"ppe-{name}")
        self.limits = NodeLimits(**limits)
        self.members: list[Member] = []
        self._connection: ssh.Connection | None = None

    def launch(
        self,
        *indexes: int,
        master: int | None = None,
        market: Any = None,
        image: str = "",
        address: str = "",
        **options: Any,
    ) -> list[Member]:
        """Instances for these indexes, with a launch key of their own."""
        host_key = ssh.generate_key_pair()
        data = user_data(
            host_key=host_key,
            cluster_key=self.cluster_key.public,
            login_user="admin",
            limits=self.limits,
            **options,
        )
        more = {"InstanceMarketOptions": market, "ImageId": image, "PrivateIpAddress": address}
        ids = self.nodes.launch(
            len(indexes),
            UserData=data,
            InstanceInitiatedShutdownBehavior="terminate",
            **{key: value for key, value in more.items() if value},
        )
        made = [
            Member(
                index=index,
                instance_id=instance_id,
                role="master" if index == master else "worker",
                launch_host_key=host_key.public,
                private_ip=self.nodes.address(instance_id),
                private_dns=str(self.nodes.describe(instance_id)["PrivateDnsName"]),
            )
            for index, instance_id in zip(indexes, ids, strict=True)
        ]
        self.members = [each for each in self.members if each.index not in indexes] + made
        return made

    @property
    def master(self) -> Member:
        return next(each for each in self.members if each.role == "master")

    def stays(self) -> None:
        """The master's shutdown stops it; a worker's terminates it."""
        for each in self.members:
            behavior = "stop" if each.role == "master" else "terminate"
            self.nodes.ec2.modify_instance_attribute(
                InstanceId=each.instance_id, InstanceInitiatedShutdownBehavior={"Value": behavior}
            )

    def ssh(self) -> ssh.Connection:
        if self._connection is None or not self._connection.alive:
            master = self.master
            keys = (master.launch_host_key, *([master.host_key] if master.host_key else []))
            target = ssh.Target(
                host=master.private_ip, user="admin", key=self.nodes.key.private, host_keys=keys
            )
            self._connection = connected(target)
        return self._connection

    def reconnect(self) -> None:
        """The master is another node now, or was stopped: the old line may not know it yet."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def shell(self, command: str, *, check: bool = True) -> str:
        return self.ssh().run(command, timeout=60, check=check).stdout.decode()

    def elsewhere(self, member: Member, command: str) -> str:
        return self.ssh().run(f"ssh {member.name} sh", stdin=command.encode(), timeout=60).stdout.decode()

    def r(self, **options: Any) -> RemoteR:
        return RemoteR(self.ssh(), **options)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.shell("python3 ~/.ppe/node/agent.py status")))

    def task(self, **changes: Any) -> dict[str, Any]:
        keys = (
            "index",
            "instance_id",
            "private_ip",
            "private_dns",
            "slots",
            "role",
            "launch_host_key",
            "host_key",
            "configured",
        )
        return {
            "cluster": self.nodes.name,
            "login_user": "admin",
            "subnet_cidr": str(self.subnet()["CidrBlock"]),
            "cluster_private_key": self.cluster_key.private,
            "nodes": [{key: getattr(each, key) for key in keys} for each in self.members],
            "patience_seconds": 60,
            "shared": {"kind": "bind"},
            **changes,
        }

    def subnet(self) -> Any:
        subnet = self.nodes.describe(self.master.instance_id)["SubnetId"]
        return self.nodes.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]

    def free_address(self) -> str:
        """One of the subnet's that no node has."""
        return str(ipaddress.ip_network(self.subnet()["CidrBlock"])[250])

    def set_up(self, **changes: Any) -> list[dict[str, Any]]:
        """The events of setup.py."""
        deliver(self.ssh())
        events = self.run_setup("", self.task(**changes))
        if events[-1]["event"] == "done":
            for each in self.members:
                each.host_key = events[-1]["host_keys"].get(each.private_ip, "")
                each.configured = bool(each.host_key)
        return events

    def run_setup(self, action: str, task: dict[str, Any]) -> list[dict[str, Any]]:
        done = self.ssh().run(
            f"python3 ~/.ppe/node setup {action}",
            stdin=json.dumps(task).encode(),
            timeout=280,
            check=False,
        )
        assert not done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def close(self) -> None:
        self.nodes.close()
