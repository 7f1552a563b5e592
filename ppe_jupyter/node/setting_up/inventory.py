"""What software every node has, and what it runs on: for session_info and locks.

    python3 ~/.ppe/node inventory         on the master: asks all nodes at once; JSON by host name (null: no answer)
    python3 ~/.ppe/node inventory here    this node's

A node's are {"facts": {what: text}, "packages": {kind: {name: [version, source]}}}. Kinds of packages are apt, r and
python. Of several versions of a package the one is told that a session would load. Run in ~/.ppe. Standard library.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..machine import own_packages
from ..ranks import census

ANSWER_SECONDS = 60.0
DEBIAN = "Debian"
# A line each: a fact, or a package with its library, and where it says that it is from.
R = r"""
say <- function(...) writeLines(paste(..., sep = "\t"))
say("fact", "R", as.character(getRversion()))
say("fact", "BLAS", extSoftVersion()[["BLAS"]])
say("fact", "LAPACK", sprintf("%s (%s)", La_version(), basename(La_library())))
found <- installed.packages(fields = c("Repository", "RemoteType", "RemoteSha"))
origin <- ifelse(is.na(found[, "Repository"]), found[, "RemoteType"], found[, "Repository"])
origin[is.na(origin)] <- "local"
commit <- ifelse(grepl("^[0-9a-f]{12}", found[, "RemoteSha"]) & !origin %in% c("CRAN", "RSPM"),
                 paste0(" ", substr(found[, "RemoteSha"], 1, 12)), "")
say("package", found[, "Package"], found[, "Version"], found[, "LibPath"], paste0(origin, commit))
"""
# Debian keeps python3-* here, and what pip installs elsewhere. What is of no index has a direct_url.json (PEP 610).
PYTHON = """
import importlib.metadata, json, platform
def source(told):
    vcs, archive = told.get("vcs_info"), told.get("archive_info") or {}
    code = vcs["commit_id"] if vcs else (archive.get("hash") or "").partition("=")[2]
    return " ".join(filter(None, [vcs["vcs"] if vcs else "local", code[:12]]))
found = {}
for each in importlib.metadata.distributions():
    name = each.metadata["Name"]
    if name and name not in found:
        told = json.loads(each.read_text("direct_url.json") or "null")
        ours = str(each.locate_file("")).startswith("/usr/lib/python3")
        found[name] = [each.version, "Debian" if ours else source(told) if told else "PyPI"]
print(json.dumps([platform.python_version(), found]))
"""

Facts = dict[str, str]
Packages = dict[str, list[str]]


def here() -> dict[str, Any]:
    """This node's."""
    asked: tuple[Callable[[], tuple[Facts, str, Packages]], ...] = (_r, _python, _apt)
    facts = {**_machine(), **_mpi()}
    packages = {}
    with ThreadPoolExecutor() as pool:
        for told, kind, found in pool.map(lambda ask: ask(), asked):
            facts.update(told)
            packages[kind] = found
    for name, kind in (("Rmpi", "r"), ("mpi4py", "python")):
        if name in packages[kind]:
            facts[name] = packages[kind][name][0]
    return {"facts": facts, "packages": packages}


def _r() -> tuple[Facts, str, Packages]:
    rows = [line.split("\t") for line in _printed("Rscript", "--no-init-file", "-e", R).splitlines()]
    packages: Packages = {}
    for row in rows:
        if row[0] == "package":
            _, name, version, library, origin = row
            source = DEBIAN if library.startswith("/usr/lib/R") else origin
            packages.setdefault(name, [version, source])
    return {row[1]: row[2] for row in rows if row[0] == "fact"}, "r", packages


def _python() -> tuple[Facts, str, Packages]:
    version, packages = json.loads(_printed(own_packages.python(), "-I", "-c", PYTHON) or '["", {}]')
    return {"Python": version}, "python", packages


def _apt() -> tuple[Facts, str, Packages]:
    rows = _printed("dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Version}\n").splitlines()
    found = [row.split("\t") for row in rows]
    return {}, "apt", {name: [version, DEBIAN] for status, name, version in found if status == "installed"}


def _machine() -> Facts:
    system = re.search(r'^PRETTY_NAME="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE)
    cpu = re.search(r"^Model name:\s+(.*)", _printed("lscpu"), re.MULTILINE)
    about = os.uname()
    return {
        "system": system[1] if system else "",
        "kernel": about.release,
        "architecture": about.machine,
        "CPU": cpu[1].strip() if cpu else "",
    }


def _mpi() -> Facts:
    words = _printed("mpirun", "--version").split("\n")[0].split()
    return {"Open MPI": words[-1] if words else ""}


def _printed(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


async def everywhere() -> Mapping[str, Any]:
    """Every node's, by host name, the master's first."""
    return await census.answers("inventory here", seconds=ANSWER_SECONDS)


if __name__ == "__main__":
    json.dump(here() if sys.argv[1:] == ["here"] else asyncio.run(everywhere()), sys.stdout)
