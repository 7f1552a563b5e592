"""~/shared: one folder on all nodes of the local cloud; on AWS what exports(5), fstab(5) and the commands are to be."""

from __future__ import annotations

import os
import pwd
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ppe_jupyter.cloud.configure import shared
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import SpecError
from ppe_jupyter.node.machine import sharing

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.manager import Manager

UNHEARD = "systemctl mask --now rpcbind.socket rpcbind.service"
MASTER, WORKER, OTHER = "10.0.0.4", "10.0.0.5", "10.0.0.6"


def test_what_a_node_writes_there_all_read_and_termination_counts_it(cluster: Cluster) -> None:
    workers = [node.private_ip for node in cluster.nodes[1:]]
    said = cluster.ssh().run(
        "echo master >~/shared/a && "
        + " && ".join(f"ssh {ip} 'cat ~/shared/a && hostname >~/shared/{ip}'" for ip in workers)
    )
    try:
        assert said.stdout.decode().split() == ["master"] * len(workers)
        names = cluster.ssh().run("cd ~/shared; cat " + " ".join(workers)).stdout.decode().split()
        assert names == [node.private_dns.split(".")[0] for node in cluster.nodes[1:]]
        lost = {path for path, _ in cluster.losses().files}
        assert {"shared/a", *(f"shared/{ip}" for ip in workers)} <= lost
    finally:
        cluster.ssh().run("rm -f ~/shared/*")


def test_scratch_is_everybodys_folder_where_there_is_no_instance_store(cluster: Cluster) -> None:
    for node in cluster.nodes:
        told = cluster.ssh().run(
            f"ssh {node.private_ip} 'stat -c %a /scratch && touch /scratch/x && rm /scratch/x'"
        )
        assert told.stdout == b"1777\n"


@pytest.mark.slow
def test_it_is_kept_by_parking_and_rebooting_and_ends_with_the_cluster(manager: Manager) -> None:
    spec = ClusterSpec(name="kept", nodes=2, instance_type="m5.large")
    cluster = manager.launch(spec)
    try:
        cluster.ssh().run("echo precious >~/shared/a")
        cluster.park()
        cluster.start()
        cluster.reboot()
        worker = cluster.nodes[1].private_ip
        assert cluster.ssh().run(f"ssh {worker} cat shared/a").stdout == b"precious\n"
        cluster.resize(1)
        assert cluster.ssh().run("cat shared/a").stdout == b"precious\n"
    finally:
        cluster.terminate()
    cluster = manager.launch(ClusterSpec(name="kept", nodes=1, instance_type="m5.large"))
    assert cluster.ssh().run("ls -A ~/shared").stdout == b""
    cluster.terminate()


@pytest.mark.parametrize(
    ("spec", "local", "told"),
    [
        (ClusterSpec(), True, {"kind": "bind"}),
        (ClusterSpec(), False, {"kind": "nfs"}),
        (
            ClusterSpec(efs="fs-0123456789abcdef0"),
            False,
            {"kind": "efs", "address": "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com"},
        ),
    ],
)
def test_how_is_told_to_the_nodes(spec: ClusterSpec, local: bool, told: dict[str, str]) -> None:
    assert shared(spec, local=local, region="eu-west-1") == told


def test_a_file_systems_id_is_one() -> None:
    with pytest.raises(SpecError, match="efs 'vol-1' is not a file system's id"):
        ClusterSpec(efs="vol-1")


class Node:
    """A node whose files are below a folder, and whose commands are noted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.installed: list[str] = []
        self.mounted = ""
        self.root = root
        for name in ("TOLD", "FSTAB", "EXPORTS", "SERVER_CONF", "UNIT_CONF"):
            monkeypatch.setattr(sharing, name, root / name)
        (root / "FSTAB").write_text("UUID=1 / ext4 defaults 0 1\n")
        (root / "home").mkdir()
        monkeypatch.setattr(sharing, "PLACE", root / "shared")
        monkeypatch.setattr(sharing.shutil, "which", lambda command, path: None)
        monkeypatch.setattr(
            sharing.packages, "install", lambda wanted, say: self.installed.extend(wanted["apt"])
        )
        monkeypatch.setattr(sharing, "_source", lambda: self.mounted)
        me = pwd.getpwuid(os.getuid())
        home = pwd.struct_passwd((*me[:5], str(root / "home"), me.pw_shell))
        monkeypatch.setattr(sharing.pwd, "getpwnam", lambda name: home)

    def share(self, **how: object) -> str:
        told = {"server": MASTER, "members": [WORKER, OTHER], "serves": False, **how}
        return sharing.share(told, "me", lambda text: None, run=lambda command: self._ran(" ".join(command)))

    def _ran(self, command: str) -> str:
        self.ran.append(command)
        if command.startswith("umount"):
            self.mounted = ""
        return ""

    def read(self, name: str) -> str:
        return (self.root / name).read_text()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_the_master_exports_it_to_members_only(node: Node) -> None:
    for _ in range(2):
        node.share(kind="nfs", serves=True)
    place = node.root / "shared"
    assert node.installed == ["nfs-kernel-server"] * 2
    options = "(rw,sync,no_subtree_check)"
    assert node.read("EXPORTS") == f"{place} {WORKER}{options} {OTHER}{options}\n"
    assert node.read("SERVER_CONF") == f"[nfsd]\nvers3 = n\nhost = {MASTER}\n"
    # The server is restarted for another configuration only: members have files open.
    start = ["systemctl enable nfs-kernel-server", "systemctl restart nfs-kernel-server"]
    assert node.ran == [UNHEARD, *start, "exportfs -ra", UNHEARD, "exportfs -ra"]
    assert (node.root / "home" / "shared").resolve() == place
    node.share(kind="nfs", serves=True, members=[])
    assert not (node.root / "EXPORTS").exists()
    assert node.ran[-1] == "exportfs -ra"


def test_a_sole_node_needs_no_server(node: Node) -> None:
    node.share(kind="nfs", serves=True, members=[])
    assert (node.installed, node.ran) == ([], [])


def test_a_worker_mounts_it_without_waiting_for_it_at_boot_or_at_its_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.share(kind="nfs")
    place = node.root / "shared"
    source, where, kind, options, *rest = node.read("FSTAB").splitlines()[1].split()
    assert (source, where, kind, rest) == (f"{MASTER}:{place}", str(place), "nfs4", ["0", "0"])
    assert {"hard", "_netdev", "nofail", "x-systemd.mount-timeout=30"} <= set(options.split(","))
    assert node.read("UNIT_CONF") == "[Mount]\nLazyUnmount=yes\nForceUnmount=yes\n"
    assert node.ran == [UNHEARD, "systemctl daemon-reload", f"mount {place}"]
    monkeypatch.setattr(sharing.shutil, "which", lambda command, path: command)
    node.mounted = f"{MASTER}:{place}"
    node.ran.clear()
    node.share(kind="nfs")
    assert node.ran == ["systemctl daemon-reload"]
    node.ran.clear()
    node.share(kind="nfs", server=OTHER)  # another node is the master now
    # Before anything that the dead server's mount would hold up.
    assert node.ran == [f"umount -l {place}", "systemctl daemon-reload", f"mount {place}"]
    assert len(node.read("FSTAB").splitlines()) == 2
    node.ran.clear()
    node.mounted = f"{OTHER}:{place}"
    node.share(kind="nfs", serves=True, members=[])  # this one is
    assert node.ran == [f"umount -l {place}", "systemctl daemon-reload"]
    assert node.read("FSTAB") == "UUID=1 / ext4 defaults 0 1\n"
    sharing.forget()
    assert node.read("FSTAB") == "UUID=1 / ext4 defaults 0 1\n"


def test_efs_is_mounted_as_aws_recommends(node: Node) -> None:
    node.share(kind="efs", address="fs-1.efs.eu-west-1.amazonaws.com", serves=True)
    source, _, _, options, *_ = node.read("FSTAB").splitlines()[1].split()
    assert source == "fs-1.efs.eu-west-1.amazonaws.com:/"
    # https://docs.aws.amazon.com/efs/latest/ug/mounting-fs-nfs-mount-settings.html
    recommended = "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport"
    assert options.startswith(f"{recommended},_netdev,nofail,")
    assert node.installed == ["nfs-common"]


def test_a_folder_of_the_users_own_stays(node: Node) -> None:
    assert node.share(kind="bind") == node.share(kind="bind") == ""
    (node.root / "home" / "shared").unlink()
    (node.root / "home" / "shared").mkdir()
    assert f"{node.root / 'home' / 'shared'} is not the cluster's" in node.share(kind="bind")
    assert not (node.root / "home" / "shared").is_symlink()


@pytest.mark.parametrize(
    ("kind", "owner", "is_given"), [("efs", 0, True), ("efs", 4711, False), ("bind", 4711, True)]
)
def test_a_file_system_that_is_others_too_stays_theirs(
    node: Node, monkeypatch: pytest.MonkeyPatch, kind: str, owner: int, is_given: bool
) -> None:
    given: list[tuple[int, int]] = []
    user = pwd.struct_passwd(("me", "x", 1000, 1000, "", str(node.root / "home"), "/bin/sh"))
    monkeypatch.setattr(sharing.pwd, "getpwnam", lambda name: user)
    monkeypatch.setattr(sharing.os, "lchown", lambda path, uid, gid: None)
    monkeypatch.setattr(sharing.os, "chown", lambda path, uid, gid: given.append((uid, gid)))
    (node.root / "shared").mkdir()
    monkeypatch.setattr(
        Path,
        "stat",
        lambda self, *, follow_symlinks=True: os.stat_result((0o40755, 0, 0, 1, owner, 0, *[0] * 4)),
    )
    node.share(kind=kind, address="fs-1", serves=True)
    assert given == ([(1000, 1000)] if is_given else [])


# Debian's own tools, beside the node's software: they read exports(5) and nfs(5) without a kernel that serves them.
TOOLS = """set -e; rm -rf /tmp/nfs; mkdir /tmp/nfs; cd /tmp/nfs; apt-get -q update >/dev/null
apt-get -q download nfs-kernel-server nfs-common libtirpc3 libevent-core-2.1-7 keyutils >/dev/null
for each in *.deb; do dpkg -x $each .; done"""
EXPORTS = """cd /tmp/nfs; mkdir -p /etc/exports.d /var/lib/nfs; touch /etc/exports; cat >/etc/exports.d/ppe.exports
usr/sbin/exportfs -ra 2>&1; echo status $?; cat /var/lib/nfs/etab
rm -rf /etc/exports /etc/exports.d /var/lib/nfs"""
MOUNT = """cd /tmp/nfs; cat >tab; findmnt --verify --tab-file tab 2>&1 | grep errors
export LD_LIBRARY_PATH=$(echo lib/*-linux-gnu usr/lib/*-linux-gnu | tr ' ' :)
read source place kind options rest <tab
sbin/mount.nfs4 10.0.0.4:/x $place -f -v -o $options 2>&1; echo status $?"""


@pytest.fixture(scope="module")
def master(cluster: Cluster) -> Iterator[Callable[[str, str], str]]:
    """Runs a command with these lines on a master that has the tools."""

    def run(command: str, lines: str = "") -> str:
        done = cluster.ssh().run(f"sudo sh -c {shlex.quote(command)}", stdin=lines.encode(), timeout=120)
        return done.stdout.decode()

    run(TOOLS)
    yield run
    run("rm -rf /tmp/nfs")


@pytest.mark.slow
def test_debians_server_takes_the_exports(master: Callable[[str, str], str]) -> None:
    said = master(EXPORTS, sharing.exports([WORKER, OTHER]))
    assert "status 0" in said
    exported = dict(re.findall(r"^/srv/shared\t([\d.]+)\((.*)\)$", said, re.MULTILINE))
    assert list(exported) == [WORKER, OTHER]
    for options in exported.values():
        assert {"rw", "sync", "root_squash", "no_subtree_check", "sec=sys"} <= set(options.split(","))
    assert "status 1" in master(EXPORTS, "/srv/shared 10.0.0.5(rw,nonsense)\n")


@pytest.mark.slow
def test_debians_client_takes_the_lines_of_fstab(master: Callable[[str, str], str]) -> None:
    nfs = sharing.fstab({"kind": "nfs", "server": MASTER})
    efs = sharing.fstab({"kind": "efs", "address": "fs-1.efs.eu-west-1.amazonaws.com"})
    for line, options in (  # the rest is systemd's and mount's
        (nfs, "nfsvers=4.2,hard,timeo=600,retrans=2"),
        (efs, "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport"),
    ):
        said = master(MOUNT, f"{line}\n")
        assert re.match("Success, no errors|0 parse errors, 0 errors", said) and "status 0" in said, said
        assert f"trying text-based options '{options},addr=" in said
    assert "status 32" in master(MOUNT, nfs.replace("nfsvers=4.2", "nfsvers=9") + "\n")
