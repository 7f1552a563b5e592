"""One rank of a Python cell: runs the code that comes on standard input, reports on standard error in frames.

Two processes. The child is the rank: it initialises MPI (if ``mpirun`` started us), gets the code from rank 0
and executes it. The parent reads what the child and its C code and children print, and writes frames; it
outlives every end of the child, so that the last words of a rank arrive. Frames have one size: ``mpirun``
forwards what it reads in blocks of a multiple of it, so that blocks of several ranks interleave between
frames, never within. Without ``mpirun`` this is the one rank of a cell that has no MPI. Standard library, and
mpi4py under ``mpirun``.
"""

from __future__ import annotations

import ast
import enum
import linecache
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

# mpirun reads up to 4096 bytes at a time (ORTE_IOF_BASE_MSG_MAX), a pipe takes as many at once (PIPE_BUF).
FRAME_BYTES = 1024
MAGIC = b"\x00ppe"
HEADER = struct.Struct(">4sIBH")
TEXT_BYTES = FRAME_BYTES - HEADER.size
CELL = "<cell>"
# How long a failed rank waits to be ended with the others before it ends by itself.
PATIENCE_SECONDS = 10


class Kind(enum.IntEnum):
    """What a frame tells of its rank."""

    HOST = 0  # the rank's first frame: where it runs
    STDOUT = 1
    STDERR = 2
    ENDED = 3
    FAILED = 4  # why; the other ranks are to be ended


class Frame(NamedTuple):
    """A rank's frame."""

    rank: int
    kind: Kind
    data: bytes


class FrameReader:
    """Bytes in, frames out; ``noise`` collects what is no frame: mpirun's own messages. Sans-IO."""

    def __init__(self) -> None:
        self.noise = b""
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes."""
        self._data += data
        while True:
            start = self._data.find(MAGIC)
            cut = start if start >= 0 else max(0, len(self._data) - len(MAGIC))
            self.noise += self._data[:cut]
            self._data = self._data[cut:]
            if start < 0 or len(self._data) < FRAME_BYTES:
                return
            _, rank, kind, length = HEADER.unpack_from(self._data)
            yield Frame(rank, Kind(kind), self._data[HEADER.size : HEADER.size + length])
            self._data = self._data[FRAME_BYTES:]

    def close(self) -> bytes:
        """All that was no frame; to be called after the last bytes."""
        return self.noise + self._data


def frames(rank: int, kind: Kind, data: bytes) -> Iterator[bytes]:
    """``data`` as frames, at least one."""
    for start in range(0, max(1, len(data)), TEXT_BYTES):
        text = data[start : start + TEXT_BYTES]
        yield (HEADER.pack(MAGIC, rank, kind, len(text)) + text).ljust(FRAME_BYTES, b"\0")


def execute(code: str, *, module: types.ModuleType, name: str = CELL) -> str | None:
    """Run a cell in ``module``, show its last expression as a notebook would; why it failed, or None."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    names: dict[str, Any] = module.__dict__
    try:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)  # noqa: S102  # that is what a cell is
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)  # noqa: S307
            if value is not None:
                print(repr(value))  # noqa: T201
    except SystemExit as exc:
        return None if exc.code in (None, 0) else f"SystemExit: {exc.code}"
    except BaseException as exc:
        frame = exc.__traceback__
        while frame is not None and not frame.tb_frame.f_code.co_filename.startswith("<cell"):
            frame = frame.tb_next
        if isinstance(exc, KeyboardInterrupt) and frame is not None:
            print(f"interrupted in line {frame.tb_lineno}", file=sys.stderr)  # noqa: T201
        else:
            traceback.print_exception(type(exc), exc, frame)
        return traceback.format_exception_only(type(exc), exc)[-1].strip()
    return None


def cells_module() -> types.ModuleType:
    """Make of this process one that runs cells: the module to run them in, with lines going out as they are printed."""
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.path[0] = ""  # this folder's modules are not the cells'
    # A real module, so that what cells define can be pickled, and found by other processes.
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    return module


def be_the_rank(outputs: tuple[int, int], report: int) -> None:
    """The child: execute the cell; tell ``report`` why it failed and wait to be ended. Does not return."""
    os.dup2(outputs[0], 1)
    os.dup2(outputs[1], 2)
    code = sys.stdin.read()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    failure = execute(code, module=cells_module())
    sys.stdout.flush()
    sys.stderr.flush()
    if failure is None:
        sys.exit(0)  # mpi4py finalises MPI.
    os.write(report, failure.encode(errors="replace")[-TEXT_BYTES:])
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(report)
    time.sleep(PATIENCE_SECONDS)  # MPI would take the end of this process for the failure, without its words.
    os._exit(1)


def report_on(child: int, rank: int, streams: dict[int, Kind], report: int) -> None:
    """The parent: frames for what comes from the child until it has ended or failed."""

    def send(kind: Kind, data: bytes) -> None:
        for frame in frames(rank, kind, data):
            os.write(2, frame)

    send(Kind.HOST, socket.gethostname().encode())
    failure = b""
    with selectors.DefaultSelector() as waiting:
        for stream in (*streams, report):
            waiting.register(stream, selectors.EVENT_READ)
        ended = False
        # A background process of the cell's may hold its output open: what is there at the end is enough.
        while waiting.get_map() and ((ready := waiting.select(0.05 if ended else None)) or not ended):
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    waiting.unregister(key.fd)
                    ended = ended or key.fd == report
                elif key.fd == report:
                    failure += data
                else:
                    send(streams[key.fd], data)
    if not failure:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            send(Kind.ENDED, b"")
            return
        name = f"it was ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        failure = name.encode()
    send(Kind.FAILED, failure)
    time.sleep(PATIENCE_SECONDS)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Fork before MPI is initialised: the child is the rank, the parent tells of it."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    pipes = [os.pipe() for _ in range(3)]
    child = os.fork()
    for pipe in pipes:
        os.close(pipe[0] if child == 0 else pipe[1])
    if child == 0:
        be_the_rank((pipes[0][1], pipes[1][1]), pipes[2][1])
    report_on(child, rank, {pipes[0][0]: Kind.STDOUT, pipes[1][0]: Kind.STDERR}, pipes[2][0])


if __name__ == "__main__":
    main()
