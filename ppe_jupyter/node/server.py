"""The agent itself: the socket at which it is asked (agent.py), the R sessions, and what looks after the cluster.

Joins rooms: sessions, the watchdog, work that was lost with an earlier agent, the workers' way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .lifetime import aftermath
from .machine import way_out
from .runs.lost_work import LostWork
from .sessions.clients import Client
from .sessions.named import Sessions
from .sessions.workspace import NotSaved
from .watchdog import Watchdog
from .wire.protocol import MAIN

# The longest has the name of a run.
COMMAND_BYTES = 512


def serve(folder: Path, path: Path, *, hostfile: Path) -> None:
    """Be the agent, with its files in ``folder`` and its socket at ``path``, until told to stop."""

    async def run() -> None:  # Python 3.9's events belong to the loop in which they are made
        await Agent(folder, path, hostfile=hostfile).serve()

    asyncio.run(run())


class Agent:
    """The listening socket and the session behind it."""

    def __init__(self, folder: Path, path: Path, *, hostfile: Path) -> None:
        self._path = path
        self._sessions = Sessions(folder, hostfile)
        self._watchdog = Watchdog(self._sessions, self._sessions, folder)
        self._lost_work: LostWork | None = None
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until told to stop."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o077)
        listener.bind(str(self._path))
        os.umask(before)  # R's too: what it writes is the user's
        listener.listen(64)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_reader(listener, self._accept, listener)
        self._sessions.why_ended = self._watchdog.why_ended()
        self._sessions.start()
        self._watchdog.start()
        self._lost_work = LostWork(self._sessions, end=not self._sessions.why_ended)
        led_out = asyncio.ensure_future(self._lead_out())
        following = asyncio.ensure_future(self._lost_work.follow())
        await self._stopped.wait()
        following.cancel()
        await led_out
        await loop.run_in_executor(None, way_out.stop)
        self._path.unlink(missing_ok=True)
        self._watchdog.stop()
        await self._sessions.stop()

    async def _lead_out(self) -> None:
        try:
            why = await asyncio.get_running_loop().run_in_executor(None, way_out.start)
        except OSError as exc:
            why = str(exc)
        if why:
            text = f"Workers without a way out cannot install packages: the proxy does not start: {why}"
            self._sessions.notices.tell("warning", text, topic="way out")

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            control, _ = listener.accept()
            control.setblocking(False)
            asyncio.get_running_loop().add_reader(control, self._command, control)

    def _command(self, control: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(control)
        try:
            command, descriptors, _, _ = socket.recv_fds(control, COMMAND_BYTES, 2)
        except OSError:
            command, descriptors = b"", []
        if command == b"attach" and len(descriptors) == 2:
            Client(self._sessions, control, (descriptors[0], descriptors[1]))
            return
        for descriptor in descriptors:
            os.close(descriptor)
        word, _, about = command.partition(b" ")
        answers: dict[bytes, Callable[[], Awaitable[dict[str, Any]]]] = {
            b"status": self._status, b"save": self._save, b"limits": self._limits, b"refresh": self._refresh,
            b"end": lambda: self._ask_for_end(about.decode(errors="replace")),
            b"where": lambda: self._sessions.where(about.decode(errors="replace") or MAIN),
        }  # fmt: skip
        if word in answers:
            task = asyncio.ensure_future(self._answer(control, answers[word]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        if command == b"stop":
            self._stopped.set()
        control.close()

    async def _answer(self, control: socket.socket, ask: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(control, json.dumps(await ask()).encode())
        control.close()

    async def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            **await self._sessions.status(),
            "watchdog": self._watchdog.status(),
        }

    async def _save(self) -> dict[str, Any]:
        try:
            return {"saved": True, **await self._sessions.save()}
        except (NotSaved, OSError) as exc:
            return {"saved": False, "error": str(exc)}

    async def _ask_for_end(self, job: str) -> dict[str, Any]:
        """After that job; it has written that, unless the disk is full."""
        asked = aftermath.asked_end()
        if asked is None or job not in asked.jobs:
            aftermath.ask_for_end(f"{job} has ended", job)
        return await self._woken()

    async def _limits(self) -> dict[str, Any]:
        aftermath.forget_end()  # whoever sets limits says how long the cluster is to live
        return await self._woken()

    async def _woken(self) -> dict[str, Any]:
        self._watchdog.wake()
        return self._watchdog.status()

    async def _refresh(self) -> dict[str, Any]:
        if self._lost_work:
            self._lost_work.set_up()
        self._watchdog.wake()
        return {"lost": await self._sessions.refresh()}
