"""What each verb does for a user: ask the manager, show the answer. The same for notebook and command line.

An action gets a Desk and the parsed arguments; what it returns is the verb's result (a DataFrame for lists).
Every review and status begins with whose money it is; only AWS's is asked for.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..errors import NothingToDo, UsageError, UserError
from ..verbs import suggestion
from . import tables
from .output import Console

if TYPE_CHECKING:
    import pandas as pd

    from ..manager import Manager
    from .desk import Desk

Arguments = argparse.Namespace


def overview(desk: Desk) -> pd.DataFrame | None:
    """Who pays, and all clusters."""
    return list_clusters(desk, Arguments())


def config(desk: Desk, arguments: Arguments) -> Any:
    """Show the settings, or set one."""
    from .. import settings

    if arguments.setting is None:
        desk.say(desk.manager().whose())
        return tables.settings(settings.load())
    key, equals, value = arguments.setting.partition("=")
    known = [each.name for each in fields(settings.Settings)]
    if key not in known:
        raise UsageError(f"there is no setting {key!r}{suggestion(key, known)} (all: {desk.sign}config)")
    value = value if equals else arguments.value
    if value is not None:
        desk.say(f"{key} is set in {settings.save(key, value)}")
    return tables.settings(settings.load(), only=key)


def types(desk: Desk, arguments: Arguments) -> pd.DataFrame:
    """Instance types."""
    return desk.manager(arguments).types()


def launch(desk: Desk, arguments: Arguments) -> None:
    """Plan, review, ask, launch; the new cluster becomes the connected one."""
    from ..cloud.spec import ClusterSpec

    manager = desk.manager(arguments)
    typed = {each.name: getattr(arguments, each.name, None) for each in fields(ClusterSpec)}
    typed["tags"] = dict(arguments.tags)
    plan = manager.plan(ClusterSpec(**{key: value for key, value in typed.items() if value is not None}))
    if plan.existing is not None and not plan.errors:
        desk.connect(manager.launch(plan), arguments)
        desk.say(f"{manager.whose()}; connected to {tables.summary(desk.cluster(plan.name, arguments))}")
        return
    desk.show(tables.Review(manager.whose(), plan))
    if arguments.dry_run:
        return
    plan.check()
    price = "an unknown price" if plan.usd_per_hour is None else f"${plan.usd_per_hour:.2f} an hour"
    _agree(desk, manager, arguments, f"Launch {plan.name} for {price} ({manager.whose()})?")
    with desk.progress(f"launching {plan.name}") as report:
        cluster = manager.launch(plan, report=report, wait=not arguments.no_wait)
    if arguments.no_wait:
        desk.say(f"{cluster.name} is being launched; see how it goes with: {desk.sign}status {cluster.name}")
    else:
        desk.connect(cluster, arguments)
        desk.say(f"connected to {tables.summary(cluster)}")


def list_clusters(desk: Desk, arguments: Arguments) -> pd.DataFrame | None:
    """All clusters."""
    manager = desk.manager(arguments)
    desk.say(manager.whose())
    clusters = manager.clusters()
    if not clusters:
        desk.say(f"no clusters; launch one with: {desk.sign}launch")
        return None
    return tables.clusters(clusters, connected=desk.connected)


def status(desk: Desk, arguments: Arguments) -> pd.DataFrame:
    """One cluster and its nodes, as they are now."""
    cluster = desk.cluster(arguments.name, arguments).refresh()
    desk.say(desk.manager(arguments).whose())
    desk.say(tables.summary(cluster))
    return tables.nodes(cluster)


def connect(desk: Desk, arguments: Arguments) -> None:
    """Attach to the cluster's R session; remote cells use it from now on."""
    cluster = desk.cluster(arguments.name, arguments)
    cluster.r()
    desk.connect(cluster, arguments)
    desk.say(f"connected to {tables.summary(cluster)}")


def disconnect(desk: Desk, arguments: Arguments) -> None:
    """Hang up."""
    if desk.connected is None:
        raise NothingToDo("not connected")
    name = desk.connected.name
    desk.forget(name)
    desk.say(f"disconnected from {name}; its R session goes on")


def ssh(desk: Desk, arguments: Arguments) -> str | None:
    """The ssh command line, or a command run on one node."""
    cluster = desk.cluster(arguments.cluster, arguments)
    index = arguments.node or 0
    node = next((node for node in cluster.nodes if node.index == index), None)
    if node is None:
        known = ", ".join(str(node.index) for node in cluster.nodes)
        raise UserError(f"{cluster.name} has no node {index}; its nodes are {known}")
    if not arguments.code:
        return cluster.ssh_command(node)
    # Only the master is talked to; it reaches the others with the cluster's own key.
    command = arguments.code if index == 0 else shlex.join(["ssh", node.private_ip, arguments.code])
    cluster.run_shell(command, on_output=Console())
    return None


def terminate(desk: Desk, arguments: Arguments) -> None:
    """End clusters, after asking if they are AWS's."""
    manager = desk.manager(arguments)
    names = arguments.names or [desk.cluster(None, arguments).name]
    _agree(desk, manager, arguments, f"Terminate {', '.join(names)} ({manager.whose()})?")
    for name in names:
        desk.forget(name, arguments)
        with desk.progress(f"terminating {name}") as report:
            found = manager.terminate(name, report=report)
        desk.say(
            f"{name} is terminated; nothing of it is left" if found else f"there was nothing of {name!r}"
        )


def local(desk: Desk, arguments: Arguments) -> str:
    """The local cloud's own verbs."""
    manager = desk.manager(Arguments(cloud="local"))
    if arguments.action == "down":
        instances = manager.local_status().instances
        if (
            instances
            and not arguments.yes
            and not desk.ask(f"End {instances} instances with all that is on them?")
        ):
            raise NothingToDo("nothing was done")
        manager.local_down()
    return tables.local_cloud(manager.local_up() if arguments.action == "up" else manager.local_status())


def _agree(desk: Desk, manager: Manager, arguments: Arguments, question: str) -> None:
    """Raise NothingToDo unless the user agrees; what is free needs no question."""
    if manager.settings.cloud != "local" and not arguments.yes and not desk.ask(question):
        raise NothingToDo("nothing was done")


ACTIONS: Mapping[str, Callable[[Desk, Arguments], Any]] = {
    "config": config,
    "types": types,
    "launch": launch,
    "list": list_clusters,
    "status": status,
    "connect": connect,
    "disconnect": disconnect,
    "ssh": ssh,
    "terminate": terminate,
    "local": local,
}
