"""An SSH connection that stands: commands, channels, small files, ways beyond.

sshd allows ten sessions a connection (``MaxSessions``); ours uses at most eight at once. The ninth has another let go
that is idle, or waits, but not for ever.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import paramiko

from .. import errors

if TYPE_CHECKING:
    from .connecting import Target

MAX_CHANNELS = 8
FREE_SECONDS = 30.0
# A line that is cut in silence (a network that drops packets, a lid that was closed) looks alive for a quarter of an
# hour. So the other end is asked now and then, and must answer in time: noticed within 30 s.
ASK_SECONDS = 8.0
ANSWER_SECONDS = 20.0
SESSION_SECONDS = 10.0


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    status: int
    stdout: bytes
    stderr: bytes


class Channel:
    """One command on a node, as a duplex stream of bytes. Closing it frees its place on the connection."""

    def __init__(self, channel: paramiko.Channel, connection: Connection) -> None:
        self._channel = channel
        self._connection = connection
        self._released = threading.Lock()

    def send_all(self, data: bytes | memoryview) -> None:
        """Send all of ``data``, waiting for the window."""
        try:
            # paramiko cuts off what it has sent, 32 kB at a time: of bytes, that copies all the rest each time.
            self._channel.sendall(memoryview(data))  # type: ignore[arg-type]  # takes any buffer
        except (OSError, EOFError) as exc:
            raise self._connection.lost() from exc

    def recv(self, size: int = 2**20) -> bytes:
        """Up to ``size`` bytes of standard output; b"" at its end. Raises TimeoutError, ConnectionLost."""
        data = self._taken(self._channel.recv, size)
        if not data and not self._connection.alive:
            raise self._connection.lost()
        return data

    def recv_stderr(self, size: int = 2**16) -> bytes:
        """Up to ``size`` bytes of standard error; b"" at its end. Raises TimeoutError, ConnectionLost."""
        return self._taken(self._channel.recv_stderr, size)

    def _taken(self, take: Callable[[int], bytes], size: int) -> bytes:
        """To take is to send, too: the other end is told that there is room again."""
        try:
            return take(size)
        except EOFError as exc:
            raise self._connection.lost() from exc

    def settimeout(self, timeout: float | None) -> None:
        """Let ``recv`` and ``send_all`` raise TimeoutError after ``timeout`` seconds."""
        self._channel.settimeout(timeout)

    def close_write(self) -> None:
        """Send end of file to the command's standard input."""
        with contextlib.suppress(OSError, EOFError):  # the line is cut: what is read next says so
            self._channel.shutdown_write()

    def exit_status(self) -> int:
        """Wait for the command's end. Raises ConnectionLost when the line was cut before it."""
        status = self._channel.recv_exit_status()
        if status == -1 and not self._connection.alive:
            raise self._connection.lost()
        return status

    def close(self) -> None:
        """Close the stream; sshd hangs the command up. Safe to repeat."""
        if self._released.acquire(blocking=False):
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):  # the line may be cut already
                self._channel.close()
            self._connection._free.release()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Connection:
    """An authenticated SSH connection; may be used by several threads.

    ``below``: the connection that it goes through, if it is this one's to close.
    """

    def __init__(
        self, target: Target, transport: paramiko.Transport, *, below: Connection | None = None
    ) -> None:
        self.target = target
        self._below = below
        self._transport = transport
        self._free = threading.BoundedSemaphore(MAX_CHANNELS)
        self.spare: Callable[[], object] = lambda: None  # has a channel closed that is idle, if there is one
        threading.Thread(target=_watch, args=(transport,), daemon=True, name="ppe line").start()

    @property
    def alive(self) -> bool:
        """Whether the line stands, as far as this end knows."""
        return self._transport.is_active()

    def lost(self) -> errors.ConnectionLost:
        """The error to raise when the line was cut."""
        return errors.ConnectionLost(
            f"the connection to {self.target.host} was cut; what runs there goes on: connect again to see it",
            host=self.target.host,
        )

    def popen(self, command: str) -> Channel:
        """Start ``command`` in the login shell and return its stream. Raises SshError if no channel gets free."""
        self._take_place()
        try:
            channel = self._open_session()
            channel.exec_command(command)
        except BaseException as exc:
            self._free.release()
            if isinstance(exc, (OSError, EOFError, paramiko.SSHException)):
                raise self.lost() from exc
            raise
        return Channel(channel, self)

    def _take_place(self) -> None:
        deadline = time.monotonic() + FREE_SECONDS
        while not self._free.acquire(blocking=False):
            self.spare()
            if self._free.acquire(timeout=1.0):
                return
            if time.monotonic() > deadline:
                raise errors.SshError(
                    f"all {MAX_CHANNELS} channels to {self.target.host} are busy, with R sessions that evaluate, jobs"
                    " that are waited for, commands and transfers; let one end, or interrupt it, and try again",
                    host=self.target.host,
                )

    def _open_session(self) -> paramiko.Channel:
        """A session; sshd may still be closing those that have just ended here, and refuse until it has."""
        deadline = time.monotonic() + SESSION_SECONDS
        while True:
            try:
                return self._transport.open_session()
            except paramiko.ChannelException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def run(
        self, command: str, *, stdin: bytes = b"", timeout: float | None = None, check: bool = True
    ) -> Completed:
        """Run ``command`` to its end, within ``timeout`` seconds.

        Raises RemoteCommandFailed for a status other than 0 if ``check``, TimeoutError, ConnectionLost.
        """
        with self.popen(command) as channel:
            expired = threading.Event()
            stderr = io.BytesIO()
            threads = [
                threading.Thread(target=_feed, args=(channel, stdin), daemon=True),
                threading.Thread(target=_drain_stderr, args=(channel, stderr), daemon=True),
            ]
            timer = threading.Timer(timeout or 0, _expire, (channel, expired))
            if timeout is not None:
                timer.start()
            for thread in threads:
                thread.start()
            try:
                stdout = b"".join(iter(channel.recv, b""))
                status = channel.exit_status()
            finally:
                timer.cancel()
            if expired.is_set():
                raise TimeoutError(f"{self.target.host}: no end within {timeout:g} s: {command}")
            threads[1].join()
        completed = Completed(status, stdout, stderr.getvalue())
        if check and status != 0:
            raise _failed(self.target.host, command, completed)
        return completed

    def put(self, data: bytes, remote_path: str, *, mode: int = 0o600) -> None:
        """Write a small file whole: a cut line leaves the old one."""
        path, part = quote_path(remote_path), quote_path(f"{remote_path}.part")
        self.run(f"umask 077 && cat > {part} && chmod {mode:o} {part} && mv {part} {path}", stdin=data)

    def get(self, remote_path: str) -> bytes:
        """Read a small file."""
        return self.run(f"cat {quote_path(remote_path)}").stdout

    def forward(self, host: str, port: int, *, timeout: float) -> paramiko.Channel:
        """A stream to ``host:port`` as the node sees it."""
        try:
            return self._transport.open_channel(
                "direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=timeout
            )
        except paramiko.SSHException as exc:
            if not self.alive:
                raise self.lost() from exc
            raise errors.Unreachable(
                f"{self.target.host} cannot reach {host}:{port}: {exc}", host=host
            ) from exc

    def close(self) -> None:
        """Hang up. Safe to repeat."""
        self._transport.close()
        if self._below is not None:
            self._below.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def quote_path(path: str) -> str:
    """Quote a remote path for the shell, leaving a leading ``~/`` to it."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


def _failed(host: str, command: str, completed: Completed) -> errors.RemoteCommandFailed:
    stderr = completed.stderr.decode(errors="replace").strip()
    last = stderr.splitlines()[-1] if stderr else "it printed no error"
    shown = command if len(command) <= 80 else f"{command[:77]}..."
    return errors.RemoteCommandFailed(
        f"{host}: `{shown}` ended with status {completed.status}: {last}",
        command=command,
        status=completed.status,
        stderr=stderr,
    )


def _expire(channel: Channel, expired: threading.Event) -> None:
    expired.set()
    channel.close()


def _feed(channel: Channel, data: bytes) -> None:
    # A command may end without reading all, or the line be cut: what the reader meets then tells what matters.
    with contextlib.suppress(errors.ConnectionLost, OSError, EOFError):
        channel.send_all(data)
        channel.close_write()


def _drain_stderr(channel: Channel, into: io.BytesIO) -> None:
    with contextlib.suppress(OSError):
        for block in iter(channel.recv_stderr, b""):
            into.write(block)


def _watch(transport: paramiko.Transport) -> None:
    """Close a line whose other end does not answer any more; any answer will do, a refusal too."""
    while transport.is_active():
        time.sleep(ASK_SECONDS)
        asking = threading.Thread(target=_ask, args=(transport,), daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS)
        if asking.is_alive():
            transport.close()


def _ask(transport: paramiko.Transport) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        transport.global_request("keepalive@openssh.com", wait=True)
