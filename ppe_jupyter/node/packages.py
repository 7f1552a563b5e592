"""Extra software on this node: Debian or Ubuntu packages, R packages, Python packages. Runs as root.

R packages come from the distribution where it has them, else from CRAN into the site library; Python packages with
pip to where the system's python3 looks (/usr/local), whatever PEP 668's marker says: nodes are made for this. Safe to
repeat: what is there is left alone. Must not know of clusters.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

LOG = Path("/var/log/ppe-install.log")
SITE_LIBRARY = "/usr/local/lib/R/site-library"
# A freshly booted machine's timers hold apt's locks for minutes.
APT = (
    "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0",
    "-o", "APT::Install-Recommends=false", "-o", "Dpkg::Options::=--force-confdef",
    "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip
UPDATE_TRIES, UPDATE_PAUSE = 10, 6.0
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
NAMES = {
    "apt": re.compile(r"[a-z0-9][a-z0-9+.:=~-]*"),
    "r": re.compile(r"[A-Za-z][A-Za-z0-9.]*"),
    # PEP 508: a name, extras, versions; or a name @ URL.
    "python": re.compile(r"[A-Za-z0-9][^\s]*( *@ *[^\s]+)?"),
}
LAST_LINES = 8
# Prints those of its arguments that R cannot load; quits with status 1 if any are missing after installing.
INSTALL_R = """
wanted <- commandArgs(TRUE)
missing <- function() setdiff(wanted, rownames(installed.packages()))
if (length(missing())) install.packages(missing(), lib = "%s", Ncpus = parallel::detectCores())
if (length(missing())) stop("not installed: ", paste(missing(), collapse = ", "))
"""

Say = Callable[[str], None]


class NotInstalled(Exception):
    """A package could not be installed; ``str()`` has the end of the log."""


def install(wanted: Mapping[str, Sequence[str]], say: Say) -> None:
    """Install ``apt``, ``r`` and ``python`` packages; ``say`` gets what is done now. Raises NotInstalled."""
    for kind, names in wanted.items():
        if kind not in NAMES:
            raise NotInstalled(f"no kind of packages: {kind!r}; there are {', '.join(NAMES)}")
        if bad := [name for name in names if not NAMES[kind].fullmatch(name)]:
            raise NotInstalled(f"no {kind} package can have that name: {', '.join(map(repr, bad))}")
    LOG.write_text("", encoding="utf-8")
    apt, r, python = (list(wanted.get(kind, ())) for kind in NAMES)
    if python and not _there(["python3", "-m", "pip", "--version"]):
        apt.append("python3-pip")
    r = [name for name in r if not _there(["Rscript", "--vanilla", "-e", f'find.package("{name}")'])]
    apt = [name for name in apt if not _installed(name)]
    if apt or r:
        _update(say)
    packaged = {name: f"r-cran-{name.lower()}" for name in r}
    packaged = {name: package for name, package in packaged.items() if _there(["apt-cache", "show", package])}
    if apt or packaged:
        _run([*APT, "install", *apt, *packaged.values()], say)
    if compiled := [name for name in r if name not in packaged]:
        _run(["Rscript", "-e", INSTALL_R % SITE_LIBRARY, *compiled], say)
    if python:
        _run(["python3", "-m", "pip", "install", *python], say)


def _update(say: Say) -> None:
    """The lock of the package lists has no time-out of its own."""
    for _ in range(UPDATE_TRIES - 1):
        try:
            _run([*APT, "update"], say)
        except NotInstalled:
            time.sleep(UPDATE_PAUSE)
        else:
            return
    _run([*APT, "update"], say)


def _installed(package: str) -> bool:
    asked = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout == "installed"


def _there(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], say: Say) -> None:
    """Run it, say its lines, keep them in the log."""
    title = " ".join(
        part for part in command if not part.startswith("-") and "\n" not in part and "::" not in part
    )
    lines: list[str] = []
    with (
        LOG.open("a", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env={**os.environ, **ENVIRONMENT},
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if line.strip():
                lines.append(line.strip())
                say(lines[-1])
    if process.returncode:
        raise NotInstalled(
            f"`{title}` ended with status {process.returncode}: {_end(lines)} (all of it is in {LOG} there)"
        )


def _end(lines: Iterable[str]) -> str:
    return " / ".join(list(lines)[-LAST_LINES:]) or "it printed nothing"
