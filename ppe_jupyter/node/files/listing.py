"""What there is to send: the files, folders and links below some paths of this machine, by relative names.

A link inside a folder stays a link; a path that was named is followed. Its name is its last part, or all that is behind
``/./``, as rsync has it. Used at both ends of a transfer: standard
library and no neighbours.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


class Unsendable(Exception):
    """A path cannot be sent: it is not there, cannot be read, or is no file or folder."""


@dataclass(frozen=True)
class Entry:
    """A ``file``, ``folder`` or ``link``. ``path``: its parts joined by "/"; ``mtime`` in nanoseconds; ``target`` is a
    link's; ``source``, where it is on this machine, is not told to the other end.
    """

    kind: str
    path: str
    size: int = 0
    mtime: int = 0
    mode: int = 0
    target: str = ""
    source: str = ""

    def row(self) -> list[Any]:
        """It for the other end."""
        return [self.kind, self.path, self.size, self.mtime, self.mode, self.target]


def expanded(patterns: Sequence[str]) -> list[str]:
    """The paths that are meant; ``*``, ``?``, ``[…]``, ``**`` and ``~`` are expanded.

    Raises Unsendable for one that names nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        path = os.path.expanduser(pattern)
        if os.path.lexists(path):
            found.append(path)
        elif matches := sorted(glob.glob(path, recursive=True)):
            found += matches
        else:
            raise Unsendable(f"there is no {path}")
    return found


def entries(sources: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """All that is to be sent, a folder before what is in it; and what is left out. Raises Unsendable."""
    found: list[Entry] = []
    odd: list[str] = []
    names: dict[str, str] = {}
    for source in sources:
        _, mark, relative = source.rpartition("/./")
        name = os.path.normpath(relative) if mark else os.path.basename(os.path.abspath(source))
        if not name:
            raise Unsendable(f"{source} has no name of its own; send what is in it")
        if name in names:
            raise Unsendable(f"{names[name]} and {source} would both become {name}")
        names[name] = source
        try:
            about = os.stat(source)
            found += _below(source, name, about, odd)
        except OSError as exc:
            raise Unsendable(f"{exc.filename or source} cannot be read: {exc.strerror}") from exc
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise Unsendable(f"{source} is neither a file nor a folder")
    return found, odd


def _below(source: str, path: str, about: os.stat_result, odd: list[str]) -> Iterator[Entry]:
    mtime, mode = about.st_mtime_ns, stat.S_IMODE(about.st_mode) & 0o777
    if stat.S_ISREG(about.st_mode):
        yield Entry("file", path, about.st_size, mtime, mode, source=source)
    elif stat.S_ISLNK(about.st_mode):
        yield Entry("link", path, 0, mtime, mode, os.readlink(source))
    elif stat.S_ISDIR(about.st_mode):
        yield Entry("folder", path, 0, mtime, mode, source=source)
        with os.scandir(source) as inside:
            children = sorted(inside, key=lambda child: child.name)
        for child in children:
            yield from _below(child.path, f"{path}/{child.name}", child.stat(follow_symlinks=False), odd)
    else:
        odd.append(f"{path} (neither a file, a folder nor a link)")
