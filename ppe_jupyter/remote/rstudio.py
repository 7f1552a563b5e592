"""RStudio Server on a master: installed there, and spoken to through a relay (node/r/rstudio.py is the other end).

Nobody else reaches it: it listens on a Unix socket of the login user's. Must not know of browsers and labs.
"""

from __future__ import annotations

import shlex

from .. import delivery
from ..errors import NoRStudio, RemoteCommandFailed, SetupFailed
from ..ssh import Connection
from ..ssh.forward import Forward

COMMAND = f"exec python3 {delivery.FOLDER} rstudio relay"
# It starts in a second or two; R on a busy node in more.
SECONDS = 90.0
INSTALL_SECONDS = 1200.0
SAYS = {
    "missing": "RStudio Server is not installed on the master, {host}: {text}",
    "old": "RStudio Server on the master, {host}, is too old: {text}; 1.4 of 2021 is the first that can be shown here",
    "failed": "RStudio Server on the master, {host}, does not start: {text}",
}


async def connect(connection: Connection, root_path: str) -> Forward:
    """Have it run, served from ``root_path`` as the browser sees it, and carry connections to it.

    Raises NoRStudio, SshError, RemoteCommandFailed.
    """
    forward, hello = await Forward.open(connection, f"{COMMAND} {shlex.quote(root_path)}", timeout=SECONDS)
    if kind := hello.get("problem"):
        await forward.close()
        said = SAYS[kind].format(host=connection.target.host, text=hello["text"])
        raise NoRStudio(said, kind=kind)
    return forward


def install(connection: Connection, *, url: str | None = None, sha256: str | None = None) -> None:
    """Install the release that rstudio.sh pins, or the Debian package of ``url``. Raises SetupFailed."""
    given = [shlex.quote(each) for each in (url, sha256) if url and each]
    command = " ".join(["sudo -n bash", f"{delivery.FOLDER}/r/rstudio.sh", *given])
    try:
        connection.run(command, timeout=INSTALL_SECONDS)
    except (RemoteCommandFailed, TimeoutError) as failed:
        lines = failed.stderr.strip().splitlines() if isinstance(failed, RemoteCommandFailed) else []
        said = " / ".join(lines[-3:]) or str(failed)
        raise SetupFailed(f"RStudio Server was not installed: {said}") from failed
