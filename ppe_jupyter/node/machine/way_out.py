"""The way to package sources for nodes that have none of their own: a forward proxy on the master.

It is tinyproxy (Debian's tinyproxy-bin), at the master's private address, for members' addresses only, and to the
hosts of apt, CRAN and PyPI as the master is configured, and no others. The agent starts it at each boot and ends it.
On such a node apt, pip and R know of it by a file each. Must not know how nodes are reached.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import blocks

PORT = 3128
PACKAGE = "tinyproxy-bin"
FOLDER = Path.home() / ".ppe" / "way-out"
CONFIGURATION, FILTER, PID = FOLDER / "tinyproxy.conf", FOLDER / "hosts", FOLDER / "pid"
START_SECONDS = 10.0
# For one host, and for all: where one is reached, the first is, at once.
PROBE_SECONDS, PROBES_SECONDS = 2.0, 4.0
# What is asked for whatever the files say: PyPI sends its files from another host, and mirrors are named in lists.
HOSTS = (
    "deb.debian.org", "security.debian.org", "cdn-aws.deb.debian.org", "cloud.r-project.org", "cran.r-project.org",
    "packagemanager.posit.co", "pypi.org", "files.pythonhosted.org",
)  # fmt: skip
SOURCES = (
    "/etc/apt/sources.list", "/etc/apt/sources.list.d/*", "/etc/apt/mirrors/*", "/etc/pip.conf",
    "/etc/xdg/pip/pip.conf", "/etc/R/Rprofile.site", "/etc/R/Renviron.site",
)  # fmt: skip
URL = re.compile(r"https?://(?:[^/@\s\"']*@)?([A-Za-z0-9.-]+)(?::(\d+))?")
# The files of the node that has no way out. pip reads this one beside /etc/pip.conf.
APT, PIP, R = (
    Path("/etc/apt/apt.conf.d/95ppe-way-out"),
    Path("/etc/xdg/pip/pip.conf"),
    Path("/etc/R/Renviron.site"),
)
# AWS's own services by VPC endpoints, the instance metadata, and private networks (libcurl knows them since 7.86): the
# proxy is for packages, and refuses these.
DIRECT = (
    "localhost,127.0.0.0/8,169.254.0.0/16,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,.internal,.amazonaws.com"
)


# --- On any node, as root


def exists(hosts: Iterable[str]) -> bool:
    """Whether this node reaches one of the hosts by itself."""
    deadline = time.monotonic() + PROBES_SECONDS
    for host in hosts:
        for port in (443, 80):
            if time.monotonic() > deadline:
                return False
            with contextlib.suppress(OSError), socket.create_connection((host, port), PROBE_SECONDS):
                return True
    return False


def use(proxy: str | None) -> None:
    """Have apt, pip and R go by the proxy, such as ``http://10.0.0.4:3128``; None: by themselves."""
    if proxy is None:
        if APT.exists():
            APT.unlink()
            blocks.remove(PIP)
            blocks.remove(R)
        return
    blocks.replace(APT, "".join(f'Acquire::{kind}::Proxy "{proxy}";\n' for kind in ("http", "https")))
    PIP.parent.mkdir(parents=True, exist_ok=True)
    blocks.replace(PIP, pip_configuration(PIP.read_text(encoding="utf-8") if PIP.exists() else "", proxy))
    blocks.write(R, [f"http_proxy={proxy}", f"https_proxy={proxy}", f"no_proxy={DIRECT}"])


def pip_configuration(old: str, proxy: str) -> str:
    """pip's file, which may be the image's, with our block in its [global]: pip takes no section, or option, twice."""
    old = blocks.OURS.sub("", old)
    old += "\n" if old and not old.endswith("\n") else ""
    if re.search(r"^proxy\s*[=:]", old, re.MULTILINE):
        return old
    header = re.search(r"^\[global\].*\n", old, re.MULTILINE)
    at = header.end() if header else len(old)
    lines = [blocks.BEGIN, *([] if header else ["[global]"]), f"proxy = {proxy}", blocks.END, ""]
    return old[:at] + "\n".join(lines) + old[at:]


# --- On the master, as the login user


def package_hosts(more: str = "", *, root: Path = Path("/")) -> list[str]:
    """The hosts that this machine's apt, pip and R are configured for, those of URLs in ``more``, and HOSTS."""
    found = dict.fromkeys([*HOSTS, *(host.lower() for host, _ in URL.findall(more))])
    for pattern in SOURCES:
        for path in sorted(root.glob(pattern.lstrip("/"))):
            with contextlib.suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                wanted = (line for line in lines if not line.lstrip().startswith("#"))
                found.update(dict.fromkeys(host.lower() for line in wanted for host, _ in URL.findall(line)))
    return list(found)


def configuration(address: str, members: Iterable[str], upstream: str = "") -> str:
    """tinyproxy.conf(5). Whoever is not allowed is refused, as is what the filter does not name."""
    lines = [
        f"Listen {address}", f"Port {PORT}", f'PidFile "{PID}"', f'LogFile "{FOLDER / "log"}"', "LogLevel Notice",
        "Timeout 600", "MaxClients 200", *(f"Allow {member}" for member in members),
        f'Filter "{FILTER}"', "FilterDefaultDeny Yes", "FilterExtended On", "FilterURLs Off", "ConnectPort 443",
        *([f"Upstream http {upstream}"] if upstream else []),
    ]  # fmt: skip
    return "\n".join([*lines, ""])


def host_filter(allowed: Iterable[str]) -> str:
    """Its filter: regular expressions, one a line, of which one must fit the host."""
    return "".join(f"^{re.escape(host)}$\n" for host in allowed)


def write(address: str, members: Sequence[str], allowed: Sequence[str]) -> None:
    """What the proxy is to be, and to which hosts; it is (re)started by ``start``."""
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    FILTER.write_text(host_filter(allowed), encoding="ascii")
    CONFIGURATION.write_text(configuration(address, members, _upstream()), encoding="ascii")


def forget() -> None:
    """No node needs it (any more)."""
    stop()
    shutil.rmtree(FOLDER, ignore_errors=True)


def start(*, anew: bool = False) -> str:
    """Have the proxy run if one is written down, ``anew`` as it is now; why it does not, or ""."""
    if not CONFIGURATION.exists():
        return ""
    if anew:
        stop()
    elif _pid():
        return ""
    command = ["tinyproxy", "-c", str(CONFIGURATION)]  # it leaves its parent by itself
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    deadline = time.monotonic() + START_SECONDS
    while not done.returncode and time.monotonic() < deadline:
        if _pid():
            return ""
        time.sleep(0.02)
    return done.stderr.strip() or f"it ended with status {done.returncode}; see {FOLDER / 'log'}"


def stop() -> None:
    """End it and wait for that."""
    deadline = time.monotonic() + START_SECONDS
    while (pid := _pid()) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)


def _pid() -> int:
    """Of the proxy that runs, or 0; after a reboot the number may be another process's."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(PID.read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() == "tinyproxy":
            return pid
    return 0


def _upstream() -> str:
    """The proxy that this machine's own apt uses, as host:port, or ""."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["apt-config", "shell", "PROXY", "Acquire::http::Proxy"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        if (found := URL.search(said)) and found[2]:
            return f"{found[1]}:{found[2]}"
    return ""
