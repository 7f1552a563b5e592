"""What each verb does for a user: ask the manager, show the answer. The same for notebook and command line.

An action gets a Desk and the parsed arguments; what it returns is the verb's result (a DataFrame for lists).
Every review and status begins with whose money it is. Here are the verbs that look and choose, and the table of all.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ...cloud.keeping.volumes import find_node
from ...cloud.records import InstanceState, advice
from ...errors import CloudError, NoSuchCluster, NothingToDo, PpeError, RemoteCommandFailed, UsageError
from ...overview.pictures import UP
from ...verbs import suggestion
from .. import rstudio, views
from ..output import Console
from ..tables import Table, framed
from . import changes, files, keeping, locks, runs, sharing, terminating

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ..desk import Desk
    from ..tables import Sheet

Arguments = argparse.Namespace
SSH_FAILED = 255


class CommandLine(str):
    """Shown by a notebook as it is to be typed."""

    __slots__ = ()
    __repr__ = str.__str__


def overview(desk: Desk) -> Table | None:
    """Who pays, and all clusters."""
    return list_clusters(desk, Arguments())


def config(desk: Desk, arguments: Arguments) -> Any:
    """Show the settings, set one, or convert the ancestor's."""
    from ... import settings

    key, equals, value = (arguments.setting or "").partition("=")
    value = value if equals else arguments.value
    if not key:
        try:
            desk.say(desk.manager().whose())
            desk.say(f"credentials: {desk.manager().credentials()}")
        except CloudError as error:  # the settings may say why
            desk.notice("error", str(error))
        return views.settings(settings.load())
    if key == "import":
        for line in settings.import_ancestor(value):
            desk.say(line)
        return None
    known = [each.name for each in fields(settings.Settings)]
    if key not in known:
        raise UsageError(f"there is no setting {key!r}{suggestion(key, known)} (all: {desk.sign}config)")
    if value is not None:
        desk.say(f"{key} is set in {settings.save(key, value)}")
    return views.settings(settings.load(), only=key)


def types(desk: Desk, arguments: Arguments) -> Table:
    """Instance types."""
    names = ("min_cores", "min_gb", "cluster", "arch", "max_price", "sort", "all")
    typed = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    found = desk.manager(arguments).types(**typed)
    if found.empty:
        raise NothingToDo("no instance type is like that; ask for less")
    desk.say(found.attrs["source"])
    return framed(found)


def list_clusters(desk: Desk, arguments: Arguments) -> Table | None:
    """All clusters."""
    manager = desk.manager(arguments)
    desk.say(manager.whose())
    clusters = manager.clusters()
    if not clusters:
        desk.say(f"no clusters; launch one with: {desk.sign}launch")
        return None
    return views.clusters(clusters, connected=desk.connected)


def status(desk: Desk, arguments: Arguments) -> Table:
    """One cluster and its nodes, as they are now."""
    cluster = desk.any_cluster(arguments.name, arguments)
    desk.show(_status(desk.manager(arguments).whose(), cluster))
    return views.nodes(cluster)


def _status(whose: str, cluster: Cluster) -> Sheet:
    try:
        watch = cluster.watchdog() if cluster.state in UP else None
    except PpeError as error:
        return views.status(whose, cluster, f"cannot be asked: {error}")
    return views.status(whose, cluster, watch)


def connect(desk: Desk, arguments: Arguments) -> None:
    """Attach to the cluster's R session, or to any host's; remote cells use it from now on."""
    typed = {"key_filename": arguments.key_file, "fingerprint": arguments.fingerprint}
    options = {key: value for key, value in typed.items() if value}
    if "@" in (arguments.name or ""):
        host = desk.host(arguments.name, **options)
        host.ssh()
        desk.connect(host)
        desk.say(f"connected to {host.name}")
        return
    if options:
        raise UsageError("--key-file and --fingerprint are for a host: user@host")
    cluster = desk.cluster(arguments.name, arguments)
    cluster.r()
    desk.connect(cluster, arguments)
    desk.say(f"connected to {views.summary(cluster)}")


def disconnect(desk: Desk, arguments: Arguments) -> None:
    """Hang up."""
    if desk.connected is None:
        raise NothingToDo("not connected")
    name = desk.connected.name
    if arguments.end:
        if "@" not in name:
            raise UsageError(f"--end is for a host; to end a cluster: {desk.sign}terminate {name}")
        desk.host(name).end()
    desk.forget(name)
    desk.say(f"disconnected from {name}; its R session {'has ended' if arguments.end else 'goes on'}")


def ssh(desk: Desk, arguments: Arguments) -> str | None:
    """The ssh command line, or a command run on one node."""
    cluster = desk.any_cluster(arguments.cluster, arguments)
    node = find_node(cluster.record, arguments.node)
    if node.state is not InstanceState.RUNNING:
        said = advice(cluster.record) or f"see: {desk.sign}status {cluster.name}"
        raise NoSuchCluster(f"node {node.index} of {cluster.name!r} is {node.state}; {said}")
    if not arguments.code:
        return CommandLine(cluster.ssh_command(node))
    # Only the master is talked to; it reaches the others with the cluster's own key.
    at_master = node == cluster.master
    command = arguments.code if at_master else shlex.join(["ssh", node.private_ip, arguments.code])
    try:
        with Console(desk.lines, elsewhere="") as console:
            cluster.run_shell(command, on_output=console)
    except RemoteCommandFailed as failed:
        if at_master:
            raise
        said = f"node {node.index} ({node.private_ip}): exit status {failed.status}"
        why = (
            ""
            if failed.status != SSH_FAILED
            else ", which ssh also gives when the master cannot reach the node"
        )
        raise RemoteCommandFailed(
            f"{said}{why}", command=arguments.code, status=failed.status, stderr=failed.stderr
        ) from None
    return None


def panel(desk: Desk, arguments: Arguments) -> None:
    """Clusters to look at and click."""
    from ..panel import display  # widgets are slow to import

    typed = arguments.cloud or arguments.profile or arguments.region
    display.show(desk.manager(arguments).settings if typed else None, desk=desk)


def local(desk: Desk, arguments: Arguments) -> str:
    """The local cloud's own verbs."""
    manager = desk.manager(Arguments(cloud="local"))
    if arguments.action == "down":
        instances = manager.local_status().instances
        desk.agree(
            f"End {instances} instances with all that is on them?", unless=arguments.yes or not instances
        )
        manager.local_down()
    return views.local_cloud(manager.local_up() if arguments.action == "up" else manager.local_status())


ACTIONS: Mapping[str, Callable[[Desk, Arguments], Any]] = {
    "config": config,
    "types": types,
    "images": keeping.images,
    "launch": changes.launch,
    "list": list_clusters,
    "status": status,
    "connect": connect,
    "disconnect": disconnect,
    "share": sharing.share,
    "ssh": ssh,
    "run": runs.run,
    "upload": files.upload,
    "download": files.download,
    "reboot": changes.reboot,
    "resize": changes.resize,
    "retry": changes.retry,
    "limit": changes.limit,
    "park": changes.park,
    "start": changes.start,
    "install": keeping.install,
    "session_info": locks.session_info,
    "bake": keeping.bake,
    "delete_image": keeping.delete_image,
    "volumes": keeping.volumes,
    "create_volume": keeping.create_volume,
    "attach_volume": keeping.attach_volume,
    "detach_volume": keeping.detach_volume,
    "delete_volume": keeping.delete_volume,
    "terminate": terminating.terminate,
    "cleanup": keeping.cleanup,
    "costs": keeping.costs,
    "panel": panel,
    "local": local,
    "rstudio": rstudio.rstudio,
    "rstudio_tunnel": rstudio.tunnel,
}
