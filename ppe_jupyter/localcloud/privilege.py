"""Doing as root what only root can: directly, or through sudo when that asks for no password.

A notebook's kernel cannot type a password, hence ``sudo -n``; in a terminal sudo may ask. Knows nothing of
what is run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from ..errors import LocalCloudUnavailable

PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")  # sudo drops them, apt needs them
NEEDS_ROOT = (
    "the local cloud starts containers and needs root, and sudo wants a password here:"
    " run `ppe local up` in a terminal once, then come back"
)


def as_root(*command: str) -> list[str]:
    """The command, with sudo in front if this process is not root."""
    if os.geteuid() == 0:
        return list(command)
    proxies = [f"{name}={os.environ[name]}" for name in PROXY_VARIABLES if os.environ.get(name)]
    asks = sys.stdin is not None and sys.stdin.isatty()
    return ["sudo", *([] if asks else ["-n"]), "--", "env", *proxies, *command]


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package as root, in the Python that runs now."""
    return as_root(sys.executable, "-m", name, *arguments)


def available() -> bool:
    """Whether root's rights can be had without a password, or with one that somebody can type."""
    if os.geteuid() == 0:
        return True
    try:
        return subprocess.run(as_root("true"), capture_output=True, timeout=120).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run_module(name: str, *arguments: str, report: Callable[[str], None]) -> None:
    """Run a module as root, reporting its lines. Raises LocalCloudUnavailable with its last error line."""
    if not available():
        raise LocalCloudUnavailable(NEEDS_ROOT)
    command = module(name, *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        for line in child.stdout:
            report(line.rstrip())
        errors = child.stderr.read().strip().splitlines()
    if child.returncode:
        raise LocalCloudUnavailable(errors[-1] if errors else f"{name} failed")
