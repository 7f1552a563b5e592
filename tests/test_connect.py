"""Any host behind SSH: nodes of the cluster, reached as if they were somebody's own machines."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import ppe_jupyter as ppe
from ppe_jupyter import delivery, errors, host, ssh
from ppe_jupyter.frontends.notebook import magics
from ppe_jupyter.ssh import hosts
from ppe_jupyter.ssh.hosts import Place

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster


class Home:
    """A home folder with a .ssh of its own."""

    def __init__(self, path: Path, cluster: Cluster) -> None:
        self.ssh = path / ".ssh"
        self.ssh.mkdir(mode=0o700)
        self.key = self.ssh / "the key"
        self.key.write_bytes(cluster._account.clusters.key_file(cluster.record).read_bytes())
        self.key.chmod(0o600)
        self.user = cluster.record.login_user
        self.master, self.worker = cluster.nodes[:2]

    def knows(self, *lines: str) -> None:
        (self.ssh / "known_hosts").write_text("".join(f"{line}\n" for line in lines))

    def config(self, text: str) -> None:
        (self.ssh / "config").write_text(text)


@pytest.fixture
def home(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    cluster.refresh()  # the launch's own record began with the host keys of before the set-up
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Home(tmp_path, cluster)


@pytest.fixture
def worker(home: Home) -> Iterator[ppe.Host]:
    """A machine without an agent, by a name of the configuration, behind the master."""
    home.knows(*(f"{node.private_ip} {node.host_key}" for node in (home.master, home.worker)))
    home.config("Include more/*.conf\nHost *\n  User nobody\n")
    (home.ssh / "more").mkdir()
    (home.ssh / "more" / "one.conf").write_text(
        f"Host bastion\n HostName {home.master.private_ip}\n"
        f"Host there\n HostName {home.worker.private_ip}\n ProxyJump bastion\n"
        f'Host bastion there\n User {home.user}\n IdentityFile "{home.key}"\n'
    )
    host = ppe.connect("there")
    yield host
    host.end()


def test_the_same_evaluator_through_a_jump_host(worker: ppe.Host, home: Home, tmp_path: Path) -> None:
    worker.r().eval("answer <- 6 * 7; invisible(NULL)")
    addresses = worker.r().eval("Sys.getenv('SSH_CONNECTION')").split()
    assert addresses[0] == home.master.private_ip
    printed: list[str] = []
    worker.run_python(
        "import socket; print(socket.gethostname())", on_output=lambda each: printed.append(each.text)
    )
    worker.run_shell("echo $0", on_output=lambda each: printed.append(each.text))
    assert printed[0].startswith(home.worker.private_dns.split(".")[0])
    (tmp_path / "x y").write_text("data")
    try:
        worker.upload(tmp_path / "x y")
        worker.download("x ?", to=tmp_path / "back")
    finally:
        worker.r().eval('unlink("x y")')
    assert (tmp_path / "back").read_text() == "data"
    worker.close()
    assert ppe.connect("there").r().eval("answer") == 42, "R goes on without us"
    with pytest.raises(errors.UsageError, match="no MPI ranks"):
        worker.run_python("", ranks=2, on_output=print)
    with pytest.raises(errors.UsageError, match="no other nodes"):
        worker.upload(tmp_path / "back", all_nodes=True)


def test_an_unknown_host_is_known_by_the_fingerprint_that_the_user_gives(home: Home) -> None:
    where = f"{home.user}@{home.master.private_ip}"
    for given in (None, "SHA256:other"):
        with pytest.raises(errors.UnknownHost, match=f"%ppe_connect {where} --fingerprint SHA256:") as caught:
            ppe.connect(where, key_filename=home.key, fingerprint=given)
        assert caught.value.key == " ".join(home.master.host_key.split()[:2])
    assert not (home.ssh / "known_hosts").exists()
    home.knows("# no newline at the end")
    (home.ssh / "known_hosts").write_text("other ssh-ed25519 AAAA")
    ppe.connect(where, key_filename=home.key, fingerprint=caught.value.fingerprint).close()
    ppe.connect(where, key_filename=home.key).close()
    said = subprocess.run(
        ["ssh-keygen", "-l", "-F", home.master.private_ip, "-f", home.ssh / "known_hosts"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert caught.value.fingerprint in said.stdout, "OpenSSH reads what we wrote"


def test_another_key_than_the_known_one_is_refused(home: Home) -> None:
    address = home.master.private_ip
    home.knows(f"{address} {home.worker.host_key}")
    with pytest.raises(errors.HostKeyMismatch, match=re.escape(f"ssh-keygen -R '{address}'")):
        ppe.connect(f"{home.user}@{address}", key_filename=home.key)
    home.knows(f"{address} {home.master.host_key}", f"@revoked * {home.master.host_key}")
    with pytest.raises(errors.UnknownHost):
        ppe.connect(f"{home.user}@{address}", key_filename=home.key)


def test_keys_of_the_agent_and_keys_that_are_locked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{home.user}@{home.master.private_ip}"
    home.knows(f"{home.master.private_ip} {home.master.host_key}")
    with pytest.raises(errors.AuthenticationRefused, match=r"accepts none of these keys \(none\)"):
        ppe.connect(where)
    stranger = home.ssh / "id_ed25519"
    stranger.write_text(ssh.generate_key_pair().private)
    home.config(f"IdentityFile {stranger}\nIdentityFile %d/.ssh/id_rsa\n")
    with pytest.raises(errors.AuthenticationRefused, match=rf"none of these keys \({stranger}\)"):
        ppe.connect(where)
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    variables = dict(re.findall(r"(SSH_\w+)=([^;]+)", said))
    monkeypatch.setenv("SSH_AUTH_SOCK", variables["SSH_AUTH_SOCK"])
    try:
        subprocess.run(["ssh-add", "-q", home.key], check=True)
        ppe.connect(where).close()
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", home.key], check=True)
        with pytest.raises(errors.AuthenticationRefused, match="passphrase and not in the SSH agent"):
            ppe.connect(where, key_filename=home.key)
        public = subprocess.run(["ssh-add", "-L"], capture_output=True, text=True, check=True).stdout
        Path(f"{home.key}.pub").write_text(public)
        ppe.connect(where, key_filename=home.key).close()
    finally:
        os.kill(int(variables["SSH_AGENT_PID"]), 15)


def test_a_proxy_command_of_the_configuration(home: Home) -> None:
    address = home.master.private_ip
    home.knows(f"[{address}]:2222 {home.master.host_key}")
    home.config(
        f"Host far\n HostName {address}\n Port 2222\n User {home.user}\n IdentityFile ~/.ssh/the key\n"
        f" ProxyCommand ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes "
        f"-i '{home.key}' -W %h:22 %r@{home.worker.private_ip} 2>/dev/null\n"
    )
    ppe.connect("far").close()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["Darwin", "3 12", "/usr/bin/R", "none"], "runs Darwin"),
        (["Linux", "none", "/usr/bin/R", "none"], "has no python3"),
        (["Linux", "3 8", "/usr/bin/R", "none"], "has Python 3.8; 3.9 or later"),
        (["Welcome!", "Linux", "3 11", "none", "none"], "has no R"),
        (["This account is currently not available."], "does not run commands"),
    ],
)
def test_what_a_host_lacks_is_said(lines: list[str], why: str) -> None:
    def run(command: str, **_: Any) -> ssh.Completed:
        return ssh.Completed(0, "\n".join([*lines, ""]).encode(), b"")

    connection: Any = SimpleNamespace(target=SimpleNamespace(host="h"), run=run)
    with pytest.raises(errors.RemoteError, match=re.escape(why)):
        host._prepare(connection)


def test_the_probe_is_what_a_machine_answers(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("uname", "cat"):
        (tools / name).symlink_to(f"/bin/{name}")
    said = subprocess.run(
        ["/bin/sh", "-c", delivery.in_sh(host.PROBE).replace("exec sh", "exec /bin/sh")],
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["Linux", "none", "none", "none"]


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("ana@lab", Place(host="lab", user="ana")),
        ("lab:2222", Place(host="lab", port=2222)),
        ("a@b@lab", Place(host="lab", user="a@b")),
        ("ana@[fe80::1]:22", Place(host="fe80::1", user="ana", port=22)),
        ("ssh://ana@lab", Place(host="lab", user="ana")),
    ],
)
def test_what_is_typed_for_a_host(typed: str, place: Place) -> None:
    assert Place.parse(typed) == place


@pytest.mark.parametrize("typed", ["", "ana@", "ana@lab:x", "ana@-oProxyCommand=x", "ana@la b"])
def test_what_is_no_host(typed: str) -> None:
    with pytest.raises(errors.UsageError, match="is no host"):
        Place.parse(typed)


def test_lines_of_known_hosts(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"lab.org {ssh.generate_key_pair().public}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], capture_output=True, check=True)
    hashed = known.read_text().split()[0]
    assert hashed.startswith("|1|")
    assert hosts._is_one_of("lab.org", [hashed])
    assert not hosts._is_one_of("lab.com", [hashed])
    assert hosts._is_one_of("a.lab.org", ["*.lab.org"])
    assert not hosts._is_one_of("b.lab.org", ["*.lab.org", "!b.*"])
    assert hosts._is_one_of("[lab]:2222", ["lab2", "[lab]:2222"])
    assert not hosts._is_one_of("l:2222", ["[lab]:2222"])


def test_jump_hosts_that_go_round(home: Home) -> None:
    home.config("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(errors.SettingsError, match="round in a circle"):
        ppe.connect("a")


def test_the_verbs(home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    where = f"{home.user}@{home.worker.private_ip}"
    home.knows(f"{home.worker.private_ip} {home.worker.host_key}")
    home.config("Host lab far*\n User ana\nHost other\n")
    shell = InteractiveShell()
    magics.load(shell)
    try:
        desk = magics._loaded[shell].desk
        offered = [each for each in desk.offers()["target"]() if "@" in each]
        assert offered[0] == "ana@lab"
        assert [each.partition("@")[2] for each in offered] == ["lab", "other"]
        shell.run_line_magic("ppe_connect", f'{where} --key-file "{home.key}"')
        assert f"connected to {where}" in capsys.readouterr().out
        assert shell.run_line_magic("remote_r", "6 * 7") == 42
        (tmp_path / "x").write_text("data")
        shell.run_line_magic("ppe_upload", f"{tmp_path}/x /tmp/")
        assert f"→ {where}:/tmp" in capsys.readouterr().out
        shell.run_cell_magic("remote_sh", "", "cat /tmp/x; rm /tmp/x")
        assert "data" in capsys.readouterr().out
        for verb in ("ppe_resize --nodes 2", "ppe_terminate", "ppe_status", "ppe_install --apt x"):
            name, _, line = verb.partition(" ")
            with pytest.raises(errors.UsageError, match="is a host behind SSH; this is for clusters"):
                shell.run_line_magic(name, line)
        shell.run_line_magic("ppe_disconnect", "--end")
        assert "its R session has ended" in capsys.readouterr().out
        assert desk.connected is None
    finally:
        magics.unload(shell)
