"""A team's keeper: N rank processes of one language over the nodes, which keep their variables from cell to cell.

    python3 ~/.ppe/node team LANGUAGE COUNT

Runs on the master, in a session of its own, and outlives clients; cell.py starts it and speaks to it over
~/.ppe/run/team-LANGUAGE-COUNT.sock. The ranks are processes.py's. One cell at a time; the others wait. A rank that
ends, or that an interrupt does not reach, ends the team: no communicator of its can be trusted then. Standard library.

A client sends a line of JSON: {"end": true}, or {"values": FOLDER, "from_r": [NAME], "scattered": [NAME]}, with a file
from-NAME in that folder for each, or from-NAME.RANK for the scattered ones, which are to be sent first; what ranks have
for R is put there as to-NAME.RANK. Then, once it has the ``sources``, it sends frames: RUN for ALL or for each rank,
INTERRUPT. It gets cells/cell.py's events, ``note``, which is to be shown, and ``source``, ``bytes`` with that many
bytes behind the line: a rank's outputs. If its line is cut the cell goes on to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ..cells.cell import BLOCK_BYTES
from .client import Cell, Client, listening
from .frames import ALL, Frame, Frames, Kind
from .processes import NODE_LOST, RUN, Ranks, at_work

# After a rank's failure the others may come to their own end for so long, which is often the same failure.
OTHERS_SECONDS = 1.0
# When a node is lost mpirun kills the ranks of the others, which may be heard of first.
CAUSE_SECONDS = 3.0
# Further presses of the stop button at a cell that catches them.
PRESSES = 3


def name_of(language: str, count: int) -> str:
    """What the team's files in RUN begin with."""
    return f"team-{language}-{count}"


class Keeper:
    """The team."""

    def __init__(self, language: str, count: int) -> None:
        self._count = count
        self.name = name_of(language, count)
        self._ranks = Ranks(language, count, self.name, heard=self._hear, lost=self._end, over=self._end)
        self._over = asyncio.Event()
        self._why = ""
        self._turn = asyncio.Lock()
        self._cell: Cell | None = None

    async def run(self) -> None:
        """Serve until the team ends."""
        async with contextlib.AsyncExitStack() as stack:
            async with listening(RUN / f"{self.name}.sock", self._serve, over=self._over):
                await self._ranks.start(stack)
                await self._over.wait()
            await self._ranks.end()
        await asyncio.sleep(0.1)  # the last words go out

    async def _hear(self, frame: Frame) -> None:
        """What a rank says, for the cell at work."""
        if self._cell is not None:
            await self._cell.client.inbox.put(frame)
        elif frame.kind is Kind.GONE:
            self._end(f"rank {frame.rank} on {self._ranks.where[frame.rank]}: {frame.body.decode()}")

    def _end(self, why: str) -> None:
        if not self._over.is_set():
            self._why = why
            if self._cell is None:
                (RUN / f"{self.name}.ended").write_text(why)
            self._over.set()
            self._ranks.ready.set()

    # --- Clients

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(reader, writer)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, ValueError):
            request = json.loads(await reader.readline())
            if request.get("end"):
                self._end("it was ended")
            else:
                reading = asyncio.ensure_future(self._read(client))
                try:
                    error = await self._served(client, request)
                finally:
                    reading.cancel()
                    if client.gone and request["values"]:  # nobody else would
                        shutil.rmtree(Path(request["values"]).expanduser(), ignore_errors=True)
                gone = self._over.is_set() and self._began()
                client.emit(error=error, gone=gone, done=True)  # in this order, as cell.py has it
                await client.taken()

    async def _read(self, client: Client) -> None:
        frames = Frames()
        try:
            while data := await client.reader.read(BLOCK_BYTES):
                for frame in frames.feed(data):
                    if frame.kind is not Kind.INTERRUPT:
                        client.requests.put_nowait(frame)
                        continue
                    client.presses += 1
                    at_work = self._cell is not None and self._cell.client is client
                    if at_work and client.presses <= PRESSES:
                        self._ranks.send(Frame(ALL, Kind.INTERRUPT))
                    elif at_work:
                        self._end("it was ended, since its code went on after interrupts")
                    else:
                        client.requests.put_nowait(frame)
        finally:
            # Who is lost takes nothing with it: the cell goes on to its end.
            client.gone = True
            client.requests.put_nowait(Frame(ALL, Kind.INTERRUPT))

    async def _served(self, client: Client, request: dict[str, Any]) -> str | None:
        """Run the client's cell when it is its turn; why that could not be."""
        if self._turn.locked():
            client.emit(note="waits for the end of another cell on these ranks")
        turn = asyncio.ensure_future(self._its_turn())
        pressed = asyncio.ensure_future(client.requests.get())
        await asyncio.wait({turn, pressed}, return_when=asyncio.FIRST_COMPLETED)
        if not turn.done():
            turn.cancel()
            return "it was stopped before its turn came"
        try:
            if self._over.is_set():
                lost = not self._began() and self._why.startswith(NODE_LOST.decode())
                next_step = ". %ppe_retry mends the cluster" if lost else ""
                return f"the ranks {'ended' if self._began() else 'could not be started'}: {self._why}{next_step}"
            client.emit(sources=list(range(self._count)))
            with at_work():
                return await self._run(client, pressed, request)
        finally:
            pressed.cancel()
            cell, self._cell = self._cell, None
            client.let_go()
            if cell is not None and cell.unfinished:  # what its ranks say is for no other cell
                self._end("their keeper failed")
            self._turn.release()

    def _began(self) -> bool:
        return len(self._ranks.where) == self._count

    async def _its_turn(self) -> None:
        await self._turn.acquire()
        try:
            await self._ranks.ready.wait()
        except asyncio.CancelledError:
            self._turn.release()
            raise

    async def _run(self, client: Client, first: asyncio.Future[Frame], request: dict[str, Any]) -> str | None:
        frames: list[Frame] = []
        while not frames or (frames[0].rank != ALL and len(frames) < self._count):
            frame = await (client.requests.get() if frames else first)
            if frame.kind is Kind.INTERRUPT:
                return "it was stopped before it began"
            frames.append(frame)
        values = Path(request["values"]).expanduser()
        scattered = [(name, rank) for name in request["scattered"] for rank in range(self._count)]
        for name, rank in [*((name, ALL) for name in request["from_r"]), *scattered]:
            file = values / (f"from-{name}" if rank == ALL else f"from-{name}.{rank}")
            try:
                value = file.read_bytes()
            except OSError as exc:
                return f"{name} of R's session cannot be read: {exc}"
            frames.insert(0, Frame(rank, Kind.VALUE, name.encode() + b"\0" + value))
        self._cell = Cell(client, self._count, self._ranks.where, values)
        for frame in frames:
            self._ranks.send(frame)
        return await self._to_its_end(self._cell)

    async def _to_its_end(self, cell: Cell) -> str | None:
        timer = None
        try:
            while cell.unfinished:
                getting = asyncio.ensure_future(cell.client.inbox.get())
                over = asyncio.ensure_future(self._over.wait())
                await asyncio.wait({getting, over}, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
                if not getting.done():
                    getting.cancel()
                    return self._why
                frame = getting.result()
                if frame.kind in (Kind.GONE, Kind.DEAF):
                    return self._lost(await self._cause(frame, cell), cell)
                cell.show(frame)
                await cell.client.taken()
                if cell.failed and timer is None:
                    loop = asyncio.get_running_loop()
                    timer = loop.call_later(OTHERS_SECONDS, self._ranks.send, Frame(ALL, Kind.INTERRUPT))
        finally:
            if timer is not None:
                timer.cancel()
        return None

    async def _cause(self, frame: Frame, cell: Cell) -> Frame:
        """Of the ranks that are gone now the one that the cell has lost: of a lost node, else the first at work."""
        if frame.kind is not Kind.GONE:
            return frame
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._over.wait(), CAUSE_SECONDS)
        gone = [frame]
        while not cell.client.inbox.empty():
            other = cell.client.inbox.get_nowait()
            if other.kind is Kind.GONE:
                gone.append(other)
            else:
                cell.show(other)
        return max(gone, key=lambda each: (each.body.startswith(NODE_LOST), each.rank in cell.unfinished))

    def _lost(self, frame: Frame, cell: Cell) -> str | None:
        """End the team, since it has lost a rank; what beside the cell's first failure is to be told."""
        words = after = frame.body.decode()
        if frame.kind is Kind.DEAF:
            words = "it did not hear the interrupt, in MPI or other C code"
            after = "it waited in MPI, or in other C code, which cannot be interrupted"
        self._end(f"rank {frame.rank}: {words}")
        if cell.failed or frame.rank not in cell.unfinished:
            return f"rank {frame.rank}: {after}"
        cell.end(frame.rank, words)
        return None


def main() -> None:
    """Keep the team until it ends."""
    language, count = sys.argv[1:3]
    os.chdir(Path.home())
    # asyncio.Event of Python 3.9 belongs to the loop in which it is made.
    asyncio.run(_keep(language, int(count)))


async def _keep(language: str, count: int) -> None:
    await Keeper(language, count).run()


if __name__ == "__main__":
    main()
