"""Whether this machine can run the local cloud; if not, one sentence that says what to do.

``python -m ppe_jupyter.localcloud.check`` says it and exits 1. Starts and changes nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import privilege

TOOLS = {  # command: Debian's package
    "lxc-start": "lxc",
    "debootstrap": "debootstrap",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
NEEDED_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21}  # linux/capability.h


def problem() -> str | None:
    """What the machine lacks and what to do about it, in one sentence; None if nothing is missing."""
    if not sys.platform.startswith("linux"):
        return "the local cloud runs on Linux only: use cloud = aws, or a Linux machine"
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)})
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.append("debian-archive-keyring")
    if missing:
        return f"the local cloud needs {', '.join(missing)}: sudo apt-get install {' '.join(missing)}"
    if os.geteuid() == 0:
        return _missing_rights()
    return None if privilege.available() else privilege.NEEDS_ROOT


def missing_moto() -> str | None:
    """What to install for the daemon; the image is built without it."""
    if importlib.util.find_spec("moto") and importlib.util.find_spec("flask"):
        return None
    return "the local cloud needs moto's server: pip install 'ppe-jupyter[local]'"


def _missing_rights() -> str | None:
    """Root in an unprivileged container has not root's rights."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    lacking = [name for name, bit in NEEDED_CAPABILITIES.items() if not effective >> bit & 1]
    if lacking:
        return (
            f"the local cloud starts containers, but root lacks {', '.join(lacking)} here:"
            " start this container with more rights (docker run --privileged), or use the host itself"
        )
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
        if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
            return "the local cloud needs the kernel's overlay file system: sudo modprobe overlay"
    return None


def main() -> int:
    """Say what is missing; 0 if nothing is."""
    if sentence := problem():
        sys.stderr.write(f"{sentence}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
