"""Any host as the user's own OpenSSH would reach it: ~/.ssh/config, known hosts, keys and agent, jump hosts.

Nothing is known but by known_hosts, or by a fingerprint that the user gives: then it is added there. Must not know what
is done on the host.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko

from .. import errors
from ..person import login_name
from .connecting import Target, connect
from .connection import Connection

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
SYSTEM = Path("/etc/ssh")
MOST_JUMPS = 8
MOST_INCLUDES = 16


@dataclass(frozen=True, kw_only=True)
class Place:
    """A host as it was typed: ``[user@]host[:port]``, the host perhaps a name of ~/.ssh/config.

    ``key_file`` is to be used alone; ``fingerprint`` ("SHA256:…") is what the user vouches for.
    """

    host: str
    user: str | None = None
    port: int | None = None
    key_file: Path | None = None
    fingerprint: str | None = None

    @classmethod
    def parse(cls, typed: str) -> Place:
        """Raises UsageError."""
        found = re.fullmatch(
            r"(?:(.+)@)?(?:\[([^\]]+)\]|([^\s@:]+))(?::(\d+))?", typed.removeprefix("ssh://")
        )
        if found is None or (found[2] or found[3]).startswith("-"):
            raise errors.UsageError(f"{typed!r} is no host; write user@host, or user@host:port")
        return cls(user=found[1], host=found[2] or found[3], port=int(found[4]) if found[4] else None)


def reach(place: Place, *, timeout: float, folder: Path | None = None) -> Connection:
    """Connect, through jump hosts if ~/.ssh/config (``folder`` stands for ~/.ssh) says so; ``timeout`` seconds each.

    Raises UnknownHost with what to do, HostKeyMismatch, AuthenticationRefused, Unreachable, SettingsError.
    """
    return _reach(place, timeout, folder or Path.home() / ".ssh", depth=0)


def config_hosts(folder: Path | None = None) -> list[str]:
    """``user@host`` for each host that ~/.ssh/config names."""
    config = _config(folder or Path.home() / ".ssh")
    names = sorted(name for name in config.get_hostnames() if not re.search(r"[*?!]", name))
    return [f"{config.lookup(name).get('user') or login_name()}@{name}" for name in names]


def _reach(place: Place, timeout: float, folder: Path, *, depth: int) -> Connection:
    if depth > MOST_JUMPS:
        raise errors.SettingsError(
            f"{folder / 'config'}: the jump hosts of {place.host} go round in a circle"
        )
    options = _config(folder).lookup(place.host)
    jumps = options.get("proxyjump") or "none"
    below = None
    target = _target(place, options, folder)
    try:
        for hop in [] if jumps == "none" else jumps.split(","):
            on_the_way = Place.parse(hop.strip())
            if below is None:
                below = _reach(on_the_way, timeout, folder, depth=depth + 1)
            else:
                wanted = _target(on_the_way, _config(folder).lookup(on_the_way.host), folder)
                below = _known(on_the_way, wanted, timeout, folder, below)
        return _known(place, target, timeout, folder, below)
    except BaseException:
        if below is not None:
            below.close()
        raise


def _target(place: Place, options: paramiko.SSHConfigDict, folder: Path) -> Target:
    host = options["hostname"]
    port = place.port or int(options.get("port") or 22)
    if place.key_file:
        files, only = [place.key_file], True
    else:
        files = [Path(name).expanduser() for name in options.get("identityfile", ())]
        only = options.get("identitiesonly", "no").lower() == "yes"
    name = options.get("hostkeyalias") or host
    name = name if port == 22 else f"[{name}]:{port}"
    return Target(
        host=host,
        user=place.user or options.get("user") or login_name(),
        port=port,
        host_keys=tuple(_known_keys(name, options, folder)),
        key_files=tuple(files or [folder / name for name in DEFAULT_KEYS]),
        only_files=only,
        proxy_command=None if options.get("proxyjump", "none") != "none" else options.get("proxycommand"),
        if_other=f"it is not the one that you know ({folder / 'known_hosts'}). If the host was rebuilt, forget its old "
        f"key with: ssh-keygen -R '{name}'",
    )


def _known(
    place: Place, target: Target, timeout: float, folder: Path, below: Connection | None
) -> Connection:
    """Connect to a host that is known, or whose fingerprint is the one that the user vouches for."""
    try:
        return connect(target, timeout=timeout, jump=below, own_jump=True)
    except errors.UnknownHost as exc:
        if exc.fingerprint != place.fingerprint:
            typed = f"{target.user}@{place.host}{f':{place.port}' if place.port else ''}"
            raise errors.UnknownHost(
                f"{exc}. If that is its fingerprint (ask who runs it), accept it with: "
                f"%ppe_connect {typed} --fingerprint {exc.fingerprint}",
                host=exc.host,
                key=exc.key,
                fingerprint=exc.fingerprint,
            ) from exc
        known = replace(target, host_keys=(exc.key,))
    connection = connect(known, timeout=timeout, jump=below, own_jump=True)
    name = known.host if known.port == 22 else f"[{known.host}]:{known.port}"
    _remember(folder / "known_hosts", f"{name} {known.host_keys[0]}\n")
    return connection


def _remember(file: Path, line: str) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    with file.open("a", encoding="utf-8") as known:
        known.write(line if text.endswith("\n") or not text else f"\n{line}")
    if not text:
        file.chmod(0o600)


def _known_keys(name: str, options: paramiko.SSHConfigDict, folder: Path) -> Iterator[str]:
    """What the known-hosts files say of it, but for keys that were revoked."""
    own = options.get("userknownhostsfile") or f"{folder}/known_hosts {folder}/known_hosts2"
    system = options.get("globalknownhostsfile") or f"{SYSTEM}/ssh_known_hosts"
    lines: list[str] = []
    for word in f"{own} {system}".split():
        with contextlib.suppress(OSError):
            file = Path(word.strip('"')).expanduser()
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
    revoked = {word for line in lines if line.startswith("@revoked") for word in line.split()}
    for line in (line.strip() for line in lines if not line.startswith(("@", "#"))):
        with contextlib.suppress(paramiko.SSHException, ValueError):
            entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
            if entry and entry.key and entry.hostnames and _is_one_of(name, entry.hostnames):
                key = entry.key.get_base64()
                if key not in revoked:
                    yield f"{entry.key.get_name()} {key}"


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    """Whether a line of known_hosts is of that host: hashed names, ``*``, ``?`` and ``!`` as in sshd(8)."""
    found = False
    for pattern in patterns:
        if pattern.startswith("|1|"):
            found |= paramiko.HostKeys.hash_host(name, pattern) == pattern
        elif fnmatch.fnmatch(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _config(folder: Path) -> paramiko.SSHConfig:
    """The user's configuration, then the machine's. Raises SettingsError."""
    lines = [*_lines(folder / "config", folder), "Host *", *_lines(SYSTEM / "ssh_config", SYSTEM)]
    try:
        return paramiko.SSHConfig.from_text("\n".join(lines))
    except paramiko.SSHException as exc:
        raise errors.SettingsError(f"{folder / 'config'}: {exc}") from exc


def _lines(file: Path, folder: Path, *, depth: int = 0) -> Iterator[str]:
    """Its lines, with those of what it includes, which paramiko does not."""
    if depth > MOST_INCLUDES or not file.is_file():
        return
    block = "Host *"
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.lower() in ("host", "match"):
            block = line
        if word.lower() != "include":
            yield line
            continue
        for pattern in rest.split():
            path = Path(pattern.strip('"')).expanduser()
            for found in sorted(glob.glob(str(folder / path))):  # noqa: PTH207  # of an absolute pattern too
                yield from _lines(Path(found), folder, depth=depth + 1)
        yield block  # what follows belongs to it again
