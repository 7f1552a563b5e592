"""What a node takes over from this host: apt's sources and proxy, the proxy variables, extra CA certificates.

Without them apt-get would fail inside nodes wherever it works outside only thanks to a mirror or a proxy.
Knows nothing of containers.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from .network import METADATA
from .privilege import PROXY_VARIABLES

DEBOOTSTRAP = Path("/usr/sbin/debootstrap")
APT_OPTIONS = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::ForceIPv4", "Acquire::Check-")


@functools.cache
def mirrors() -> tuple[str, str]:
    """The host's own mirrors of Debian and of its security updates, or debootstrap's own choice (on Ubuntu)."""
    default = re.search(r'^DEF_MIRROR="(\S+?)/?"', DEBOOTSTRAP.read_text(encoding="utf-8"), re.MULTILINE)
    assert default is not None, f"{DEBOOTSTRAP} names no mirror"
    found = {"Debian": default[1], "Debian-Security": f"{default[1]}-security"}
    lines = _output("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
    for line in reversed(lines):
        label, _, uri = line.partition(" ")
        if label in found and uri.startswith("http"):
            found[label] = uri.rstrip("/")
    return found["Debian"], found["Debian-Security"]


def write(root: Path) -> None:
    """Write the host's share of a node's files under ``root``."""
    debian, security = mirrors()
    sources = [
        f"deb {debian} bookworm main",
        f"deb {debian} bookworm-updates main",
        f"deb {security} bookworm-security main",
    ]
    _put(root / "etc/apt/sources.list", sources)
    options = [line for line in _output("apt-config", "dump") if line.startswith(APT_OPTIONS)]
    _put(root / "etc/apt/apt.conf.d/90ppe-host", options)
    proxies = {name: os.environ[name] for name in PROXY_VARIABLES if os.environ.get(name)}
    if proxies:
        proxies["no_proxy"] = ",".join(filter(None, [proxies.get("no_proxy"), METADATA]))
    _put(root / "etc/environment", [f"{name}={value}" for name, value in proxies.items()])
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        (root / "etc/ssl/certs").mkdir(parents=True)
        shutil.copy(bundle, root / "etc/ssl/certs")
    extra = Path("/usr/local/share/ca-certificates")
    if extra.is_dir():
        shutil.copytree(extra, root / "usr/local/share/ca-certificates")


def _put(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _output(*command: str) -> list[str]:
    """A command's lines; none when this host has no apt."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
