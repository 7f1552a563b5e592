"""Instances of a local cloud for its tests: launched with boto3, reached over SSH, watched until a state."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3

from ppe_jupyter import errors, ssh
from ppe_jupyter.localcloud import Endpoint
from ppe_jupyter.localcloud.machines import container

TYPE = "c7a.2xlarge"  # 8 cores, 1 thread each, cluster placement groups


def client(endpoint: Endpoint, service: str = "ec2", **changes: Any) -> Any:
    wanted = {
        "endpoint_url": endpoint.url,
        "region_name": endpoint.region,
        "aws_access_key_id": endpoint.access_key,
        "aws_secret_access_key": endpoint.secret_key,
    }
    return boto3.client(service, **(wanted | changes))  # type: ignore[call-overload]


# What never comes costs a test so long (seconds); a machine with a load of ten needs much of it.
PATIENCE = 120.0


def until(condition: Callable[[], Any], *, seconds: float = PATIENCE) -> Any:
    """The first true value of the condition; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def connected(target: ssh.Target) -> ssh.Connection:
    """A connection, as soon as it answers with one of its keys."""
    # A packet to a machine that is only coming up is lost; a busy one takes its time.
    timeouts = (min(2 * 1.3**number, 60) for number in itertools.count())

    def attempt() -> ssh.Connection | None:
        with contextlib.suppress(errors.Unreachable, errors.AuthenticationRefused):
            return ssh.connect(target, timeout=next(timeouts))
        return None

    connection: ssh.Connection = until(attempt)
    return connection


def running_vcpus(ec2: Any) -> int:
    """Of the instances of other modules, which are on demand and of standard types."""
    running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = ec2.describe_instances(Filters=running)["Reservations"]
    types = [each["InstanceType"] for reservation in found for each in reservation["Instances"]]
    facts = ec2.describe_instance_types(InstanceTypes=sorted(set(types)))["InstanceTypes"]
    sizes = {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in facts}
    return sum(sizes[each] for each in types)


@contextlib.contextmanager
def memory_limit(instance_id: str, *, more: int) -> Iterator[int]:
    """Let the instance have so many bytes more than it has now; the limit."""
    memory = Path("/sys/fs/cgroup/memory")
    group = f"lxc.payload.{instance_id}"
    if memory.exists():
        used, limit, none = (
            memory / group / "memory.usage_in_bytes",
            memory / group / "memory.limit_in_bytes",
            "-1",
        )
    else:
        used, limit, none = (
            memory.parent / group / "memory.current",
            memory.parent / group / "memory.max",
            "max",
        )
    limit.write_text(str(int(used.read_text()) + more))
    try:
        yield int(limit.read_text())
    finally:
        limit.write_text(none)


def pull_the_plug(instance_id: str) -> None:
    """With its first process all others are killed: nothing is shut down."""
    os.kill(first_process(instance_id), signal.SIGKILL)


def first_process(instance_id: str) -> int:
    """The number that its init has outside."""
    for pid in container._processes(instance_id):
        status = Path(f"/proc/{pid}/status").read_text()
        if re.search(r"^NSpid:.*\s1$", status, re.MULTILINE):
            return pid
    raise AssertionError(f"{instance_id} does not run")


class Nodes:
    """Instances with a key pair and host key of their own; close() removes all of it."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.ec2 = client(endpoint)
        self.name = name
        self.key, self.host_key = ssh.generate_key_pair(), ssh.generate_key_pair()
        self.ids: list[str] = []
        self.ec2.import_key_pair(KeyName=name, PublicKeyMaterial=self.key.public.encode())
        self.group = self.ec2.create_security_group(GroupName=name, Description=name)["GroupId"]
        self.allow(IpRanges=[{"CidrIp": f"{endpoint.caller_address}/32"}])

    def allow(self, *, port: int = 22, **sources: Any) -> None:
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **sources}
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[permission])

    def launch(self, count: int = 1, *, config: str = "", **more: Any) -> list[str]:
        image = self.ec2.describe_images(Owners=["self"])["Images"][-1]["ImageId"]
        indented = self.host_key.private.replace("\n", "\n    ").rstrip()
        user_data = (
            "#cloud-config\nssh_deletekeys: true\nmanage_etc_hosts: false\nssh_keys:\n"
            f"  ed25519_public: {self.host_key.public}\n  ed25519_private: |\n    {indented}\n{config}"
        )
        wanted: dict[str, Any] = {
            "ImageId": image, "InstanceType": TYPE, "MinCount": count, "MaxCount": count,
            "KeyName": self.name, "SecurityGroupIds": [self.group], "UserData": user_data,
        }  # fmt: skip
        answer = self.ec2.run_instances(**(wanted | more))
        ids = [instance["InstanceId"] for instance in answer["Instances"]]
        self.ids += ids
        return ids

    def describe(self, instance_id: str) -> Any:
        answer = self.ec2.describe_instances(InstanceIds=[instance_id])
        return answer["Reservations"][0]["Instances"][0]

    def state(self, instance_id: str) -> str:
        return str(self.describe(instance_id)["State"]["Name"])

    def reaches(self, instance_id: str, state: str, *, seconds: float = PATIENCE) -> None:
        until(lambda: self.state(instance_id) == state, seconds=seconds)

    def address(self, instance_id: str) -> str:
        return str(self.describe(instance_id)["PrivateIpAddress"])

    def connect(self, instance_id: str) -> ssh.Connection:
        host, host_keys = self.address(instance_id), (self.host_key.public,)
        return connected(ssh.Target(host=host, user="admin", key=self.key.private, host_keys=host_keys))

    def run(self, instance_id: str, command: str) -> tuple[int, str]:
        """Status and output; 255 if the node went away meanwhile."""
        try:
            with self.connect(instance_id) as connection:
                done = connection.run(command, check=False)
        except errors.ConnectionLost:
            return 255, ""
        return done.status, (done.stdout + done.stderr).decode()

    def close(self) -> None:
        if self.ids:
            self.ec2.terminate_instances(InstanceIds=self.ids)
            for instance_id in self.ids:
                self.reaches(instance_id, "terminated")
        self.ec2.delete_security_group(GroupId=self.group)
        self.ec2.delete_key_pair(KeyName=self.name)
