"""Extra software on this node: the distribution's packages as root, those of CRAN and PyPI as the login user.

R packages come from the distribution where it has them, else from CRAN into the user's library (which repository:
Rprofile.site); Python packages with pip into the user's environment (own_packages.py, which takes both to other nodes).
Safe to repeat: what is there is left alone. Must not know of clusters.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from . import own_packages

LOG = Path("/var/log/ppe-install.log")
OWN_LOG = own_packages.FOLDER / "log" / "install.log"
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
    "PIP_NO_INPUT": "1",
    "LC_ALL": "C.UTF-8",
}
NAMES = {
    "apt": re.compile(r"[a-z0-9][a-z0-9+.:=~-]*"),
    "r": re.compile(r"[A-Za-z][A-Za-z0-9.]*"),
    # PEP 508: a name, extras, versions; or a name @ URL.
    "python": re.compile(r"[A-Za-z0-9][^\s]*( *@ *[^\s]+)?"),
}
LAST_LINES = 8
INSTALL_R = """
wanted <- commandArgs(TRUE)
missing <- function() setdiff(wanted, rownames(installed.packages()))
if (length(missing())) install.packages(missing(), Ncpus = getOption("mc.cores", 1L))
if (length(missing())) stop(paste(missing(), collapse = ", "), ": not installed from ", getOption("repos")[["CRAN"]])
"""

Say = Callable[[str], None]


class NotInstalled(Exception):
    """A package could not be installed; ``str()`` has the end of the log."""


def install(wanted: Mapping[str, Sequence[str]], say: Say) -> list[str]:
    """Install ``apt`` and ``r`` packages of the distribution; the names of R packages that it does not have.

    Runs as root. ``say`` gets what is done now. Raises NotInstalled.
    """
    for kind, names in wanted.items():
        if kind not in NAMES:
            raise NotInstalled(f"no kind of packages: {kind!r}; there are {', '.join(NAMES)}")
        if bad := [name for name in names if not NAMES[kind].fullmatch(name)]:
            raise NotInstalled(f"no {kind} package can have that name: {', '.join(map(repr, bad))}")
    LOG.write_text("", encoding="utf-8")
    apt = [name for name in wanted.get("apt", ()) if not _installed(name)]
    r = [name for name in wanted.get("r", ()) if not own_packages.in_site_library(name)]
    if apt or r:
        _update(say)
    packaged = {name: f"r-cran-{name.lower()}" for name in r}
    packaged = {name: package for name, package in packaged.items() if _there(["apt-cache", "show", package])}
    if apt or packaged:
        _run([*APT, "install", *apt, *packaged.values()], say)
    return [name for name in r if name not in packaged]


def install_own(r: Sequence[str], python: Sequence[str], say: Say) -> None:
    """Install packages of CRAN and PyPI as the login user, for whom ``say`` and Raises are as above."""
    OWN_LOG.parent.mkdir(parents=True, exist_ok=True)
    OWN_LOG.write_text("", encoding="utf-8")
    if r:
        _run(["Rscript", "-e", INSTALL_R, *r], say, OWN_LOG)
    if python:
        _run([own_packages.python(), "-m", "pip", "install", *python], say, OWN_LOG)


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
    name, _, version = package.partition("=")
    asked = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name]
    status, _, there = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.partition(
        " "
    )
    return status == "installed" and version in ("", there)


def _there(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], say: Say, log_file: Path = LOG) -> None:
    """Run it, say its lines, keep them in the log."""
    title = " ".join(
        Path(part).name
        for part in command
        if not part.startswith("-") and "\n" not in part and "::" not in part
    )
    lines: list[str] = []
    with (
        log_file.open("a", encoding="utf-8") as log,
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
            f"`{title}` ended with status {process.returncode}: {_end(lines)} (all of it is in {log_file} there)"
        )


def _end(lines: Iterable[str]) -> str:
    return " / ".join(list(lines)[-LAST_LINES:]) or "it printed nothing"
