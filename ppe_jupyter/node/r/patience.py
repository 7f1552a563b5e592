"""The shim that patience.c and waits.c are compiled to: where it is, and how it is put in force on a node."""

from __future__ import annotations

from pathlib import Path

# What the R session is loaded with, and where it is written that all ranks are (for Rprofile.site and run_cell).
PATIENCE = Path("/usr/local/lib/ppe-patience.so")
PRELOAD = Path("/etc/ppe/preload")


def be_patient(compiled: bytes, *, everyone: bool) -> None:
    """Have R wait without polling and be interruptible, and all ranks nap where nodes share a machine.

    With the master's compiled shim; a node on which it does not load, or without one, does without.
    """
    import ctypes  # as long as all of this file's own, and only needed here

    PRELOAD.unlink(missing_ok=True)
    new = PATIENCE.with_name(PATIENCE.name + ".new")
    new.write_bytes(compiled)
    try:
        ctypes.CDLL(str(new))
    except OSError:
        new.unlink()
        PATIENCE.unlink(missing_ok=True)
        return
    new.replace(PATIENCE)
    if everyone:
        PRELOAD.write_text(f"{PATIENCE}\n", encoding="ascii")
