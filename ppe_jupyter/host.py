"""Host: any machine with R, Python and sshd, as a user holds it: the same evaluator as a cluster's, no cloud, no MPI.

Our software is copied to ~/.ppe/node there; R and its agent go on when the line is cut. Knows nothing of EC2, magics or
terminals.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from . import delivery, settings, ssh
from .errors import RemoteError, UsageError
from .files import Files
from .remote.ranks import cells
from .remote.sessions.session import AGENT, Output
from .sessions import Sessions

OLDEST_PYTHON = (3, 9)
# A line each: system, version of Python, R, and which of our files are there.
PROBE = (
    "uname -s; "
    "python3 -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null || echo none; "
    "command -v R || echo none; "
    f"cat {delivery.FOLDER}/{delivery.DIGEST} 2>/dev/null || echo none"
)
PROBE_SECONDS = 60.0


def connect(
    where: str,
    *,
    key_filename: str | Path | None = None,
    port: int | None = None,
    fingerprint: str | None = None,
) -> Host:
    """A host behind SSH, connected: ``[user@]host[:port]``, or a name of ~/.ssh/config, whose settings hold.

    Keys: ``key_filename``, else those of the configuration and of the SSH agent. A host that is not in known_hosts is
    refused by UnknownHost, which has the ``fingerprint`` to give ("SHA256:…") if that is the right one; it is
    added then. Raises SshError; RemoteError if the machine lacks what is needed.
    """
    host = Host(where, key_filename=key_filename, port=port, fingerprint=fingerprint)
    host.ssh()
    return host


class Host(Files, Sessions):
    """One machine behind SSH: its connection and its R session. Connects at the first use."""

    def __init__(
        self,
        where: str,
        *,
        key_filename: str | Path | None = None,
        port: int | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """``on_notice`` gets what the agent there has to say while a session is attached."""
        place = ssh.Place.parse(where)
        key_file = Path(key_filename).expanduser() if key_filename else place.key_file
        self._place = replace(
            place, key_file=key_file, port=port or place.port, fingerprint=fingerprint or place.fingerprint
        )
        self.name = where.removeprefix("ssh://")
        super().__init__()

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    def ssh(self) -> ssh.Connection:
        """The SSH connection, made anew if it was cut; our software is there then."""
        with self._lock:
            if self._connection is None or not self._connection.alive:
                timeout = settings.load().connect_timeout
                connection = ssh.reach(self._place, timeout=timeout)
                try:
                    _prepare(connection)
                except BaseException:
                    connection.close()
                    raise
                self._connection = connection
            return self._connection

    def run_python(
        self, code: str, *, ranks: int | None = None, on_output: Callable[[Output], None], **options: Any
    ) -> None:
        """Run Python there."""
        if ranks is not None:
            self.refuse("MPI ranks")
        cells.run_python(self.ssh(), code, on_output=on_output, **options)

    def run_ranks(self, cell: object, **options: Any) -> NoReturn:
        """Only a cluster has them."""
        self.refuse("MPI ranks")

    def map(self, function: object, *iterables: object, **options: Any) -> NoReturn:
        """Only a cluster has ranks for it."""
        self.refuse("MPI ranks")

    def end_ranks(self, language: str, ranks: int = -1) -> NoReturn:
        """Only a cluster has them."""
        self.refuse("MPI ranks")

    def run_shell(
        self, code: str, *, all_nodes: bool = False, on_output: Callable[[Output], None], **options: Any
    ) -> None:
        """Run shell commands there."""
        if all_nodes:
            self.refuse("other nodes")
        cells.run_shell(self.ssh(), code, on_output=on_output, **options)

    def ranks(self) -> NoReturn:
        """Only a cluster has them."""
        self.refuse("MPI ranks")

    def kill_rank(self, rank: int, job: str = "") -> NoReturn:
        """Only a cluster has them."""
        self.refuse("MPI ranks")

    def prepare_end(self, then: str, *, discard: bool = False) -> NoReturn:
        """Only a cluster ends itself."""
        self.refuse(f"end for --then {then}")

    def refresh(self) -> Host:
        """There is nobody to ask about it."""
        return self

    def refuse(self, what: str) -> NoReturn:
        """Raise UsageError: only a cluster has that."""
        raise UsageError(f"{self.name} is a host behind SSH and no cluster: it has no {what}")

    def end(self) -> None:
        """End its R session and the agent, and hang up. What was copied to ~/.ppe stays."""
        self.ssh().run(f"{AGENT} stop", timeout=PROBE_SECONDS)
        self.close()

    def _address_of(self, node: int | str) -> str | None:
        self.refuse(f"node {node}")

    def _others(self) -> list[str]:
        self.refuse("other nodes")


def _prepare(connection: ssh.Connection) -> None:
    """See that the machine has what we need, and copy our software unless it is there. Raises RemoteError."""
    name = connection.target.host
    said = connection.run(delivery.in_sh(PROBE), timeout=PROBE_SECONDS, check=False).stdout.decode()
    try:
        system, python, r, ours = said.strip().splitlines()[-4:]
        version = tuple(map(int, python.split())) if python != "none" else None
    except ValueError:
        raise RemoteError(f"{name} does not run commands: it answered {said.strip()[-200:]!r}") from None
    here = f"where `ssh {shlex.quote(name)} sh -c …` finds it: there only what the shell's start-up files set counts"
    if system != "Linux":
        raise RemoteError(f"{name} runs {system}; the R session's agent needs Linux")
    if version is None:
        raise RemoteError(f"{name} has no python3; install it {here}")
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise RemoteError(f"{name} has Python {'.'.join(map(str, version))}; {oldest} or later is needed")
    if r == "none":
        raise RemoteError(f"{name} has no R; install it {here}")
    if ours != delivery.digest():
        delivery.deliver(connection)
