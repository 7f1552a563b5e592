"""RStudio Server of a cluster in a tab of the lab: what jupyter-server-proxy is told, and ``%ppe_rstudio``.

The tab is ``<base URL>ppe-rstudio/NAME/``; behind it is the tunnel (``process``), a process of the Jupyter server's.
Imported by the Jupyter server at its start, so it imports nothing slow.
"""

from __future__ import annotations

import argparse
import html
import http.client
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ...errors import NothingToDo, UsageError
from ..owners import agree_if_foreign
from .downloads import ADDRESS as DOWNLOADS

if TYPE_CHECKING:
    from IPython.display import HTML

    from ..desk import Desk

Arguments = argparse.Namespace
NAME = "ppe-rstudio"
TITLE = "RStudio (cluster)"
# The tunnel listens at once; Python and its imports on a busy machine do not.
START_SECONDS = 60.0
# rserver writes its own address into redirects.
LOCAL = ("localhost", "127.0.0.1", "[::1]")
# A click is expected from whoever reads it later.
FRESH_SECONDS = 20.0
BUTTON = """\
<button type="button" id="{id}" class="jp-mod-styled jp-mod-accept" style="margin:2px 8px 2px 0"
 data-commandlinker-command="server-proxy:open" data-commandlinker-args="{arguments}">Open RStudio on {name}</button>
<a href="{address}" target="_blank" rel="noopener">in a browser tab</a>
<script>
  if (Math.abs(Date.now() / 1000 - {now:.0f}) < {fresh:.0f}) {{
    const button = document.getElementById("{id}");
    if (button && document.querySelector(".jp-LabShell")) button.click();
  }}
</script>"""


def server_process() -> dict[str, Any]:
    """The entry point of jupyter-server-proxy (its "server process options")."""
    ppe = "import sys; from ppe_jupyter.frontends.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", ppe, "rstudio-tunnel"]
    return {
        "command": [*command, "--socket", "{unix_socket}", "--base-url", "{base_url}"],
        "unix_socket": True,
        "timeout": START_SECONDS,
        "new_browser_tab": False,
        "rewrite_response": rewrite,
        # An RStudio that is only open asks for events all the time, and is no activity of the lab's.
        "exclude_last_activity_patterns": [r".*/events/get_events$"],
        # The tile is the lab extension's: the proxy's has an icon among the notebooks' only.
        "launcher_entry": {"enabled": False, "title": TITLE},
    }


def rewrite(response: Any, request: Any, path: str) -> None:
    """Mend what RStudio Server says of its address: redirects to it lead where the browser is; cookies stay with it.

    ``path`` is what follows our part of the address: /NAME/…. Without this, jupyter-server-proxy leaves a redirect with
    a host as it is, and puts our part in front of one without, be it there or not.
    """
    name = path.removeprefix("/").partition("/")[0]
    root = f"{request.path.partition(f'/{NAME}/')[0]}/{NAME}/{name}"
    where = response.headers.get("Location")
    if where is not None:
        response.headers["Location"] = _location(where, request.host, root)
    cookies = response.headers.get_list("Set-Cookie")
    if cookies:
        del response.headers["Set-Cookie"]
        for cookie in cookies:
            response.headers.add("Set-Cookie", _own(cookie, root))


def _location(where: str, host: str, root: str) -> str:
    parts = urlsplit(where)
    if parts.netloc and parts.netloc != host and parts.hostname not in LOCAL:
        return where  # elsewhere
    if not parts.netloc and not parts.path.startswith("/"):
        return where  # relative: right as it is
    downloads = f"{root.rpartition(f'/{NAME}/')[0]}/{DOWNLOADS}/"
    inside = parts.path == root or parts.path.startswith((f"{root}/", downloads))
    path = parts.path if inside else f"{root}{parts.path}"
    return urlunsplit(("", host, path, parts.query, parts.fragment))


def _own(cookie: str, root: str) -> str:
    """The cookie, sent to this cluster's RStudio only."""
    found = re.search(r";\s*path=([^;]*)", cookie, re.IGNORECASE)
    if found is None:
        return f"{cookie}; Path={root}/"
    if found[1].strip().rstrip("/") == root or found[1].startswith(f"{root}/"):
        return cookie
    return f"{cookie[: found.start(1)]}{root}/{cookie[found.end(1) :]}"


def rstudio(desk: Desk, arguments: Arguments) -> Any:
    """Open it, install it, or disconnect from it."""
    if arguments.disconnect:
        gone = _tell_tunnels("disconnect", arguments.name)
        if not gone:
            raise NothingToDo("no RStudio is connected")
        desk.say(f"RStudio is disconnected from {', '.join(sorted(set(gone)))}; R goes on there")
        return None
    cluster = desk.cluster(arguments.name, arguments)
    if arguments.install:
        agree_if_foreign(desk, arguments, cluster.record, f"Install RStudio Server on {cluster.name}")
        desk.say(f"installing RStudio Server on {cluster.name}'s master")
        cluster.install_rstudio()
    _remember(desk, arguments, cluster.name)
    _tell_tunnels("connect", cluster.name)
    if address(cluster.name) is None:
        raise UsageError(f"no JupyterLab is known here; in the lab's launcher {TITLE!r} opens {cluster.name}")
    return opener(cluster.name)


def tunnel(desk: Desk, arguments: Arguments) -> None:
    """The process behind the tab; ends with the Jupyter server."""
    import asyncio

    from . import process as room

    asyncio.run(room.serve(Path(arguments.socket), arguments.base_url))


def address(name: str) -> str | None:
    """The path of that cluster's RStudio at the Jupyter server that this kernel is of; None if it is of none."""
    base_url = os.environ.get("JUPYTERHUB_SERVICE_PREFIX") or _base_url()
    return None if base_url is None else f"{base_url.rstrip('/')}/{NAME}/{name}/"


def opener(name: str) -> HTML:
    """A button that opens that cluster's RStudio in a tab of the lab, pressed at once when it is fresh."""
    from IPython.display import HTML

    where = address(name) or ""
    wanted = {
        "id": f"server-proxy:{NAME}:{name}",
        "title": f"RStudio: {name}",
        "url": where,
        "newBrowserTab": False,
    }
    return HTML(
        BUTTON.format(
            id=f"ppe-rstudio-{name}-{time.monotonic_ns()}",
            arguments=html.escape(json.dumps(wanted)),
            address=html.escape(where),
            name=html.escape(name),
            now=time.time(),
            fresh=FRESH_SECONDS,
        )
    )


def _base_url() -> str | None:
    """Of the Jupyter server that started this kernel."""
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent:
        return None
    from jupyter_server.serverapp import list_running_servers

    servers = {str(each.get("pid")): str(each.get("base_url")) for each in list_running_servers()}
    return servers.get(parent)


def _remember(desk: Desk, arguments: Arguments, name: str) -> None:
    from ... import settings
    from .links import chosen_file, write_private

    manager = desk.manager(arguments)
    account = {
        "cloud": manager.settings.cloud,
        "profile": manager.settings.profile,
        "region": manager.settings.region,
    }
    write_private(chosen_file(settings.load().state_dir), {"cluster": name, **account})


def _tell_tunnels(verb: str, name: str | None) -> list[str]:
    """Say it to every tunnel of this user; the clusters that they were connected to."""
    from ... import settings
    from .links import tunnels_folder

    answers: list[str] = []
    for note in tunnels_folder(settings.load().state_dir).glob("*.json"):
        try:
            answers += _post(json.loads(note.read_text(encoding="utf-8"))["socket"], f"/{verb}/{name or ''}")
        except (OSError, ValueError, http.client.HTTPException):
            note.unlink(missing_ok=True)  # of a tunnel that was killed
    return answers


def _post(path: str, target: str) -> list[str]:
    connection = http.client.HTTPConnection("localhost", timeout=10.0)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(path)
        connection.request("POST", target)
        text = connection.getresponse().read().decode()
        return list(json.loads(text)) if text.startswith("[") else []
    finally:
        connection.close()
