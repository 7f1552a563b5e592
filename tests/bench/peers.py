"""What others do for the same: IRkernel and Rserve on the master through OpenSSH's tunnel, R in ``ssh -t``, local rpy2.

IRkernel and Rserve come from Debian, onto the benchmark's cluster; pyRserve from PyPI, by `make bench`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy

import ppe_jupyter as ppe

DEBIAN = ("r-cran-irkernel", "r-cran-rserve")
# On the master; another run's may still be in use.
FIRST_PORT = 40000 + secrets.randbelow(20000)
NAMES = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
PORTS = {name: FIRST_PORT + at for at, name in enumerate(NAMES)}
RSERVE_PORT = FIRST_PORT + len(NAMES)
START_SECONDS = 60.0


def ssh(cluster: ppe.Cluster, *options: str) -> list[str]:
    """OpenSSH's command line to the master, with more options."""
    program, *rest = shlex.split(cluster.ssh_command())
    return [program, "-o", "BatchMode=yes", *options, *rest]


@contextlib.contextmanager
def tunnels(cluster: ppe.Cluster, ports: list[int]) -> Iterator[dict[int, int]]:
    """Local ports that lead to the master's, when something listens there."""
    for port in ports:
        until(lambda port=port: cluster.ssh().forward("127.0.0.1", port, timeout=5).close())
    here = {port: free_port() for port in ports}
    forwards = [word for port in ports for word in ("-L", f"127.0.0.1:{here[port]}:127.0.0.1:{port}")]
    with subprocess.Popen(ssh(cluster, "-N", *forwards)) as process:
        try:
            for port in here.values():
                until(lambda port=port: socket.create_connection(("127.0.0.1", port), 1).close())
            yield here
        finally:
            process.terminate()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(act: Callable[[], Any]) -> Any:
    """What it returns when it no longer fails."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return act()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def irkernel(cluster: ppe.Cluster) -> Iterator[Callable[[], None]]:
    """IRkernel on the master: ``1+1``, from its execution until it is idle again."""
    from jupyter_client.blocking import BlockingKernelClient

    connection = {**PORTS, "ip": "127.0.0.1", "transport": "tcp", "key": secrets.token_hex(16)}
    connection |= {"signature_scheme": "hmac-sha256", "kernel_name": "ir"}
    cluster.ssh().put(json.dumps(connection).encode(), "~/irkernel.json")
    kernel = cluster.ssh().popen("exec R --slave -e 'IRkernel::main()' --args ~/irkernel.json")
    with kernel, tunnels(cluster, list(PORTS.values())) as here:
        client = BlockingKernelClient()
        client.load_connection_info(connection | {name: here[port] for name, port in PORTS.items()})
        client.start_channels()
        try:
            client.wait_for_ready(timeout=START_SECONDS)

            def evaluate() -> None:
                request = client.execute("1+1")
                while True:
                    said = client.get_iopub_msg(timeout=START_SECONDS)
                    if said["parent_header"].get("msg_id") == request and said["content"] == {
                        "execution_state": "idle"
                    }:
                        return

            yield evaluate
        finally:
            client.shutdown()
            client.stop_channels()


@contextlib.contextmanager
def rserve(cluster: ppe.Cluster) -> Iterator[Callable[[], None]]:
    """pyRserve with Rserve on the master: ``1+1``."""
    # pyRserve 1.0.4 is of before NumPy 2.
    vars(numpy).update(string_=numpy.bytes_, unicode_=numpy.str_, compat=SimpleNamespace(long=int))
    import pyRserve

    # Debian's R CMD Rserve goes into the background, and ends with its last client if it is told to.
    command = f"R --slave -e 'Rserve::run.Rserve(port = {RSERVE_PORT}L, remote = FALSE)'"
    with cluster.ssh().popen(f"exec {command}"), tunnels(cluster, [RSERVE_PORT]) as here:
        connection = until(lambda: pyRserve.connect("127.0.0.1", here[RSERVE_PORT]))
        try:
            yield lambda: connection.eval("1+1")
        finally:
            with contextlib.suppress(Exception):
                connection.shutdown()


def lines_by_ssh(cluster: ppe.Cluster, code: str, last: bytes) -> float:
    """Seconds from typing ``code`` into an R of ``ssh -t`` until its last line is here."""
    command = [*ssh(cluster, "-tt"), "R --quiet --interactive --no-save --no-readline"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin and process.stdout
        try:
            seen = b""
            while not seen.endswith(b"> "):
                seen += process.stdout.read(2**16)
            process.stdin.write(b'cat("ready\\n")\n')
            while seen.count(b"ready") < 2 or not seen.endswith(b"> "):
                seen += process.stdout.read(2**16)
            began = time.perf_counter()
            process.stdin.write(code.encode() + b"\n")
            end = b""
            while last not in end:
                end = end[-len(last) :] + process.stdout.read(2**16)
            return time.perf_counter() - began
        finally:
            process.terminate()


@contextlib.contextmanager
def local_rpy2(code: str) -> Iterator[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """rpy2's conversions, both ways, of what ``code`` makes in the R of this machine."""
    # rpy2 puts R's folders into LD_LIBRARY_PATH, and the Jupyter server of a later benchmark would not start.
    with mock.patch.dict(os.environ):
        import rpy2.robjects as ro
        from rpy2.robjects import pandas2ri

        frame = ro.r(code)
        with (ro.default_converter + pandas2ri.converter).context() as converter:
            yield lambda: converter.rpy2py(frame), converter.py2rpy
