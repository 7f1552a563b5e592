"""Looks at nodes: when each was booted, and what the user runs there. Changes nothing.

``python3 ~/.ppe/node probe`` on the master reads the nodes as setup.py does and prints {instance id:
{"boot": boot id, "busy": what runs} or {"error": why it does not answer}}; on each it runs itself as ``probe here``.
Standard library only; must not know EC2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from . import reach

HERE = "exec python3 ~/.ppe/node probe here"
SECONDS = 15.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Of a session that only waits: ours and the user's logins, and Open MPI's daemon, which outlives R's workers.
IDLE = {"sshd", "sshd-session", "systemd", "(sd-pam)", "bash", "sh", "sleep", "orted", "prted", "ps"}


def here() -> dict[str, str]:
    """This node's boot id, and its user's processes but those that only wait, such as ``2 × R, 1 × python3``."""
    listed = subprocess.run(
        ["ps", "-u", str(os.getuid()), "-o", "pid=,comm="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 1) for line in listed.splitlines()]
    found = Counter(name for pid, name in rows if int(pid) != os.getpid() and name not in IDLE)
    busy = ", ".join(f"{count} × {name}" for name, count in found.most_common())
    return {"boot": BOOT_ID.read_text(encoding="ascii").strip(), "busy": busy}


def ask(node: reach.Node) -> reach.Json:
    """The same of any node, or why it does not answer."""
    lines: list[str] = []
    try:
        reach.command(node, HERE, deadline=time.monotonic() + SECONDS, hear=lines.append)
        return dict(json.loads(lines[-1]))
    except reach.NodeFailed as exc:
        return {"error": str(exc)}
    except (IndexError, ValueError):
        return {"error": f"it answered {lines}"}


def main() -> None:
    """Answer for this node, or for those of standard input."""
    if sys.argv[1:] == ["here"]:
        print(json.dumps(here()))  # noqa: T201
        return
    nodes = [reach.Node(**each) for each in json.load(sys.stdin)]
    answers, _ = reach.everywhere(nodes, ask, done=lambda count: None)
    print(json.dumps({node.instance_id: answers[node.private_ip] for node in nodes}))  # noqa: T201


if __name__ == "__main__":
    main()
