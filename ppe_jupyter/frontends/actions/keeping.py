"""The verbs on what outlives a cluster: images, volumes, packages, costs, and what was left behind.

What would delete data asks, free or not.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ... import catalog
from ...cloud.keeping.images import table as images_table
from ...cloud.keeping.volumes import table as volumes_table
from ...errors import NothingToDo, UsageError
from .. import views
from ..owners import agree_if_foreign, foreign_owner
from ..tables import Table, counted, dollars, framed
from .specs import packages

if TYPE_CHECKING:
    from ...cluster import Cluster
    from ..desk import Desk

Arguments = argparse.Namespace


def images(desk: Desk, arguments: Arguments) -> Table:
    """The catalog of images, and with --type which of them fit."""
    manager = desk.manager(arguments)
    desk.say(manager.whose())
    found = manager.images()
    if not found:
        raise NothingToDo("there are no images here")
    kind = None
    if arguments.instance_type:
        kind = manager.instance_type(arguments.instance_type)
        if kind is None:
            raise UsageError(f"there is no instance type {arguments.instance_type!r}; see: {desk.sign}types")
    return framed(images_table(found, kind))


def bake(desk: Desk, arguments: Arguments) -> None:
    """An image of a configured node."""
    manager, cluster = desk.manager(arguments), desk.cluster(arguments.cluster, arguments)
    owner = foreign_owner(manager, cluster.record)
    desk.say(
        "left out: keys and passwords in their usual places, histories, logs; the home's other files go along"
    )
    master = cluster.master
    rate = "at an unknown price" if master.price is None else f"at {dollars(master.price)} an hour"
    month = dollars(catalog.USD_PER_GB_MONTH_SNAPSHOT)
    question = (
        f"Bake an image of {cluster.name}{owner} ({manager.whose()})? One more {master.instance_type} runs for some "
        f"minutes, {rate}; the snapshot costs {month} a GB and month."
    )
    desk.agree(question, unless=arguments.yes or (manager.is_free and not owner))
    with desk.progress(f"baking an image of {cluster.name}") as report:
        image_id = cluster.bake(arguments.name, report=report)
    desk.say(f"{image_id} is there; launch with: {desk.sign}launch --image {arguments.name or image_id}")


def delete_image(desk: Desk, arguments: Arguments) -> None:
    """An image of one's own, with its snapshot."""
    manager = desk.manager(arguments)
    ids = {each.name: each.image.image_id for each in manager.images() if each.own}
    if arguments.image not in {*ids, *ids.values()}:
        raise UsageError(f"you have no image {arguments.image!r}; see: {desk.sign}images")
    desk.agree(f"Delete {arguments.image} ({manager.whose()})?", unless=arguments.yes)
    manager.delete_image(ids.get(arguments.image, arguments.image))
    desk.say(f"{arguments.image} is deleted, with its snapshot")


def volumes(desk: Desk, arguments: Arguments) -> Table | None:
    """All EBS volumes."""
    manager = desk.manager(arguments)
    desk.say(manager.whose())
    found = manager.volumes()
    if not found:
        desk.say(f"no volumes; make one with: {desk.sign}create_volume --gb N --zone ZONE")
        return None
    return framed(volumes_table(found, [each.record for each in manager.clusters()]))


def create_volume(desk: Desk, arguments: Arguments) -> str:
    """A new EBS volume; its id is the result."""
    manager = desk.manager(arguments)
    price = dollars(catalog.disk_usd_per_hour(arguments.gb) * catalog.HOURS_PER_MONTH)
    text = f"a volume of {arguments.gb} GB in {arguments.zone}, {price} a month ({manager.whose()})"
    desk.agree(f"Create {text}?", unless=arguments.yes or manager.is_free)
    made: str = manager.create_volume(gb=arguments.gb, zone=arguments.zone, tags=dict(arguments.tags))
    desk.say(f"created {text}; attach it with: {desk.sign}attach_volume {made} --mount /data --format ext4")
    return made


def delete_volume(desk: Desk, arguments: Arguments) -> None:
    """A volume and all that is on it."""
    manager = desk.manager(arguments)
    if arguments.volume not in {each.volume_id for each in manager.volumes()}:
        raise UsageError(f"there is no volume {arguments.volume!r}; see: {desk.sign}volumes")
    question = f"Delete {arguments.volume} with all that is on it ({manager.whose()})?"
    desk.agree(question, unless=arguments.yes)
    manager.delete_volume(arguments.volume)
    desk.say(f"{arguments.volume} is deleted")


def attach_volume(desk: Desk, arguments: Arguments) -> None:
    """A volume for a node."""
    cluster = _cluster(desk, arguments)
    if cluster.is_free and arguments.format == "xfs":
        raise UsageError(
            "in the local cloud only ext4 can be made, since mkfs.xfs wants more rights than a container has"
        )
    agree_if_foreign(desk, arguments, cluster.record, f"Attach {arguments.volume} to {cluster.name}")
    place = {"node": arguments.node, "mount": arguments.mount or "", "format": arguments.format}
    with desk.progress(f"attaching {arguments.volume}") as report:
        cluster.attach_volume(arguments.volume, **place, report=report)
    where = "the master" if arguments.node is None else f"node {arguments.node}"
    mounted = f", mounted at {arguments.mount}" if arguments.mount else ""
    desk.say(f"{arguments.volume} is attached to {where} of {cluster.name}{mounted}")


def detach_volume(desk: Desk, arguments: Arguments) -> None:
    """A volume off its node."""
    cluster = _holder(desk, arguments)
    agree_if_foreign(desk, arguments, cluster.record, f"Detach {arguments.volume} from {cluster.name}")
    with desk.progress(f"detaching {arguments.volume}") as report:
        cluster.detach_volume(arguments.volume, force=bool(arguments.force), report=report)
    desk.say(f"{arguments.volume} is detached; it stays")


def install(desk: Desk, arguments: Arguments) -> None:
    """Packages on all nodes."""
    wanted = {kind: packages(getattr(arguments, f"{kind}_packages")) for kind in ("apt", "r", "python")}
    names = [name for each in wanted.values() for name in each]
    if not names:
        raise UsageError("nothing to install: name packages after --r, --py or --apt")
    cluster = _cluster(desk, arguments)
    agree_if_foreign(desk, arguments, cluster.record, f"Install {', '.join(names)} on {cluster.name}")
    with desk.progress(f"installing {', '.join(names)}") as report:
        try:
            done = cluster.install(**wanted, report=report)
        except KeyboardInterrupt:
            desk.say(f"the nodes go on with what they have begun; the same {desk.sign}install again ends it")
            raise
    desk.say(f"{counted(len(cluster.nodes), 'node')} of {cluster.name}: {done.summary()}")
    for line in (*done.differences(), *(note[1:] for note in done.notes if note.startswith("!"))):
        desk.notice("warning", line)


def costs(desk: Desk, arguments: Arguments) -> Table:
    """What it has all cost."""
    manager = desk.manager(arguments)
    desk.say(manager.whose())
    asked = bool(arguments.explorer)
    found = manager.costs(month=arguments.month, by=arguments.by, explorer=asked)
    if found.empty:
        raise NothingToDo("nothing has cost anything")
    for note in found.attrs.get("notes", ()):
        desk.say(note)
    return framed(found)


def cleanup(desk: Desk, arguments: Arguments) -> Table | None:
    """What no living cluster uses, and its end."""
    manager = desk.manager(arguments)
    desk.say(manager.whose())
    flags = {name: bool(getattr(arguments, name)) for name in ("images", "everyone", "force", "all_regions")}
    found = manager.orphans(**flags)
    if not found:
        raise NothingToDo("nothing is left behind")
    table = views.alike(found)
    if arguments.dry_run:
        return table
    desk.show(table)
    kept = [each.id for each in found if each.kind == "data volume"]
    if kept and arguments.yes:  # what a user has stored goes by name only
        desk.say(
            f"kept, with what is on them: {', '.join(kept)}; delete each with: {desk.sign}delete_volume ID"
        )
        found = [each for each in found if each.id not in kept]
        if not found:
            return None
    data = {"volume", "data volume", "image", "snapshot"} & {each.kind for each in found}
    free = manager.is_free and not data and not arguments.everyone
    lost = f", the data on {', '.join(kept)} too" if kept else ""
    question = f"Remove {counted(len(found), 'thing')}{lost} ({manager.whose()})?"
    desk.agree(question, unless=arguments.yes or free)
    with desk.progress("cleaning up") as report:
        removed = manager.clean_up(found, report=report)
    for what, why in removed.leftovers.items():
        desk.notice("error", f"still there: {what} ({why}); try again: {desk.sign}cleanup")
    if not removed.leftovers:
        desk.say(f"removed: {counted(len(found), 'thing')}")
    return None


def _cluster(desk: Desk, arguments: Arguments) -> Cluster:
    return desk.cluster(arguments.cluster, arguments).refresh()


def _holder(desk: Desk, arguments: Arguments) -> Cluster:
    """The cluster that the volume is attached to."""
    manager = desk.manager(arguments)
    at = {each.volume_id: each.instance_id for each in manager.volumes()}.get(arguments.volume)
    for cluster in manager.clusters() if at and arguments.cluster is None else ():
        if at in [node.instance_id for node in cluster.nodes]:
            return desk.cluster(cluster.name, arguments).refresh()
    return _cluster(desk, arguments)
