"""Runs a Python or shell cell on this node, or a shell cell on every node, till the caller hangs up.

Standard input: one line of JSON (kind, code, all), then nothing: its end means that the caller is gone
or wants no more, and everything that the cell started is ended. Standard output: events, one JSON object a
line:

- ``sources``: the node names that will report, in order; [null] if it is only this node
- ``source``, ``host``, ``stream``, ``text``: something was printed
- ``source``, ``host``, ``status``, ``error``: that one has ended; ``error`` says why it failed, or is null
- ``done``: all have ended; ``error`` is why none could begin

For every node this module runs on each of them and its events are passed on. Run it as
``python3 ~/.ppe/node run_cell``. Standard library only; must not know how a client shows events.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ..machine import own_packages

NODE = Path.home() / ".ppe" / "node"
HOSTFILE = Path.home() / "ompi-hostfile"
HERE = "exec python3 ~/.ppe/node run_cell"
GRACE_SECONDS = 3.0
POLL_SECONDS = 0.01
# A process that has ended may have left one behind that holds its output.
WORDS_SECONDS = 1.0
BLOCK_BYTES = 65536
# A line of JSON has at most a block of text, each byte of it perhaps as \uXXXX.
LINE_BYTES = 8 * BLOCK_BYTES


def emit(**fields: Any) -> None:
    """One event for the caller."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def hosts() -> list[tuple[str, int]]:
    """Names and slots of the nodes, the master first."""
    found = []
    for line in HOSTFILE.read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].split()
        if words:
            slots = [word[6:] for word in words[1:] if word.startswith("slots=")]
            found.append((words[0], int(slots[0]) if slots else 1))
    return found


async def end_of(process: Process) -> int:
    """Its status when it ends; Process.wait would go on waiting for children of its that hold its output."""
    while process.returncode is None:
        await asyncio.sleep(POLL_SECONDS)
    return process.returncode


async def last_words(process: Process) -> str:
    """The last line that it put on standard error, behind a colon, if there is one."""
    assert process.stderr is not None
    said = b""
    with suppress(asyncio.TimeoutError):
        said = await asyncio.wait_for(process.stderr.read(), WORDS_SECONDS)
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""


@asynccontextmanager
async def started(*command: str, pass_fds: Sequence[int] = ()) -> AsyncIterator[Process]:
    """A process in a group of its own, which has ended when the context is left, asked politely first."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
        limit=LINE_BYTES,
        cwd=Path.home(),
        env={**os.environ, "PATH": own_packages.path()},
        pass_fds=pass_fds,
    )
    try:
        yield process
    finally:
        for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(end_of(process), patience)


async def run_python(code: str) -> None:
    """A cell on this node."""
    report, told = os.pipe()
    os.set_blocking(report, False)

    def failure() -> str:
        with suppress(BlockingIOError):
            return os.read(report, BLOCK_BYTES).decode(errors="replace")
        return ""

    command = (own_packages.python(), str(Path(__file__).with_name("python_cell.py")), str(told))
    await _run_here(*command, given=code.encode(), failure=failure, pass_fds=(told,))


async def run_shell(code: str) -> None:
    """A shell cell on this node."""
    await _run_here("bash", "-c", code)


async def _run_here(
    *command: str, given: bytes = b"", failure: Callable[[], str] = str, pass_fds: Sequence[int] = ()
) -> None:
    """Events for what a command prints until it ends, and for how, if ``failure`` has no words for that.

    ``given`` is its standard input.
    """
    emit(sources=[None])
    about = partial(emit, source=None, host=socket.gethostname())

    async def pass_on(stream: asyncio.StreamReader, name: str) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while block := await stream.read(BLOCK_BYTES):
            about(stream=name, text=decode(block))

    async with started(*command, pass_fds=pass_fds) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(given)
        process.stdin.close()
        reading = [
            asyncio.ensure_future(pass_on(process.stdout, "stdout")),
            asyncio.ensure_future(pass_on(process.stderr, "stderr")),
        ]
        status = await end_of(process)
        # A background process may hold the output open: what is there when the command ends is enough.
        await asyncio.wait(reading, timeout=0.1)
        for each in reading:
            each.cancel()
    ended = f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    about(status=status, error=None if status == 0 else failure() or ended)
    emit(done=True, error=None)


async def run_shell_everywhere(request: Mapping[str, Any]) -> None:
    """A shell cell on every node at once."""
    names = [name for name, _ in hosts()]
    emit(sources=names)
    line = json.dumps({**request, "all": False}).encode() + b"\n"
    await asyncio.gather(*(_run_there(name, line, here=name == names[0]) for name in names))
    emit(done=True, error=None)


async def _run_there(name: str, request: bytes, *, here: bool) -> None:
    command = ["sh", "-c", HERE] if here else ["ssh", name, HERE]
    ended = False
    async with started(*command) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(request)
        try:
            async for line in process.stdout:
                event = json.loads(line)
                if "source" in event:
                    emit(**{**event, "source": name})
                    ended = ended or "status" in event
            if not ended:
                words = (await process.stderr.read()).decode(errors="replace").strip()
                error = words or "the connection to it was lost"
                emit(source=name, host=name, status=await end_of(process), error=error)
        finally:
            # Its end of the line tells the far side to end what it runs, and that closes this one.
            process.stdin.close()
            with suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(end_of(process), 2 * GRACE_SECONDS)


async def main() -> None:
    """Read the request, run it, and end it early if standard input ends."""
    caller = asyncio.StreamReader(limit=2**30)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(caller), sys.stdin)
    request = json.loads(await caller.readline())
    if request["kind"] == "python":
        work = run_python(request["code"])
    elif request["all"]:
        work = run_shell_everywhere(request)
    else:
        work = run_shell(request["code"])
    running = asyncio.ensure_future(work)
    hung_up = asyncio.ensure_future(caller.read())
    await asyncio.wait({running, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        with suppress(BrokenPipeError):
            emit(done=True, error="it was ended")
    else:
        running.result()


if __name__ == "__main__":
    asyncio.run(main())
