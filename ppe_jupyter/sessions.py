"""The R sessions of whatever has an SSH connection: what a cluster and a single host have in common."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import settings
from .node.wire.protocol import MAIN
from .remote.outputs import Notice, OnNotice, write_notice
from .remote.sessions.session import RemoteR
from .ssh import Connection


class Sessions:
    """``r`` and its kin, for a class that knows its connection."""

    def __init__(self) -> None:
        """``on_notice`` gets what the agent there has to say while a session is attached (None: standard error)."""
        self.on_notice: OnNotice | None = None
        self._attached: dict[str, RemoteR] = {}
        self._attaching = threading.Lock()
        self._connection: Connection | None = None
        self._lock = threading.Lock()  # for whoever makes the connection or ends it

    def ssh(self) -> Connection:
        """The connection to the machine that R runs on, made anew if it was cut."""
        raise NotImplementedError

    def r(self, session: str = MAIN, *, simplify: bool | None = None) -> RemoteR:
        """The R session of that name, attached; the same object until ``close``.

        A name beside ``main`` has an R of its own, under its own mpirun; it starts if there is none. ``simplify``
        is from now on what its evaluations do that do not say it: without, a vector of length 1 stays an array.
        """
        connection = self.ssh()
        with self._attaching:
            if session not in self._attached:
                self._attached[session] = RemoteR(
                    self._shared(connection),
                    on_notice=self.on_notice,
                    on_past=self._say_past,
                    session=session,
                    compress=settings.load().compress,
                    reconnect=lambda: self._shared(self._again()),
                )
            remote = self._attached[session]
            if simplify is not None:
                remote.simplify = simplify
            return remote

    @contextmanager
    def visiting(self) -> Iterator[None]:
        """Sessions beside ``main`` that are attached meanwhile only let go of their channels at its end."""
        before = {MAIN, *self._attached}
        try:
            yield
        finally:
            for name in {*self._attached} - before:
                self._attached[name].rest()

    def attached(self, session: str = MAIN) -> RemoteR | None:
        """The session of that name if it was used and its connection stands; asks nobody."""
        known = self._attached.get(session)
        return known if known is not None and known.alive else None

    def sessions(self) -> list[dict[str, Any]]:
        """The R sessions there: name, state, pid, waiting, objects, client, and since and used (s since 1970)."""
        rows: list[dict[str, Any]] = self.r().command({"do": "sessions"})["sessions"]
        return rows

    def close_session(self, name: str) -> None:
        """End a session beside ``main``, with its R and its workers; its log stays. Raises UsageError."""
        self.r().command({"do": "close", "name": name})
        with self._attaching:
            if (session := self._attached.pop(name, None)) is not None:
                session.close()

    def close(self) -> None:
        """Hang up; what runs there goes on. Safe to repeat."""
        with self._attaching:
            for session in self._attached.values():
                session.close()
            self._attached.clear()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _say_past(self, text: str) -> None:
        (self.on_notice or write_notice)(Notice("info", text, time.time()))

    def _shared(self, connection: Connection) -> Connection:
        connection.spare = self._let_one_go
        return connection

    def _let_one_go(self) -> bool:
        """Have an idle session leave its channel to others; the main one last, whose notices come there."""
        by_need = sorted(self._attached.values(), key=lambda each: each.session == MAIN)
        return any(each.rest() for each in by_need)

    def _again(self) -> Connection:
        """The connection, after a cut. Unreachable, ConnectionLost and CloudError are worth another try."""
        return self.ssh()
