"""The local cloud's resolver: dnsmasq on the bridge. Runs as root; knows names and addresses, no instances."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import LocalCloudUnavailable
from ..network import Network, hosts_lines

RESOLVER_SECONDS = 10.0
# DNS, RFC 1035: id 1, recursion desired, one question, none of the others; "ec2.internal", type A, class IN.
QUERY = bytes.fromhex("0001 0100 0001 0000 0000 0000") + b"\x03ec2\x08internal\x00\x00\x01\x00\x01"


class Resolver:
    """dnsmasq on the bridge: the nodes' names, and everything else from the host's own resolvers.

    It changes its credentials, which clears a parent-death signal: sweep() finds a dead daemon's.
    """

    def __init__(self, network: Network, hosts_file: Path) -> None:
        self._hosts_file = hosts_file
        hosts_file.write_text("")
        arguments = [
            "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=",
            "--no-hosts", "--no-negcache",
            f"--addn-hosts={hosts_file}", f"--interface={network.bridge}", "--except-interface=lo",
            "--bind-interfaces", "--local=/ec2.internal/", "--domain-needed",
        ]  # fmt: skip
        self._command, self._gateway = ["dnsmasq", *arguments], network.gateway
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._wait_until_it_answers(self._gateway)

    def publish(self, names: Mapping[str, Sequence[str]]) -> None:
        """Let these names resolve, and no other."""
        self._hosts_file.write_text(hosts_lines(names), encoding="utf-8")
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)
        else:
            self._start()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _wait_until_it_answers(self, address: str) -> None:
        """Before it does, SIGHUP would end it, or be lost."""
        deadline = time.monotonic() + RESOLVER_SECONDS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.05)
            probe.connect((address, 53))
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(OSError):
                    probe.send(QUERY)
                    probe.recv(512)
                    return
                time.sleep(0.01)
        self.stop()
        raise LocalCloudUnavailable(f"the local cloud's resolver does not answer at {address}, port 53")


def sweep(bridge: str) -> None:
    """End a dnsmasq of ours on that bridge: it would keep the address's port 53 from the next one."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes().split(b"\0")
            if arguments[0] == b"dnsmasq" and f"--interface={bridge}".encode() in arguments:
                os.kill(int(path.parent.name), signal.SIGKILL)
