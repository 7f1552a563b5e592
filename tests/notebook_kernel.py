"""A real kernel, its cells run one after the other as nbclient and Run All do."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.util import run_sync

Step = tuple[str, Callable[[], None]]  # what has been printed, and what is done then


class Kernel:
    """Runs cells one after the other; a cell's outputs as a notebook keeps them."""

    def __init__(self, client: NotebookClient) -> None:
        self.client = client

    def cell(self, source: str, *, when_printed: Step | Sequence[Step] = ()) -> Outputs:
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells.append(cell)
        if when_printed:
            steps = [when_printed] if isinstance(when_printed[0], str) else when_printed
            watching = threading.Thread(target=self._watch, args=(cell, steps), daemon=True)
            watching.start()
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        if when_printed:
            watching.join(60)
        return Outputs(cell.outputs)

    def answered(self, source: str, answer: str) -> str:
        """Run code in a notebook whose reader answers a question; what it prints."""
        kc: Any = self.client.kc
        printed: list[str] = []

        def shown(message: Any) -> None:
            printed.append(message["content"].get("text", ""))

        ask = run_sync(kc.execute_interactive)
        ask(source, allow_stdin=True, stdin_hook=lambda _: kc.input(answer), output_hook=shown, timeout=60)
        return "".join(printed)

    def completions(self, line: str) -> set[str]:
        async def ask() -> Any:
            return await self.client.kc.complete(line, reply=True, timeout=30)

        return set(run_sync(ask)()["content"]["matches"])

    @staticmethod
    def _watch(cell: Any, steps: Sequence[Step]) -> None:
        for text, act in steps:
            deadline = time.monotonic() + 60
            while text not in Outputs(cell.outputs).stdout + Outputs(cell.outputs).stderr:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)
            act()

    def interrupt(self) -> None:
        """What the stop button does to a kernel on this machine; any thread may."""
        kernel: Any = self.client.km
        os.killpg(kernel.provisioner.pgid, signal.SIGINT)


class Outputs(list[Any]):
    """A cell's outputs by kind."""

    def stream(self, name: str) -> str:
        return "".join(each.text for each in self if each.output_type == "stream" and each.name == name)

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.stream("stderr")

    @property
    def error(self) -> Any:
        return next((each for each in self if each.output_type == "error"), None)

    @property
    def result(self) -> str | None:
        return next((each.data["text/plain"] for each in self if each.output_type == "execute_result"), None)

    def data(self, mime: str) -> list[Any]:
        return [each.data[mime] for each in self if mime in each.get("data", {})]


def one_message(outputs: Outputs) -> str:
    """The text of an error that is shown without Python frames, ANSI colours taken off."""
    assert outputs.error is not None, outputs
    shown = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(outputs.error.traceback))
    assert "Traceback" not in shown and ".py" not in shown
    return shown
