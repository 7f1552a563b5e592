"""The beacon: short signed datagrams by which the nodes of a cluster know that they are still wanted.

The master tells all nodes so, or to end; nodes tell the master what happens to them. A datagram is an HMAC-SHA256
of what follows, then JSON: ``kind`` (heartbeat, end, notice), ``name`` of the sender, ``stamp`` (nanoseconds since
1970, growing from message to message) and more. The secret is the cluster's own, so datagrams can come
from its nodes only; a repeated or old one is dropped. Delivery is not sure: what matters is repeated.

UDP, between members of the cluster's security group. Standard library only and no neighbours: deadman.py takes it along
to machines that have nothing else of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

NODES_PORT = 16021  # where each node's deadman.py listens
MASTER_PORT = 16022  # where the master's agent listens
MAC_BYTES = hashlib.sha256().digest_size
MAX_BYTES = 1400
# Clocks of EC2 instances agree to a millisecond; this is for a node that has not asked for the time yet.
MAX_SKEW_NANOSECONDS = 300 * 10**9

Clock = Callable[[], int]


class Signer:
    """Makes the datagrams of one sender."""

    def __init__(self, secret: str, name: str, *, clock: Clock = time.time_ns) -> None:
        self._secret = secret.encode()
        self._name = name
        self._clock = clock
        self._last = 0

    def sign(self, kind: str, **fields: Any) -> bytes:
        """A datagram; every one is new, even if the fields are the same."""
        self._last = max(self._last + 1, self._clock())
        body = json.dumps({**fields, "kind": kind, "name": self._name, "stamp": self._last}).encode()
        return hmac.digest(self._secret, body, "sha256") + body


class Verifier:
    """Takes datagrams, and believes those that are signed, young, and newer than the sender's last."""

    def __init__(self, secret: str, *, clock: Clock = time.time_ns) -> None:
        self._secret = secret.encode()
        self._clock = clock
        self._last: dict[str, int] = {}

    def open(self, datagram: bytes) -> dict[str, Any] | None:
        """The message, or None if it is not to be believed."""
        mac, body = datagram[:MAC_BYTES], datagram[MAC_BYTES:]
        if not hmac.compare_digest(mac, hmac.digest(self._secret, body, "sha256")):
            return None
        message: dict[str, Any] = json.loads(body)
        name, stamp = message["name"], message["stamp"]
        if stamp <= self._last.get(name, 0) or abs(stamp - self._clock()) > MAX_SKEW_NANOSECONDS:
            return None
        self._last[name] = stamp
        return message


def listen(port: int) -> socket.socket:
    """A socket for datagrams of the cluster."""
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.setblocking(False)  # a damaged datagram wakes its reader and is not there
    here.bind(("0.0.0.0", port))  # noqa: S104  # only the security group's members reach it, and each signs
    return here


def send(datagram: bytes, addresses: Iterable[str], port: int) -> None:
    """Send it once to each; who cannot be reached is not told so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        for address in addresses:
            with contextlib.suppress(OSError):
                way.sendto(datagram, (address, port))
