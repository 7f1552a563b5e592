"""A cell for a team of ranks: finds the team, or starts it, and passes on what client and keeper say.

Standard input: a line of JSON (language, ranks, fresh, end, and what the keeper takes), then what the keeper takes:
team.py, or for the language "map" and 0 ranks maps/keeper.py. Standard output: its events. Run it as
``python3 ~/.ppe/node team_cell``. Ends when the keeper has said all. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cells.cell import BLOCK_BYTES, NODE, emit, hosts
from ..machine import own_packages
from .processes import RUN
from .team import name_of

START_SECONDS = 20.0
END_SECONDS = 10.0
# How the keeper's last event ends.
DONE = b'"done": true}\n'


def main() -> None:
    """One cell."""
    with open(0, "rb", buffering=0, closefd=False) as caller:
        request = json.loads(caller.readline())
        slots = sum(count for _, count in hosts())
        count = slots if request["ranks"] == -1 else request["ranks"]
        if request["language"] != "map" and not 1 <= count <= slots:
            emit(done=True, error=f"the cluster has {slots} slots; ask for 1 to {slots} ranks, not {count}")
            return
        for line in () if request["end"] or request.get("do") == "last" else own_packages.share():
            emit(note=line.lstrip("!"))
        keeper = _keeper(request, count)
        if keeper is None:
            emit(sources=[], done=True, error=None)
            return
        with keeper:
            keeper.sendall(json.dumps({**request, "end": False}).encode() + b"\n")
            threading.Thread(target=_pass_on, args=(keeper,), daemon=True).start()
            last = b""
            with contextlib.suppress(ConnectionResetError):
                while data := keeper.recv(BLOCK_BYTES):
                    last = (last + data)[-len(DONE) :]
                    view = memoryview(data)
                    while view:
                        view = view[os.write(1, view) :]
    if last != DONE:
        os.write(2, _crashed(RUN / f"{name_of(request['language'], count)}.log").encode())
    os._exit(int(last != DONE))  # the thread waits for the caller


def _crashed(log: Path) -> str:
    """Why the keeper ended before the cell had."""
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"the ranks' keeper has ended: {said[-1] if said else 'it said nothing'}\n"


def _keeper(request: Mapping[str, Any], count: int) -> socket.socket | None:
    """The line to the team's keeper, which is started unless it runs; None if it was only to be ended."""
    path = RUN / f"{name_of(request['language'], count)}.sock"
    RUN.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (request["fresh"] or request["end"]) and (old := _connected(path)):
            with old:
                old.sendall(b'{"end": true}\n')
            _wait(lambda: not path.exists(), END_SECONDS)
            path.with_suffix(".ended").unlink(missing_ok=True)
        if request["end"]:
            return None
        if running := _connected(path):
            return running
        ended = path.with_suffix(".ended")
        if request["language"] != "map" and (ended.exists() or path.exists()):
            why = ended.read_text(errors="replace") if ended.exists() else "they were lost"
            emit(note=f"these ranks are new, and have no variables: of those before them, {why}")
            ended.unlink(missing_ok=True)
        with path.with_suffix(".log").open("wb") as log:
            subprocess.Popen(
                [sys.executable, str(NODE), *_program(request["language"], count)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        found: socket.socket | None = _wait(lambda: _connected(path), START_SECONDS)
        if found is None:
            words = path.with_suffix(".log").read_text(errors="replace").strip()
            sys.exit(f"the ranks' keeper did not start: {words or 'it said nothing'}")
        return found


def _program(language: str, count: int) -> list[str]:
    return ["map_keeper"] if language == "map" else ["team", language, str(count)]


def _wait(what: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found or None


def _connected(path: Path) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(path))
        return line
    except OSError:
        line.close()
        return None


def _pass_on(keeper: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, BLOCK_BYTES):
            keeper.sendall(data)
        keeper.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
