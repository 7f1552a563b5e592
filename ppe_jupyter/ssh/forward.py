"""Many local connections to one address on a node, over one channel of a connection. The other end is relay.py of
node/wire/.

sshd allows ten sessions a connection and paramiko forwards to no Unix socket: hence a relay, not a channel for each.
Must not know what is carried.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .. import errors
from ..node.wire.relay import Garbled, Refused, Relay
from .connection import Channel, Connection

RECEIVE_BYTES = 2**18


class Forward:
    """The near end. Made by ``open``; all of it on one event loop, the channel on two threads of its own."""

    def __init__(self, channel: Channel, connection: Connection) -> None:
        self._channel = channel
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="ppe forward")
        self._relay = Relay(self._send)
        self.ended = asyncio.Event()
        threading.Thread(target=self._read, daemon=True, name="ppe forward").start()

    @classmethod
    async def open(
        cls, connection: Connection, command: str, *, timeout: float
    ) -> tuple[Forward, dict[str, Any]]:
        """Run the far end's command; what it greets with comes along.

        Raises SshError, and RemoteCommandFailed when it does not greet within ``timeout`` seconds.
        """
        forward = cls(await asyncio.to_thread(connection.popen, command), connection)
        try:
            return forward, await asyncio.wait_for(asyncio.shield(forward._relay.hello), timeout)
        except (Refused, asyncio.TimeoutError) as exc:
            said = await asyncio.to_thread(forward._complaint)
            await forward.close()
            if not connection.alive:
                raise connection.lost() from exc
            host = connection.target.host
            raise errors.RemoteCommandFailed(
                f"{host}: `{command}` does not answer: {said or str(exc) or 'it says nothing'}",
                command=command,
                status=-1,
                stderr=said,
            ) from exc

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, first: bytes = b""
    ) -> None:
        """Carry a connection to its end, ``first`` before what comes from it. Raises Refused if nothing answers."""
        if self.ended.is_set():
            raise Refused("the line was cut")
        await self._relay.carry(reader, writer, first)

    async def close(self) -> None:
        """Hang up: every stream breaks off; the connection stays. Safe to repeat."""
        self._end("it was hung up")
        await asyncio.to_thread(self._channel.close)
        self._sender.shutdown(wait=False)

    async def _send(self, data: bytes) -> None:
        if self.ended.is_set():
            raise ConnectionResetError("the line was cut")
        try:
            await self._loop.run_in_executor(self._sender, self._channel.send_all, data)
        except errors.ConnectionLost as exc:
            raise ConnectionResetError(str(exc)) from exc

    def _read(self) -> None:
        with contextlib.suppress(errors.ConnectionLost, OSError, EOFError):
            while data := self._channel.recv(RECEIVE_BYTES):
                self._call(self._received, data)
        self._call(self._end, "the line was cut")

    def _call(self, what: Any, argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(what, argument)

    def _received(self, data: bytes) -> None:
        try:
            self._relay.receive(data)
        except (Garbled, ValueError) as exc:  # as when a shell's start-up file prints something
            self._end(f"the far end says what is not of the protocol ({exc})")
            self._channel.close()

    def _end(self, why: str) -> None:
        self.ended.set()
        self._relay.cut(why)

    def _complaint(self) -> str:
        self._channel.settimeout(1.0)
        with contextlib.suppress(OSError):
            return self._channel.recv_stderr().decode(errors="replace").strip()
        return ""
