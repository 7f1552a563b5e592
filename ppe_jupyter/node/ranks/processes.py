"""Rank processes (rank.py) over the nodes: mpirun starts them, and one relay on each node speaks to them.

mpirun's own forwarding carries 6 MB/s, and ``--stdin all`` of Open MPI 4.1.4 leaves out the ranks beside it: hence the
relays (relay.py). Standard library only; must not know what ranks are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from ..cells.cell import BLOCK_BYTES, HOSTFILE, NODE, end_of, hosts, last_words, started
from ..lifetime.activity import BUSY
from ..machine import own_packages
from ..r.patience import PRELOAD
from .frames import ALL, HEAD, Frame, Frames, Kind

RUN = Path.home() / ".ppe" / "run"
RELAY = "mkdir -p ~/.ppe/run && exec python3 ~/.ppe/node team_relay ~/.ppe/run/{name}.relay"
# How the body of GONE begins then.
NODE_LOST = b"the connection to "
SSH = ("ssh", "-o", "ServerAliveInterval=5", "-o", "ConnectTimeout=10")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Between SIGTERM and SIGKILL mpirun sleeps for a second on each node, one after the other: 2 s instead of 0.05 s.
SOON_ENDED = ("--mca", "odls_base_sigkill_timeout", "0")


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """What this keeper's ranks do is work (activity.py), whether or not its client is still there."""
    mark = RUN / f"{os.getpid()}{BUSY}"
    with contextlib.suppress(OSError):
        mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


class Ranks:
    """``count`` ranks of one language. ``heard`` gets their frames, GONE for each of a lost node's; ``over`` why all
    of them have ended, ``lost`` why a node's have. ``nodes``: names and slots, if they are not all.
    """

    def __init__(
        self,
        language: str,
        count: int,
        name: str,
        *,
        heard: Callable[[Frame], Awaitable[None]],
        lost: Callable[[str], None],
        over: Callable[[str], None],
        nodes: Sequence[tuple[str, int]] | None = None,
        mpirun: Sequence[str] = (),
    ) -> None:
        self.count = count
        self.where: dict[int, str] = {}
        self.ready = asyncio.Event()
        self._command = (language, name)
        self._heard, self._lost, self._over = heard, lost, over
        self._nodes, self._options = nodes, mpirun
        self._relays: list[Process] = []
        self._relay_of: dict[int, Process] = {}

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start relays and ranks; ``ready`` is set when all ranks have said that they are there."""
        nodes, slots = [], 0
        for node, more in self._nodes or hosts():
            if slots < self.count:
                nodes.append(node)
                slots += more
        language, name = self._command
        relay = RELAY.format(name=name)
        for node in nodes:
            command = ["sh", "-c", relay] if node == nodes[0] else [*SSH, node, relay]
            self._relays.append(await stack.enter_async_context(started(*command)))
        environment = [part for name in ONE_THREAD for part in ("-x", f"{name}=1")]
        if language == "map":  # else the order of a set, and what is drawn or summed in it, differs by rank
            environment += ["-x", "PYTHONHASHSEED=0"]
        if PRELOAD.exists():
            environment += ["-x", f"LD_PRELOAD={PRELOAD.read_text(encoding='ascii').strip()}"]
        rank = [own_packages.python(), str(NODE), "team_rank", language, str(RUN / f"{name}.relay")]
        where = ["--hostfile", str(HOSTFILE)]
        if self._nodes is not None:
            where = ["--host", ",".join(f"{node}:{slots}" for node, slots in self._nodes)]
        mpirun = ["mpirun", *where, "-np", str(self.count), "--bind-to", "none"]
        mpirun += [*SOON_ENDED, *self._options, *environment, *rank]
        process = await stack.enter_async_context(started(*mpirun))
        work = [self._hear(relay, node) for relay, node in zip(self._relays, nodes)]  # Python 3.9
        self._tasks = [asyncio.ensure_future(each) for each in (*work, self._watch(process))]

    async def end(self) -> None:
        """End the ranks; what was started is gone when the stack of ``start`` is closed."""
        for relay in self._relays:
            assert relay.stdin is not None
            relay.stdin.close()  # which ends its ranks
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(end_of, self._relays)), 2.0)

    def send(self, frame: Frame) -> None:
        """To one rank or to all."""
        for relay in self._relays if frame.rank == ALL else [self._relay_of[frame.rank]]:
            assert relay.stdin is not None
            if not relay.stdin.is_closing():
                relay.stdin.writelines((HEAD.pack(frame.rank, frame.kind, len(frame.body)), frame.body))

    async def _hear(self, relay: Process, node: str) -> None:
        assert relay.stdout is not None
        frames = Frames()
        while data := await relay.stdout.read(BLOCK_BYTES):
            for frame in frames.feed(data):
                if frame.kind is Kind.HERE:
                    self.where[frame.rank] = frame.body.decode()
                    self._relay_of[frame.rank] = relay
                    if len(self.where) == self.count:
                        self.ready.set()
                else:
                    await self._heard(frame)
        lost = f"{NODE_LOST.decode()}{node} was lost{await last_words(relay)}"
        for rank, its in self._relay_of.items():
            if its is relay:
                await self._heard(Frame(rank, Kind.GONE, lost.encode()))
        self._lost(lost)

    async def _watch(self, mpirun: Process) -> None:
        assert mpirun.stderr is not None
        words = b""
        while data := await mpirun.stderr.read(BLOCK_BYTES):
            words = (words + data)[-BLOCK_BYTES:]
        await end_of(mpirun)
        lines = [line for line in words.decode(errors="replace").splitlines() if line.strip("- ")]
        await asyncio.sleep(0.5)  # what a rank's own relay tells is more
        self._over(" ".join(lines) or "its processes have ended")
