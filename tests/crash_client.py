"""Clients that are killed before or after a certain call to EC2, for test_crash.py.

One process imports everything once and forks a client for each line that it reads: JSON with ``verb`` and its
arguments, ``when`` (before, after, or "": let it live), ``operation`` and which ``occurrence`` of it, from 1;
``records`` if the instances are records, without an sshd. It answers with the client's exit status (-9: killed) and
the operations that it had called.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from dataclasses import replace
from typing import Any


def refuse(target: Any, **_: Any) -> Any:
    """What ssh.connect does where nothing of ours can be: at once, since nothing is to be waited for."""
    from ppe_jupyter.errors import HostKeyMismatch

    raise HostKeyMismatch("a record has no sshd", host=target.host)


def act(task: dict[str, Any], calls: int) -> None:
    """Be the client; ``calls`` is a descriptor for the names of the operations."""
    import ppe_jupyter as ppe
    from ppe_jupyter.cloud.account import Account
    from ppe_jupyter.manager import Manager

    manager = Manager()
    if task.get("records"):
        refusing = replace(manager._account.context, connect=refuse)
        manager.__dict__["_account"] = Account(refusing)
    seen: Counter[str] = Counter()

    def strike(when: str, operation: str) -> None:
        if (when, operation, seen[operation]) == (task["when"], task["operation"], task["occurrence"]):
            os.kill(os.getpid(), signal.SIGKILL)

    def before(event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        seen[operation] += 1
        os.write(calls, f"{operation}\n".encode())
        strike("before", operation)

    def after(event_name: str, **_: Any) -> None:
        strike("after", event_name.rpartition(".")[2])

    events = manager._ec2._ec2.meta.events
    events.register("before-send.ec2", before)
    events.register("after-call.ec2", after)
    if task["verb"] == "launch":
        manager.launch(ppe.ClusterSpec(**task["spec"]))
    elif task["verb"] == "terminate":
        manager.terminate(task["name"])
    else:
        cluster = manager.cluster(task["name"])
        cluster.carry_out(cluster.plan(task["verb"], **task["options"]))


def main() -> None:
    # What takes time to import, before any client is forked.
    import boto3  # noqa: F401
    import paramiko  # noqa: F401

    import ppe_jupyter.manager  # noqa: F401

    for line in sys.stdin:
        task = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(read)
                act(task, write)
                status = 0
            except Exception as exc:
                sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
            finally:
                os._exit(status)
        os.close(write)
        with os.fdopen(read) as told:
            operations = told.read().split()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "calls": operations}), flush=True)


if __name__ == "__main__":
    main()
