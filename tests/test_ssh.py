"""The SSH connection, against a node's real sshd."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ppe_jupyter import errors, proxy, ssh

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> ssh.Target:
    # The launch's own connection, if it is that, began with the host key of before the set-up.
    return replace(cluster.ssh().target, host_keys=(cluster.master.host_key,))


@pytest.fixture
def connection(target: ssh.Target) -> Iterator[ssh.Connection]:
    with ssh.connect(target, timeout=60) as connection:
        yield connection


def test_another_host_key_is_refused_before_the_user_is_told(target: ssh.Target) -> None:
    stranger = replace(target, host_keys=(ssh.generate_key_pair().public,))
    with pytest.raises(errors.HostKeyMismatch, match="is not the one that was launched"):
        ssh.connect(stranger, timeout=60)


def test_a_host_without_a_key_of_the_expected_kind_is_a_mismatch(target: ssh.Target) -> None:
    with pytest.raises(errors.HostKeyMismatch):
        ssh.connect(replace(target, host_keys=("ecdsa-sha2-nistp521 AAAA",)), timeout=60)


def test_a_foreign_user_key_is_refused(target: ssh.Target) -> None:
    with pytest.raises(errors.AuthenticationRefused, match="does not accept the key"):
        ssh.connect(replace(target, key=ssh.generate_key_pair().private), timeout=60)


def test_nothing_listening_is_unreachable() -> None:
    key = ssh.generate_key_pair()
    nowhere = ssh.Target(host="127.0.0.1", port=1, user="admin", key=key.private, host_keys=(key.public,))
    with pytest.raises(errors.Unreachable, match=r"127\.0\.0\.1:1"):
        ssh.connect(nowhere, timeout=2)


def test_run_returns_both_streams_and_the_status(connection: ssh.Connection) -> None:
    done = connection.run("cat; echo err >&2; exit 3", stdin=b"in\xff", check=False)
    assert done == ssh.Completed(3, b"in\xff", b"err\n")
    with pytest.raises(errors.RemoteCommandFailed, match="ended with status 3: err"):
        connection.run("echo err >&2; exit 3")


def test_large_streams_in_all_directions_do_not_deadlock(connection: ssh.Connection) -> None:
    size = 40 * 2**20
    done = connection.run(f"head -c {size} /dev/zero >&2 & cat; wait", stdin=bytes(size))
    assert len(done.stdout) == len(done.stderr) == size


def test_a_command_that_does_not_end_in_time(connection: ssh.Connection) -> None:
    with pytest.raises(TimeoutError, match=r"no end within 0.2 s: sleep 60"):
        connection.run("sleep 60", timeout=0.2)


def test_more_commands_than_sshd_allows_sessions(connection: ssh.Connection) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda i=i: results.append(connection.run(f"sleep 0.2; echo {i}").stdout))
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(line) for line in results) == list(range(20))


def test_put_and_get(connection: ssh.Connection) -> None:
    data = bytes(range(256)) * 1000
    connection.put(data, "~/a file", mode=0o640)
    assert connection.get("~/a file") == data
    assert connection.run("stat -c %a ~/'a file'; rm ~/'a file'").stdout == b"640\n"


def test_a_cut_connection_is_an_error_not_an_end(connection: ssh.Connection) -> None:
    channel = connection.popen("echo here; sleep 60")
    assert channel.recv() == b"here\n"
    connection.close()
    with pytest.raises(errors.ConnectionLost, match="was cut"):
        channel.recv()
    with pytest.raises(errors.ConnectionLost):
        connection.run("true")


def test_what_came_over_a_line_that_is_cut_when_it_is_taken(connection: ssh.Connection) -> None:
    with connection.popen("head -c 30000000 /dev/zero; sleep 60") as channel:
        assert channel.recv(1)
        connection._transport.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(errors.ConnectionLost):
            while channel.recv(2**25):
                pass


def test_jump_through_the_master_to_a_worker(cluster: Cluster, connection: ssh.Connection) -> None:
    worker = cluster.nodes[1]
    beyond = replace(connection.target, host=worker.private_ip, host_keys=(worker.host_key,))
    with ssh.connect(beyond, timeout=60, jump=connection) as jumped:
        assert jumped.run("hostname").stdout.decode().startswith(worker.private_dns.split(".")[0])


def test_a_proxy_command_is_the_way_there(target: ssh.Target) -> None:
    """Through a second sshd of the cluster, as through a bastion host; and AWS Session Manager is such a command."""
    copy = (
        "import os,socket,sys,threading;s=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
        "threading.Thread(target=lambda:[s.sendall(b) for b in iter(lambda:os.read(0,65536),b'')],"
        "daemon=True).start();[os.write(1,b) for b in iter(lambda:s.recv(65536),b'')]"
    )
    command = f'{sys.executable} -c "{copy}" %h %p'
    with ssh.connect(replace(target, proxy_command=command), timeout=60) as connection:
        done = connection.run("head -c 3000000 /dev/zero", timeout=120)
        assert len(done.stdout) == 3_000_000


def test_a_proxy_command_is_windows_own_affair_there() -> None:
    assert proxy.in_shell(r"C:\aws\aws.exe ssm", posix=False) == r"C:\aws\aws.exe ssm"
    assert proxy.in_shell("ssh -W h:22 'j u'", posix=True) == ["/bin/sh", "-c", "exec ssh -W h:22 'j u'"]


def test_what_a_proxy_command_complains_of_is_told(target: ssh.Target) -> None:
    command = f"{sys.executable} -c \"import sys; sys.exit('the bastion is closed')\""
    with pytest.raises(errors.Unreachable, match="proxy command said: the bastion is closed"):
        ssh.connect(replace(target, proxy_command=command), timeout=60)
