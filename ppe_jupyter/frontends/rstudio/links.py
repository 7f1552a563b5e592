"""The ways to RStudio Servers: one for each cluster, made when it is needed; and what is remembered of them on disk.

Must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import settings
from ...cloud.records import ClusterState
from ...errors import NoSuchCluster, PpeError
from ...remote import rstudio

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ...manager import Manager
    from ...ssh.forward import Forward

# How long a request waits for RStudio before it gets a page that loads itself again.
PATIENCE_SECONDS = 10.0
COMING = (ClusterState.PENDING, ClusterState.CONFIGURING, ClusterState.REBOOTING)


class NotYet(Exception):
    """It is on its way."""


def chosen_file(state_dir: Path) -> Path:
    """Where it is remembered which cluster was chosen, and of which account."""
    return state_dir / "rstudio" / "chosen.json"


def tunnels_folder(state_dir: Path) -> Path:
    """Where each tunnel notes its socket, for ``--disconnect``."""
    return state_dir / "rstudio" / "tunnels"


class Clusters:
    """What the tunnel asks of the configured account, and of the chosen cluster's; blocking."""

    def __init__(self) -> None:
        self._managers: dict[settings.Settings, Manager] = {}

    def all(self) -> list[Cluster]:
        """The configured account's clusters. A local cloud that is down is not started to look."""
        return self._clusters(settings.load())

    def find(self, name: str) -> Cluster:
        """The cluster of that name. Raises NoSuchCluster."""
        configured = settings.load()
        chosen = _read(chosen_file(configured.state_dir))
        if chosen.get("cluster") == name:
            given = {key: value for key in ("cloud", "profile", "region") if (value := chosen.get(key))}
            configured = replace(configured, **given)
        found = next((each for each in self._clusters(configured) if each.name == name), None)
        if found is None:
            raise NoSuchCluster(f"there is no cluster {name}; it may have been terminated")
        return found

    def chosen(self) -> str | None:
        """The name that was chosen last, if there is such a cluster."""
        name = _read(chosen_file(settings.load().state_dir)).get("cluster")
        with contextlib.suppress(PpeError):
            return self.find(name).name if name else None
        return None

    def _clusters(self, wanted: settings.Settings) -> list[Cluster]:
        from ...manager import Manager

        if wanted not in self._managers or self._managers[wanted].is_stale:
            self._managers[wanted] = Manager(wanted)
        manager = self._managers[wanted]
        if manager.is_free and not manager.local_status().running:
            return []
        return manager.clusters()


class Link:
    """The way to one cluster's RStudio Server; made by the first request that needs it, shared by all."""

    def __init__(self, name: str, root_path: str, clusters: Clusters) -> None:
        self._name = name
        self._root_path = root_path
        self._clusters = clusters
        self._attempt: asyncio.Task[Forward] | None = None

    async def forward(self) -> Forward:
        """Raises PpeError, and NotYet when it takes longer than a request should wait."""
        if self._attempt is None or self._is_over(self._attempt):
            self._attempt = asyncio.create_task(self._connect())
        attempt = self._attempt
        try:
            return await asyncio.wait_for(asyncio.shield(attempt), PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            raise NotYet from None
        except PpeError:
            if self._attempt is attempt:
                self._attempt = None  # the next request tries again
            raise

    async def hang_up(self) -> None:
        """Break off all that goes this way; RStudio Server and R go on."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            with contextlib.suppress(PpeError, asyncio.CancelledError, NotYet):
                if not attempt.done():
                    attempt.cancel()
                await (await attempt).close()

    @staticmethod
    def _is_over(attempt: asyncio.Task[Forward]) -> bool:
        return attempt.done() and (
            attempt.cancelled() or attempt.exception() is not None or attempt.result().ended.is_set()
        )

    async def _connect(self) -> Forward:
        cluster = await asyncio.to_thread(self._clusters.find, self._name)
        if cluster.state in COMING:
            raise NotYet
        connection = await asyncio.to_thread(cluster.ssh)
        return await rstudio.connect(connection, self._root_path)


def write_private(path: Path, values: dict[str, Any]) -> None:
    """A small JSON file that only its owner reads."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    new.touch(0o600)
    new.write_text(json.dumps(values), encoding="utf-8")
    new.replace(path)


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}
