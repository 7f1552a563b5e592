"""What setup.py does on the master itself: its files, host files, the check of MPI, the start of R.

Must not know how other nodes are reached, but by mpirun.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..whole import write
from .reach import CLUSTER_KEY, FOLDER, NODE_FOLDER, Node, NodeFailed

MPIRUN_SECONDS = 60.0
COMPILE_SECONDS = 60.0
VERSION_SECONDS = 30.0
START_SECONDS = 130.0
HOME = Path.home()
CLUSTER = FOLDER / "cluster.json"
HOSTFILE = HOME / "ompi-hostfile"
SESSION_HOSTFILE = FOLDER / "session-hostfile"
HELLO = "import socket; from mpi4py import MPI; names = MPI.COMM_WORLD.allgather(socket.gethostname()); "
HELLO += "MPI.COMM_WORLD.rank or print(*names)"


def read(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def have_cluster_key(private: str | None) -> None:
    """Have the key to the other nodes; None: it is here. Raises NodeFailed."""
    if private is not None:
        write(CLUSTER_KEY, private)
    elif not CLUSTER_KEY.exists():
        raise NodeFailed("this master has no key to the other nodes, and none was sent along")


def write_hostfiles(nodes: Sequence[Node]) -> None:
    """The users' hostfile; the session's has one slot more, so that R itself takes none of theirs."""
    session = [f"{node.name} slots={node.slots + node.is_master}\n" for node in nodes]
    write(HOSTFILE, "".join(f"{node.name} slots={node.slots}\n" for node in nodes), mode=0o644)
    write(SESSION_HOSTFILE, "".join(session))


def mpi_silence(nodes: Sequence[Node]) -> tuple[list[Node], str]:
    """One rank on every node must be able to tell all others its name: those that do not, and what was said."""
    command = ["mpirun", "--hostfile", str(HOSTFILE), "-np", str(len(nodes)), "--map-by", "ppr:1:node"]
    command += ["--bind-to", "none", "python3", "-c", HELLO]
    output, error = _within(MPIRUN_SECONDS, command)
    answered = set(output.split()[-len(nodes) :])
    silent = [node for node in nodes if node.name not in answered]
    return silent, f"no rank of `{shlex.join(command[:8])}` answered from there: {error or output}"


def shim() -> bytes:
    """patience.c and waits.c compiled, for all nodes; without mpi.h the second is empty, without a compiler all is."""
    if not shutil.which("gcc"):
        return b""
    mpi = ["mpicc", "-showme:compile"] if shutil.which("mpicc") else ["true"]
    include = _within(COMPILE_SECONDS, mpi)[0].split()
    sources = [str(NODE_FOLDER / "r" / name) for name in ("patience.c", "waits.c")]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "shim.so")
        command = ["gcc", "-O2", "-shared", "-fPIC", *include, "-o", str(made), *sources, "-ldl"]
        _, error = _within(COMPILE_SECONDS, command)
        if not made.exists():
            raise NodeFailed(f"the master could not compile {', '.join(sources)}: {error}")
        return made.read_bytes()


def versions() -> dict[str, str]:
    """Versions of what matters to the user's results."""
    r = 'cat(as.character(getRversion()), as.character(packageVersion("Rmpi")))'
    found = _within(VERSION_SECONDS, ["Rscript", "--vanilla", "-e", r])[0].split()
    mpi = _within(VERSION_SECONDS, ["mpirun", "--version"])[0].split()
    return {
        "R": found[0] if found else "",
        "Open MPI": mpi[3] if len(mpi) > 3 else "",
        "Rmpi": found[1] if len(found) > 1 else "",
    }


def start_r() -> None:
    """Start the agent, whose ``start`` ends when R answers. Raises NodeFailed.

    An agent that could not start R does not try again by itself.
    """
    done = _agent("start")
    if done.returncode != 0:
        _agent("stop")
        done = _agent("start")
    if done.returncode != 0:
        raise NodeFailed(f"the R session did not start: {(done.stderr or done.stdout).strip()}")


def _agent(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["python3", str(NODE_FOLDER / "agent.py"), command],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def _within(seconds: float, command: Sequence[str]) -> tuple[str, str]:
    """Standard output and the end of standard error; all its processes are ended when the time is over."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=HOME
    )
    try:
        output, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, error = process.communicate()
        error += f"\nno end within {seconds:.0f} s"
    return output, " / ".join(line for line in error.splitlines()[-6:] if line.strip(" -"))
