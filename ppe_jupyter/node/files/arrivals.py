"""Files as they arrive: each under another name until it is whole and checked, and nothing outside the destination.

What a cut has left is found again under the same other name, which is made of the file's name, size and time: it is
gone on with if the sender has the same beginning. A file whose size and time are those of the sender's is taken for the
same. Used at both ends of a transfer: standard library and no neighbours but listing.py and parts.py.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .listing import Entry
from .parts import BLOCK, Part

PART = ".ppe-part-"
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Unreceivable(Exception):
    """Nothing (more) can be taken."""


class Arrivals:
    """The entries of one transfer on their way to ``dest``.

    ``rename``: a ``dest`` that is no folder is the new name of the only source. ``end_stale``: a process that holds a
    part and has stopped writing it may be killed. ``idle`` is called now and then in long work.
    """

    def __init__(
        self,
        dest: str,
        entries: Sequence[Entry],
        *,
        rename: bool,
        end_stale: bool = False,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.entries = entries
        self.failures: dict[str, str] = {}
        self.left_out: list[str] = []
        self._end_stale = end_stale
        self._idle = idle
        self._name: str | None = None
        dest = os.path.expanduser(dest)
        if rename and os.path.basename(dest) not in ("", ".", "..") and not os.path.isdir(dest):
            dest, self._name = os.path.split(dest)
        self.base = os.path.realpath(dest)
        self._folders: set[str] = set()
        self._parts: dict[str, set[str]] = {}
        self._now: Part | None = None

    def plan(self) -> dict[str, Any]:
        """What is here already: whole files, and beginnings as offset and SHA-256. Raises Unreceivable."""
        try:
            os.makedirs(self.base, exist_ok=True)
        except OSError as exc:
            raise Unreceivable(f"{self.base} cannot be made: {exc.strerror}") from exc
        have, begun, missing = [], {}, 0
        for index, entry in enumerate(self.entries):
            if entry.kind != "file":
                continue
            with self._noting(entry):
                path = self._path(entry)
                if _is_same(path, entry):
                    have.append(index)
                    continue
                part = self._part_name(path, entry)
                missing += entry.size
                if os.path.basename(part) in self._parts_in(os.path.dirname(part)):
                    size, digest = self._beginning(part, entry.size)
                    begun[str(index)] = [size, digest]
                    missing -= size
        free = shutil.disk_usage(self.base).free
        if missing > free:
            raise Unreceivable(
                f"{self.base} has {size_text(free)} free, and {size_text(missing)} are to come"
            )
        return {"have": have, "begun": begun, "failures": self.failures}

    def write(self, index: int, offset: int, data: bytes | memoryview) -> None:
        """A piece of a file, in order. Raises Unreceivable when the disk is full."""
        entry = self.entries[index]
        if entry.path in self.failures:
            return
        with self._noting(entry):
            if self._now is None or self._now.index != index:
                self.leave()
                self._now = self._open(index, entry, offset)
            if offset + len(data) > entry.size:
                raise ValueError("more of it came than there is")
            self._now.write(data)

    def end(self, index: int, digest: bytes) -> None:
        """A file is all there: give it its name if the SHA-256 is right."""
        entry = self.entries[index]
        if entry.path in self.failures:
            return
        with self._noting(entry):
            if self._now is None or self._now.index != index:  # empty, or its part was whole
                self.leave()
                self._now = self._open(index, entry, entry.size)
            part, self._now = self._now, None
            with part:
                if part.digest() != digest:
                    part.remove()
                    raise ValueError("it was damaged on the way (its SHA-256 is another); send it again")
                part.publish(self._path(entry), mode=entry.mode, mtime=entry.mtime)

    def fail(self, index: int, why: str) -> None:
        """The sender cannot send (more of) a file."""
        self.failures[self.entries[index].path] = why

    def finish(self) -> dict[str, Any]:
        """Make the links, give the folders their modes and times; what failed and what was left out."""
        self.leave()
        for entry in self.entries:
            if entry.kind == "folder":
                with self._noting(entry):
                    self._folder(self._parts_of(entry))
            elif entry.kind == "link":
                with self._noting(entry):
                    self._link(entry)
        for entry in reversed(self.entries):
            if entry.kind == "folder" and entry.path not in self.failures:
                with self._noting(entry):
                    path = self._path(entry)
                    os.chmod(path, entry.mode)
                    os.utime(path, ns=(entry.mtime, entry.mtime))
        return {"failures": self.failures, "left_out": self.left_out, "base": self.base}

    def arrived(self) -> list[Entry]:
        """What is here now, to be sent on."""
        here = [entry for entry in self.entries if entry.path not in self.failures]
        names = [self._parts_of(entry) for entry in here]
        return [
            replace(entry, path="/".join(parts), source=os.path.join(self.base, *parts))
            for entry, parts in zip(here, names)  # Python 3.9 on nodes
        ]

    def leave(self) -> None:
        """Let go of a file that is not whole; its part stays, to be gone on with."""
        part, self._now = self._now, None
        if part is not None:
            part.close()

    @contextlib.contextmanager
    def _noting(self, entry: Entry) -> Any:
        """Note why an entry fails; a full disk ends everything, and leaves no part that fills it."""
        try:
            yield
        except (OSError, ValueError) as exc:
            part, self._now = self._now, None
            if part is not None:
                with part:
                    if isinstance(exc, OSError) and exc.errno in NO_ROOM:
                        part.remove()
            why = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
            if isinstance(exc, OSError) and exc.errno in NO_ROOM:
                raise Unreceivable(
                    f"{self.base}: {why}; what was whole before {entry.path} is there"
                ) from exc
            self.failures[entry.path] = why

    # -- where things go --------------------------------------------------------------------------------

    def _parts_of(self, entry: Entry) -> list[str]:
        """The names from ``base`` to it, none of which leads elsewhere. Raises ValueError."""
        names = entry.path.split("/")
        if self._name is not None:
            names[0] = self._name
        for name in names:
            if (
                name in ("", ".", "..")
                or "\0" in name
                or os.path.basename(os.path.splitdrive(name)[1]) != name
            ):
                raise ValueError(f"a name that is not possible here: {name!r}")
        return names

    def _path(self, entry: Entry) -> str:
        names = self._parts_of(entry)
        return os.path.join(self._folder(names[:-1]), names[-1])

    def _folder(self, names: list[str]) -> str:
        """A folder below ``base``, made if need be; never through a link, which may lead anywhere."""
        path = os.path.join(self.base, *names)
        if names and path not in self._folders:
            self._folder(names[:-1])
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                mode = os.lstat(path).st_mode
                if stat.S_ISLNK(mode):
                    raise ValueError(f"{path} is a link, and nothing is written through one") from None
                if not stat.S_ISDIR(mode):
                    raise ValueError(f"{path} is there and no folder") from None
            self._folders.add(path)
        return path

    def _link(self, entry: Entry) -> None:
        names = self._parts_of(entry)
        way = [part for part in entry.target.split("/") if part not in ("", ".")]
        up = next((at for at, part in enumerate(way) if part != ".."), len(way))
        # After a name, which may be a link, ".." is not what it seems.
        if os.path.isabs(entry.target) or up > len(names) - 2 or ".." in way[up:]:
            self.left_out.append(f"{entry.path} (a link to {entry.target}, which may not be in it)")
            return
        path = self._path(entry)
        temporary = f"{path}{PART}link"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(entry.target, temporary)
        os.replace(temporary, path)

    # -- parts ------------------------------------------------------------------------------------------

    def _part_name(self, path: str, entry: Entry) -> str:
        """The other name. Parts of the same file in another state are removed."""
        folder, name = os.path.split(path)
        of = f"{PART}{_short(os.fsencode(name))}-"
        mine = f"{of}{_short(f'{entry.size} {entry.mtime}'.encode())}"
        for other in [each for each in self._parts_in(folder) if each.startswith(of) and each != mine]:
            self._parts[folder].discard(other)
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, other))
        return os.path.join(folder, mine)

    def _parts_in(self, folder: str) -> set[str]:
        if folder not in self._parts:
            with os.scandir(folder) as inside:
                self._parts[folder] = {each.name for each in inside if each.name.startswith(PART)}
        return self._parts[folder]

    def _beginning(self, part: str, size: int) -> tuple[int, str]:
        """How much of it is there, and its SHA-256."""
        there, digest = 0, hashlib.sha256()
        with open(part, "rb") as file:
            while block := file.read(min(BLOCK, size - there)):
                digest.update(block)
                there += len(block)
                self._idle()
        return there, digest.hexdigest()

    def _open(self, index: int, entry: Entry, offset: int) -> Part:
        path = self._path(entry)
        if os.path.isdir(path) and not os.path.islink(path):
            raise ValueError("a folder of that name is there")
        part = Part(index, self._part_name(path, entry), end_stale=self._end_stale)
        try:
            part.begin(min(offset, entry.size), self._idle)
        except BaseException:
            part.close()
            raise
        return part


def size_text(size: float) -> str:
    """Bytes in words: "512 bytes", "1.5 MB"."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.3g} {unit}"


def _is_same(path: str, entry: Entry) -> bool:
    try:
        about = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(about.st_mode) and (about.st_size, about.st_mtime_ns) == (entry.size, entry.mtime)


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
