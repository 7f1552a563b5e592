"""One instance's container: an overlay on the image, an address on the bridge, a cloud-init seed.

A container is a directory and, while it runs, the foreground ``lxc-start`` that holds it. That process dies
with the daemon's thread that started it, and the container's PID 1 dies with that process: a killed daemon
leaves no running container. Root inside is the host's root with few capabilities and devices: it cannot
mount, nor reach the host's clock, modules, memory, disks and kernel settings. Knows nothing of EC2's records.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...node.machine.sharing import PLACE
from ..network import NO_IPV6, Network, run

INIT = "/usr/sbin/ppe-init"
CONSOLE_BYTES = 64 * 1024  # what GetConsoleOutput returns at most
# What sshd, sudo, apt, MPI and ppe-init need. Above all no sys_admin: who may mount can mount a writable /proc,
# and through it reach the host. Nor sys_time, sys_module, sys_rawio, bpf, perfmon, syslog.
KEPT_CAPABILITIES = (
    "chown dac_override fowner fsetid kill setgid setuid setpcap setfcap sys_chroot mknod audit_write"
    " net_bind_service net_broadcast net_raw net_admin ipc_lock ipc_owner lease sys_ptrace sys_nice sys_resource"
    " sys_boot"
)
# sys_boot, which a restart needs, would let root load another kernel; the others are closed twice.
REFUSED_CALLS = (
    "kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"
)  # fmt: skip
SECCOMP = "2\ndenylist\n[all]\n" + "".join(f"{call} errno 1\n" for call in REFUSED_CALLS)
ALLOWED_DEVICES = (  # null zero full random urandom tty console ptmx pts
    "1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*"
)  # fmt: skip
MAX_PROCESSES = 8192
HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """What makes one container differ from another. ``shared`` is the folder of this host's that it has in common with
    the other nodes of its cluster."""

    instance_id: str
    hostname: str
    address: str
    mac: str
    rootfs: Path
    user_data: bytes
    public_key: str | None
    shared: Path | None = None


@dataclass(frozen=True)
class Disk:
    """A volume's loop device, and its name in a container."""

    volume_id: str
    name: str
    loop: str
    number: tuple[int, int]

    @property
    def link(self) -> str:
        """Its name in /dev/disk/by-id, which udev makes of the volume's serial number."""
        return f"nvme-Amazon_Elastic_Block_Store_{self.volume_id.replace('-', '')}"


class Container:
    """The container of one instance, in ``folder``."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder = folder
        self.name = folder.name
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """PID 1 of the container, once it is about to run; another one after each restart."""
        try:
            return int((self.folder / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    @property
    def ended(self) -> bool:
        """Whether nothing runs (any more)."""
        return self._process is None or self._process.poll() is not None

    @property
    def upper(self) -> Path:
        """What differs from its image."""
        return self.folder / "upper"

    @contextlib.contextmanager
    def process(self) -> Iterator[int]:
        """PID 1's directory in /proc, opened, and no other process's that has got its number since.

        Raises ProcessLookupError, as does reading in it once PID 1 has ended.
        """
        try:
            opened = os.open(f"/proc/{self.pid}", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise ProcessLookupError(f"{self.name} does not run") from None
        try:
            with os.fdopen(os.open("cgroup", os.O_RDONLY, dir_fd=opened)) as groups:
                if f"lxc.payload.{self.name}" not in groups.read():
                    raise ProcessLookupError(f"{self.name} does not run")
            yield opened
        finally:
            os.close(opened)

    def start(self, spec: NodeSpec, *, rules: str, disks: Iterable[Disk] = ()) -> None:
        """Start it (again); returns before PID 1 runs.

        Its end is the end of the calling thread, so that must live as long as the daemon.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if spec.shared:
            spec.shared.mkdir(parents=True, exist_ok=True)
        (self.folder / "pid").unlink(missing_ok=True)
        self.write_rules(rules)
        self.write_hook(disks)
        self._write_files(spec)
        (self.folder / "seccomp").write_text(SECCOMP, encoding="ascii")
        (self.folder / "kern.log").touch()
        (self.folder / "config").write_text(self._config(spec), encoding="utf-8")
        command = ["setpriv", "--pdeathsig", "KILL", "lxc-start", "--foreground"]
        command += ["--name", self.name, "--lxcpath", str(self.folder.parent)]
        command += ["--logfile", str(self.folder / "lxc.log"), "--logpriority", "WARN"]
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )

    def signal(self, number: signal.Signals) -> None:
        """Signal PID 1: SIGPWR asks for power-off, SIGINT for a restart, SIGKILL is pulling the plug."""
        if self._process is None or self.ended:
            return
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        elif number is signal.SIGKILL:
            self._process.kill()

    def write_rules(self, rules: str) -> None:
        """What the firewall will be at the next (re)start."""
        (self.folder / "rules.nft").write_text(rules, encoding="utf-8")

    def console(self) -> bytes:
        """The end of what the boot and PID 1 printed."""
        return _tail(self.folder / "console.log", CONSOLE_BYTES)

    def failure(self) -> str:
        """Why it did not start, as LXC logged it."""
        lines = _tail(self.folder / "lxc.log", 4096).decode(errors="replace").splitlines()
        return lines[-1] if lines else "lxc-start ended without a message"

    def remove(self) -> None:
        """Leave nothing of it. It must have ended."""
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_traces(self.name, self.folder)

    def write_hook(self, disks: Iterable[Disk]) -> None:
        """What the host does at each (re)start, when the namespaces and /dev exist and PID 1 does not run yet."""
        folder = shlex.quote(str(self.folder))
        lines = [f'nsenter --target "$LXC_PID" --net nft -f {folder}/rules.nft', "cd /proc/$LXC_PID/root/dev"]
        for disk in disks:
            lines.append(f"mknod -m 660 {disk.name} b {disk.number[0]} {disk.number[1]}")
            lines.append(f"mkdir -p disk/by-id; ln -s ../../{disk.name} disk/by-id/{disk.link}")
        lines.append(f'echo "$LXC_PID" >{folder}/pid.new; mv {folder}/pid.new {folder}/pid')
        new = self.folder / "hook.new"
        new.write_text("\n".join(["#!/bin/sh -e", *lines, ""]))
        new.chmod(0o755)
        new.replace(self.folder / "hook")

    def set_device(self, verb: str, disk: Disk) -> None:
        """ "allow" or "deny" a device to what runs in it; with cgroup 2 too, where LXC changes its BPF program."""
        rule = "b {}:{} rwm".format(*disk.number)
        run("lxc-cgroup", "--name", self.name, "--lxcpath", str(self.folder.parent), f"devices.{verb}", rule)

    def _write_files(self, spec: NodeSpec) -> None:
        """Put into the overlay what DHCP and the instance metadata service would tell a node on AWS."""
        upper = self.upper
        seed = upper / "var/lib/cloud/seed/nocloud"
        first_start = not upper.exists()
        for path in (seed, upper / "etc"):
            path.mkdir(parents=True, exist_ok=True)
        keys = {"public-keys": [spec.public_key]} if spec.public_key else {}
        meta_data = {"instance-id": spec.instance_id, "local-hostname": spec.hostname, **keys}
        (seed / "meta-data").write_text(json.dumps(meta_data))
        (seed / "user-data").write_bytes(spec.user_data)
        (seed / "user-data").chmod(0o600)
        (upper / "etc/resolv.conf").write_text(f"nameserver {self._network.gateway}\nsearch ec2.internal\n")
        if first_start:
            (upper / "etc/hosts").write_text(HOSTS)
            (upper / "etc/hostname").write_text(f"{spec.hostname}\n")

    def _config(self, spec: NodeSpec) -> str:
        version = "cgroup2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "cgroup"
        cidr, port = self._network.cidr, f"pv{spec.instance_id[-12:]}"
        place = str(PLACE).lstrip("/")
        lines = [
            f"lxc.rootfs.path = overlay:{':'.join(map(str, layers(spec.rootfs)))}:{self.upper}",
            f"lxc.uts.name = {spec.hostname}",
            f"lxc.init.cmd = {INIT}",
            f"lxc.hook.start-host = {self.folder / 'hook'}",
            "lxc.net.0.type = veth",
            "lxc.net.0.flags = up",
            "lxc.net.0.name = eth0",
            f"lxc.net.0.link = {self._network.bridge}",
            f"lxc.net.0.mtu = {self._network.mtu}",
            f"lxc.net.0.hwaddr = {spec.mac}",
            f"lxc.net.0.veth.pair = {port}",
            f"lxc.net.0.script.up = /bin/sh -c 'echo 1 >{NO_IPV6.format(port)}; true'",
            f"lxc.net.0.ipv4.address = {spec.address}/{cidr.prefixlen} {cidr[-1]}",
            f"lxc.net.0.ipv4.gateway = {self._network.gateway}",
            "lxc.mount.auto = proc:mixed sys:ro",
            "lxc.mount.entry = tmpfs dev/shm tmpfs nosuid,nodev,create=dir 0 0",
            "lxc.mount.entry = tmpfs run tmpfs nosuid,nodev,mode=755,create=dir 0 0",
            f"lxc.mount.entry = {self.folder / 'kern.log'} var/log/kern.log none bind,ro,create=file 0 0",
            *(
                f"lxc.mount.entry = {folder} {place} none bind,nosuid,nodev,create=dir 0 0"
                for folder in [spec.shared]
                if folder
            ),
            "lxc.console.path = none",
            "lxc.tty.max = 0",
            "lxc.pty.max = 1024",
            f"lxc.seccomp.profile = {self.folder / 'seccomp'}",
            f"lxc.cap.keep = {KEPT_CAPABILITIES}",
            f"lxc.{version}.devices.deny = a",
            *(f"lxc.{version}.devices.allow = c {device} rwm" for device in ALLOWED_DEVICES),
            f"lxc.{version}.pids.max = {MAX_PROCESSES}",
        ]
        return "\n".join(lines) + "\n"


def layers(rootfs: Path) -> list[Path]:
    """An image's directories, top first: one made of an instance has what that lay on in a file beside it."""
    below = rootfs.parent / "lower"
    return [rootfs, *(Path(line) for line in (below.read_text().splitlines() if below.exists() else ()))]


def sweep(folder: Path) -> None:
    """Remove every container under ``folder``, running or not: those of a daemon that is dead."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in names:
        deadline = time.monotonic() + 10
        while (pids := _processes(name)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        remove_traces(name, folder / name)


def remove_traces(name: str, folder: Path) -> None:
    """Remove LXC's control groups, which its monitor removes unless it was killed, and its lock file."""
    for cgroup in _cgroups(name):
        for inner in sorted(cgroup.rglob("*"), reverse=True):
            if inner.is_dir():
                with contextlib.suppress(OSError):
                    inner.rmdir()
        with contextlib.suppress(OSError):
            cgroup.rmdir()
    lock = Path("/run/lxc/lock") / folder.parent.relative_to("/") / f".{name}"
    lock.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.removedirs(lock.parent)


def _cgroups(name: str) -> list[Path]:
    """LXC's groups are at the top: of the one hierarchy, or of each of version 1's."""
    root = Path("/sys/fs/cgroup")
    patterns = [f"{prefix}lxc.{kind}.{name}" for kind in ("payload", "monitor") for prefix in ("", "*/")]
    return [path for pattern in patterns for path in root.glob(pattern)]


def _processes(name: str) -> set[int]:
    """Every process of a container and of its monitor."""
    found: set[int] = set()
    for cgroup in _cgroups(name):
        for listing in cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in listing.read_text().split()}
    return found - {0}


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read()
    except FileNotFoundError:
        return b""
