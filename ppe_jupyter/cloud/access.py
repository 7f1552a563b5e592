"""Access: how this client reaches a node, and keeps the way open when its own address has changed.

Directly at the public address, or, through the jump host or the command of the settings, at the private one.
A security group that we did not make is not ours to change.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from .. import ssh
from ..errors import AuthenticationRefused, PpeError, Unreachable
from ..person import host, os_user
from ..settings import Settings
from .context import Context
from .ec2.groups import SshRule
from .records import ClusterRecord, Node
from .spec import ClusterSpec

# A new rule of a security group takes effect within seconds.
RULE_SECONDS = 30.0
GIVEN = "SSH from the range given"


def rule_description(given: bool) -> str:
    """What a rule for port 22 is known by: the client whose address, or ``given`` range, it is."""
    client = f"{os_user()}@{host()}"
    return f"{GIVEN} by {client}" if given else f"SSH from {client}"


def target(context: Context, node: Node, *, user: str, key: str, host_keys: Sequence[str] = ()) -> ssh.Target:
    """Where and how the node is reached; ``key`` is the private half of the user's key pair."""
    command = _proxy_command(context.settings, node)
    return ssh.Target(
        host=node.private_ip if command else node.address,
        user=user,
        key=key,
        host_keys=tuple(host_keys) or (node.host_key,),
        proxy_command=command,
    )


def command_line(
    context: Context, record: ClusterRecord, node: Node, *, key: Path, known_hosts: Path
) -> list[str]:
    """The command that opens a shell on the node with OpenSSH, on the way that ``target`` takes; a worker that only
    the cluster reaches is reached through the master. ``key`` and ``known_hosts`` are files."""
    ssh_to = ["ssh", "-i", str(key), "-o", f'UserKnownHostsFile="{known_hosts}"']
    way, host = _proxy_command(context.settings, node), node.address
    if way is None and not is_reached(context, node, record.spec):
        way = shlex.join([*ssh_to, "-W", "%h:%p", f"{record.login_user}@{record.master.address}"])
    if way is not None:
        ssh_to += ["-o", f"ProxyCommand={way}"]
        host = node.private_ip
    return [*ssh_to, f"{record.login_user}@{host}"]


def proxy(settings: Settings) -> Literal["", "proxy_jump", "proxy_command"]:
    """The setting that leads to the master on another way than the direct one, or ""."""
    return "proxy_command" if settings.proxy_command else "proxy_jump" if settings.proxy_jump else ""


def is_reached(context: Context, node: Node, spec: ClusterSpec | None) -> bool:
    """Whether there may be a way from here to that node: some clusters have a public address for the master only."""
    proxied = bool(proxy(context.settings))
    return proxied or bool(node.public_ip) or spec is None or spec.public_addresses == "none"


def connect(context: Context, record: ClusterRecord) -> ssh.Connection:
    """Connect to the master; if nothing answers, let this machine's present address in and try again.

    Raises SshError, SettingsError when the private key is not here.
    """
    wanted = target(context, record.master, user=record.login_user, key=context.keys.opening(record.key_name))
    timeout = context.settings.connect_timeout
    try:
        return context.connect(wanted, timeout=timeout)
    except AuthenticationRefused as exc:
        if context.keys.path(record.key_name).exists():
            raise
        raise AuthenticationRefused(
            f"{exc}; {record.owner.partition(' ')[0]}, who launched {record.name}, lets you in with: "
            f"%ppe_share {record.name} --key YOUR-PUBLIC-KEY",
            host=exc.host,
        ) from exc
    except Unreachable as exc:
        try:
            changed = refresh_rule(context, record)
        except PpeError as why:
            raise Unreachable(f"{exc}; its rule for port 22 was not checked: {why}", host=exc.host) from exc
        if not changed:
            raise
    return _within(context, RULE_SECONDS, partial(context.connect, wanted, timeout=timeout))


def refresh_rule(context: Context, record: ClusterRecord) -> bool:
    """Let in SSH from this machine's present address, and from its former one no longer; whether that was needed.

    It does not matter, and is left alone, when the way leads through another host. Raises CloudError.
    """
    ec2, settings = context.ec2, context.settings
    given = record.spec is not None and record.spec.caller_cidr is not None
    if given or (proxy(settings) and settings.caller_cidr is None):
        return False
    groups = ec2.security_groups(cluster=record.name, launch=record.launch)
    cidr = settings.caller_cidr or f"{context.caller_address()}/32"
    if not groups or lets_in(rules := ec2.ssh_rules(groups), cidr):
        return False
    description = rule_description(given=settings.caller_cidr is not None)
    ec2.allow_ssh(groups[0], cidr, description=description)
    former = [rule.cidr for rule in rules if rule.description == description]
    if former:
        ec2.revoke_ssh(groups[0], former)
    return True


def lets_in(rules: Sequence[SshRule], cidr: str) -> bool:
    """Whether all of the range may reach port 22."""
    wanted = ipaddress.IPv4Network(cidr)
    return any(wanted.subnet_of(ipaddress.IPv4Network(rule.cidr)) for rule in rules)


def _proxy_command(settings: Settings, node: Node) -> str | None:
    """The command that leads to the node; %i is its instance id, which AWS Session Manager wants."""
    if settings.proxy_command:
        return settings.proxy_command.replace("%i", node.instance_id)
    if settings.proxy_jump:
        jump, _, port = settings.proxy_jump.partition(":")
        # The user's own OpenSSH knows how to get into that host, and its host key; it must not ask, though.
        options = ["-o", "BatchMode=yes", *(["-p", port] if port else ())]
        return shlex.join(["ssh", *options, "-W", "%h:%p", jump])
    return None


def _within(context: Context, seconds: float, connect: partial[ssh.Connection]) -> ssh.Connection:
    for last in context.pace().tries(seconds=seconds, longest=2.0):
        try:
            return connect()
        except Unreachable:
            if last:
                raise
    raise AssertionError("the last try returns or raises")
