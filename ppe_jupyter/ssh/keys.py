"""Key pairs: made, read, and those that a user has to offer to a host: files and the agent's."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from ..errors import UsageError

LEAST_RSA_BITS = 2048
MOST_NAME = 60


@dataclass(frozen=True)
class KeyPair:
    """An SSH key pair in OpenSSH's text forms."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r})"


@dataclass(frozen=True)
class PublicKey:
    """Somebody's public key. ``name`` is its comment, in characters that any list can take, else of its fingerprint."""

    kind: str
    blob: str
    name: str

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The key in a file's text, as ssh-keygen writes it (RFC 4253, 6.6). Raises UsageError."""
        if "PRIVATE KEY" in text:
            raise UsageError(
                "that is a private key, which its owner must keep: the public one is in the file .pub"
            )
        lines = [line.split(maxsplit=2) for line in text.splitlines() if line.strip() and line[0] != "#"]
        if len(lines) != 1 or len(lines[0]) < 2:
            raise UsageError(f"that is not one public key of SSH: {text[:60]!r}")
        kind, blob, *comment = lines[0]
        try:
            key = load_ssh_public_key(f"{kind} {blob}".encode())
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise UsageError(f"that is not a public key that can be used ({exc}): {text[:60]!r}") from exc
        if isinstance(key, DSAPublicKey) or (isinstance(key, RSAPublicKey) and key.key_size < LEAST_RSA_BITS):
            raise UsageError("that key is too weak: make one with ssh-keygen -t ed25519")
        name = re.sub(r"[^A-Za-z0-9@._+-]+", "-", "".join(comment)).strip("-")[:MOST_NAME]
        found = cls(kind, blob, name)
        return found if name else replace(found, name=found.fingerprint[7:19].replace("/", "_"))

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def line(self) -> str:
        """It as a line of authorized_keys."""
        return f"{self.kind} {self.blob} {self.name}"


class Locked(Exception):
    """A private key has a passphrase."""


def generate_key_pair(comment: str = "") -> KeyPair:
    """Make an ed25519 key pair without a passphrase."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(private, f"{public} {comment}".strip())


def private_key(text: str) -> paramiko.PKey | None:
    """The private key in a file's text; None if that is none. Raises Locked."""
    for kind in (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException as exc:
            raise Locked from exc
        except (paramiko.SSHException, ValueError):
            continue
    return None


class Offers:
    """The keys to try at a host, in turn: ``files``, one with a passphrase only if the agent has it; then the agent's
    others unless ``only`` the files count. After the iteration ``tried`` and ``locked`` name them."""

    def __init__(self, files: Sequence[Path], *, only: bool) -> None:
        self._files = files
        self._only = only
        self.tried: list[str] = []
        self.locked: list[str] = []

    def __iter__(self) -> Iterator[paramiko.PKey]:
        agent = paramiko.Agent()
        try:
            held = {key.get_base64(): key for key in agent.get_keys()}
            for path in self._files:
                if (key := self._of(path, held)) is not None:
                    self.tried.append(str(path))
                    yield key
            for key in () if self._only else held.values():
                self.tried.append(f"the agent's {key.comment or key.get_name()}")
                yield key
        finally:
            agent.close()

    def _of(self, path: Path, held: dict[str, paramiko.AgentKey]) -> paramiko.PKey | None:
        with contextlib.suppress(OSError, IndexError, UnicodeDecodeError):
            public = Path(f"{path}.pub").read_text(encoding="ascii").split()[1]
            if public in held:
                return held.pop(public)
        try:
            return private_key(path.read_text(encoding="ascii"))
        except Locked:
            self.locked.append(str(path))
        except (OSError, UnicodeDecodeError):
            pass
        return None
