"""A cluster without public addresses, launched and used through a jump host that is no part of it."""

from __future__ import annotations

import shlex
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from localcloud_nodes import Nodes

from ppe_jupyter import ssh
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import SpecError, Unreachable
from ppe_jupyter.manager import Manager

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings


@pytest.fixture
def jump_host(
    local_cloud: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Nodes, str]]:
    """An instance in a security group of its own; the user's OpenSSH knows how to get into it."""
    nodes = Nodes(local_cloud, "jump")
    (instance,) = nodes.launch()
    nodes.connect(instance).close()
    address, private = nodes.address(instance), tmp_path / "key"
    private.write_text(nodes.key.private)
    private.chmod(stat.S_IRUSR)
    (tmp_path / "known_hosts").write_text(f"{address} {nodes.host_key.public}\n")
    options = f"-i {private} -o UserKnownHostsFile={tmp_path}/known_hosts"
    openssh = tmp_path / "ssh"
    openssh.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {options} "$@"\n')
    openssh.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    yield nodes, instance
    nodes.close()


@pytest.fixture
def jump(jump_host: tuple[Nodes, str]) -> str:
    """Its address."""
    nodes, instance = jump_host
    return nodes.address(instance)


@pytest.mark.slow
def test_a_private_cluster_is_launched_through_a_jump_host(
    settings: Settings, jump: str, tmp_path: Path
) -> None:
    manager = Manager(replace(settings, proxy_jump=f"admin@{jump}", connect_timeout=5.0, boot_timeout=900.0))
    spec = ClusterSpec(name="hidden", nodes=2, instance_type="m5.large", public_addresses="none")
    with pytest.raises(SpecError, match=r"SSH comes from the jump host.*--from ADDRESS/32"):
        manager.plan(spec).check()
    cluster = manager.launch(replace(spec, caller_cidr=f"{jump}/32"))
    try:
        assert cluster.master.public_ip == ""
        assert cluster.r().eval("6 * 7") == 42
        told = cluster.ssh().run("cat /etc/ppe/deadman.json; sudo cat /etc/ppe/member.json").stdout.decode()
        assert (
            told.count('"silence_seconds": 1020.0') == 2
        )  # a node waits for its master as long as this client
        came_from = cluster.ssh().run("echo $SSH_CONNECTION").stdout.decode().split()[0]
        assert came_from == jump
        worker = cluster.nodes[1]
        assert (worker.public_ip, worker.up) == ("", True)
        told = tmp_path / "told"
        command = f"sh -c 'echo %i > {told}; exec ssh -W %h:%p admin@{jump}'"
        other = Manager(replace(settings, proxy_command=command)).cluster("hidden")
        for line in (cluster.ssh_command(worker), other.ssh_command(worker)):
            options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "hostname -I"]
            ran = subprocess.run(
                ["/usr/bin/ssh", *shlex.split(line)[1:], *options], capture_output=True, text=True
            )
            assert ran.stdout.strip() == worker.private_ip, ran.stderr
        assert told.read_text().strip() == worker.instance_id
        key, keys = manager._account.context.keys.private(cluster.record.key_name), (cluster.master.host_key,)
        with pytest.raises(Unreachable):  # there is no other way in
            ssh.connect(
                ssh.Target(host=cluster.master.private_ip, user="admin", key=key, host_keys=keys), timeout=1
            )
    finally:
        cluster.terminate()
