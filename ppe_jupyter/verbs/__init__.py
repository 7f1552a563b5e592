"""The one table of verbs and options.

A verb is ``ppe launch`` on the command line, ``%ppe launch`` and ``%ppe_launch`` in a notebook; all of
them, their help and their completion come from the same entry of ``VERBS``. Invariants: a long option name
means the same everywhere (but for ``types --cluster``, which is EC2's own word, and ``%%remote_r --type``, which is
rpy2's), a short one means one thing only within its verb. Pure: it does not know what verbs do, nor how that is shown;
it is imported with the notebook extension, so it imports nothing slow.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError
from . import clusters, files, keeping, rstudio
from .cells import CELLS
from .jobs import JOBS
from .options import ALL_SLOTS, Face, Option, Verb
from .runs import RUN

__all__ = ["ALL_SLOTS", "VERBS", "Face", "Option", "Verb", "find", "of", "suggestion"]

VERBS: tuple[Verb, ...] = (
    clusters.CONFIG,
    clusters.TYPES,
    keeping.IMAGES,
    clusters.LAUNCH,
    clusters.LIST,
    clusters.STATUS,
    clusters.CONNECT,
    clusters.DISCONNECT,
    clusters.SHARE,
    clusters.SSH,
    RUN,
    files.UPLOAD,
    files.DOWNLOAD,
    rstudio.RSTUDIO,
    clusters.REBOOT,
    clusters.RESIZE,
    clusters.RETRY,
    clusters.LIMIT,
    clusters.PARK,
    clusters.START,
    clusters.INSTALL,
    clusters.SESSION_INFO,
    keeping.BAKE,
    keeping.DELETE_IMAGE,
    keeping.VOLUMES,
    keeping.CREATE_VOLUME,
    keeping.ATTACH_VOLUME,
    keeping.DETACH_VOLUME,
    keeping.DELETE_VOLUME,
    clusters.TERMINATE,
    keeping.CLEANUP,
    keeping.COSTS,
    clusters.PANEL,
    clusters.LOCAL,
    rstudio.TUNNEL,
    *CELLS,
    *JOBS,
)


def of(face: Face) -> dict[str, Verb]:
    """The verbs of a front end, by name."""
    return {verb.name: verb for verb in VERBS if face in verb.faces}


def find(name: str, *, face: Face) -> Verb:
    """The verb of that name. Raises UsageError that suggests the nearest."""
    known = of(face)
    name = name.replace("-", "_")
    if name not in known:
        sign = "%" if face == "magic" else ""
        raise UsageError(f"there is no verb {name!r}{suggestion(name, known)} (help: {sign}ppe --help)")
    return known[name]


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` if something known is near, else nothing."""
    import difflib  # not for those who type well: loading must be quick

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
