"""Rekey: give a cluster whose key pair is lost a new one, from a client that holds the user's key.

The private half of a cluster's key pair is on its master only: it is lost with the master, or with the client of
a launch that died before it was written there. The new public half goes to each worker over SSH with the *user's*
key, through the new master; host keys are verified as ever.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ... import ssh
from ...errors import AuthenticationRefused, RemoteError, Unreachable
from ..context import Context
from ..pace import Pace
from ..records import ClusterRecord, Node

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


class ClusterKey:
    """The cluster's own key pair while the cluster is changed; ``pair`` is a new one, if it needs one."""

    def __init__(self, context: Context, cluster: str) -> None:
        self.pair: ssh.KeyPair | None = None
        self._context = context
        self._comment = f"ppe-{cluster}"  # ends the public half

    def renew(self) -> ssh.KeyPair:
        """A new key pair from now on."""
        self.pair = ssh.generate_key_pair(self._comment)
        return self.pair

    def public(self, open_master: Callable[[], ssh.Connection | None]) -> str:
        """What new nodes let the master in by: the public half of the pair that a master has, else of a new one."""
        if self.pair is None:
            master = open_master()
            if master is not None:
                with master:
                    if found := self._public_on(master):
                        return found
        return (self.pair or self.renew()).public

    def private(
        self, master: ssh.Connection, record: ClusterRecord, workers: Iterable[Node], *, pace: Pace
    ) -> tuple[str | None, dict[str, str]]:
        """The private half for the master's disk, None if it is there; why a worker did not get a new one, by id.

        ``workers`` are those that do not let in a new pair yet.
        """
        if self.pair is None and self._public_on(master):
            return None, {}
        pair = self.pair or self.renew()
        return pair.private, self._authorize(pair, master, record, list(workers), pace)

    def _public_on(self, master: ssh.Connection) -> str:
        """The public half of the pair whose private half is on the master, or ""."""
        command = f"ssh-keygen -y -f {CLUSTER_KEY} < /dev/null"
        done = master.run(command, timeout=COMMAND_SECONDS, check=False)
        words = done.stdout.decode().split()
        return f"{words[0]} {words[1]} {self._comment}" if done.status == 0 else ""

    def _authorize(
        self,
        pair: ssh.KeyPair,
        master: ssh.Connection,
        record: ClusterRecord,
        workers: list[Node],
        pace: Pace,
    ) -> dict[str, str]:
        """Let the pair into these workers; why one could not be reached in time, by instance id."""
        user_key = self._context.keys.opening(record.key_name)
        done = master.run(f"cat {NOTED_KEYS}", timeout=COMMAND_SECONDS, check=False)
        noted = json.loads(done.stdout) if done.status == 0 else {}
        command = AUTHORIZE.format(pattern=shlex.quote(f" {self._comment}$"))

        def authorize(node: Node) -> str:
            known = (noted.get(node.instance_id, ""), node.host_key, node.launch_host_key)
            target = ssh.Target(
                host=node.private_ip,
                user=record.login_user,
                key=user_key,
                host_keys=tuple(dict.fromkeys(filter(None, known))),
            )
            settings, why = self._context.settings, ""
            for _ in pace.tries(seconds=settings.boot_timeout, longest=5.0):
                try:
                    connection = self._context.connect(target, timeout=settings.connect_timeout, jump=master)
                    with connection:
                        connection.run(command, stdin=f"{pair.public}\n".encode(), timeout=COMMAND_SECONDS)
                    return ""
                except (Unreachable, AuthenticationRefused, TimeoutError) as exc:  # it may only be coming up
                    why = str(exc)
                except RemoteError as exc:
                    return str(exc)
            return why

        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            answers = list(pool.map(authorize, workers))
        return {node.instance_id: why for node, why in zip(workers, answers, strict=True) if why}
