"""Why a node cannot become part of its cluster."""

from __future__ import annotations

import subprocess


class Unfit(Exception):
    """This node cannot become part of the cluster; ``str()`` says why."""


def run(*command: str) -> None:
    """Run a command that this node cannot do without."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Unfit(f"{' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()}")
