"""Files to and from whatever has an SSH connection and an R session: what a cluster and a single host have in common.

Says which machine is meant; ``remote.files.transfer`` does the rest.
"""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError
from .node.wire.protocol import MAIN
from .remote.files import s3, transfer
from .remote.files.transfer import OnProgress, Tally, Transferred
from .ssh import Connection

IGNORE: OnProgress = lambda tally: None  # noqa: E731

__all__ = ["Files", "OnProgress", "Tally", "Transferred"]


class Files:
    """``upload`` and ``download``, for a class that knows its connection and its other machines."""

    def ssh(self) -> Connection:
        """The connection to the machine that R runs on."""
        raise NotImplementedError

    def _address_of(self, node: int | str) -> str | None:
        """The address, as seen from there, of another machine; None if it is the same."""
        raise NotImplementedError

    def _others(self) -> list[str]:
        """The addresses of all other machines."""
        raise NotImplementedError

    def _region(self) -> str:
        """The region of AWS that it is in; "" if it is in none."""
        return ""

    def upload(
        self,
        *sources: str | Path,
        to: str = ".",
        node: int | str | None = None,
        session: str = MAIN,
        all_nodes: bool = False,
        on_progress: OnProgress = IGNORE,
    ) -> Transferred:
        """Send files and folders, patterns expanded, to the folder ``to`` (for a sole source also its new name).

        A relative ``to`` begins where the R of that session is, also while it is busy. To the master; to another
        ``node``, or to ``all_nodes``: then the master passes on what it got. What is there already, by size and time,
        is not sent again. Raises TransferFailed (nothing half-written has a file's name), RemoteInterrupted,
        ConnectionLost; a repetition goes on where it was cut.

        Sources s3://bucket/key, s3://bucket/folder/ and patterns of such the master fetches itself, with its instance
        profile's credentials.
        """
        connection = self.ssh()
        if any(s3.is_s3(os.fspath(source)) for source in sources):
            if node is not None or not all(s3.is_s3(os.fspath(source)) for source in sources):
                raise UsageError(
                    "what is in S3 comes to the master, or to all nodes, and without other files"
                )
            return s3.fetch(
                connection,
                [os.fspath(source) for source in sources],
                to,
                nodes=self._others() if all_nodes else (),
                region=self._region(),
                session=session,
                on_progress=on_progress,
            )
        via = None if node is None else self._address_of(node)
        return transfer.upload(
            connection,
            [os.fspath(source) for source in sources],
            to,
            via=via,
            nodes=self._others() if all_nodes else (),
            folder=transfer.working_folder(connection, session) if via else None,
            session=session,
            on_progress=on_progress,
        )

    def download(
        self,
        *sources: str,
        to: str | Path = ".",
        node: int | str | None = None,
        session: str = MAIN,
        on_progress: OnProgress = IGNORE,
    ) -> Transferred:
        """Fetch files and folders from the master, or another ``node``; relative ones from where that R session is.

        Patterns are expanded there. ``to`` is a folder here, or the new name of a sole source. Raises as ``upload``.
        ``to`` s3://bucket/folder/ (or a sole file's new name there) is where the master takes them itself.
        """
        connection = self.ssh()
        if s3.is_s3(os.fspath(to)):
            if node is not None:
                raise UsageError("what goes to S3 goes from the master")
            return s3.store(
                connection,
                sources,
                os.fspath(to),
                region=self._region(),
                session=session,
                on_progress=on_progress,
            )
        via = None if node is None else self._address_of(node)
        folder = transfer.working_folder(connection, session) if via else None
        return transfer.download(
            connection,
            sources,
            os.fspath(to),
            via=via,
            folder=folder,
            session=session,
            on_progress=on_progress,
        )
