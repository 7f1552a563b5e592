"""Asks a cluster's nodes for their software, and has packages installed in a lock's versions.

The work is done by inventory.py and pins.py of node/setting_up/ on the master, which reaches the workers. Must not
know EC2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...errors import RemoteError
from ...ssh import Connection
from ..configure import run_to_end
from ..lock import Pins
from ..pace import Pace, Report
from ..records import ClusterRecord
from ..software import Software

SOFTWARE = "exec python3 ~/.ppe/node inventory"
PINS = "exec python3 ~/.ppe/node pins"
ASK_SECONDS = 120.0
Refused = Mapping[str, Mapping[str, str]]  # why, by kind and name


def software_of(connection: Connection, record: ClusterRecord) -> dict[int, Software]:
    """Of all nodes by their index, in one round trip. Raises RemoteError that names those that do not answer."""
    told = json.loads(connection.run(SOFTWARE, timeout=ASK_SECONDS).stdout)
    nodes = {node.index: told.get(node.private_dns.split(".")[0]) for node in record.nodes if node.up}
    if silent := [str(index) for index, each in nodes.items() if not each]:
        raise RemoteError(f"no answer from node {', '.join(silent)} of {record.name!r}; see: %ppe_status")
    return {index: Software.of(each) for index, each in nodes.items()}


def software_here(connection: Connection) -> Software:
    """The master's alone."""
    return Software.of(json.loads(connection.run(f"{SOFTWARE} here", timeout=ASK_SECONDS).stdout))


def pin(
    connection: Connection,
    record: ClusterRecord,
    pins: Mapping[int, Pins],
    *,
    lock: str,
    snapshot: str | None,
    report: Report,
    pace: Pace,
) -> dict[int, Refused]:
    """Install packages in those versions, by the nodes' index; what was refused. Safe to repeat.

    ``lock`` is the text that says why, noted on all nodes for those that come later; ``snapshot`` the URL of an archive
    of Debian's of then. Raises SetupFailed, when a node does not answer.
    """
    addresses = {node.index: node.private_ip for node in record.nodes}
    task = {
        "pins": {addresses[index]: each for index, each in pins.items()},
        "snapshot": snapshot,
        "lock": lock,
    }
    done = run_to_end(connection, PINS, json.dumps(task).encode(), report=report, pace=pace)
    refused: Mapping[str, Refused] = done.get("refused", {})
    return {index: refused[address] for index, address in addresses.items() if address in refused}
