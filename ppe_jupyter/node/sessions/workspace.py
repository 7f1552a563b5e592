"""The R session's workspace as a whole: what is in it, saving it before the node stops, and having it back.

A saved workspace is ``~/.ppe/parked.RData`` with its surroundings (packages, directory) in ``parked.rds``. When
the agent starts, R loads it before anything else (workspace.R), and it stays as ``restored.RData``. Must not know why
it is saved.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ..files.arrivals import size_text
from ..wire.protocol import ENDS, FrameReader, Header, Kind, Question, ask
from .asking import Request
from .session import RSession
from .state import State

# R writes 200 to 500 MB/s.
SAVE_SECONDS = 1800.0
# How long an R that is neither idle nor evaluating (it starts, or takes a value) may be so.
SETTLE_SECONDS = 60.0
# How long one that evaluates may not react: it may be starting workers.
HANG_SECONDS = 15.0
SUMMARY_SECONDS = 2.0
PAUSE = 0.05


class NotSaved(Exception):
    """The workspace could not be saved; ``str()`` says why."""


class Asker:
    """The agent itself in the place of a client: collects the answer to one question."""

    name = "the cluster, which looks at the workspace"
    token = ""
    waiting = 0

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._reader = FrameReader()
        self._kind = Kind.RESULT
        self._body = bytearray()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Frames, in pieces."""
        self._reader.feed(bytes(data))
        while (event := self._reader.next()) is not None:
            if isinstance(event, Header):
                self._kind, self._body, left = event.kind, bytearray(), event.size
            else:
                self._body += event.data
                left = event.left
            if not left and self._kind in ENDS and not self.answer.done():
                self._end()

    tell = send

    def promise(self, size: int) -> None:
        """Nothing else comes between anyway."""

    def close(self) -> None:
        """There will be no answer."""
        self.fail(0, "died", "R is gone")

    def _end(self) -> None:
        if self._kind is Kind.RESULT:
            self.answer.set_result(bytes(self._body))
        else:
            self.answer.set_exception(NotSaved("R could not"))

    def fail(self, id: int, reason: str, message: str, **more: object) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(NotSaved(message))

    def resume(self) -> None:
        """There is nothing more to read."""


class Workspace:
    """The workspace of a session; ``folder`` is ~/.ppe."""

    def __init__(self, session: RSession, folder: Path) -> None:
        self._session = session
        self._run = folder / "run"
        self._parked = folder / "parked.RData"
        self.restored = folder / "restored.RData"
        self._summary: tuple[object, Any] = (None, None)

    async def summary(self) -> Any:
        """Number, bytes and never fetched objects; None when R is not idle or has too many to look at."""
        state = (self._session.pid, self._session.evaluations)
        if self._summary[0] != state:
            if self._session.state is not State.IDLE:
                return None
            answer = self._ask(Question.SUMMARY)
            done, _ = await asyncio.wait({answer}, timeout=SUMMARY_SECONDS)
            if not done or answer.exception():
                return None
            self._summary = (state, json.loads(answer.result()))
        return self._summary[1]

    async def save(self) -> dict[str, Any]:
        """Save it, and end an evaluation that runs: {"objects", "bytes", "ended": whether one ran}.

        Raises NotSaved.
        """
        begun = time.monotonic()
        workspace = self._run / "workspace.RData"
        while self._session.state is not State.IDLE:
            if self._session.state is State.DOWN:
                raise NotSaved("R does not run")
            if time.monotonic() > begun + SETTLE_SECONDS:
                raise NotSaved(f"R is {self._session.state.value}")
            if evaluation := self._session.evaluating():
                # A fresh R finds it there too.
                if await self._session.save_and_restart(lambda: self._park(workspace)):
                    return {"objects": None, "bytes": self._parked.stat().st_size, "ended": True}
                if evaluation == self._session.evaluating() and time.monotonic() > begun + HANG_SECONDS:
                    raise NotSaved("R hangs in what it evaluates, and does not react")
            await asyncio.sleep(PAUSE)
        answer = await self._save_idle()
        self._park(workspace)
        for path in (workspace, workspace.with_name("surroundings.rds")):
            path.unlink()
        return {**answer, "ended": False}

    async def renew(self, message: str) -> None:
        """Start R anew with its workspace, as soon as it is idle; clients who wait are told ``message``.

        Raises NotSaved.
        """
        while self._session.state is not State.IDLE:
            await asyncio.sleep(PAUSE)
        await self._save_idle()
        self._session.renew(message)

    async def autosave(self) -> dict[str, Any] | None:
        """Save the workspace of an idle R: {"file", "objects", "bytes"}; None while it is not. Raises NotSaved."""
        if self._session.state is not State.IDLE:
            return None
        answer = await self._save_idle()
        file = self._run / "workspace.RData"
        file = file.replace(file.with_name("autosave.RData"))
        file.with_name("surroundings.rds").unlink(missing_ok=True)
        return {**answer, "file": file}

    async def _save_idle(self) -> dict[str, Any]:
        """Have an idle R write the workspace to where a fresh R finds it."""
        try:
            return dict(json.loads(await asyncio.wait_for(self._ask(Question.SAVE), SAVE_SECONDS)))
        except NotSaved as exc:
            free = size_text(shutil.disk_usage(self._run).free)
            raise NotSaved(f"{exc}; {free} are free in {self._run}") from exc
        except asyncio.TimeoutError:
            raise NotSaved(f"R did not end saving it within {SAVE_SECONDS:.0f} s") from None

    def mend_workers(self) -> None:
        """Have R replace workers that an evaluation left in the middle of an MPI call, before anything else."""
        body = bytearray(ask(Question.WORKERS))
        asker = Asker()
        asker.answer.add_done_callback(self._mended)
        self._session.submit(Request(asker, 0, len(body), body, whole=True, kind=Kind.ASK), first=True)

    def _mended(self, answer: asyncio.Future[bytes]) -> None:
        if answer.exception() is None and (text := answer.result().decode().strip()):
            self._session.notices.tell("warning", text, keep=False)

    def discard(self) -> None:
        """What was saved is not wanted: the session goes on."""
        for path in (self._parked, self._parked.with_suffix(".rds")):
            path.unlink(missing_ok=True)

    def fetch(self) -> float | None:
        """Have the R that starts next load what was saved; when that was (seconds since 1970), None if nothing was."""
        if not self._parked.exists():
            return None
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        saved = self._parked.stat().st_mtime
        self._parked.replace(self.restored)
        _link(self.restored, self._run / "workspace.RData")
        surroundings = self._parked.with_suffix(".rds")
        if surroundings.exists():
            surroundings.replace(self._run / "surroundings.rds")
        return saved

    def _ask(self, question: Question) -> asyncio.Future[bytes]:
        asker = Asker()
        body = bytearray(ask(question))
        self._session.submit(Request(asker, 0, len(body), body, whole=True, kind=Kind.ASK))
        return asker.answer

    def _park(self, workspace: Path) -> None:
        _link(workspace.with_name("surroundings.rds"), self._parked.with_suffix(".rds"))
        _link(workspace, self._parked)


def _link(old: Path, new: Path) -> None:
    """Give the file another name too, in the place of whatever has it."""
    between = new.with_name(new.name + ".new")
    between.unlink(missing_ok=True)
    os.link(old, between)
    between.replace(new)
