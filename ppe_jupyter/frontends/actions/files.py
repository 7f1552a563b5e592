"""Files to the cluster and from it, with a bar for what takes longer than a second."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...cloud.records import Progress
from ...errors import UsageError
from ...node.wire.protocol import MAIN
from ...remote.files.s3 import is_s3
from ...remote.files.transfer import Tally, Transferred, size_text

if TYPE_CHECKING:
    from ..desk import Desk

Arguments = argparse.Namespace
BAR_AFTER_SECONDS = 1.0
REDRAW_SECONDS = 0.2


def upload(desk: Desk, arguments: Arguments) -> None:
    """Files of this machine to the cluster."""
    sources, to = _paths(desk, arguments, "upload")
    if is_s3(to):
        raise UsageError(f"from the cluster to S3: {desk.sign}download FILE … {to}")
    if (
        not any(map(is_s3, sources))
        and arguments.to is None
        and len(sources) < len(arguments.paths)
        and Path(to).expanduser().is_file()
    ):
        raise UsageError(
            f"{to} is a file here: to send it too, name the destination with --to; to send the others under that "
            f"name, --to {to}"
        )
    cluster = desk.target(arguments.cluster, arguments)
    with desk.progress(f"upload to {cluster.name}") as report:
        done = cluster.upload(
            *sources,
            to=to,
            node=arguments.node,
            session=arguments.session or MAIN,
            all_nodes=bool(arguments.all),
            on_progress=Bar(report),
        )
    _tell(desk, done, f"{cluster.name}:{done.base}")


def download(desk: Desk, arguments: Arguments) -> None:
    """Files of the cluster to this machine."""
    sources, to = _paths(desk, arguments, "download")
    cluster = desk.target(arguments.cluster, arguments)
    with desk.progress(f"download from {cluster.name}") as report:
        done = cluster.download(
            *sources,
            to=to,
            node=arguments.node,
            session=arguments.session or MAIN,
            on_progress=Bar(report),
        )
    _tell(desk, done, done.base)


class Bar:
    """Passes on how far a transfer is, now and then, once it has taken a while; ``clock`` gives seconds."""

    def __init__(
        self, report: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._began = clock()
        self._next = self._began + BAR_AFTER_SECONDS

    def __call__(self, tally: Tally) -> None:
        """Show it if it is time."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + REDRAW_SECONDS
        seconds = now - self._began
        rate = (tally.done - tally.kept) / seconds
        message = f"{size_text(tally.done)} of {size_text(tally.bytes)}, {size_text(rate)}/s"
        if rate and tally.done < tally.bytes:
            message += f", {(tally.bytes - tally.done) / rate:.0f} s left"
        percent = 100 * tally.done // max(tally.bytes, 1)
        phase = tally.phase or "files"
        self._report(Progress(phase, percent, 100, seconds, message if not tally.phase else "", unit="%"))


def _paths(desk: Desk, arguments: Arguments, verb: str) -> tuple[list[str], str]:
    """Sources and destination."""
    paths = list(arguments.paths)
    if not paths:
        raise UsageError(f"name what to {verb}: {desk.sign}{verb} FILE … [DEST]")
    if arguments.to is not None:
        return paths, arguments.to
    return (paths[:-1], paths[-1]) if len(paths) > 1 else (paths, ".")


def _tell(desk: Desk, done: Transferred, where: str) -> None:
    desk.say(f"{done} → {where}")
    for what in done.left_out:
        desk.notice("warning", f"left out: {what}")
