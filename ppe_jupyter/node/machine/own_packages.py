"""The login user's own software, the same on all nodes: R's user library and the Python environment ~/.ppe/venv.

    python3 ~/.ppe/node own_packages [share]     on the master: what has changed since the last time goes to the workers
    python3 ~/.ppe/node own_packages venv        makes this node's environment, unless there is one
    python3 ~/.ppe/node own_packages versions    of the packages that standard input names, on this node (JSON)

Run it in ~/.ppe, as the login user. ``share`` prints what was done, a line for each language, and behind "!" what
was not. Whoever starts processes on other nodes calls it first: Rprofile.site for R's workers, ranks/cell.py for
ranks. If nothing has changed it costs a look at the folders. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path.home() / ".ppe"
VENV = FOLDER / "venv"
# What the nodes have, since when: folders that changed later are to be copied. Rprofile.site looks at it too.
SHARED = FOLDER / "own-packages.json"
# Why nodes do not have them, by name; made when that was tried last.
FAILED = FOLDER / "own-packages-failed.json"
# A node that does not answer is asked again after so long, not for each cell.
FAILED_SECONDS = 30.0
HOSTFILE = Path.home() / "ompi-hostfile"
OWN_LIBRARIES = "R/*-library/*"  # R's %U for a Unix (?R_LIBS_USER), below the home
LIBRARIES = ("/usr/local/lib/R/site-library", "/usr/lib/R/site-library", "/usr/lib/R/library")
WHEELS = Path("/usr/share/python-wheels")  # of Debian's python3-pip-whl
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=5"
RSYNC = ("rsync", "-aR", "--no-implied-dirs", "--delete", "--timeout=60", "--exclude=00LOCK*", "-e", SSH)
AT_ONCE = 32
# The kernel's clock for files ticks this often at least.
TICK_NS = 20_000_000
NAMED = 5
TITLES = {"r": "R library", "python": "Python"}

Versions = dict[str, dict[str, str]]


def python() -> str:
    """The Python of cells and ranks."""
    ours = VENV / "bin" / "python3"
    return str(ours) if ours.exists() else "python3"


def path() -> str:
    """PATH with its programs, such as pip, before others."""
    ours = str(VENV / "bin")
    others = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([ours, *(each for each in others if each != ours)])


def make_environment() -> None:
    """The environment ~/.ppe/venv, which sees the distribution's packages too.

    Its pip is the distribution's wheel: ensurepip would take seconds on each node at each launch.
    """
    import venv

    if (VENV / "bin" / "pip").exists():
        return
    venv.create(VENV, system_site_packages=True, symlinks=True)
    (VENV / "pip.conf").write_text("[global]\ndisable-pip-version-check = true\n")
    wheels = sorted(map(str, WHEELS.glob("pip-*.whl")))
    for packages in _site_packages() if wheels else ():
        (packages / "ppe-pip.pth").write_text(f"{wheels[-1]}\n")
    for name in ("pip3", "pip"):  # the last one says that all is made
        script = VENV / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {VENV}/bin/python3 -m pip "$@"\n')
        script.chmod(0o755)


# --- What is there


def installed() -> Versions:
    """The user's own packages of this node with their versions, by language."""
    r = {}
    for each in _home().glob(f"{OWN_LIBRARIES}/*/DESCRIPTION"):
        with contextlib.suppress(OSError):  # it is just being removed
            r[each.parent.name] = _version(each)
    return {"r": r, "python": dict(_distributions(_site_packages()))}


def versions(wanted: Mapping[str, Sequence[str]]) -> Versions:
    """The versions of ``apt``, ``r`` and ``python`` packages that are on this node; "" for what is not."""
    apt, r, python_ = (list(wanted.get(kind, ())) for kind in ("apt", "r", "python"))
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *apt]
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout if apt else ""
    debian = {line.split()[1]: line.split()[2] for line in told.splitlines() if line.startswith("installed ")}
    own = installed()
    libraries = {name: next(_described(name), "") for name in r}
    known = {**_seen_by_venv(), **own["python"]} if python_ else {}
    return {
        "apt": {name: debian.get(re.split("[=:]", name)[0], "") for name in apt},
        "r": {name: own["r"].get(name) or libraries[name] for name in r},
        "python": {distribution(name): known.get(normal(distribution(name)), "") for name in python_},
    }


def in_site_library(name: str) -> bool:
    """Whether an R package is there for all users."""
    return any(_described(name))


def distribution(requirement: str) -> str:
    """The name in a requirement such as ``numpy[x]>=2``."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0] if found else requirement


def _described(name: str) -> Iterator[str]:
    for library in LIBRARIES:
        with contextlib.suppress(OSError):
            yield _version(Path(library, name, "DESCRIPTION"))


def _version(description: Path) -> str:
    text = description.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^Version:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _seen_by_venv() -> dict[str, str]:
    told = subprocess.run(
        [python(), "-c", "import json, sys; print(json.dumps(sys.path[1:]))"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    return dict(_distributions(map(Path, reversed(json.loads(told or "[]")))))


def _distributions(folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for each in [*folder.glob("*.dist-info"), *folder.glob("*.egg-info")]:
            name, _, rest = each.stem.partition("-")
            yield normal(name), rest.split("-")[0]


def normal(name: str) -> str:
    """The name of a Python package as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _home() -> Path:
    return Path.home()


def _site_packages() -> list[Path]:
    return sorted(VENV.glob("lib/python3*/site-packages"))


# --- The same on the workers


def is_stale() -> bool:
    """Whether there is something that was not copied to the workers."""
    return _changed(SHARED.stat().st_mtime_ns) if SHARED.exists() else any(installed().values())


def _changed(since: int) -> bool:
    folders = [*_home().glob(OWN_LIBRARIES), *_site_packages()]
    try:
        # A change's own time, not what an archive says of its files.
        return any(
            each.lstat().st_ctime_ns > since for folder in folders for each in folder.iterdir()
        ) or any(folder.stat().st_ctime_ns > since for folder in folders)
    except FileNotFoundError:  # it is just being changed
        return True


def share(*, everything: bool = False) -> Iterator[str]:
    """Copy to the workers what has changed, or ``everything``; lines that say so, warnings behind "!"."""
    if not HOSTFILE.exists() or not (everything or is_stale()):
        return
    from concurrent.futures import ThreadPoolExecutor  # this_node.py does without, sooner

    with (FOLDER / "own-packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (everything or is_stale()):  # another has just done it
            return
        if not everything and (failed := _just_failed()):
            yield from _warnings(failed)
            return
        began, now, before = time.time_ns() - TICK_NS, installed(), _shared()
        workers = [line.split()[0] for line in HOSTFILE.read_text().splitlines()[1:] if line.strip()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            failed = {node: why for node, why in zip(workers, pool.map(_copy, workers)) if why}
        if copied := len(workers) - len(failed):
            for kind, title in TITLES.items():
                yield from _said(title, before.get(kind, {}), now[kind], copied)
        yield from _warnings(failed)
        _note(FAILED, failed, began)
        _note(SHARED, now, 0 if failed else began)


def _note(path: Path, what: Mapping[str, Any], time_ns: int) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(what))
    os.utime(new, ns=(time_ns, time_ns))
    new.replace(path)


def _just_failed() -> dict[str, str]:
    """As FAILED says, if that was a moment ago and nothing has changed since."""
    with contextlib.suppress(OSError, ValueError):
        began = FAILED.stat().st_mtime_ns
        if time.time_ns() - began < FAILED_SECONDS * 1e9 and not _changed(began):
            return dict(json.loads(FAILED.read_text()))
    return {}


def _warnings(failed: Mapping[str, str]) -> Iterator[str]:
    for node, why in failed.items():
        yield f"!{node} does not have the same packages as the master: {why}"


def _shared() -> Versions:
    try:
        return dict(json.loads(SHARED.read_text()))
    except (OSError, ValueError):
        return {}


def _copy(node: str) -> str:
    """Why it failed, or ""."""
    home = _home()
    folders = [each.relative_to(home) for each in (*home.glob("R/*-library"), VENV) if each.exists()]
    if not folders:
        return ""
    command = [*RSYNC, *map(str, folders), f"{node}:"]
    done = subprocess.run(
        command,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return (
        "" if done.returncode == 0 else (lines[0] if lines else f"rsync ended with status {done.returncode}")
    )


def _said(title: str, before: Mapping[str, str], now: Mapping[str, str], nodes: int) -> Iterator[str]:
    there = "1 node" if nodes == 1 else f"{nodes} nodes"
    new = [f"{name} {version}" for name, version in sorted(now.items()) if before.get(name) != version]
    if new:
        yield f"{title}: {_listed(new)} copied to {there}"
    if gone := sorted(set(before) - set(now)):
        yield f"{title}: {_listed(gone)} removed from {there}"


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    count = "1 package" if len(names) == 1 else f"{len(names)} packages"
    return f"{count} ({', '.join([*names[:NAMED], *more])})"


def main(action: str = "share") -> None:
    """Do what the argument says."""
    if action == "venv":
        make_environment()
    elif action == "versions":
        sys.stdout.write(json.dumps(versions(json.load(sys.stdin))) + "\n")
    else:
        for line in share():
            sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
