"""The line to a session: a link that is made again when it is cut, over a new SSH connection if need be.

The token is this client's name for as long as it lives: by it the agent knows whose evaluation goes on. Must not know
what goes over the line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from ...errors import (
    CloudError,
    ConnectionLost,
    RemoteInterrupted,
    RSessionDied,
    Unreachable,
)
from ...ssh import Connection
from .link import Link, OnProgress

# Seconds between tries; the last one is repeated.
WAITS = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0)
# On a connection that stands: an agent that lets go of the line again and again.
AGENT_TRIES = 5
# How soon a stop button is seen.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Hello:
    """Who attaches to what: ``agent`` is the command, ``token`` empty for one who will not come back."""

    agent: str
    client: str
    session: str
    packing: str = "auto"
    token: str = field(default_factory=lambda: str(uuid4()))


class Line:
    """``reconnect`` makes a new SSH connection (None: a cut is final); ``on_welcome`` is told what a first link was."""

    def __init__(
        self,
        connection: Connection,
        hello: Hello,
        *,
        reconnect: Callable[[], Connection] | None,
        on_notice: Callable[[dict[str, Any]], None],
        on_welcome: Callable[[dict[str, Any], bool], None],
    ) -> None:
        self.connection = connection
        self.current: Link | None = None
        self.on_progress: OnProgress | None = None
        self._hello = hello
        self._reconnect = reconnect
        self._on_notice = on_notice
        self._on_welcome = on_welcome
        self._agent: object = None
        self._hung_up = False

    @property
    def token(self) -> str:
        """This client's name."""
        return self._hello.token

    def link(self) -> Link:
        """The link, made if there is none. Only for whoever has the session's turn."""
        self._hung_up = False
        if self.current is not None and (self.current.closed or not self.connection.alive):
            self._drop()
        if self.current is None:
            known = self._agent is not None
            try:
                self.current = self._made(self._hello)
            except ConnectionLost:  # it only seemed to stand
                if self._reconnect is None:
                    raise
                self.current = self._made(self._hello)
            if known:
                self.current.greet()
        return self.current

    def aside(self) -> Link:
        """A further link, for one question."""
        return self._made(replace(self._hello, token=""))

    def aside_again(self, lost: ConnectionLost) -> Link:
        """A further link after a cut. Raises ``lost`` if there is no way."""
        if self._reconnect is None:
            raise lost
        return self._tried(self.aside, lost, lambda: False)

    def again(self, lost: ConnectionLost, *, say: Callable[[str], None], stopped: Callable[[], bool]) -> Link:
        """The link after a cut. Raises ``lost`` if there is no way, RSessionDied if R ended with its agent."""
        self._drop()
        if self._hung_up or (self._reconnect is None and not self.connection.alive):
            raise lost
        host = self.connection.target.host
        cut = not self.connection.alive
        if cut:
            say(f"The connection to {host} was cut; R goes on. Connecting again (stop ends the waiting) …\n")
        began = time.monotonic()
        link = self._tried(self._once, lost, stopped)
        if cut:
            say(f"Connected again after {time.monotonic() - began:.0f} s.\n")
        self.current = link
        return link

    def close(self) -> None:
        """Detach; whoever waits for something in another thread is told. Safe to repeat."""
        self._hung_up = True
        self._drop()

    def rest(self) -> bool:
        """Detach until the next use; whether there was a link."""
        attached = self.current is not None
        self._drop()
        return attached

    def _drop(self) -> None:
        link, self.current = self.current, None
        if link is not None:
            link.close()

    def _made(self, hello: Hello, *, calling: bool = False) -> Link:
        if not self.connection.alive and self._reconnect is not None:
            self.connection = self._reconnect()

        def welcomed(welcome: dict[str, Any]) -> None:
            known, self._agent = self._agent, welcome.get("agent")
            if hello.token:
                self._on_welcome(welcome, not calling and known not in (None, self._agent))

        told = {"client": hello.client, "token": hello.token, "session": hello.session}
        told["packing"] = hello.packing
        notice = self._on_notice if hello.token else lambda notice: None
        link = Link(self.connection, hello.agent, told, on_notice=notice, on_welcome=welcomed)
        link.on_progress = self.on_progress
        return link

    def _tried(self, make: Callable[[], Link], lost: ConnectionLost, stopped: Callable[[], bool]) -> Link:
        for count, wait in enumerate(_waits(), 1):
            if _comes_true(stopped, wait):
                break
            attempt = _Attempt(make)
            while not attempt.done.wait(LOOK_SECONDS) and not stopped():
                pass
            if not attempt.done.is_set():
                attempt.abandon()
                break
            if attempt.link is not None:
                return attempt.link
            assert attempt.error is not None
            gone = self._reconnect is None or (self.connection.alive and count == AGENT_TRIES)
            if gone or not isinstance(attempt.error, (Unreachable, ConnectionLost, CloudError)):
                raise attempt.error
        raise RemoteInterrupted(
            "no longer waited for: the connection is cut, the evaluation goes on; %remote_jobs finds it again"
        ) from lost

    def _once(self) -> Link:
        agent = self._agent
        link = self._made(self._hello, calling=True)
        link.greet()
        if agent not in (None, self._agent):
            link.close()
            raise RSessionDied(
                "the agent on the master was ended, and R with it. A fresh R session was started; the variables are"
                " gone, but for those that it has loaded again"
            )
        return link


class _Attempt:
    """One try, in a thread of its own, so that the stop button need not wait for it."""

    def __init__(self, make: Callable[[], Link]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._abandoned = False
        self.done = threading.Event()
        self.link: Link | None = None
        self.error: Exception | None = None
        threading.Thread(target=self._run, daemon=True, name="ppe reconnect").start()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._abandoned = True
            if self.link is not None:
                self.link.close()

    def _run(self) -> None:
        try:
            link = self._make()
            with self._lock:
                self.link = link
                if self._abandoned:
                    link.close()
        except Exception as exc:
            self.error = exc
        self.done.set()


def _waits() -> Iterator[float]:
    yield from WAITS
    while True:
        yield WAITS[-1]


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it does within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True
