"""The ranks of all maps: started where there are none, noted when they are lost. Standard library only."""

from __future__ import annotations

import asyncio
import contextlib

from ..cells.cell import end_of, hosts, started
from ..machine import own_packages
from ..ranks.frames import ALL, Frame, Kind
from ..ranks.processes import Ranks

START_SECONDS = 60.0
PROBE_SECONDS = 3
# Of what ranks print while they start.
WORDS_BYTES = 4096
# Else the loss of one rank would end the others.
SURVIVING = ("--enable-recovery",)


class Workers:
    """The ranks of all maps. They stay, but for new ones if one was lost, or nodes or packages have changed."""

    def __init__(self, name: str) -> None:
        self.inbox: asyncio.Queue[Frame] = asyncio.Queue()
        self.living: set[int] = set()
        self.jobs = 0
        self._name = name
        self._ranks: Ranks | None = None
        self._made_for: object = None
        self._silent: list[str] = []
        self._stack = contextlib.AsyncExitStack()

    async def have(self) -> list[str]:
        """Have ranks for every slot; the names of nodes that do not answer. Raises OSError in words."""
        here = hosts()
        shared = own_packages.SHARED
        # Ranks that have imported a package keep it as it was.
        made_for = (here, own_packages.python(), shared.exists() and shared.stat().st_mtime_ns)
        while not self.inbox.empty():
            self.note(self.inbox.get_nowait())
        whole = self._ranks is not None and len(self.living) == self._ranks.count
        if whole and made_for == self._made_for and await _silent(self._silent) == self._silent:
            return self._silent
        await self.end()
        self._made_for = made_for
        self._silent = await _silent([node for node, _ in here[1:]])
        await self._start([(node, slots) for node, slots in here if node not in self._silent])
        return self._silent

    async def _start(self, nodes: list[tuple[str, int]]) -> None:
        inbox = self.inbox = asyncio.Queue()
        said = [b""]

        async def heard(frame: Frame) -> None:
            if frame.kind in (Kind.STDOUT, Kind.STDERR):  # warnings of MPI's; what tasks print is in answers
                said[0] = (said[0] + frame.body)[-WORDS_BYTES:]
            else:
                await inbox.put(frame)

        self._ranks = ranks = Ranks(
            "map",
            sum(slots for _, slots in nodes),
            self._name,
            heard=heard,
            lost=lambda why: None,
            over=lambda why: inbox.put_nowait(Frame(ALL, Kind.GONE, why.encode())),
            nodes=nodes,
            mpirun=SURVIVING,
        )
        await ranks.start(self._stack)
        ready = asyncio.ensure_future(ranks.ready.wait())
        first = asyncio.ensure_future(inbox.get())
        try:
            await asyncio.wait({ready, first}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            first.cancel()
        if not ranks.ready.is_set():
            why = first.result().body if first.done() else b"they do not answer"
            whys = [why, *said[0].splitlines()[-1:]]
            await self.end()
            raise OSError(f"the ranks could not be started: {b': '.join(whys).decode(errors='replace')}")
        self.living = set(range(ranks.count))
        if first.done():
            self.note(first.result())

    async def end(self) -> None:
        """End them."""
        ranks, self._ranks = self._ranks, None
        self.living = set()
        if ranks is not None:
            await ranks.end()
            await self._stack.aclose()

    def note(self, frame: Frame) -> None:
        """Keep in mind who is gone."""
        if frame.kind is Kind.GONE:
            self.living -= self.living if frame.rank == ALL else {frame.rank}

    def send(self, rank: int, kind: Kind, body: bytes = b"") -> None:
        """A frame for a rank, or all."""
        assert self._ranks is not None
        self._ranks.send(Frame(rank, kind, body))

    def where(self, rank: int) -> str:
        """Its node's name."""
        return self._ranks.where.get(rank, "") if self._ranks else ""


async def _silent(nodes: list[str]) -> list[str]:
    """Those that do not answer."""

    async def is_silent(node: str) -> bool:
        async with started("ssh", "-o", f"ConnectTimeout={PROBE_SECONDS}", node, "true") as process:
            try:
                return bool(await asyncio.wait_for(end_of(process), 2 * PROBE_SECONDS))
            except asyncio.TimeoutError:  # it takes connections, and does nothing for them
                return True

    found = await asyncio.gather(*map(is_silent, nodes))
    return [node for node, silent in zip(nodes, found) if silent]  # Python 3.9
