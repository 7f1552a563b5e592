"""The login user's files that end with the nodes: what was made or changed since their launch, on their own disks and
in ~/shared if that ends with them.

Run it on the master as ``python3 ~/.ppe/node belongings``; it runs itself on the other nodes (``here``). Prints
one JSON object: ``files`` (the biggest, as [where, bytes]; a name within the home, else a path, on a worker behind its
name), ``count`` and ``bytes`` of all, ``silent`` (nodes that did not answer), ``rstudio`` (the master's R sessions in
RStudio, as [bytes of memory, when it was started]), ``suspended`` (bytes of those on its disk), ``unfetched`` (results
that no client has, in words). Standard library only.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..cells.cell import hosts
from ..lifetime.activity import PROC, processes
from ..machine import sharing

UNFETCHED = Path.home() / ".ppe" / "run"
# Written by cloud-init at the instance's first boot, and never again: what is older came with the image.
LAUNCHED = "/etc/ppe/deadman.json"
MOST = 1000
SECONDS = 20
AT_ONCE = 32
HERE = f"exec timeout {SECONDS} python3 ~/.ppe/node belongings here"
SSH = ("ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={SECONDS // 2}")
# No place of a login user's own; other file systems outlive the node, or not even its next boot.
ELSEWHERE = ("/usr", "/boot", "/etc", "/var/lib", "/var/log", "/var/cache")
PASSING = ("/tmp/Rtmp*", "/tmp/ompi.*", "/tmp/prte.*", "/tmp/pmix*")  # noqa: S108  # R's and MPI's, looked at only
RSESSION = "rsession"
# Beside others of RStudio's (rstudio/rstudio, core/r_util/RActiveSessions); the older place is before 1.4.
SUSPENDED = (".local/share/rstudio", ".rstudio")

Found = dict[str, Any]


def here(*places: str) -> Found:
    """The files of this node, and of these other file systems. What a login shell and this package put into a home is
    hidden, or the host file."""
    home = str(Path.home())
    skipped = [
        word for path in (*ELSEWHERE, *PASSING, f"{home}/R/*-library") for word in ("-o", "-path", path)
    ]
    command = ["find", "/", *places, "-xdev", "(", "-name", ".*", *skipped, ")", "-prune", "-o", "-type", "f"]
    command += ["(", "-path", f"{home}/*", "-o", "-uid", str(os.getuid()), ")"]
    if Path(LAUNCHED).exists():
        command += ["-cnewer", LAUNCHED]  # by the inode's time: an unpacked archive may tell of older files
    command += ["!", "-path", f"{home}/ompi-hostfile", "-printf", r"%s\t%p\0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    shared = f"{sharing.PLACE}/"
    sizes = [
        (
            int(size),
            path.replace(shared, "shared/", 1) if path.startswith(shared) else path.removeprefix(f"{home}/"),
        )
        for size, path in (line.split("\t", 1) for line in os.fsdecode(done.stdout).split("\0") if line)
    ]
    return {
        "files": [(path, size) for size, path in heapq.nlargest(MOST, sizes)],
        "count": len(sizes),
        "bytes": sum(size for size, _ in sizes),
    }


def there(name: str) -> Found | None:
    """The files of another node; None if it does not tell."""
    try:
        done = subprocess.run(
            [*SSH, name, HERE], stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * SECONDS, check=True
        )
        found: Found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return {**found, "files": [(f"{name}:{path}", size) for path, size in found["files"]]}


def rstudio() -> list[tuple[int, float]]:
    """R's processes in RStudio here: resident bytes, and when each was started, seconds of the epoch."""
    stat = (PROC / "stat").read_text().splitlines()
    booted = next(int(line.split()[1]) for line in stat if line.startswith("btime "))
    found = []
    for each in processes(os.getuid()).values():
        if RSESSION in each.names:
            with contextlib.suppress(OSError):  # it has just ended
                pages = int((PROC / str(each.pid) / "statm").read_text().split()[1])
                started = booted + each.started / os.sysconf("SC_CLK_TCK")
                found.append((pages * os.sysconf("SC_PAGE_SIZE"), started))
    return found


def suspended() -> int:
    """Bytes of the R sessions that RStudio has put to disk."""
    places = (Path.home() / folder / "sessions" / "active" for folder in SUSPENDED)
    files = (each for place in places for each in place.glob("*/suspended-session-data/**/*"))
    size = 0
    for each in files:
        with contextlib.suppress(OSError):  # RStudio has just brought it back
            size += each.lstat().st_size if each.is_file() else 0
    return size


def unfetched() -> list[str]:
    """What was computed for clients that do not have it, as who keeps it says."""
    found = []
    for each in sorted(UNFETCHED.glob("*.unfetched")):
        with contextlib.suppress(FileNotFoundError):  # somebody has just fetched it
            found.append(each.read_text(encoding="utf-8"))
    return found


def everywhere() -> Found:
    """The files of all nodes, and what RStudio holds."""
    workers = [name for name, _ in hosts()[1:]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = pool.map(there, workers)
        answers = [here(*sharing.ending_with_the_cluster()), *asked]
    told = [each for each in answers if each is not None]
    return {
        "files": heapq.nlargest(MOST, (each for found in told for each in found["files"]), key=lambda each: each[1]),
        "count": sum(found["count"] for found in told),
        "bytes": sum(found["bytes"] for found in told),
        "rstudio": rstudio(),
        "suspended": suspended(),
        "unfetched": unfetched(),
        "silent": [name for name, answer in zip(workers, answers[1:]) if answer is None],  # Python 3.9
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(here() if sys.argv[1:] == ["here"] else everywhere()))
