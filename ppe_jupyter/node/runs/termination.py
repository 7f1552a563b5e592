"""Whether the cluster's end after runs is its termination: the master itself has EC2 make it that, just before it ends.

A shutdown stops the master (EC2's InstanceInitiatedShutdownBehavior), so that whatever goes wrong keeps its disk. Only
when the results of the runs are in S3, and nothing else would be lost, it is made to terminate it: with the credentials
of the instance profile, whose role needs ec2:ModifyInstanceAttribute. Run on the master as

    python3 ~/.ppe/node termination JOB…   prints why it must not be; nothing: from now on a shutdown terminates
    python3 ~/.ppe/node termination        a shutdown stops again

Standard library only, but for boto3, which storing has installed (files/s3.py). Must not know when the cluster ends.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from ..agent import ask
from ..files import belongings
from ..files.exchange import Refused
from ..files.s3 import VENV, explained, with_boto3
from ..lifetime import sns
from .runs import Run, every

MOST_NAMED = 3


def lost(ended: Collection[Run], others: Collection[Run]) -> str:
    """What would be lost with the cluster besides what those runs have made, in words; "" for nothing."""
    told = ask("status")
    workspace = told.get("workspace")
    if workspace is None:
        return "R cannot be asked what it holds"
    if workspace["unpulled"]:
        return "R has variables that nobody has fetched"
    if any(row["unfetched"] for row in told["sessions"]):
        return "R has results of jobs that nobody has fetched"
    if working := told["watchdog"]["working"]:
        return f"there is work: {working[0]}"
    if waiting := [run.name for run in others if run.fetch and not run.fetched]:
        return f"the results of {waiting[0]} were not fetched"
    return _on_disks(ended, others)


def _on_disks(ended: Collection[Run], others: Collection[Run]) -> str:
    found = belongings.everywhere()
    if found["rstudio"] or found["suspended"]:
        return "RStudio has an R session"
    if found["silent"]:
        return f"{', '.join(found['silent'])} cannot be asked for files"
    if found["unfetched"]:
        return f"{found['unfetched'][0]} that nobody has"
    theirs = tuple(f"runs/{run.name}/" for run in (*ended, *others) if run.fetched)
    files = [path for path, _ in found["files"] if not path.startswith(theirs)]
    own = all(run.own for run in ended)  # only other runs have files there
    files = [path for path in files if path.startswith("runs/") or not own]
    if files or (found["count"] > len(found["files"]) and not own):
        return f"there are other files: {', '.join(files[:MOST_NAMED])}{', …' * (len(files) > MOST_NAMED)}"
    return ""


def at_shutdown(behaviour: str) -> None:
    """Have a shutdown of this node "terminate" or "stop" it. Raises Refused, OSError and what boto3 raises."""
    import boto3

    instance, region = (sns.about(name) for name in ("instance-id", "placement/region"))
    ec2 = boto3.session.Session(region_name=region).client("ec2")
    ec2.modify_instance_attribute(InstanceId=instance, InstanceInitiatedShutdownBehavior={"Value": behaviour})


def refusal(jobs: Collection[str]) -> str:
    """Why it is not terminated after these jobs; "" if it is."""
    ended = [run for run in every() if run.job in jobs]
    try:
        if jobs and not sys.prefix.startswith(str(VENV)):
            others = [run for run in every() if run.job not in jobs]
            if why := lost(ended, others):
                return why
        with_boto3("termination", say=lambda phase: None)
        at_shutdown("terminate" if jobs else "stop")
    except (Refused, sns.Refused, OSError) as exc:
        return str(exc)
    except Exception as exc:  # boto3's, which only the venv has
        return explained(exc)
    return ""


def main(jobs: Collection[str]) -> None:
    """Do it, and say why not: here, and with the runs."""
    why = refusal(jobs)
    sys.stdout.write(why)
    for run in every() if why else ():
        if run.job in jobs:
            run.change(troubles=[*run.troubles, f"the cluster is parked instead of terminated, since {why}"])


if __name__ == "__main__":
    main(sys.argv[1:])
