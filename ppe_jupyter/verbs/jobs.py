"""The verbs of R's sessions as a whole: their jobs, logs, restarts and saving."""

from __future__ import annotations

import argparse

from .options import CLUSTER, LINES, SESSION, Option, Verb, count, number


def minutes(text: str) -> float:
    """Minutes; ``off`` is 0."""
    try:
        found = float("0" if text == "off" else text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes, or off")
    return found


JOBS: tuple[Verb, ...] = (
    Verb(
        name="remote_jobs",
        help="list the evaluations of the R session, or show one with its output",
        detail="Every evaluation is a job, of whichever client. Of one that still runs, output follows until it ends.",
        options=(
            Option(name="number", nargs="?", kind=count, metavar="N", help="show this one"),
            Option(
                name="cancel", kind=count, metavar="N", help="interrupt this one, or take it out of the queue"
            ),
            Option(name="all", flag=True, help="list the short ones of long ago too"),
            LINES,
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_r_log",
        help="show again what R printed and drew, in order, whoever evaluated",
        detail="Without --since and --job the end of it.",
        options=(
            Option(
                name="since",
                kind=number,
                metavar="N",
                help="from this event on, 0: from the beginning; each answer names its last one",
            ),
            Option(name="job", kind=count, metavar="N", help="of this job only"),
            Option(name="follow", flag=True, help="and what comes, until you press stop"),
            LINES,
            Option(
                name="keep",
                kind=count,
                metavar="MB",
                help="show nothing; from now on keep so much of it (256)",
            ),
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_sessions",
        help="list the R sessions, or end one beside the main one",
        options=(
            Option(name="close", metavar="NAME", help="end it, with its workers; its log stays"),
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_restart",
        help="end R and start it anew, without its variables",
        options=(
            Option(
                name="restore",
                kind=str,
                bare="",
                metavar="FILE",
                help="load the variables in FILE on the master (without FILE: what was autosaved)",
            ),
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
    Verb(
        name="remote_autosave",
        help="save R's workspace at intervals, while it is idle; alone it says what holds",
        options=(
            Option(
                name="minutes", nargs="?", kind=minutes, metavar="MINUTES|off", help="every so many minutes"
            ),
            Option(
                name="file",
                nargs="?",
                metavar="FILE",
                help="to this file on the master (~/autosave.RData; ~/autosave-NAME.RData)",
            ),
            SESSION,
            CLUSTER,
        ),
        faces=("magic",),
    ),
)
