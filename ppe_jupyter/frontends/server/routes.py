"""What the server extension answers: a table of routes, and a function for each, which may wait.

A function gets the names in the path, then what the query or the body says as keywords, checked. It imports what is
slow itself: the table is made when the server starts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import NoSuchCluster, UsageError
from .route import Json, Route

if TYPE_CHECKING:
    from ...overview.poller import Poller

NAME = "([a-z][a-z0-9-]*)"
ID = "([A-Za-z0-9-]+)"


def poller() -> Poller:
    """Of the settings as they are now."""
    from ...overview.poller import shared

    return shared()


# -- clusters -----------------------------------------------------------------------------------------------


def overview(**_: Any) -> Any:
    """All clusters, and who pays."""
    return poller().picture()


def overview_changes(*, wait: str | None = None) -> Any:
    """Somebody who waits watches."""
    return poller().subscribe if wait is not None else None


def cluster(name: str) -> Any:
    """One cluster, with what its master says."""
    watched = poller()
    told = watched.watching.details(name)
    picture = next((each for each in watched.picture()["clusters"] if each["name"] == name), None)
    if picture is None:
        raise NoSuchCluster(f"{name} has ended")
    return {**picture, "details": told}


def interrupt(name: str, **how: Any) -> Any:
    """The stop button, from wherever."""
    from ...overview import deeds

    deeds.interrupt(poller(), name, **how)
    return {}


def restart(name: str, **how: Any) -> Any:
    """R ends and starts anew, without its variables."""
    from ...overview import deeds

    deeds.restart(poller(), name, **how)
    return {}


def attach(name: str, **how: Any) -> Any:
    """A volume onto a node."""
    from ...overview import deeds

    return deeds.attach(poller(), name, **how).picture()


def detach(name: str, volume: str, **how: Any) -> Any:
    """A volume off its node."""
    from ...overview import deeds

    return deeds.detach(poller(), name, volume, **how).picture()


# -- plans and operations -----------------------------------------------------------------------------------


def plan(*, fields: Json) -> Any:
    """A review of what would be done."""
    options = dict(fields)
    verb, name, spec = (options.pop(key, None) for key in ("verb", "cluster", "spec"))
    if verb == "launch":
        if name is not None or options or not isinstance(spec, dict | None):
            raise UsageError('a launch has the fields verb and spec, {"field": value, …}')
        return poller().plans.launch(spec or {})
    if not isinstance(verb, str) or not isinstance(name, str) or spec is not None:
        raise UsageError("a change has the fields verb and cluster, and the verb's options")
    return poller().plans.change(verb, name, options)


def begin(*, plan: str) -> Any:
    """Carry out a plan that was reviewed."""
    return poller().plans.start(plan).picture()


def operation(id: str, *, since: int | None = None) -> Any:
    """How far it is, and what was reported after event ``since``."""
    from ...overview.poller import operation

    _, found = operation(id)
    picture = found.picture()
    return {**picture, "events": found.events[since or 0 :]}


def operation_changes(id: str, *, since: int | None = None) -> Any:
    """Somebody who says what he knows waits for more."""
    from ...overview.poller import operation

    return operation(id)[0].operations.subscribe if since is not None else None


def stop(id: str) -> Any:
    """Have a launch undo itself."""
    from ...overview.poller import operation

    _, found = operation(id)
    found.stop()
    return found.picture()


# -- lists --------------------------------------------------------------------------------------------------


def listed(name: str, **given: Any) -> Any:
    """One of the lists of ``overview.lists``."""
    from ...overview import lists

    return getattr(lists, name)(poller().manager, **given)


def images(*, type: str | None = None) -> Any:
    """The catalog of images, and which fit."""
    return listed("images", instance_type=type)


def settings() -> Any:
    """What ``%ppe_config`` shows."""
    from ... import settings
    from ...overview.lists import shown_settings

    return shown_settings(settings.load())


def change_settings(*, fields: Json) -> Any:
    """What ``%ppe_config`` sets."""
    from ...overview.lists import change_settings

    change_settings(fields)
    return settings()


def cleanup(*, ids: list[Any], **flags: bool) -> Any:
    """Remove those orphans."""
    from ...overview import deeds

    if not all(isinstance(each, str) for each in ids):
        raise UsageError("ids is a list of ids")
    return deeds.clean_up(poller(), ids, **flags).picture()


FLAGS = dict.fromkeys(("images", "everyone", "force", "all_regions"), bool)
TYPES = {
    "min_cores": int,
    "min_gb": float,
    "arch": str,
    "cluster": bool,
    "max_price": float,
    "sort": str,
    "all": bool,
}
ROUTES = (
    Route(
        method="GET",
        path="overview",
        answer=overview,
        query={"wait": str},
        changes=overview_changes,
        known=lambda answer, given: answer["version"] == given["wait"],
    ),
    Route(method="GET", path=f"clusters/{NAME}", answer=cluster),
    Route(
        method="POST",
        path=f"clusters/{NAME}/interrupt",
        answer=interrupt,
        body={"session": str, "step": str, "agreed": bool},
    ),
    Route(
        method="POST",
        path=f"clusters/{NAME}/restart",
        answer=restart,
        body={"session": str, "agreed": bool},
    ),
    Route(
        method="POST",
        path=f"clusters/{NAME}/volumes",
        answer=attach,
        body={"volume": str, "node": int, "mount": str, "format": str, "agreed": bool},
        needs=("volume",),
        status=202,
    ),
    Route(
        method="DELETE",
        path=f"clusters/{NAME}/volumes/{ID}",
        answer=detach,
        query={"force": bool, "agreed": bool},
        status=202,
    ),
    Route(method="POST", path="plan", answer=plan, free=True),
    Route(method="POST", path="operations", answer=begin, body={"plan": str}, needs=("plan",), status=202),
    Route(
        method="GET",
        path=f"operations/{ID}",
        answer=operation,
        query={"since": int},
        changes=operation_changes,
        known=lambda answer, given: answer["state"] == "running" and not answer["events"],
    ),
    Route(method="DELETE", path=f"operations/{ID}", answer=stop, status=202),
    Route(method="GET", path="types", answer=partial(listed, "types"), query=TYPES),
    Route(method="GET", path="images", answer=images, query={"type": str}),
    Route(method="GET", path="choices", answer=partial(listed, "choices")),
    Route(method="GET", path="settings", answer=settings),
    Route(method="PATCH", path="settings", answer=change_settings, free=True),
    Route(method="GET", path="costs", answer=partial(listed, "costs"), query={"month": str, "by": str}),
    Route(method="GET", path="volumes", answer=partial(listed, "volumes")),
    Route(method="GET", path="orphans", answer=partial(listed, "orphans"), query=FLAGS),
    Route(
        method="POST",
        path="cleanup",
        answer=cleanup,
        body={"ids": list, **FLAGS},
        needs=("ids",),
        status=202,
    ),
)
