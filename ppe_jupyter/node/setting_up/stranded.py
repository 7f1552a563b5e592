"""Nodes that reach no package sources by themselves are led out by the master. Runs on the master, part of its setup.

Where none is stranded, or the master itself is, there is no proxy. Must not know what a proxy is made of.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..machine import way_out
from . import reach
from .phase import Phase, emit
from .reach import Node, NodeFailed

ANSWER_SECONDS = 120.0
INSTALL_SECONDS = 600.0


def lead_out(nodes: Sequence[Node], *, cran_url: str | None) -> None:
    """Have stranded nodes, and only these, go by a proxy on the first one, the master.

    ``cran_url`` is the repository of R packages, if it is not the usual one.
    """
    master, *workers = nodes
    hosts = way_out.package_hosts(cran_url or "")
    answers = _ask(nodes, lambda node: {"hosts": hosts})
    out = {address for address, answer in answers.items() if answer["out"]}
    stranded = [node.private_ip for node in workers if node.private_ip not in out]
    proxy = None
    if stranded and master.private_ip in out:
        message = "a proxy, for nodes without a way out"
        emit("progress", phase="installing", ready=0, total=len(nodes), message=message)
        if trouble := _open(master, stranded, hosts):
            message = f"no proxy for nodes without a way out: {trouble}"
            emit("progress", phase="installing", ready=0, total=len(nodes), message=message)
        else:
            proxy = f"http://{master.private_ip}:{way_out.PORT}"
    else:
        way_out.forget()
    _ask(nodes, lambda node: {"proxy": proxy if node.private_ip in stranded else None})


def _open(master: Node, members: Sequence[str], hosts: Sequence[str]) -> str:
    """Have the proxy run here; why it does not, or ""."""
    if shutil.which("tinyproxy") is None:
        deadline = time.monotonic() + INSTALL_SECONDS
        try:
            reach.ask(master, "install", {"apt": [way_out.PACKAGE]}, deadline=deadline)
        except NodeFailed as exc:
            return str(exc)
    way_out.write(master.private_ip, members, hosts)
    return way_out.start(anew=True)


def _ask(nodes: Sequence[Node], task: Callable[[Node], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The answers, by address; a worker that gives none will be found lost by whatever follows."""

    def ask(node: Node, say: reach.Say) -> dict[str, Any]:
        return reach.ask(node, "way_out", task(node), deadline=time.monotonic() + ANSWER_SECONDS, say=say)

    return Phase("checking the way out", nodes, len(nodes)).run(ask)[0]
