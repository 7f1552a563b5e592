"""``ppe rstudio-tunnel``: the process behind the RStudio tab, started by jupyter-server-proxy at the first click.

It listens on a Unix socket. ``/NAME/…`` is the RStudio Server of that cluster's master, over an SSH connection made at
the first request and again after a cut; ``/`` leads to the chosen cluster or the sole one that runs. It never ends by
itself (the proxy would not start it again): what cannot be shown is a page that says why. One request a connection, as
the proxy has it. It looks at the head of a request only; the rest goes by as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import settings
from ...cloud.records import ClusterState, advice
from ...cloud.spec import NAME
from ...errors import NoRStudio, NoSuchCluster, PpeError
from ...node.wire.relay import Refused
from . import pages
from .downloads import Downloads, Held
from .links import COMING, Clusters, Link, NotYet, tunnels_folder, write_private
from .pages import Page

if TYPE_CHECKING:
    from ...cluster import Cluster

PREFIX = "ppe-rstudio"
CONNECT = "?connect"
HEAD_BYTES = 2**16
HEAD_SECONDS = 30.0
UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
# RStudio Server's (rstudio/rstudio, CookieConstants), each perhaps with -legacy. A page below /p/ gets none of its own.
COOKIE = re.compile(r"(user-id|user-list-id|persist-auth|port-token|(rs-)?csrf-token)(-legacy)?=")
# What lets one into the lab is not for the master, where others may be.
LAB_ONLY = r"(proxy-)?authorization\s*:|x-xsrftoken\s*:"
TOKEN = re.compile(r"(?<=[?&])token=[^&\s]*&?")
AGAIN_SECONDS = 2.0
PARENT_SECONDS = 2.0
UP = (ClusterState.RUNNING, ClusterState.DEGRADED)
HINTS = {
    "missing": [
        ("Install it on this cluster's master:", "%ppe_rstudio {name} --install"),
        ("Or launch the next cluster with it:", "%ppe_launch --rstudio"),
    ],
    "old": [("See which one is there:", "%ppe_ssh --cluster {name} rserver --version")],
    "failed": [("See all it said:", "%ppe_ssh --cluster {name} cat .ppe/rstudio/rserver.log")],
}


class Tunnel:
    """The listening end. ``base_url`` is the Jupyter server's, with a slash at both ends."""

    def __init__(self, base_url: str, clusters: Clusters | None = None) -> None:
        self._root = f"{base_url.rstrip('/')}/{PREFIX}"
        self._clusters = clusters or Clusters()
        self._downloads = Downloads(base_url)
        self._links: dict[str, Link] = {}
        self._left: set[str] = set()  # disconnected: an open RStudio that polls must not bring the line back

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            answer = await self._answer(reader, writer)
            if answer is not None:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass  # whoever asked has gone, or asks no HTTP
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """What to answer; None when RStudio did."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        method, target, headers = _parse(head)
        proxied = "x-forwarded-context" in headers or "upgrade" in headers
        if not proxied:
            return await self._own(method, target, writer)
        path, mark, query = target.partition("?")
        name, slash, rest = path.removeprefix("/").partition("/")
        rest += mark + query
        if not name:
            return await self._lead()
        if not NAME.fullmatch(name):
            return Page(title="There is no such page", text=f"{name} is no cluster's name.").response()
        if not slash:
            return pages.redirect(f"{name}/{rest}")
        if rest == CONNECT:
            self._left.discard(name)
            return pages.redirect("./")
        if name in self._left:
            text = "RStudio Server and R go on there."
            return Page(title=f"Disconnected from {name}", text=text, button="Connect", to=CONNECT).response()
        link = self._links.setdefault(name, Link(name, f"{self._root}/{name}", self._clusters))
        first = _rewritten(head, method, f"/{rest}", f"{self._root}/{name}")
        try:
            await self._carry(link, reader, writer, first)
        except NotYet:
            return Page(
                title=f"Connecting to {name}",
                text="RStudio opens here when it is ready.",
                again_seconds=AGAIN_SECONDS,
            ).response()
        except Refused as refused:
            return await self._explain(name, NoRStudio(str(refused), kind="failed"))
        except PpeError as error:
            return await self._explain(name, error)
        return None

    async def _carry(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes
    ) -> None:
        if not first.startswith(b"GET ") or UPGRADE.search(first):
            await self._pass_on(link, reader, writer, first)
            return
        answer: Any  # is to the relay as a StreamWriter
        with self._downloads.held(writer) as answer:
            request = asyncio.StreamReader()  # nothing follows the head
            answer.at_end = request.feed_eof
            gone = asyncio.ensure_future(_until_gone(reader, request, answer))
            try:
                await self._pass_on(link, request, answer, first)
            finally:
                gone.cancel()

    @staticmethod
    async def _pass_on(
        link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes
    ) -> None:
        if first.startswith(b"GET "):
            with contextlib.suppress(Refused):  # it may just have ended, and then it is started again
                await (await link.forward()).carry(reader, writer, first=first)
                return
        await (await link.forward()).carry(reader, writer, first=first)

    async def _own(self, method: str, target: str, writer: asyncio.StreamWriter) -> bytes | None:
        """What does not come through the proxy: its question whether we are ready; POST /connect or /disconnect,
        perhaps with a name; GET /download with a ticket."""
        verb, _, name = target.removeprefix("/").partition("/")
        if verb == "download":
            handed_over = await self._downloads.hand_over(name, writer)
            return None if handed_over else pages.plain("it has ended\n", status="410 Gone")
        if method == "POST" and verb == "connect":
            self._left.discard(name)
        elif method == "POST" and verb == "disconnect":
            gone = [each for each in self._links if not name or each == name]
            self._left.update(gone)
            for each in gone:
                await self._links.pop(each).hang_up()
            return pages.plain(json.dumps(gone))
        return pages.plain("ready\n")

    async def _lead(self) -> bytes:
        """To the chosen cluster, else the sole one that runs, else the choice."""
        try:
            clusters = await asyncio.to_thread(self._clusters.all)
            chosen = await asyncio.to_thread(self._clusters.chosen)
        except PpeError as error:
            return Page(title="The clusters cannot be listed", text=str(error)).response()
        up = [each.name for each in clusters if each.state in UP]
        coming = [each.name for each in clusters if each.state in COMING]
        if chosen is not None:
            return pages.redirect(f"{chosen}/")
        if len(up) == 1 or (not up and len(coming) == 1):
            return pages.redirect(f"{(up or coming)[0]}/")
        if up:
            text = "Several clusters run. Choose whose RStudio to open."
            return Page(
                title="Which cluster?", text=text, links=[(name, f"{name}/") for name in up], button=""
            ).response()
        return Page(
            title="No cluster runs",
            text="RStudio runs on a cluster's master.",
            hints=[("Launch one from a notebook:", "%ppe_launch --rstudio"), *_parked(clusters)],
        ).response()

    async def _explain(self, name: str, error: PpeError) -> bytes:
        """Why RStudio of that cluster cannot be shown, and what else could be."""
        clusters: list[Cluster] = []
        with contextlib.suppress(PpeError):
            clusters = await asyncio.to_thread(self._clusters.all)
        links = [
            (each.name, f"../{each.name}/") for each in clusters if each.state in UP and each.name != name
        ]
        mine = next((each for each in clusters if each.name == name), None)
        hints = [(words, code.format(name=name)) for words, code in HINTS.get(getattr(error, "kind", ""), ())]
        title = f"RStudio on {name} cannot be opened"
        if isinstance(error, NoSuchCluster):
            title = f"The cluster {name} is gone"
            hints = [("Launch one from a notebook:", "%ppe_launch --rstudio")]
        elif mine is not None and mine.state is ClusterState.PARKED:
            title = f"The cluster {name} is parked"
            hints = [("Bring it back, with R's workspace:", f"%ppe_start {name}")]
        elif mine is not None and not hints:
            hints = [("See how it is:", advice(mine.record) or f"%ppe_status {name}")]
        return Page(title=title, text=str(error), hints=hints, links=links).response()


async def serve(socket: Path, base_url: str) -> None:
    """Listen until the Jupyter server, our parent, ends."""
    loop = asyncio.get_running_loop()
    # Ctrl-C in the lab's terminal is meant for the lab, which ends us when it ends.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tunnel = Tunnel(base_url)
    server = await asyncio.start_unix_server(tunnel.handle, str(socket), limit=HEAD_BYTES)
    socket.chmod(0o600)
    note = tunnels_folder(settings.load().state_dir) / f"{os.getpid()}.json"
    parent = os.getppid()
    write_private(note, {"socket": str(socket), "base_url": base_url, "server": parent})
    try:
        while os.getppid() == parent:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), PARENT_SECONDS)
                break
    finally:
        note.unlink(missing_ok=True)
        server.close()


async def _until_gone(reader: asyncio.StreamReader, request: asyncio.StreamReader, answer: Held) -> None:
    """End the request when whoever asked hangs up, unless that is because he was sent elsewhere."""
    with contextlib.suppress(OSError):
        await reader.read()
    if not answer.is_file:
        request.feed_eof()


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers, their names in small letters."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, *_ = [*first.split(" "), "", ""]
    fields = (line.partition(":") for line in lines if ":" in line)
    return method, target, {name.strip().lower(): value.strip() for name, _, value in fields}


def _rewritten(head: bytes, method: str, target: str, root_path: str) -> bytes:
    """The head as RStudio Server is to see it: its own path, where the browser sees it, one request only, without what
    lets one into the lab."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    upgrades = any(re.match("upgrade:", line, re.IGNORECASE) for line in lines)
    dropped = f"x-rstudio-|{LAB_ONLY}{'' if upgrades else '|connection:'}"
    kept = [_without_lab_s(line) for line in lines if not re.match(dropped, line, re.IGNORECASE)]
    if not target.startswith("/p/"):  # a page's own token, of a port of the master's
        target = _without_token(target)
    # The proxy names the path of an HTTP request only, not of a WebSocket's.
    kept.append(f"X-RStudio-Root-Path: {root_path}")
    if not upgrades:
        kept.append("Connection: close")
    return "\r\n".join([f"{method} {target} HTTP/1.1", *filter(None, kept), "", ""]).encode("latin-1")


def _without_lab_s(line: str) -> str:
    """The header without the lab's cookies and token; "" if nothing is left of it."""
    name, _, value = line.partition(":")
    if name.lower() == "referer":
        return f"{name}:{_without_token(value)}"
    if name.lower() != "cookie":
        return line
    cookies = [each for each in map(str.strip, value.split(";")) if COOKIE.match(each)]
    return f"{name}: {'; '.join(cookies)}" if cookies else ""


def _without_token(address: str) -> str:
    return TOKEN.sub("", address).rstrip("?&") if TOKEN.search(address) else address


def _parked(clusters: Sequence[Cluster]) -> list[tuple[str, str]]:
    parked = [each.name for each in clusters if each.state is ClusterState.PARKED]
    return [(f"Or bring {name} back:", f"%ppe_start {name}") for name in parked]
