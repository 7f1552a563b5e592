"""Rekey: give a cluster whose key pair is lost a new one, from a client that holds the user's key.

The private half of a cluster's key pair is on its master only: it is lost with the master, or with the client of
a launch that died before it was written there. The new public half goes to each worker over SSH with the *user's*
key, through the new master; host keys are verified as ever.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from .. import ssh
from ..errors import AuthenticationRefused, RemoteError, Unreachable
from .context import Context
from .pace import Pace
from .records import ClusterRecord, Node

CLUSTER_KEY = "~/.ssh/id_ed25519"
# Written by setup.py: the host keys that nodes were given, before any tag tells of them.
NOTED_KEYS = "~/.ppe/host-keys.json"
AT_ONCE = 8
COMMAND_SECONDS = 30.0
# A node has one cluster key: what has the same comment is the lost one.
AUTHORIZE = (
    "umask 077 && mkdir -p ~/.ssh && cd ~/.ssh && touch authorized_keys && "
    "{{ grep -v {pattern} authorized_keys; cat; }} > ppe-keys; mv ppe-keys authorized_keys"
)


def new_pair(cluster: str) -> ssh.KeyPair:
    """A key pair of the cluster's own."""
    return ssh.generate_key_pair(_comment(cluster))


def public_key(master: ssh.Connection, cluster: str) -> str:
    """The public half of the cluster's key pair, or "" if the master does not have the private one."""
    command = f"ssh-keygen -y -f {CLUSTER_KEY} < /dev/null"
    done = master.run(command, timeout=COMMAND_SECONDS, check=False)
    words = done.stdout.decode().split()
    return f"{words[0]} {words[1]} {_comment(cluster)}" if done.status == 0 else ""


def rekey(
    context: Context,
    master: ssh.Connection,
    record: ClusterRecord,
    workers: Iterable[Node],
    *,
    pair: ssh.KeyPair,
    pace: Pace,
) -> dict[str, str]:
    """Let a new key pair into these workers; why one could not be reached in time, by instance id.

    setup.py puts the pair's private half on the master.
    """
    user_key = context.keys.private(record.key_name)
    done = master.run(f"cat {NOTED_KEYS}", timeout=COMMAND_SECONDS, check=False)
    noted = json.loads(done.stdout) if done.status == 0 else {}
    pattern = shlex.quote(f" {_comment(record.name)}$")
    command = AUTHORIZE.format(pattern=pattern)

    def authorize(node: Node) -> str:
        known = (noted.get(node.instance_id, ""), node.host_key, node.launch_host_key)
        target = ssh.Target(
            host=node.private_ip,
            user=record.login_user,
            key=user_key,
            host_keys=tuple(dict.fromkeys(filter(None, known))),
        )
        why = ""
        for last in pace.tries(seconds=context.settings.boot_timeout, longest=5.0):
            try:
                with context.connect(
                    target, timeout=context.settings.connect_timeout, jump=master
                ) as connection:
                    connection.run(command, stdin=f"{pair.public}\n".encode(), timeout=COMMAND_SECONDS)
                return ""
            except (Unreachable, AuthenticationRefused, TimeoutError) as exc:  # it may only be coming up
                why = str(exc)
            except RemoteError as exc:
                return str(exc)
            if last:
                break
        return why

    chosen = list(workers)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        answers = list(pool.map(authorize, chosen))
    return {node.instance_id: why for node, why in zip(chosen, answers, strict=True) if why}


def _comment(cluster: str) -> str:
    """What ends the public half of a cluster's own key pair."""
    return f"ppe-{cluster}"
