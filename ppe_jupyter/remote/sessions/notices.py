"""What the cluster has to say to a client of an R session, passed on once; also while nothing is evaluated.

Must not know what evaluations are.
"""

from __future__ import annotations

import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ..line.link import Link
from ..outputs import Notice, OnNotice, write_notice
from .answers import in_local_time, of_the_past

# How often an idle client looks for notices.
LOOK_SECONDS = 1.0
# Of the notices from before a client came, older ones are history.
YOUNG_SECONDS = 3600.0


class Notices:
    """Those of one client, whose name is ``token``, in one session; ``on_past`` is told whose session this was."""

    def __init__(
        self,
        session: str,
        token: str,
        *,
        on_notice: OnNotice | None,
        on_past: Callable[[str], None] | None,
    ) -> None:
        self._session = session
        self._token = token
        self._on_notice = on_notice or write_notice
        self._on_past = on_past
        self._last = time.time() - YOUNG_SECONDS
        self._met = False

    def welcomed(self, welcome: dict[str, Any], fresh: bool) -> None:
        """At first, say whose session this is; later, that it is another one."""
        past, met, self._met = welcome.get("past") or {}, self._met, True
        if fresh:
            text = "The agent on the master was ended since the last use, and R with it: this is a fresh R session"
            self._tell(Notice("warning", text, time.time()))
        elif self._on_past and not met and past and past["token"] != self._token:
            self._on_past(of_the_past(self._session, past, time.time()))

    def pass_on(self, told: dict[str, Any]) -> None:
        """A notice of the agent's, once."""
        if told["time"] <= self._last:
            return
        self._last = told["time"]
        self._tell(Notice(told["level"], in_local_time(told["text"]), told["time"]))

    def inform(self, text: str) -> None:
        """What this end has to say."""
        self._tell(Notice("info", text, time.time()))

    def _tell(self, notice: Notice) -> None:
        """What goes wrong in it must not disturb the evaluation that it came in."""
        try:
            self._on_notice(notice)
        except Exception:
            traceback.print_exc()


class Looking(Protocol):
    """Who has a link."""

    def look(self, link: Link) -> bool:
        """Pass on what has come over it; False when it is no more."""


def look_for(who: weakref.ref[Looking], link: Link) -> None:
    """While nothing is evaluated, have notices passed on; ends with the link or its owner."""

    def run() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            if (remote := who()) is None or not remote.look(link):
                return
            del remote

    threading.Thread(target=run, daemon=True, name="ppe notices").start()
