"""Results of jobs that nobody fetched yet, on the disk: each the frame that ended the job, in a file of its own.

They are bounded; the newest are kept, the very newest whatever its size. Must not know what jobs are beyond their
numbers.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..wire.protocol import HEADER

# Beside the newest: so much at least, and this share of what would be free without them.
MOST_BYTES = 256 * 2**20
MOST_SHARE = 0.25
# That much of the disk is left to others, if older results can make room.
SPARE_BYTES = 16 * 2**20


class Results:
    """Those in ``folder`` (None: none are kept); ``on_trouble`` gets a job's number and what the disk said."""

    def __init__(self, folder: Path | None, *, on_trouble: Callable[[int, OSError], None]) -> None:
        self._folder = folder
        self._on_trouble = on_trouble

    def begin(self, number: int, size: int) -> BinaryIO | None:
        """A file for one of ``size`` bytes, to be written and handed to ``keep``; None if there can be none."""
        if self._folder is None:
            return None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept = _oldest_first(self._folder)
            lacks = size + SPARE_BYTES - shutil.disk_usage(self._folder).free
            if lacks <= sum(path.stat().st_size for path in kept):
                while kept and size + SPARE_BYTES > shutil.disk_usage(self._folder).free:
                    kept.pop(0).unlink()
            return (self._folder / f"{number}.part").open("wb")
        except OSError as exc:
            self._on_trouble(number, exc)
        return None

    def give_up(self, number: int, file: BinaryIO, exc: OSError) -> None:
        """It cannot be written."""
        with contextlib.suppress(OSError):  # what is in its buffer has no room either
            file.close()
        with contextlib.suppress(OSError):  # a disk that may only be read
            Path(file.name).unlink()
        self._on_trouble(number, exc)

    def keep(self, number: int, file: BinaryIO) -> None:
        """It is whole; older ones go when they are too much."""
        part = Path(file.name)
        try:
            file.close()
            new = part.replace(part.with_suffix(".frame"))
        except OSError as exc:
            return self.give_up(number, file, exc)
        with contextlib.suppress(OSError):
            sizes = {path: path.stat().st_size for path in _oldest_first(new.parent) if path != new}
            total = sum(sizes.values())
            most = max(MOST_BYTES, MOST_SHARE * (shutil.disk_usage(new.parent).free + total))
            for path, size in sizes.items():
                if total > most:
                    path.unlink()
                    total -= size
        return None

    def get(self, number: int) -> tuple[bytes, BinaryIO] | None:
        """The head of the frame, and a file with the body; None if it is not there."""
        with contextlib.suppress(OSError):
            if self._folder is not None:
                file = (self._folder / f"{number}.frame").open("rb")
                return file.read(HEADER.size), file
        return None


def _oldest_first(folder: Path) -> list[Path]:
    """The results there, in the order in which they came: jobs end in another order than they were asked for."""
    return sorted(folder.glob("*.frame"), key=lambda path: (path.stat().st_mtime_ns, int(path.stem)))
