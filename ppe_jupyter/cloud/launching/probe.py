"""Probe: what the master says of itself and its workers: who answers, since which boot, and what runs there.

The far side is node/setting_up/probe.py, which setting up has put there. Changes nothing; must not know EC2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ... import ssh
from ...node.r.rstudio import PLACES
from ..records import Node

PROBE = "exec python3 ~/.ppe/node probe"
PROBE_SECONDS = 120.0
RSTUDIO = f"PATH=$PATH:{':'.join(PLACES)}; command -v rserver"
FIELDS = ("index", "instance_id", "private_ip", "private_dns", "slots", "role")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A node's boot id and what its user runs there, or why it does not answer."""

    boot: str = ""
    busy: str = ""
    error: str = ""


def probe(master: ssh.Connection, nodes: Sequence[Node]) -> dict[str, Seen]:
    """What is seen of each node, by instance id; nothing at all when the master was never set up.

    Raises ConnectionLost, TimeoutError.
    """
    wanted = [{key: getattr(node, key) for key in FIELDS} for node in nodes]
    done = master.run(PROBE, stdin=json.dumps(wanted).encode(), timeout=PROBE_SECONDS, check=False)
    if done.status != 0:
        return {}
    return {instance_id: Seen(**answer) for instance_id, answer in json.loads(done.stdout).items()}


def has_rstudio(master: ssh.Connection) -> bool:
    """Whether RStudio Server is installed there. Raises ConnectionLost, TimeoutError."""
    return master.run(RSTUDIO, timeout=30, check=False).status == 0


def boot_id(node: ssh.Connection) -> str:
    """What tells one boot of the node from another."""
    return node.run("cat /proc/sys/kernel/random/boot_id", timeout=30).stdout.decode().strip()
