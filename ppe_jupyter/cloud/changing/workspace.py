"""Workspace: what the master is told before it goes down, so that R has everything again when it is up.

The agent on the master does the work. Must not know EC2.
"""

from __future__ import annotations

import json

from ... import ssh
from ...delivery import FOLDER
from ...errors import RemoteError

SAVE = f"python3 {FOLDER}/agent.py save"
# As long as the agent itself waits for R: 200 to 500 MB/s are written.
SAVE_SECONDS = 1900.0


def save(master: ssh.Connection) -> str:
    """Have R's workspace on the disk, whatever R is doing, to be loaded at its next start; why not, or ""."""
    try:
        done = master.run(SAVE, timeout=SAVE_SECONDS, check=False)
        answer = json.loads(done.stdout or b"{}")
    except (RemoteError, TimeoutError, ValueError) as exc:
        return str(exc)
    said = answer.get("error") or done.stderr.decode(errors="replace").strip() or "the agent does not answer"
    return "" if answer.get("saved") else str(said)
