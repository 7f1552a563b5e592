"""The local cloud's network: one bridge on an unused private /16, with a way out for some.

The /16 is the default VPC, so that EC2's PrivateIpAddress is the container's address. Everything made here
carries the cloud's id in its name, so that what a dead daemon left is found and removed by name alone. Runs
as root. Knows nothing of instances beyond addresses and names.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from ..errors import LocalCloudUnavailable

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
HOSTS = Path("/etc/hosts")
METADATA = "169.254.169.254"
CANDIDATES = [
    *(IPv4Network(f"10.{n}.0.0/16") for n in range(213, 255)),
    *(IPv4Network(f"172.{n}.0.0/16") for n in range(31, 15, -1)),
    *(IPv4Network(f"100.{n}.0.0/16") for n in range(64, 128)),
]
# An interface's own link-local address, which nobody uses, would come and go with each container; then a browser here
# fails the requests that wait for a connection, also to the lab (Chromium: ERR_NETWORK_CHANGED; 4 of 10 at a time).
NO_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"
# A packet that may not leave is dropped, as where no route leads out.
RULES = """table ip {bridge} {{
  set outward {{ type ipv4_addr; }}
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @outward ip daddr != {cidr} masquerade
  }}
  chain stay {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname != "{bridge}" ip saddr != @outward drop
  }}
  chain metadata {{
    type nat hook prerouting priority dstnat; policy accept;
  }}
}}
"""


@dataclass(frozen=True)
class Network:
    """A bridge that is up. ``gateway`` is this host's address on it."""

    bridge: str
    cidr: IPv4Network
    mtu: int

    @property
    def gateway(self) -> str:
        """The first address, which is the router's in EC2 too."""
        return str(self.cidr[1])


def bridge_name(cloud_id: str) -> str:
    """The bridge's name; at most 15 characters are allowed."""
    return f"ppe{cloud_id}"


def exists(cloud_id: str) -> bool:
    """Whether the bridge is there, which down() removes last but one."""
    return Path("/sys/class/net", bridge_name(cloud_id)).exists()


def choose(routed: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps no network the host routes to."""
    taken = list(routed)
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise LocalCloudUnavailable(
        "every private network that the local cloud could use is routed on this machine"
    )


def up(cloud_id: str, *, local_root: Path) -> Network:
    """Make the bridge, its masquerading and its exceptions from the host's firewall."""
    bridge = bridge_name(cloud_id)
    with _locked(local_root):
        routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all"))
        cidr = choose(_routed(routes))
        network = Network(bridge, cidr, _mtu(routes))
        run("ip", "link", "add", bridge, "mtu", str(network.mtu), "type", "bridge", "stp_state", "0")
        with contextlib.suppress(OSError):  # a kernel without IPv6
            Path(NO_IPV6.format(bridge)).write_text("1")
        run("ip", "address", "add", f"{network.gateway}/16", "broadcast", str(cidr[-1]), "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        if IP_FORWARD.read_text().strip() == "0":
            (local_root / "ip_forward_was_off").touch()
            IP_FORWARD.write_text("1")
    run("nft", "-f", "-", stdin=RULES.format(bridge=bridge, cidr=cidr))
    _except_from_firewall(bridge)
    return network


def let_out(network: Network, addresses: Iterable[str]) -> None:
    """Let these nodes reach what is beyond the bridge, and no others."""
    name = f"ip {network.bridge} outward"
    elements = f"add element {name} {{ {', '.join(sorted(addresses))} }}\n" if addresses else ""
    run("nft", "-f", "-", stdin=f"flush set {name}\n{elements}")


def lead_to_metadata(network: Network, port: int) -> None:
    """Let the instance metadata address, seen from the bridge, be this port of the gateway.

    It becomes no address of this host's: that may be an EC2 instance with a metadata service of its own.
    """
    bridge = network.bridge
    rule = f'iifname "{bridge}" ip daddr {METADATA} tcp dport 80 redirect to :{port}'
    run("nft", "add", "rule", "ip", bridge, "metadata", rule)
    if shutil.which("iptables"):
        _accept(bridge, {"INPUT": [["-i", bridge, "-p", "tcp", "--dport", str(port)]]})


def down(cloud_id: str, *, local_root: Path) -> None:
    """Remove everything that up() made; safe to repeat, and after a crash."""
    bridge = bridge_name(cloud_id)
    publish_on_host(cloud_id, {})
    with _locked(local_root):
        for rule in _exceptions(bridge):
            run("iptables", "-D", *rule)
        run("nft", "-f", "-", stdin=f"add table ip {bridge}\ndelete table ip {bridge}\n")
        if exists(cloud_id):
            run("ip", "link", "delete", bridge)
        was_off = local_root / "ip_forward_was_off"
        if was_off.exists() and not any(Path("/sys/class/net").glob("ppe" + "[0-9a-f]" * 8)):
            IP_FORWARD.write_text("0")
            was_off.unlink()


def publish_on_host(cloud_id: str, names: Mapping[str, Sequence[str]]) -> None:
    """Put the nodes' names into /etc/hosts, in a marked block that is replaced whole or removed."""
    begin, end = f"# BEGIN ppe_jupyter {cloud_id}\n", f"# END ppe_jupyter {cloud_id}\n"
    with HOSTS.open("a+", encoding="utf-8") as file:  # in place: it is a bind mount in a container
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        old = file.read()
        text = re.sub(f"{begin}.*?{end}", "", old, flags=re.DOTALL)
        if names:
            text += ("" if text.endswith("\n") else "\n") + begin + hosts_lines(names) + end
        if text != old:
            file.truncate(0)
            file.write(text)


def hosts_lines(names: Mapping[str, Sequence[str]]) -> str:
    """Lines in the format of hosts(5)."""
    return "".join(f"{address} {' '.join(aliases)}\n" for address, aliases in sorted(names.items()))


def run(*command: str, stdin: str = "") -> str:
    """A command's output. Raises LocalCloudUnavailable with what it printed."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[0]
        raise LocalCloudUnavailable(f"the local cloud could not run `{' '.join(command)}`: {reason}")
    return done.stdout


def _routed(routes: list[dict[str, str]]) -> Iterator[IPv4Network]:
    """What must not be hidden: every network with a route of its own, and the resolvers."""
    for route in routes:
        if route["dst"] != "default":
            yield IPv4Network(route["dst"], strict=False)
    for word in Path("/etc/resolv.conf").read_text().split():
        try:
            yield IPv4Network(word)
        except ipaddress.AddressValueError:
            continue


def _mtu(routes: list[dict[str, str]]) -> int:
    """The way out's MTU: with a larger one on the bridge, big packets would need ICMP to find their way."""
    devices = [route["dev"] for route in routes if route["dst"] == "default" and "dev" in route]
    sizes = [int(Path(f"/sys/class/net/{device}/mtu").read_text()) for device in devices]
    return min([1500, *sizes])


def _except_from_firewall(bridge: str) -> None:
    """Let the bridge's packets pass a firewall (Docker's, ufw's) that drops by default.

    With bridge-nf-call-iptables = 1, Docker's FORWARD policy would even cut the nodes from each other.
    """
    if not shutil.which("iptables"):
        if chain := _dropping_chain():
            raise LocalCloudUnavailable(
                f"this machine's firewall drops what the local cloud's nodes send ({chain}):"
                " install iptables, with which an exception can be made, or let that chain accept"
            )
        return
    dns = [["-i", bridge, "-p", protocol, "--dport", "53"] for protocol in ("udp", "tcp")]
    _accept(bridge, {"FORWARD": [["-i", bridge], ["-o", bridge]], "INPUT": dns})


def _accept(bridge: str, exceptions: Mapping[str, Sequence[Sequence[str]]]) -> None:
    """Exceptions, marked as ours, from chains that drop by default."""
    comment = ["-m", "comment", "--comment", bridge]
    for chain, matches in exceptions.items():
        if run("iptables", "-S", chain).startswith(f"-P {chain} DROP"):
            for match in matches:
                run("iptables", "-I", chain, *match, *comment, "-j", "ACCEPT")


def _exceptions(bridge: str) -> list[list[str]]:
    if not shutil.which("iptables"):
        return []
    rules = run("iptables", "-S").splitlines()
    return [line.split()[1:] for line in rules if f"--comment {bridge} " in line]


def _dropping_chain() -> str | None:
    """A chain that drops packets to or through this host by default."""
    for item in json.loads(run("nft", "--json", "list", "chains"))["nftables"]:
        chain = item.get("chain", {})
        drops = chain.get("policy") == "drop" and chain.get("hook") in ("forward", "input")
        if drops and chain["family"] in ("ip", "inet"):
            return f"nftables {chain['family']} {chain['table']} {chain['name']}"
    return None


@contextlib.contextmanager
def _locked(local_root: Path) -> Iterator[None]:
    """One daemon at a time chooses a subnet or touches ip_forward."""
    with (local_root / ".network-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
