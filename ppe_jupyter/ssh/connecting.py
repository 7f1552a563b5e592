"""Connecting: to a host whose keys are known, with a key that it accepts, directly or through another way."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from .. import errors, proxy
from .connection import Connection
from .keys import Locked, Offers, private_key

# What paramiko has to say is said by our errors; without a handler of its own it would be on the user's screen.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
# A window of 2 MB, paramiko's default, holds a fast line back at 100 ms of latency; 16 MB does not.
WINDOW_BYTES = 16 * 2**20
PACKET_BYTES = 2**15


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to connect, as whom, and which host keys ("ssh-ed25519 AAAA…") are right there; none: it is not known.

    ``key`` is a private key; without one ``key_files`` are tried, and unless ``only_files`` what the SSH agent has.
    ``proxy_command`` is the way there if it is not a plain TCP connection (``proxy``). ``if_other`` says what it means
    that the host shows another key.
    """

    host: str
    user: str
    host_keys: tuple[str, ...]
    key: str = ""
    key_files: tuple[Path, ...] = ()
    only_files: bool = False
    port: int = 22
    proxy_command: str | None = None
    if_other: str = (
        "it is not the one that was launched. If the node was not rebuilt by you, terminate the cluster and "
        "launch anew"
    )

    def __repr__(self) -> str:
        return f"Target({self.user}@{self.host}:{self.port})"


def connect(
    target: Target, *, timeout: float, jump: Connection | None = None, own_jump: bool = False
) -> Connection:
    """Connect once, within ``timeout`` seconds; through ``jump`` if given, which is closed with it if it is its own.

    Raises Unreachable, UnknownHost, HostKeyMismatch or AuthenticationRefused.
    """
    key = _own_key(target)
    transport: paramiko.Transport | None = None
    way: socket.socket | paramiko.Channel | None = None
    try:
        way = _open_socket(target, timeout, jump)
        transport = paramiko.Transport(
            way,
            default_window_size=WINDOW_BYTES,
            default_max_packet_size=PACKET_BYTES,
        )
        _sign_in(transport, target, key, timeout=timeout)
    except BaseException as exc:
        _close(transport)
        if isinstance(exc, (OSError, EOFError, paramiko.SSHException)):
            said = way.complaint if isinstance(way, proxy.ProxySocket) else ""
            raise _refusal(target, exc, said) from exc
        raise
    return Connection(target, transport, below=jump if own_jump else None)


def _sign_in(
    transport: paramiko.Transport, target: Target, key: paramiko.PKey | None, *, timeout: float
) -> None:
    transport.banner_timeout = timeout
    transport.auth_timeout = timeout
    if target.host_keys:
        transport.get_security_options().key_types = _algorithms(target.host_keys)
    transport.start_client(timeout=timeout)
    _verify_host_key(transport, target)
    if key is not None:
        transport.auth_publickey(target.user, key)
    else:
        _authenticate(transport, target)


def _refusal(target: Target, exc: Exception, said: str) -> errors.PpeError:
    """What that error means; ``said`` is the proxy command's complaint, or ""."""
    where = f"{target.host}:{target.port}"
    if isinstance(exc, paramiko.AuthenticationException):
        return errors.AuthenticationRefused(
            f"{where} does not accept the key for user {target.user!r}; "
            "check the login user and that the key pair is the one the cluster was launched with",
            host=target.host,
        )
    if isinstance(exc, IncompatiblePeer):  # it offers no key of the kinds that we expect of it
        return _mismatch(target, "no key of the expected kind")
    return errors.Unreachable(
        f"no SSH server answers at {where}: {exc}{f'; the proxy command said: {said}' * bool(said)}",
        host=target.host,
    )


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


def _own_key(target: Target) -> paramiko.PKey | None:
    """The key that the target names; None if it names none."""
    if not target.key:
        return None
    try:
        key = private_key(target.key)
    except Locked as exc:
        raise errors.AuthenticationRefused(
            "the private key has a passphrase; name a key file without one (ssh-keygen -p removes it)",
            host=target.host,
        ) from exc
    if key is None:
        raise errors.AuthenticationRefused(
            "that is no private key in OpenSSH or PEM form (ed25519, RSA or ECDSA)", host=target.host
        )
    return key


def _authenticate(transport: paramiko.Transport, target: Target) -> None:
    """Try the user's keys, one after the other. Raises AuthenticationRefused."""
    offers = Offers(target.key_files, only=target.only_files)
    why = "it accepts none of these keys"
    for key in offers:
        try:
            more = transport.auth_publickey(target.user, key)
        except paramiko.AuthenticationException:
            if not transport.is_active():
                break
            continue
        if not more:
            return
        why = f"it wants more than a key: {', '.join(more)}"
        break
    tried = ", ".join(offers.tried) or "none"
    locked = f"; with a passphrase and not in the SSH agent (ssh-add): {', '.join(offers.locked)}"
    raise errors.AuthenticationRefused(
        f"{target.host}:{target.port} does not let user {target.user!r} in: {why} ({tried})"
        f"{locked * bool(offers.locked)}",
        host=target.host,
    )


def _algorithms(host_keys: tuple[str, ...]) -> list[str]:
    """The host key algorithms to ask for, so that the server shows the key that we know."""
    algorithms: list[str] = []
    for kind in dict.fromkeys(key.split()[0] for key in host_keys):
        algorithms += ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
    return algorithms


def _verify_host_key(transport: paramiko.Transport, target: Target) -> None:
    shown = transport.get_remote_server_key()
    key = f"{shown.get_name()} {shown.get_base64()}"
    if not target.host_keys:
        raise errors.UnknownHost(
            f"{target.host}:{target.port} is not known, and shows {shown.get_name()} {shown.fingerprint}",
            host=target.host,
            key=key,
            fingerprint=shown.fingerprint,
        )
    if key not in {" ".join(known.split()[:2]) for known in target.host_keys}:
        raise _mismatch(target, f"{shown.get_name()} {shown.fingerprint}")


def _mismatch(target: Target, shown: str) -> errors.HostKeyMismatch:
    return errors.HostKeyMismatch(
        f"the host at {target.host}:{target.port} shows {shown}: {target.if_other}. Nothing was sent to it",
        host=target.host,
    )


def _close(transport: paramiko.Transport | None) -> None:
    if transport is not None:
        transport.close()
