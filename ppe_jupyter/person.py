"""Who and where this client is: in plain letters, for names and tags. Works where there is no user database."""

from __future__ import annotations

import contextlib
import getpass
import platform
import re


def os_user() -> str:
    """The user's name on this machine, or "user" if there is none."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return _plain(getpass.getuser()) or "user"
    return "user"


def host() -> str:
    """This machine's name without its domain."""
    return _plain(platform.node().partition(".")[0]) or "host"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
