"""R at a terminal without anything of ours: what its console prints, for comparison.

And the examples of R's own packages, in files.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ppe_jupyter.node.r.process import _make_plain, selects_standard_input

PROMPT, MORE = "@prompt@", "@more@"
# Without output for so long (seconds), R is looked at: it may ask. A line takes a moment to come to it.
QUIET = 2.0
LOOK_SECONDS = 0.002

# A package, and which of its pages; none: all.
EXTRACT = """
wanted <- commandArgs(TRUE)
package <- wanted[1]
dir.create(package)
pages <- file.path(find.package(package), "help", package)
if (length(wanted) == 1) wanted <- c(package, names(tools:::fetchRdDB(pages)))
for (name in wanted[-1]) tools::Rd2ex(tools:::fetchRdDB(pages, name), file.path(package, paste0(name, ".R")))
"""


def examples(folder: Path, wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The examples of the packages' help pages, of all pages if none is named: ``package/page`` -> code."""
    for package, pages in wanted.items():
        subprocess.run(["Rscript", "-e", EXTRACT, package, *pages], cwd=folder, check=True, timeout=120)
    found = {}
    for path in sorted(folder.glob("*/*.R")):
        lines = path.read_text(encoding="utf-8").splitlines()
        code = "\n".join(line for line in lines if not line.startswith(("### ", "##D"))).strip()
        if code and path.parent.name in wanted:
            found[f"{path.parent.name}/{path.stem}"] = code
    return found


class Lost(Exception):
    """R has ended, or gives no prompt in time."""


class PlainR:
    """R on a terminal, into which lines are typed when it prompts; a question gets an empty line."""

    def __init__(self, terminal: tuple[int, int], process: subprocess.Popen[bytes]) -> None:
        self._terminal, self._its_end = terminal
        self._process = process

    def run(self, code: str, seconds: float = 60) -> str:
        """What R prints for the lines of ``code``."""
        deadline = time.monotonic() + seconds
        return "".join(self.typed(line, deadline) for line in code.split("\n"))

    def typed(self, line: str, deadline: float) -> str:
        """What R prints until it prompts again."""
        os.write(self._terminal, line.encode() + b"\n")
        data = b""
        while True:
            prompts = data.endswith((PROMPT.encode(), MORE.encode()))  # or source() echoes
            waits = self._waits()  # before the look: then all that it has printed is there
            if select.select([self._terminal], [], [], LOOK_SECONDS if prompts else QUIET)[0]:
                data += os.read(self._terminal, 2**16)
            elif prompts and waits:
                return data.decode(errors="replace").removesuffix(PROMPT).removesuffix(MORE)
            elif not prompts and self._waits():  # after it: the line has come by now
                os.write(self._terminal, b"\n")
            elif time.monotonic() > deadline or self._process.poll() is not None:
                raise Lost(data.decode(errors="replace"))

    def _waits(self) -> bool:
        """Whether R has read all that was typed, and waits for more."""
        unread = struct.unpack("i", fcntl.ioctl(self._its_end, termios.FIONREAD, bytes(4)))[0]
        return not unread and selects_standard_input(self._process.pid)


@contextmanager
def plain_r(home: Path) -> Iterator[PlainR]:
    """An R of its own, with ``home``."""
    master, slave = os.openpty()
    _make_plain(slave)
    process = subprocess.Popen(
        ["R", "--no-readline", "--interactive", "--quiet", "--no-save", "--no-restore"],
        stdin=slave, stdout=slave, stderr=slave, cwd=home, start_new_session=True,
        env={**os.environ, "HOME": str(home), "TERM": "xterm-256color", "PAGER": "cat", "LANG": "C.UTF-8"},
    )  # fmt: skip
    plain = PlainR((master, slave), process)
    try:
        plain.typed(f'options(prompt = "{PROMPT}", continue = "{MORE}")', time.monotonic() + 30)
        yield plain
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(master)
        os.close(slave)
