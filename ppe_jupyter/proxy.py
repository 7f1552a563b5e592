"""A command as the way to a host: what it reads and writes is the connection (OpenSSH's ProxyCommand).

Such as ``ssh -W %h:%p user@jump`` or AWS Session Manager's. The command may be anything that the user's own
machine can run; how it authenticates is its own affair. Threads copy, so that it also works where a process
cannot be given a socket (Windows). Knows nothing of SSH.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable

BLOCK = 2**16
STDERR_BYTES = 2000


class ProxySocket(socket.socket):
    """A connected socket whose other end is the command's standard input and output."""

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._theirs = theirs
        self._said = b""
        self._process = subprocess.Popen(
            in_shell(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        for work in (self._upwards, self._downwards, self._listen):
            threading.Thread(target=work, daemon=True, name="ppe-proxy").start()

    @property
    def complaint(self) -> str:
        """The end of what the command said on its standard error."""
        lines = self._said.decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def close(self) -> None:
        """End the command too."""
        super().close()
        with contextlib.suppress(OSError):
            self._process.terminate()
        threading.Thread(target=self._process.wait, daemon=True).start()

    def _upwards(self) -> None:
        assert self._process.stdin is not None
        _copy(self._theirs.recv, self._process.stdin.write)
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _downwards(self) -> None:
        assert self._process.stdout is not None
        _copy(self._process.stdout.read, self._theirs.sendall)
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)
        self._theirs.close()
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        while block := self._process.stderr.read(BLOCK):
            self._said = (self._said + block)[-STDERR_BYTES:]
        self._process.stderr.close()


def in_shell(command: str, *, posix: bool = os.name == "posix") -> str | list[str]:
    """The command as OpenSSH runs it: by the shell, where there is one of that kind.

    Elsewhere as it is: by the rules of Windows, backslashes separate folders.
    """
    return ["/bin/sh", "-c", f"exec {command}"] if posix else command


def command_for(template: str, *, host: str, port: int, user: str) -> str:
    """The command with %h, %p, %r and %% replaced, as in ssh_config(5)."""
    values = {"%h": host, "%p": str(port), "%r": user, "%%": "%"}
    parts = []
    rest = template
    while rest:
        before, sign, after = rest.partition("%")
        token = sign + after[:1]
        parts += [before, values.get(token, token)]
        rest = after[1:]
    return "".join(parts)


def _copy(read: Callable[[int], bytes | None], write: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while block := read(BLOCK):
            write(block)
