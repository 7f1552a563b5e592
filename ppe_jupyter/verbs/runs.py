"""The verb that runs a script without a client."""

from __future__ import annotations

from .cells import RANKS
from .clusters import LAUNCHING
from .options import ALL_SLOTS, CLOUD, CLUSTER, DRY_RUN, SEQUEL, YES, Option, Verb, ranks

RUN = Verb(
    name="run",
    help="run a script that goes on without you; alone it lists those that were run",
    detail=(
        "Launches a cluster with the options of launch, or uses --cluster (in a notebook the connected one); sends the "
        "script (.R, .py, .sh) to a folder of its own there. What it prints is shown; Ctrl-C stops the watching only. "
        "A cluster that was launched for it is parked then, if nothing else is said. --then terminate ends it once you "
        "or S3 have its results, and else parks it. The exit status is the script's."
    ),
    options=(
        Option(
            name="script", nargs="?", values="path", metavar="SCRIPT|RUN", help="the script, or a run's name"
        ),
        Option(name="with", dest="files", repeat=True, metavar="FILES", help="send these too; repeat it"),
        Option(name="fetch", repeat=True, metavar="PATTERN", help="its results, in its folder; repeat it"),
        Option(
            name="to",
            metavar="DEST",
            help="a local folder for them, else one of the run's name; or s3://bucket/folder/, without you",
        ),
        *SEQUEL,
        Option(name="ranks", kind=ranks, bare=ALL_SLOTS, metavar="N|all", help=RANKS[0].help),
        Option(name="watch", flag=True, help="show a run, the last if none is named, and fetch its results"),
        Option(name="stop", flag=True, help="end a run; the cluster stays"),
        Option(name="no-watch", flag=True, help="return when it runs"),
        CLUSTER,
        *(each for each in LAUNCHING if not each.nargs),
        Option(name="name", help="the name of the cluster that is launched"),
        DRY_RUN,
        YES,
        *CLOUD,
    ),
    after="ARGUMENT",
)
