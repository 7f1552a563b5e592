"""SSH to a node: connect with a verified host key, run commands, hold duplex channels.

The only importer of paramiko. A host is known by the keys its caller names, never by what it shows first: one
with any other key is refused at the key exchange, before anything is sent to it. sshd allows ten sessions a
connection (``MaxSessions``); ours uses at most eight at once and lets the ninth wait. Knows nothing of
clusters, EC2 or R.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import paramiko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from paramiko.ssh_exception import IncompatiblePeer

from . import errors, proxy

MAX_CHANNELS = 8
# What paramiko has to say is said by our errors; without a handler of its own it would be on the user's screen.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
# A window of 2 MB, paramiko's default, holds a fast line back at 100 ms of latency; 16 MB does not.
WINDOW_BYTES = 16 * 2**20
PACKET_BYTES = 2**15
KEEPALIVE_SECONDS = 20
SESSION_SECONDS = 10.0


@dataclass(frozen=True)
class KeyPair:
    """An SSH key pair in OpenSSH's text forms."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r})"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to connect, as whom, and which host keys ("ssh-ed25519 AAAA…") are right there.

    ``proxy_command`` is the way there if it is not a plain TCP connection (``proxy``).
    """

    host: str
    user: str
    key: str
    host_keys: tuple[str, ...]
    port: int = 22
    proxy_command: str | None = None

    def __repr__(self) -> str:
        return f"Target({self.user}@{self.host}:{self.port})"


@dataclass(frozen=True)
class Completed:
    """A command that has ended."""

    status: int
    stdout: bytes
    stderr: bytes


def generate_key_pair(comment: str = "") -> KeyPair:
    """Make an ed25519 key pair without a passphrase."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(private, f"{public} {comment}".strip())


def connect(target: Target, *, timeout: float, jump: Connection | None = None) -> Connection:
    """Connect once, within ``timeout`` seconds; through ``jump`` if given.

    Raises Unreachable, HostKeyMismatch or AuthenticationRefused.
    """
    where = f"{target.host}:{target.port}"
    key = _load_key(target)
    transport: paramiko.Transport | None = None
    way: socket.socket | paramiko.Channel | None = None
    try:
        way = _open_socket(target, timeout, jump)
        transport = paramiko.Transport(
            way,
            default_window_size=WINDOW_BYTES,
            default_max_packet_size=PACKET_BYTES,
        )
        transport.banner_timeout = timeout
        transport.auth_timeout = timeout
        transport.get_security_options().key_types = _algorithms(target.host_keys)
        transport.start_client(timeout=timeout)
        _verify_host_key(transport, target)
        transport.auth_publickey(target.user, key)
        transport.set_keepalive(KEEPALIVE_SECONDS)
    except paramiko.AuthenticationException as exc:
        _close(transport)
        raise errors.AuthenticationRefused(
            f"{where} does not accept the key for user {target.user!r}; "
            "check the login user and that the key pair is the one the cluster was launched with",
            host=target.host,
        ) from exc
    except IncompatiblePeer as exc:
        # It offers no key of the kinds that we expect of it.
        _close(transport)
        raise _mismatch(target, "no key of the expected kind") from exc
    except (OSError, EOFError, paramiko.SSHException) as exc:
        _close(transport)
        said = way.complaint if isinstance(way, proxy.ProxySocket) else ""
        raise errors.Unreachable(
            f"no SSH server answers at {where}: {exc}{f'; the proxy command said: {said}' * bool(said)}",
            host=target.host,
        ) from exc
    except BaseException:
        _close(transport)
        raise
    return Connection(target, transport)


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
        except OSError as exc:
            raise self._connection.lost() from exc

    def recv(self, size: int = 2**20) -> bytes:
        """Up to ``size`` bytes of standard output; b"" at its end. Raises TimeoutError, ConnectionLost."""
        data = self._channel.recv(size)
        if not data and not self._connection.alive:
            raise self._connection.lost()
        return data

    def recv_stderr(self, size: int = 2**16) -> bytes:
        """Up to ``size`` bytes of standard error; b"" at its end."""
        return self._channel.recv_stderr(size)

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
    """An authenticated SSH connection; may be used by several threads."""

    def __init__(self, target: Target, transport: paramiko.Transport) -> None:
        self.target = target
        self._transport = transport
        self._free = threading.BoundedSemaphore(MAX_CHANNELS)

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
        """Start ``command`` in the login shell and return its stream."""
        self._free.acquire()
        try:
            channel = self._open_session()
            channel.exec_command(command)
        except BaseException as exc:
            self._free.release()
            if isinstance(exc, (OSError, EOFError, paramiko.SSHException)):
                raise self.lost() from exc
            raise
        return Channel(channel, self)

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

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def quote_path(path: str) -> str:
    """Quote a remote path for the shell, leaving a leading ``~/`` to it."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


def _open_socket(target: Target, timeout: float, jump: Connection | None) -> socket.socket | paramiko.Channel:
    if jump is not None:
        return jump.forward(target.host, target.port, timeout=timeout)
    if target.proxy_command is not None:
        return proxy.ProxySocket(
            proxy.command_for(target.proxy_command, host=target.host, port=target.port, user=target.user)
        )
    sock = socket.create_connection((target.host, target.port), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _load_key(target: Target) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey):
        try:
            return kind.from_private_key(io.StringIO(target.key))
        except paramiko.PasswordRequiredException as exc:
            raise errors.AuthenticationRefused(
                "the private key has a passphrase; name a key file without one (ssh-keygen -p removes it)",
                host=target.host,
            ) from exc
        except (paramiko.SSHException, ValueError):
            continue
    raise errors.AuthenticationRefused(
        "that is no private key in OpenSSH or PEM form (ed25519, RSA or ECDSA)", host=target.host
    )


def _algorithms(host_keys: tuple[str, ...]) -> list[str]:
    """The host key algorithms to ask for, so that the server shows the key that we know."""
    algorithms: list[str] = []
    for kind in dict.fromkeys(key.split()[0] for key in host_keys):
        algorithms += ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
    return algorithms


def _verify_host_key(transport: paramiko.Transport, target: Target) -> None:
    shown = transport.get_remote_server_key()
    if f"{shown.get_name()} {shown.get_base64()}" not in {
        " ".join(key.split()[:2]) for key in target.host_keys
    }:
        raise _mismatch(target, f"{shown.get_name()} {shown.fingerprint}")


def _mismatch(target: Target, shown: str) -> errors.HostKeyMismatch:
    return errors.HostKeyMismatch(
        f"the host at {target.host}:{target.port} is not the one that was launched: it shows {shown}. "
        "Nothing was sent to it. If the node was not rebuilt by you, terminate the cluster and launch anew",
        host=target.host,
    )


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


def _close(transport: paramiko.Transport | None) -> None:
    if transport is not None:
        transport.close()
