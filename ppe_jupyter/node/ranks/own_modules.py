"""Modules of the user's own in a process that goes on: whether their files were changed since they were imported.

Own are those below the home that no packager has put there. Standard library only.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

PACKAGED = {"site-packages", "dist-packages"}


class OwnModules:
    """Those of this process."""

    def __init__(self) -> None:
        self._looked = time.time_ns()
        self._since: dict[str, int] = {}  # when each was not imported yet, in ns of the epoch

    def changed(self) -> list[str]:
        """The names of those that were changed since, each time once."""
        now = time.time_ns()
        for name in [*sys.modules]:
            self._since.setdefault(name, self._looked)
        self._looked = now
        found = [name for name, file in _own() if _changed(file) > self._since[name]]
        self._since.update(dict.fromkeys(found, now))
        return found

    def forget(self) -> None:
        """Have the next import read all of them: others may have names of those that were changed."""
        for name, _ in _own():
            del sys.modules[name]
            self._since.pop(name, None)
        importlib.invalidate_caches()


def _own() -> list[tuple[str, Path]]:
    home = Path.home()
    found = []
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and (path := home / file).is_relative_to(home):
            parts = path.relative_to(home).parts
            if not PACKAGED & {*parts} and not parts[0].startswith("."):
                found.append((name, path))
    return found


def _changed(path: Path) -> int:
    """By the inode's time: an upload keeps the file's own."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0  # a process keeps what is removed
