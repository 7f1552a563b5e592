"""The R sessions of a cluster, by name: ``main`` and those that users have opened beside it.

Each has its own R under its own mpirun, its own log, queue and workspace; the watchdog and whoever saves sees them as
one. Must not know sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path
from typing import Any

from ..r import workers
from ..wire.protocol import MAIN, Kind, ProtocolError
from .autosave import Autosave
from .clients import Client
from .eventlog import LOG_BYTES
from .notices import Notices
from .session import RSession
from .state import State
from .workspace import NotSaved, Workspace

# Within what who asks where R is waits.
STARTED_SECONDS = 20.0
LEAST_LOG_BYTES = 100_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


class Held:
    """One session with what belongs to it. ``folder`` is ~/.ppe, or one below it."""

    def __init__(self, name: str, folder: Path, *, log: Path, hostfile: Path, notices: Notices) -> None:
        self.run = folder / "run"
        self.session = RSession(name, run=self.run, hostfile=hostfile, log=log, notices=notices)
        self.workspace = Workspace(self.session, folder)
        self.autosave = Autosave(
            folder,
            default="~/autosave.RData" if name == MAIN else f"~/autosave-{name}.RData",
            save=self.workspace.autosave,
            state=lambda: (self.session.pid, self.session.evaluations),
            trouble=lambda text: notices.tell("error", text, topic=f"autosave {name}"),
        )
        self.saved_at = self.workspace.fetch()
        self.renewing: asyncio.Task[None] | None = None


class Sessions:
    """``folder`` is ~/.ppe; ``why_ended`` says why the cluster ended in its earlier life."""

    def __init__(self, folder: Path, hostfile: Path) -> None:
        self.attached: dict[str, Client] = {}
        self.notices = Notices(self._broadcast)
        self.why_ended = ""
        self._folder = folder
        self._hostfile = hostfile
        self._held: dict[str, Held] = {}
        self._closing: set[str] = set()

    def start(self) -> None:
        """Start the main session, and those that were saved when the node was stopped."""
        self.get(MAIN)
        for path in sorted((self._folder / "sessions").glob("*/parked.RData")):
            self.get(path.parent.name)

    def follow_lost(self, *, end: bool) -> None:
        """Do what is to follow the jobs that were lost with an earlier agent; ``end``: the cluster's end too."""
        for held in list(self._held.values()):
            held.session.follow_lost(end=end)

    def get(self, name: str) -> RSession:
        """The session of that name, which starts if there is none. Raises ProtocolError for an impossible one."""
        if NAME.fullmatch(name) is None:
            raise ProtocolError(
                f"{name!r} is no name of a session: up to 40 letters, digits, and . _ - between them"
            )
        if name in self._closing:
            raise ProtocolError(f"the session {name!r} is just being closed; try again")
        if name not in self._held:
            folder = self._folder if name == MAIN else self._folder / "sessions" / name
            log = self._folder / "log" / name
            held = Held(name, folder, log=log, hostfile=self._hostfile, notices=self.notices)
            held.session.log.limit = self._log_bytes()
            self._held[name] = held
            held.session.on_started = lambda restored: self._r_started(held, restored)
            held.session.on_suspect = held.workspace.mend_workers
            held.session.on_command = lambda wish: self._command(held, wish)
            held.session.start()
        return self._held[name].session

    async def stop(self) -> None:
        """End all of them."""
        for held in self._held.values():
            held.autosave.stop()
        await asyncio.gather(*(held.session.stop() for held in self._held.values()))

    # --- As one

    @property
    def evaluations(self) -> int:
        """How many have begun."""
        return sum(held.session.evaluations for held in self._held.values())

    @property
    def pids(self) -> list[int]:
        """R's processes."""
        return [pid for held in self._held.values() if (pid := held.session.pid) is not None]

    def working(self) -> list[str]:
        """The evaluations that run or wait, in words."""
        return [words for held in self._held.values() for words in held.session.working()]

    async def where(self, name: str) -> dict[str, Any]:
        """R's working directory, whatever R does; {} without R, and an error without such a session."""
        if name not in self._held:
            return {"error": f"there is no R session {name}"}
        session, deadline = self._held[name].session, time.monotonic() + STARTED_SECONDS
        while (
            session.pid is None
            and session.row()["state"] == State.STARTING.value
            and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.05)
        with contextlib.suppress(OSError):
            return {"folder": str(Path(f"/proc/{session.pid}/cwd").readlink())}
        return {}

    async def save(self) -> dict[str, Any]:
        """Save every workspace, and end evaluations that run. Raises NotSaved, when all have been tried."""
        saved, failed = [], []
        for name, held in list(self._held.items()):
            try:
                saved.append(await held.workspace.save())
            except (NotSaved, OSError) as exc:
                failed.append(str(exc) if name == MAIN else f"session {name}: {exc}")
        if failed:
            raise NotSaved("; ".join(failed))
        objects = [each["objects"] for each in saved]
        return {
            "objects": None if None in objects else sum(objects),
            "bytes": sum(each["bytes"] for each in saved),
            "ended": any(each["ended"] for each in saved),
        }

    def discard(self) -> None:
        """They need not have been saved."""
        for held in self._held.values():
            held.workspace.discard()

    async def status(self) -> dict[str, Any]:
        """The main session's welcome, all sessions, and what is in the workspaces (None: one cannot say)."""
        found = [await held.workspace.summary() for held in list(self._held.values())]
        keys = ("objects", "bytes", "unpulled")
        whole = None if None in found else {key: sum(each[key] for each in found) for key in keys}
        return {**self.get(MAIN).welcome(), "sessions": self._rows(), "workspace": whole}

    async def refresh(self) -> list[str]:
        """The cluster has other nodes. An R whose Open MPI has lost a daemon must start anew; which nodes those are.

        (Measured with Open MPI 4.1.4: the next spawn would end mpirun, and R without its variables.)
        """
        all_lost = set()
        for held in list(self._held.values()):
            lost = await workers.lost_daemons(held.run / "daemons")
            all_lost |= lost
            if lost and held.renewing is None:
                held.renewing = asyncio.ensure_future(self._renew(held, ", ".join(sorted(lost))))
        return sorted(all_lost)

    async def _renew(self, held: Held, lost: str) -> None:
        text = f"R was started anew, since nodes that it had workers on were lost or rebooted ({lost})"
        try:
            await held.workspace.renew(f"{text}; its variables are kept")
            self.notices.tell("info", f"{text}; its variables are kept. Start workers anew.")
        except NotSaved as exc:
            self.notices.tell(
                "error",
                f"R must be restarted before it can start workers, since nodes were lost or rebooted ({lost}); that"
                f" was not done, because its workspace could not be saved: {exc}",
            )
        finally:
            held.renewing = None

    # --- One of them

    async def _command(self, held: Held, wish: dict[str, Any]) -> dict[str, Any]:
        """What a client wishes that is not about evaluations. Raises ValueError."""
        if wish.get("do") == "here":
            return {}
        if wish.get("do") == "sessions":
            return {"sessions": self._rows()}
        if wish.get("do") == "close":
            return await self._close(str(wish.get("name")))
        if wish.get("do") == "autosave":
            return self._set_autosave(held, wish)
        if wish.get("do") == "keep":
            if wish.get("bytes") is not None:
                if int(wish["bytes"]) < LEAST_LOG_BYTES:
                    raise ValueError(f"a log of {wish['bytes']} bytes is too small for anything")
                (self._folder / "log" / "limit").write_text(str(int(wish["bytes"])), encoding="ascii")
                for each in self._held.values():
                    each.session.log.limit = self._log_bytes()
            return {"bytes": self._log_bytes()}
        raise ValueError(f"this agent knows no command {wish.get('do')!r}")

    def _set_autosave(self, held: Held, wish: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError if another session's workspace is saved there."""
        minutes, path = wish.get("minutes"), wish.get("path")
        before = held.autosave.set(None, None)
        told = held.autosave.set(None if minutes is None else float(minutes), path and str(path))
        mine = held.autosave
        for name, other in self._held.items():
            if (
                other is not held
                and told["minutes"]
                and other.autosave.on
                and other.autosave.path == mine.path
            ):
                mine.set(before["minutes"], before["path"])
                raise ValueError(f"session {name} is saved to {told['path']}: name another file")
        return told

    def _log_bytes(self) -> int:
        """The size of each session's log."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / "log" / "limit").read_text(encoding="ascii"))
        return LOG_BYTES

    async def _close(self, name: str) -> dict[str, Any]:
        if name == MAIN or name not in self._held:
            known = ", ".join(each for each in self._held if each != MAIN) or "none"
            raise ValueError(f"there is no session {name!r} to close (those beside {MAIN}: {known})")
        held = self._held.pop(name)
        held.autosave.stop()
        self._closing.add(name)  # its R and its log are the next one's
        try:
            await held.session.stop()
        finally:
            self._closing.discard(name)
        for client in [each for each in self.attached.values() if each.session is held.session]:
            client.close()
        return {"sessions": self._rows()}

    def _rows(self) -> list[dict[str, Any]]:
        return [{"name": name, **held.session.row()} for name, held in self._held.items()]

    def _r_started(self, held: Held, restored: object) -> None:
        """R is ready; after a stop or reboot of the node it has loaded what was saved before."""
        saved_at, held.saved_at = held.saved_at, None
        if saved_at is None:
            return
        when = time.strftime("%FT%TZ", time.gmtime(saved_at))
        because = f" when the cluster was ended, because {self.why_ended}" if self.why_ended else ""
        of = "" if held.session.name == MAIN else f" of session {held.session.name}"
        text, place = f"The workspace{of} saved at {when}{because}", held.workspace.restored
        with contextlib.suppress(ValueError):
            place = Path("~") / place.relative_to(Path.home())
        if isinstance(restored, int):
            objects = f"{restored} object{'' if restored == 1 else 's'}"
            self.notices.tell("info", f"{text} is loaded again: {objects}. A copy is {place}.")
        else:
            self.notices.tell(
                "error", f"{text} could not be loaded: {restored}. It is {place} on the master."
            )

    def _broadcast(self, kind: Kind, body: bytes) -> None:
        for held in self._held.values():
            held.session.audience.broadcast(kind, body)
