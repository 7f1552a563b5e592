"""Our own block of lines in a file of others': written anew, found again, taken out; the rest stays as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

BEGIN, END = "# >>> ppe: written anew by every setup >>>", "# <<< ppe <<<"
OURS = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}\n?", re.DOTALL)


def read(path: Path) -> list[str]:
    """The lines of our block; none without one."""
    found = OURS.search(path.read_text(encoding="utf-8")) if path.exists() else None
    return found[0].splitlines()[1:-1] if found else []


def write(
    path: Path,
    lines: Iterable[str],
    *,
    keep: Callable[[str], bool] = lambda line: True,
    mode: int = 0o644,
    owner: tuple[int, int] | None = None,
) -> None:
    """Put ``lines`` into our block at the end of the file; of the rest stays what ``keep`` wants."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    kept = [line for line in OURS.sub("", old).splitlines() if keep(line)]
    replace(path, "\n".join([*kept, BEGIN, *lines, END, ""]), mode=mode, owner=owner)


def remove(path: Path) -> None:
    """Take our block out."""
    if path.exists():
        replace(path, OURS.sub("", path.read_text(encoding="utf-8")))


def replace(path: Path, text: str, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Write a file whole or not at all; ``owner`` is its user and group, if root writes it for another."""
    new = path.with_name(path.name + ".ppe-new")
    new.unlink(missing_ok=True)  # of another user's that was cut off
    new.touch(mode=mode)
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    if owner is not None:
        os.chown(new, *owner)
    try:
        new.replace(path)
    except OSError:  # A file that is mounted cannot be replaced.
        path.write_text(text, encoding="utf-8")
        new.unlink()
