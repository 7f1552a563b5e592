"""The R of this machine behind the real agent, without SSH: a shell whose home is a folder of the test's.

It has the parts of ``ssh.Connection`` and ``ssh.Channel`` that RemoteR uses.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ppe_jupyter.node
from ppe_jupyter.errors import ConnectionLost
from ppe_jupyter.remote.sessions.session import RemoteR
from ppe_jupyter.ssh import Connection

MISSING = None if shutil.which("R") else "R is not installed here"


class HostChannel:
    """A command's stream, as ssh.Channel gives it."""

    def __init__(self, command: str, home: Path) -> None:
        self._process = subprocess.Popen(
            command,
            shell=True,
            env={**os.environ, "HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._timeout: float | None = None

    def send_all(self, data: bytes | memoryview) -> None:
        assert self._process.stdin
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._process.stdin.fileno(), view) :]
        except (OSError, ValueError) as exc:
            raise ConnectionLost("lost") from exc

    def recv(self, size: int = 2**20) -> bytes:
        assert self._process.stdout
        if self._timeout is not None and not select.select([self._process.stdout], [], [], self._timeout)[0]:
            raise TimeoutError
        return os.read(self._process.stdout.fileno(), size)

    def recv_stderr(self, size: int = 2**16) -> bytes:
        assert self._process.stderr
        return os.read(self._process.stderr.fileno(), size)

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def __enter__(self) -> HostChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream
            stream.close()
        self._process.wait()


class HostConnection:
    """Commands in a shell of this machine, with another home."""

    alive = True
    target = SimpleNamespace(host="localhost")

    def __init__(self, home: Path) -> None:
        self._home = home

    def popen(self, command: str) -> Any:
        return HostChannel(command, self._home)

    def lost(self) -> ConnectionLost:
        return ConnectionLost("lost")


@contextmanager
def host_session(home: Path, **options: Any) -> Iterator[RemoteR]:
    """An attached R session in ``home``, ended afterwards."""
    node = Path(ppe_jupyter.node.__file__).parent
    shutil.copytree(node, home / ".ppe" / "node", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        with RemoteR(cast(Connection, HostConnection(home)), **options) as session:
            yield session
    finally:
        agent = [shutil.which("python3") or "python3", str(home / ".ppe" / "node" / "agent.py"), "stop"]
        subprocess.run(agent, env={**os.environ, "HOME": str(home)}, check=True, timeout=30)
