"""A rank of a map: calls one function for task after task, and sends results as they come (rank.py starts it).

Task i's random numbers are the i-th child of the run's numpy SeedSequence: ``rng`` if the function has a parameter of
that name, and what numpy.random and random draw. What a task prints, C code and child processes too, is told with its
index. MPI is initialised at the start, since MPI_Init waits for all ranks. Standard library but for numpy and mpi4py.

RUN has a pickled dictionary: with ``function``, ``entropy`` and ``job`` what is to be called, else a chunk of it:
``job``, ``first`` and ``items``. Each is answered by one DONE (or FAILED: the function cannot be loaded), and a chunk
that takes long by PART before.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .frames import Kind
from .functions import dumped, load, use_cloudpickle
from .own_modules import OwnModules

PART_SECONDS = 0.5
# Where the rank's frames of the call begin, in a traceback that is shown.
OURS = "map_rank.py"


class Capture:
    """What goes to descriptors 1 and 2 from one task to the next."""

    def __init__(self) -> None:
        self._streams = {1: "stdout", 2: "stderr"}
        for end in self._streams:
            file = os.memfd_create(f"task-{end}")
            os.dup2(file, end)
            os.close(file)
        self._flush_c = ctypes.CDLL(None).fflush

    def taken(self) -> list[tuple[str, str]]:
        """What is there now, by stream."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):  # closed by the task
                stream.flush()
        self._flush_c(None)
        said = []
        for end, name in self._streams.items():
            if size := os.lseek(end, 0, os.SEEK_CUR):
                said.append((name, os.pread(end, size, 0).decode(errors="replace")))
                os.ftruncate(end, 0)
                os.lseek(end, 0, os.SEEK_SET)
        return said


class MapRank:
    """Runs chunks; an interrupt ends the job, with what is finished."""

    def __init__(self, tell: Callable[[Kind, bytes], None]) -> None:
        import mpi4py.MPI  # noqa: F401
        import numpy as np

        self._np = np
        self._tell = tell
        self._capture = Capture()
        self._modules = OwnModules()
        self._job = 0
        self._function: Callable[..., Any] | None = None
        self._entropy = 0
        self._wants_rng = False
        self._cancelled = False
        self._in_task = False
        signal.signal(signal.SIGINT, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def _interrupt(self, number: int, frame: object) -> None:
        self._cancelled = True
        if self._in_task:
            self._in_task = False
            raise KeyboardInterrupt

    def run(self, body: bytes) -> None:
        """A job or a chunk of one."""
        request = pickle.loads(body)  # noqa: S301  # from the keeper
        if "function" not in request:
            return self._chunk(request)
        self._job, self._entropy = request["job"], request["entropy"]
        self._function, self._cancelled = None, False
        if self._modules.changed():
            self._modules.forget()
        try:
            function = pickle.loads(request["function"])  # noqa: S301  # the cluster is the user's own
            use_cloudpickle(*function["cloudpickle"])
            self._function = load(function["pickle"])
            with contextlib.suppress(TypeError, ValueError):  # builtins tell no signature
                self._wants_rng = "rng" in inspect.signature(self._function).parameters
        except BaseException as exc:
            words = "".join(traceback.format_exception_only(type(exc), exc)).strip()
            if isinstance(exc, ModuleNotFoundError) and exc.name:
                words += (
                    f"; cloudpickle.register_pickle_by_value({exc.name}) sends a module of your own along,"
                )
                words += " %ppe_install --py has the nodes install what is published"
            return self._tell(Kind.FAILED, words.encode(errors="replace"))
        return self._answer([], [], [], 0.0, Kind.DONE)

    def _chunk(self, request: dict[str, Any]) -> None:
        values: list[bytes] = []
        failed: list[int] = []
        said: list[tuple[int, str, str]] = []
        begun = time.monotonic()
        for index, item in enumerate(request["items"], request["first"]):
            if self._cancelled or request["job"] != self._job:
                break
            value, error = self._task(index, item)
            if value is None:
                break
            said += [(index, *each) for each in self._capture.taken()]
            values.append(value)
            failed += [index] if error else []
            if time.monotonic() - begun > PART_SECONDS:
                self._answer(values, failed, said, time.monotonic() - begun, Kind.PART)
                values, failed, said, begun = [], [], [], time.monotonic()
        if self._cancelled:
            self._capture.taken()  # of the task that was interrupted
        self._answer(values, failed, said, time.monotonic() - begun, Kind.DONE)

    def _answer(
        self,
        values: list[bytes],
        failed: list[int],
        said: list[tuple[int, str, str]],
        seconds: float,
        kind: Kind,
    ) -> None:
        part = {"job": self._job, "values": values, "failed": failed, "said": said, "seconds": seconds}
        self._tell(kind, pickle.dumps(part, 5))

    def _task(self, index: int, item: bytes) -> tuple[bytes | None, bool]:
        """Its result or error, pickled, and whether it is an error; None if it was interrupted."""
        try:
            try:
                stream = self._np.random.SeedSequence(self._entropy, spawn_key=(index,))
                legacy = stream.generate_state(4)
                self._np.random.seed(legacy)
                random.seed(legacy.tobytes())
                more = {"rng": self._np.random.default_rng(stream)} if self._wants_rng else {}
                self._in_task = True
                assert self._function is not None
                value = self._function(*load(item), **more)
                if self._cancelled:  # the task may have caught the interrupt: that is not its answer
                    return None, False
                return dumped(value), False
            finally:
                self._in_task = False
        except BaseException as exc:
            self._in_task = False
            if self._cancelled:
                return None, False
            return self._error(exc), True

    def _error(self, exc: BaseException) -> bytes:
        frame = exc.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename.endswith(OURS):
            frame = frame.tb_next
        told: dict[str, Any] = {
            "error": "".join(traceback.format_exception_only(type(exc), exc)).strip(),
            "traceback": "".join(traceback.format_exception(type(exc), exc, frame)),
            "exception": None,
        }
        with contextlib.suppress(Exception):  # whatever a class of the user's raises
            told["exception"] = dumped(exc)
        return pickle.dumps(told, 5)
