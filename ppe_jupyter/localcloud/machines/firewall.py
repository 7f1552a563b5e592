"""Security groups as nftables rules in a node's own network namespace.

The rules are loaded from outside, before the node's first process runs and whenever a group or its members
change. Root inside a node can flush them: they protect nodes from the network, not the network from nodes.
Pure but for apply().
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .. import network

ANY = "-1"


@dataclass(frozen=True, order=True)
class Ingress:
    """One permission: protocol (EC2's name or number), port range (ICMP: type, code), source networks."""

    protocol: str
    ports: tuple[int, int] | None
    sources: tuple[str, ...]


def ruleset(permissions: Iterable[Ingress]) -> str:
    """What nft loads to let in answers, this node itself and the permitted, and nothing else."""
    accepted = [f"    {rule}\n" for permission in sorted(set(permissions)) for rule in _rules(permission)]
    return (
        "add table inet ppe\ndelete table inet ppe\ntable inet ppe {\n  chain ingress {\n"
        "    type filter hook input priority filter; policy drop;\n"
        "    ct state established,related accept\n    iif lo accept\n"
        f"{''.join(accepted)}"
        "  }\n}\n"
    )


def apply(rules: str, *, pid: int) -> None:
    """Replace the rules in the network namespace of a process, in one transaction."""
    network.run("nsenter", "--target", str(pid), "--net", "nft", "-f", "-", stdin=rules)


def _rules(permission: Ingress) -> Iterable[str]:
    if not permission.sources:
        return
    source = "" if "0.0.0.0/0" in permission.sources else f"ip saddr {{ {', '.join(permission.sources)} }} "
    protocol, ports = permission.protocol, permission.ports
    if protocol == ANY:
        yield f"{source}accept"
    elif protocol in ("tcp", "udp"):
        low, high = ports or (0, 65535)
        yield f"{source}{protocol} dport {low}-{high} accept"
    elif protocol == "icmp" and ports and ports[0] >= 0:
        yield f"{source}icmp type {ports[0]} accept"
    else:
        yield f"{source}meta l4proto {protocol} accept"
