"""ppe_jupyter: launch Open MPI + R clusters on EC2 from Jupyter and use them as if they were here.

Jupyter's hooks and the public names, which are imported when they are first used: ``%load_ext ppe_jupyter``
must not wait for boto3, paramiko, pandas or rpy2.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from jupyter_server.serverapp import ServerApp

    from .cloud.spec import ClusterSpec as ClusterSpec
    from .cluster import Cluster as Cluster
    from .errors import RemoteRError as RemoteRError
    from .host import Host as Host
    from .host import connect as connect
    from .manager import Manager as Manager
    from .remote.ranks.team import TeamCell as TeamCell
    from .remote.sessions.session import RemoteR as RemoteR

__version__ = "0.1.0"
__all__ = ["Cluster", "ClusterSpec", "Host", "Manager", "RemoteR", "RemoteRError", "TeamCell", "connect"]

_HOMES = {
    "Cluster": "cluster",
    "ClusterSpec": "cloud.spec",
    "Host": "host",
    "Manager": "manager",
    "RemoteR": "remote.sessions.session",
    "RemoteRError": "errors",
    "TeamCell": "remote.ranks.team",
    "connect": "host",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Manager":
        _show_managers()
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def _show_managers() -> None:
    """In IPython a Manager that is a cell's result is shown as the panel; what shows it is imported then."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        shell.display_formatter.ipython_display_formatter.for_type_by_name(
            "ppe_jupyter.manager",
            "Manager",
            lambda manager: import_module(".frontends.notebook.magics", __name__).show_manager(manager),
        )


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext ppe_jupyter``: register the magics."""
    from .frontends.notebook.magics import load

    load(shell)
    _show_managers()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext ppe_jupyter``: take them back; clusters and connections stay."""
    from .frontends.notebook.magics import unload

    unload(shell)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What Jupyter's server loads: the REST API that the sidebar asks."""
    return [{"module": "ppe_jupyter"}]


def _load_jupyter_server_extension(app: ServerApp) -> None:
    from .frontends.server.extension import load

    load(app)
