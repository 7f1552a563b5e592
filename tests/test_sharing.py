"""A cluster that is shared: whose key it is, where it is let in, and what the colleague can do with it."""

from __future__ import annotations

import os
import subprocess
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import ppe_jupyter as ppe
from ppe_jupyter import ssh
from ppe_jupyter.cloud import tags
from ppe_jupyter.errors import AuthenticationRefused, NothingToDo, SetupFailed, UsageError
from ppe_jupyter.frontends import cli, views
from ppe_jupyter.frontends.actions import actions, sharing
from ppe_jupyter.frontends.desk import Desk
from ppe_jupyter.manager import Manager
from ppe_jupyter.node.setting_up import guests
from ppe_jupyter.ssh import PublicKey

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster

TYPE = "m5.large"


def key_file(folder: Path, *, comment: str) -> Path:
    """The private half of a key that OpenSSH has made; .pub is beside it."""
    path = folder / "colleague"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True
    )
    return path


class TestKeys:
    def test_it_is_known_by_comment_and_fingerprint(self, tmp_path: Path) -> None:
        path = key_file(tmp_path, comment="ana@lab, 2nd")
        key = PublicKey.parse(path.with_suffix(".pub").read_text())
        said = subprocess.run(
            ["ssh-keygen", "-lf", f"{path}.pub"], capture_output=True, text=True, check=True
        )
        assert (key.name, key.fingerprint) == ("ana@lab-2nd", said.stdout.split()[1])
        assert PublicKey.parse(key.line) == key
        assert PublicKey.parse(" ".join(key.line.split()[:2])).name == key.fingerprint[7:19].replace("/", "_")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "not one public key"),
            ("ssh-ed25519", "not one public key"),
            ("ssh-ed25519 AAAA ana", "can be used"),
            ('command="sh" ssh-ed25519 AAAA', "can be used"),
            ("{public}\n{public}", "not one public key"),
            ("{private}", "that is a private key"),
            ("{weak}", "too weak"),
        ],
    )
    def test_what_is_no_key_is_refused(self, text: str, said: str) -> None:
        pair = ssh.generate_key_pair("ana")
        weak = "ssh-rsa " + WEAK
        with pytest.raises(UsageError, match=said):
            PublicKey.parse(text.format(public=pair.public, private=pair.private, weak=weak))


# 1024 bits, of ssh-keygen.
WEAK = (
    "AAAAB3NzaC1yc2EAAAADAQABAAAAgQCYaRquw+ndexZ7jsQw3Mn8QrERnfCeuXN9z5UPDtgMl2p2fBJ7JTIpmqnGaCQ9yHRVS26O"
    "WFuJ/Qlx+Oz2NCt1GTMX/Qi8KlGVmZoGm7y/Hi0LMVNj/3oSe1YWuW60MhGgTAgDZRr34aPiMvLY0MEQqjsXhoQf7ez5uVRvbMS7"
    "9w=="
)


@pytest.fixture
def other(manager: Manager, tmp_path: Path) -> Manager:
    """A colleague's: the same account, and nothing of this user's but that."""
    key = key_file(tmp_path, comment="ana@lab")
    colleague = Manager(replace(manager.settings, state_dir=tmp_path / "state", key_file=key))
    vars(colleague)["_endpoint"] = manager._endpoint
    return colleague


def lets_in(cluster: Cluster, key: Path, address: str) -> bool:
    """Whether OpenSSH gets into that node with the key."""
    options = ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]
    command = [
        "ssh",
        "-i",
        str(key),
        *options,
        "-o",
        "UserKnownHostsFile=/dev/null",
        f"admin@{address}",
        "true",
    ]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


class TestOnANode:
    @pytest.fixture
    def told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        """What the workers were told, of a master whose home is new."""
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ppe").mkdir()
        said: list[list[str]] = []

        def everywhere(lines: Sequence[str]) -> dict[str, str]:
            guests.let_in(lines)
            said.append(list(lines))
            return {"10.0.0.2": "no answer"}

        monkeypatch.setattr(guests, "everywhere", everywhere)
        return said

    def test_changes_of_two_clients_are_both_done(self, told: list[list[str]]) -> None:
        keys = [f"ssh-ed25519 AAAA{number} name{number}" for number in range(12)]
        guests.change("add", "ssh-ed25519 BBBB bob")
        with ThreadPoolExecutor(len(keys)) as pool:
            done = [pool.submit(guests.change, "add", key) for key in keys]
            done.append(pool.submit(guests.change, "remove", "ssh-ed25519 BBBB other-comment"))
            [each.result() for each in done]
        assert sorted(guests.listed()) == sorted(keys)

    def test_a_repetition_tells_the_nodes_again(self, told: list[list[str]]) -> None:
        line = "ssh-ed25519 AAAA ana"
        for _ in range(2):
            late = {"10.0.0.2": "no answer"}
            assert guests.change("add", line) == {"lines": [line], "late": late}
        for wanted in (line, ""):
            assert guests.change("remove", wanted) == {"lines": [], "late": late}
        assert told == [[line], [line], [], []]

    def test_the_file_is_the_user_s_before_it_is_there(
        self, told: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, owners = tmp_path / ".ssh" / "authorized_keys", []
        path.write_text("ssh-ed25519 CCCC owner\n")

        def chown(file: Path, *owner: int) -> None:
            owners.append((file.name, owner, "AAAA" in file.read_text(), "AAAA" in path.read_text()))

        monkeypatch.setattr(os, "chown", chown)
        guests.let_in(["ssh-ed25519 AAAA ana"], owner=(1, 2))
        assert owners == [("authorized_keys.ppe-new", (1, 2), True, False)]
        assert (
            path.read_text().startswith("ssh-ed25519 CCCC owner\n") and path.stat().st_mode & 0o777 == 0o600
        )


def test_a_key_that_a_node_still_lets_in_is_said(tmp_path: Path) -> None:
    cluster = SimpleNamespace(name="lab", record=None, unshare=lambda who: {"10.0.0.2": "no answer"})
    desk: Any = SimpleNamespace(
        any_cluster=lambda *_: cluster, manager=lambda _: SimpleNamespace(mine=lambda _: True), sign="%ppe_"
    )
    arguments = Namespace(name="lab", key_name=None, revoke="ana", yes=False)
    with pytest.raises(SetupFailed, match=r"still let in on 10\.0\.0\.2 of lab; repeat this"):
        sharing.share(desk, arguments)


def test_of_many_guests_the_list_has_whole_names() -> None:
    names = [f"somebody-{number:03}@lab" for number in range(40)]
    *listed, more = tags.of_guests(names)[tags.GUESTS].split()
    assert listed == names[: len(listed)] and more == f"+{40 - len(listed)}"
    assert len(listed) == 14 and tags.of_guests(names[:2]) == {tags.GUESTS: " ".join(names[:2])}


@pytest.mark.slow
def test_a_colleague_uses_a_cluster_with_what_is_his_own(
    manager: Manager, other: Manager, tmp_path: Path
) -> None:
    cluster = manager.launch(ppe.ClusterSpec(name="shared", nodes=2, instance_type=TYPE))
    key = tmp_path / "colleague"
    desk = Desk(
        say=print, show=print, ask=lambda *_: "", display=lambda title: None, notice=print, sign="%ppe_"
    )  # type: ignore[arg-type,return-value]
    desk._managers[other.settings] = desk._connected_by = other
    try:
        with pytest.raises(AuthenticationRefused, match="%ppe_share shared --key"):
            other.cluster("shared").ssh()
        assert cli.main(["share", "shared", "--key", f"{key}.pub", "--yes"]) == 0
        with pytest.raises(NothingToDo, match="is let into shared already"):
            cluster.share(PublicKey.parse(Path(f"{key}.pub").read_text()))
        with pytest.raises(UsageError, match="another key of ana@lab"):
            cluster.share(PublicKey.parse(ssh.generate_key_pair("ana@lab").public))
        assert [each.name for each in cluster.guests()] == ["ana@lab"]
        assert "ana@lab" in str(views.clusters(manager.clusters(), connected=None))
        # The colleague connects, works, and changes it; the node that comes new lets both in.
        actions.connect(desk, Namespace(name="shared", key_file=None, fingerprint=None))
        theirs = other.cluster("shared")
        assert theirs.r().eval("6 * 7") == 42.0
        theirs.resize(3)
        nodes = cluster.refresh().nodes
        assert len(nodes) == 3 and cluster.record.guests == ("ana@lab",)
        assert all(lets_in(cluster, key, node.private_ip) for node in nodes)
        theirs.close()
        desk.forget("shared")
        # What is parked keeps it, and so do the workers that come then.
        cluster.park()
        cluster.start()
        assert all(lets_in(cluster, key, node.private_ip) for node in cluster.nodes)
        assert cli.main(["share", "shared", "--revoke", f"{key}.pub", "--yes"]) == 0
        assert not any(lets_in(cluster, key, node.private_ip) for node in cluster.nodes)
        assert cluster.refresh().record.guests == () and cluster.guests() == []
        assert cluster.r().eval("1") == 1.0
    finally:
        manager.terminate("shared")


def test_a_key_is_let_in_on_all_nodes_after_a_question(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key_file(tmp_path, comment="ana@lab")
    words = ["share", cluster.name, "--key", f"{key}.pub"]
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert "ana@lab: ssh-ed25519, SHA256:" in out and "Let ana@lab into all nodes" in err
    assert not lets_in(cluster, key, cluster.nodes[2].private_ip)
    assert cluster.share(PublicKey.parse(Path(f"{key}.pub").read_text())) == {}
    try:
        assert all(lets_in(cluster, key, cluster.nodes[index].private_ip) for index in (0, 2))
        with pytest.raises(UsageError, match="'eve' is not let in; let in: ana@lab"):
            cluster.unshare("eve")
    finally:
        cluster.unshare("ana@lab")
    assert not lets_in(cluster, key, cluster.nodes[2].private_ip)
    assert cli.main(["share", cluster.name]) == 0
    assert "is shared with nobody" in capsys.readouterr().out
