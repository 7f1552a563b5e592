"""A node's end of a transfer: sends what the client asks for, or takes what it sends, and passes it on to other nodes.

Run as ``python3 ~/.ppe/node files``; begins with the client's first frame: FETCH, or the MANIFEST of what comes.
Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from ..wire.protocol import Kind
from .arrivals import Arrivals, Unreceivable
from .exchange import Bytes, Line, LineLost, Refused, parsed, receive, send
from .listing import Entry, Unsendable, entries, expanded

HERE = "exec python3 ~/.ppe/node files"
BEAT_SECONDS = 5.0
MOST_AT_ONCE = 16
# What a pipe holds. To allot more for each read costs more than to read.
READ = 2**16


def main() -> int:
    """Do what the client's first frame says; an exit status."""
    line = Line(lambda: os.read(0, READ), lambda data: _write_all(1, data))
    done = threading.Event()
    threading.Thread(target=_beat, args=(line, done), daemon=True).start()
    try:
        task = line.wait(Kind.FETCH, Kind.MANIFEST)
        (_fetched if task["kind"] is Kind.FETCH else _received)(line, task)
    except (Unsendable, Unreceivable, Refused) as exc:
        done.set()
        line.tell(Kind.FAILED, {"message": str(exc)})
        return 1
    except (LineLost, OSError):
        return 1
    return 0


def _write_all(descriptor: int, data: Bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _beat(line: Line, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        try:
            line.tell(Kind.PROGRESS)
        except OSError:
            return


def below(told: Mapping[str, Any], path: str) -> str:
    """A path of the client's: relative ones begin where its R session is, or where it says. Raises Refused."""
    if path[:1] not in ("/", "~"):
        path = f"{told.get('folder') or _where(told.get('session', ''))}/{path}"
    return path


def _where(session: str) -> str:
    from ..agent import ask  # asyncio takes time to import

    answer = ask(f"where {session}".strip())
    if "error" in answer:
        raise Refused(answer["error"])
    return str(answer.get("folder", "~"))


def _fetched(line: Line, task: Mapping[str, Any]) -> None:
    """Send what the client asks for."""
    offered, odd = entries(expanded([below(task, source) for source in task["sources"]]))
    send(line, offered, {"odd": odd, "sources": len({entry.path.split("/")[0] for entry in offered})})


def _received(line: Line, task: Mapping[str, Any]) -> None:
    """Take what the client sends, and pass it on to the nodes that it names."""
    arrivals = Arrivals(
        below(task, task["dest"]), parsed(task["entries"]), rename=task["sources"] == 1, end_stale=True
    )
    report = receive(line, arrivals)
    if task.get("nodes"):
        report["nodes"] = pass_on(
            arrivals.arrived(),
            report["base"],
            task["nodes"],
            lambda phase: line.tell(Kind.PROGRESS, {"phase": phase}),
        )
    line.tell(Kind.DONE, report)


def pass_on(
    offered: Sequence[Entry], base: str, nodes: Sequence[str], tell: Callable[[str], None]
) -> dict[str, str]:
    """Send what is here to that folder of other nodes, all at once; why it failed, by node."""
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        pending = {pool.submit(_pass_to, node, base, offered): node for node in nodes}
        tell(f"passing it on to {len(nodes)} nodes")
        for done, future in enumerate(as_completed(pending), 1):
            if why := future.result():
                failed[pending[future]] = why
            tell(f"passed on to {done - len(failed)} of {len(nodes)} nodes")
    return failed


def _pass_to(node: str, base: str, offered: Sequence[Entry]) -> str:
    """Send to one node; "" or why it failed."""
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=10", node, HERE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ssh:
        assert ssh.stdin and ssh.stdout and ssh.stderr
        out, into = ssh.stdout.fileno(), ssh.stdin.fileno()
        line = Line(lambda: os.read(out, READ), lambda data: _write_all(into, data))
        try:
            report = send(line, offered, {"dest": base, "sources": 2})
            failures: dict[str, str] = report["failures"]
            return "; ".join(f"{path}: {why}" for path, why in list(failures.items())[:3])
        except Refused as exc:
            return str(exc)
        except (LineLost, OSError):
            ssh.kill()
            said = ssh.stderr.read().decode(errors="replace").strip()
            return said.splitlines()[-1] if said else "the line to it was cut"


if __name__ == "__main__":
    sys.exit(main())
