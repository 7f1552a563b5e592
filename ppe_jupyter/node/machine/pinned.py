"""Packages in given versions, as a lock wants them: the distribution's as root, on each node; R's and Python's as the
login user, on the master, from which own_packages.py takes them to the others.

The distribution's come from the configured archives, and from a snapshot of Debian's if one is given; R's as sources
from the configured repositories, which keep former versions in an Archive; Python's with pip. Dependencies are not
followed: a lock has them too. What cannot be had is told and left out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import own_packages
from .packages import APT, LOG, NAMES, OWN_LOG, NotInstalled, Say, _run, _update

Pins = Mapping[str, str]  # versions by name
Refused = dict[str, str]  # why, by name

SNAPSHOT = Path("/etc/apt/sources.list.d/ppe-snapshot.list")
VERSION = re.compile(r"[A-Za-z0-9][\w.+:~!-]*")
# Has the archives' versions of several packages, all of which it then installs in the order of their dependencies.
PINNED_R = r"""
wanted <- strsplit(commandArgs(TRUE), "=", fixed = TRUE)
names <- vapply(wanted, `[`, "", 1L); versions <- vapply(wanted, `[`, "", 2L)
repos <- getOption("repos"); repos[repos == "@CRAN@"] <- "https://cloud.r-project.org"
folder <- tempfile(); dir.create(folder)
had <- mapply(function(name, version) {
  file <- sprintf("%s_%s.tar.gz", name, version)
  for (url in outer(contrib.url(repos, "source"), c(file, file.path("Archive", name, file)), paste, sep = "/")) {
    done <- tryCatch(download.file(url, file.path(folder, file), quiet = TRUE, mode = "wb"),
                     error = identity, warning = identity)
    if (identical(done, 0L)) return(TRUE)
    unlink(file.path(folder, file))
  }
  FALSE
}, names, versions)
tools::write_PACKAGES(folder, type = "source")
if (any(had)) {
  install.packages(names[had], contriburl = paste0("file://", folder), type = "source", dependencies = FALSE,
                   Ncpus = getOption("mc.cores", 1L))
}
"""


def of_distribution(wanted: Pins, snapshot: str | None, say: Say) -> Refused:
    """Install Debian or Ubuntu packages as root; what was refused. ``snapshot`` is the URL of an archive of then.

    Raises NotInstalled for names and versions that cannot be.
    """
    _check("apt", wanted)
    try:
        if snapshot:
            release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
            line = f"deb [check-valid-until=no] {snapshot} {release[1] if release else 'stable'} main\n"
            SNAPSHOT.write_text(line, encoding="ascii")
        _update(say)
        known = {name: _versions(name) for name in wanted}
        refused = {
            name: f"apt has {', '.join(known[name]) or 'none'}"
            for name, version in wanted.items()
            if version not in known[name]
        }
        words = {name: f"{name}={version}" for name, version in wanted.items() if name not in refused}
        return {**refused, **_install([*APT, "--allow-downgrades", "install"], words, say, LOG)}
    except NotInstalled as exc:  # of the lists of packages
        return dict.fromkeys(wanted, str(exc))
    finally:
        SNAPSHOT.unlink(missing_ok=True)


def of_user(r: Pins, python: Pins, say: Say) -> dict[str, Refused]:
    """Install R and Python packages as the login user; what was refused, by kind. Raises as above."""
    _check("r", r)
    _check("python", python)
    OWN_LOG.parent.mkdir(parents=True, exist_ok=True)
    OWN_LOG.write_text("", encoding="utf-8")
    refused = {"r": _of_r(r, say)}
    words = {name: f"{name}=={version}" for name, version in python.items()}
    refused["python"] = _install(
        [own_packages.python(), "-m", "pip", "install", "--no-deps"], words, say, OWN_LOG
    )
    return refused


def _check(kind: str, wanted: Pins) -> None:
    for name, version in wanted.items():
        if not (NAMES[kind].fullmatch(name) and VERSION.fullmatch(version)):
            raise NotInstalled(f"no {kind} package can be {name} {version}")


def _versions(name: str) -> list[str]:
    """Those that apt could install, the newest first."""
    rows = subprocess.run(["apt-cache", "madison", name], capture_output=True, text=True, check=False).stdout
    return list(dict.fromkeys(row.split("|")[1].strip() for row in rows.splitlines() if "|" in row))


def _of_r(wanted: Pins, say: Say) -> Refused:
    if not wanted:
        return {}
    try:
        _run(["Rscript", "-e", PINNED_R, *(f"{name}={each}" for name, each in wanted.items())], say, OWN_LOG)
    except NotInstalled as exc:
        return dict.fromkeys(wanted, str(exc))
    there = own_packages.installed()["r"]
    return {name: "no repository has its source" for name, each in wanted.items() if there.get(name) != each}


def _install(command: Sequence[str], words: Mapping[str, str], say: Say, log: Path) -> Refused:
    """All at once; if that fails one by one, so that one that is gone does not take the others along."""
    if not words:
        return {}
    try:
        _run([*command, *words.values()], say, log)
        return {}
    except NotInstalled:
        refused = {}
    for name, word in words.items():
        try:
            _run([*command, word], say, log)
        except NotInstalled as exc:
            refused[name] = str(exc).rpartition(" / ")[2]
    return refused
