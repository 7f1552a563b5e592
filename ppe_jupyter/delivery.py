"""The package's ``node`` folder, and how it comes to a machine. Must not know what is run there."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from importlib import resources

from .ssh import Connection

FOLDER = "~/.ppe/node"
# Says which files they are.
DIGEST = "digest"
# A folder that is there as a whole or not at all; an agent that runs from the old one goes on. When a master is given
# up, what it was copying to the next one may still be on its way: hence a place of its own, and the lock.
UNPACK = (
    f"umask 077 && mkdir -p ~/.ppe && new=$(mktemp -d {FOLDER}.XXXXXX) && trap 'rm -rf $new' EXIT && "
    f'tar -xzf - -C $new && flock ~/.ppe sh -c "rm -rf {FOLDER} && mv $new {FOLDER}"'
)
STOCK_ONLY = "bootstrap.sh"
SECONDS = 120.0


def deliver(connection: Connection) -> None:
    """Copy the folder there, in place of another one. Raises RemoteCommandFailed, ConnectionLost."""
    connection.run(in_sh(UNPACK), stdin=node_folder(), timeout=SECONDS)


def in_sh(script: str) -> str:
    """A command that runs the script, whatever the login shell is."""
    return f"exec sh -c {shlex.quote(script)}"


def node_folder() -> bytes:
    """The ``node`` folder as a gzipped tar; without what only stock images need, in user data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in {**_files(), DIGEST: digest().encode()}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest() -> str:
    """What is in the file ``digest`` of a folder that is this one."""
    return hashlib.sha256(repr(sorted(_files().items())).encode()).hexdigest()


def bootstrap_script() -> str:
    """bootstrap.sh, which makes a stock image a node."""
    return (resources.files("ppe_jupyter.node") / STOCK_ONLY).read_text(encoding="utf-8")


def _files() -> dict[str, bytes]:
    with resources.as_file(resources.files("ppe_jupyter.node")) as folder:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != STOCK_ONLY and path.parent.name != "__pycache__"
        }
