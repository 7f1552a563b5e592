"""The boot of this node: waited for, and told of while it goes on. Must not know what the node is for."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from .unfit import Unfit

CLOUD_INIT = Path("/var/lib/cloud")
CLOUD_INIT_STATUS = Path("/run/cloud-init/status.json")
CLOUD_INIT_LOG = Path("/var/log/cloud-init-output.log")
# User data's: which script runs now, what each prints, how it ended.
SCRIPTS = Path("/var/lib/ppe-node")
SCRIPT_NAMES = {"bootstrap": "the installation of R and Open MPI", "extra": "your own bootstrap script"}
LOG_LINES = 8
SAY_SECONDS = 1.0


class Progress:
    """Tells what is done now, not too often."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._next = 0.0
        self._last = ""

    @property
    def due(self) -> bool:
        """Whether the next line would be told."""
        return time.monotonic() >= self._next

    def say(self, text: str) -> None:
        """One line."""
        if self.due and text != self._last:
            self._last, self._next = text, time.monotonic() + SAY_SECONDS
            self._tell(text)


def wait(timeout: float, progress: Progress) -> None:
    """Return when the boot has ended well, within so many seconds. Raises Unfit with what it printed last."""
    deadline = time.monotonic() + timeout
    finished = CLOUD_INIT / "instance" / "boot-finished"
    while CLOUD_INIT.exists() and not finished.exists():
        if time.monotonic() > deadline:
            step, log = _step()
            raise Unfit(f"{step} has not ended after {timeout:.0f} s; it printed last: {_end(log)}")
        if progress.due:
            step, log = _step()
            progress.say(f"{step}: {_end(log, lines=1)}")
        time.sleep(0.05)
    for name, title in SCRIPT_NAMES.items():
        status = SCRIPTS / f"{name}.status"
        if status.exists() and status.read_text().strip() != "0":
            log = SCRIPTS / f"{name}.log"
            raise Unfit(
                f"{title} ended with status {status.read_text().strip()} (log: {log} there): {_end(log)}"
            )
    missing = [tool for tool in ("R", "mpirun", "ssh-keygen", "ip") if shutil.which(tool) is None]
    if missing:
        lacks, log = ", ".join(missing), CLOUD_INIT_LOG
        raise Unfit(f"its software is incomplete (no {lacks}); cloud-init printed last: {_end(log)}")


def _step() -> tuple[str, Path]:
    """What the boot is at, and where that prints."""
    with contextlib.suppress(OSError, KeyError):
        name = (SCRIPTS / "step").read_text().strip()
        return SCRIPT_NAMES[name], SCRIPTS / f"{name}.log"
    with contextlib.suppress(OSError, ValueError, KeyError):
        stage = json.loads(CLOUD_INIT_STATUS.read_text())["v1"]["stage"]
        return f"cloud-init ({stage})" if stage else "cloud-init", CLOUD_INIT_LOG
    return "cloud-init", CLOUD_INIT_LOG


def _end(log: Path, *, lines: int = LOG_LINES) -> str:
    try:
        found = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "nothing"
    return " / ".join([line.strip() for line in found if line.strip()][-lines:]) or "nothing"
