"""Files that others read while they are written anew: whole or not at all. Standard library and no neighbours."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, text: str, *, mode: int = 0o600) -> Path:
    """Write it in place of what is there. Raises OSError; then the old one stays."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(
            os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        return new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
