"""Saves a session's workspace at intervals to a file of the user's, while R is idle and has evaluated since.

What was wished is in the session's folder, so that it holds for the next agent too. Must not know who wishes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

MOST_MINUTES = 1e6
# How soon an R that was busy when its time came is looked at again.
BUSY_SECONDS = 5.0


class Autosave:
    """``save`` writes the workspace of an idle R and returns {"path", "objects", "bytes"}; None while R is busy.

    It goes to ``default`` unless another file is wished. ``state`` changes when R has evaluated;
    ``trouble`` is told what went wrong.
    """

    def __init__(
        self,
        folder: Path,
        *,
        default: str,
        save: Callable[[], Awaitable[dict[str, Any] | None]],
        state: Callable[[], object],
        trouble: Callable[[str], None],
    ) -> None:
        self._settings = folder / "autosave.json"
        self._save, self._state, self._trouble = save, state, trouble
        self._minutes = 0.0
        self._path = default
        self._saved: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            wished = json.loads(self._settings.read_text(encoding="utf-8"))
            self._minutes, self._path = float(wished["minutes"]), str(wished["path"])
        self._start()

    def set(self, minutes: float | None, path: str | None) -> dict[str, Any]:
        """Save every so many minutes from now on (0: no more; None: as before); what holds now.

        Raises ValueError, RuntimeError.
        """
        if minutes is not None or path:
            minutes, path = self._minutes if minutes is None else minutes, path or self._path
            if not 0 <= minutes <= MOST_MINUTES:
                raise ValueError(f"it cannot be saved every {minutes:g} minutes")
            _place(path)  # or it cannot be one
            wished = json.dumps({"minutes": minutes, "path": path})
            try:
                self._settings.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._settings.write_text(wished, encoding="utf-8")
            except OSError as exc:
                raise ValueError(
                    f"the wish cannot be written to {self._settings} on the master: {exc}"
                ) from exc
            self._minutes, self._path = minutes, path
            self._start()
        return {"minutes": self._minutes, "path": self._path, "saved": self._saved}

    @property
    def on(self) -> bool:
        """Whether it saves."""
        return self._minutes > 0

    @property
    def path(self) -> Path:
        """The file; relative to the home directory."""
        return _place(self._path)

    def stop(self) -> None:
        """Save no more."""
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        self.stop()
        self._task = asyncio.ensure_future(self._run()) if self._minutes else None

    async def _run(self) -> None:
        saved: object = None
        while True:
            await asyncio.sleep(self._minutes * 60)
            while self._state() != saved:
                state = self._state()
                try:
                    # Half-done, it would leave a workspace where a fresh R loads it.
                    done = await asyncio.shield(self._save())
                    if done is not None:
                        written = done.pop("file")
                        await asyncio.get_running_loop().run_in_executor(None, _move, written, self.path)
                        self._saved, saved = {**done, "time": time.time()}, state
                        break
                except Exception as exc:  # the next time may be better
                    self._trouble(f"R's workspace could not be saved to {self.path}: {exc}")
                    break
                await asyncio.sleep(BUSY_SECONDS)


def _place(path: str) -> Path:
    """Raises ValueError, RuntimeError for what is none."""
    if "\0" in path:
        raise ValueError(f"{path!r} is no file's name")
    return Path.home() / Path(path).expanduser()


def _move(old: Path, new: Path) -> None:
    """Put a whole file in the place of whatever is there."""
    new.parent.mkdir(parents=True, exist_ok=True)
    between = new.with_name(f".{new.name}.new")
    try:
        shutil.move(old, between)
        between.replace(new)
    except OSError:
        for half in (between, old):  # the disk may be full, and R has it all
            half.unlink(missing_ok=True)
        raise
