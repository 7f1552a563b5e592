"""Who and where this client is, for names and tags in plain letters. Works where there is no user database."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
from pathlib import Path


def login_name() -> str:
    """The user's name on this machine as it is; "user" if there is none."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "user"


def os_user() -> str:
    """The user's name on this machine, or "user" if there is none."""
    return _plain(login_name()) or "user"


def host() -> str:
    """This machine's name without its domain."""
    return _plain(platform.node().partition(".")[0]) or "host"


def client() -> str:
    """This client as others read it: the notebook if there is one, and who and where this is."""
    notebook = Path(os.environ.get("JPY_SESSION_NAME", "")).name
    who = f"{os_user()}@{host()}"
    return f"{notebook} by {who}" if notebook else f"{who}, process {os.getpid()}"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
