"""How a cluster's nodes are reached from one another, by mpirun and by all of ours: a section of an ssh_config."""

from __future__ import annotations

from collections.abc import Iterable

SSH_SETTINGS = (
    "BatchMode yes",
    "StrictHostKeyChecking yes",
    "HostKeyAlgorithms ssh-ed25519",
    "ConnectTimeout 10",
    "LogLevel ERROR",
    # The default, sntrup761, takes 70 ms of a core for each connection.
    "KexAlgorithms ^curve25519-sha256",
)


def ssh_settings(hosts: Iterable[str], *more: str) -> str:
    """A section of an ssh_config: how nodes are reached, with a host key that is known and no question."""
    lines = "".join(f"    {line}\n" for line in (*SSH_SETTINGS, *more))
    return f"Host {' '.join(hosts)}\n{lines}"
