"""relimit: other limits for a cluster: its watchdog is told if it runs, and its tags say what holds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

from ...delivery import FOLDER
from ...errors import CloudError
from ...ssh import Connection
from .. import tags
from ..configure import limits
from ..context import Context
from ..records import ClusterRecord
from ..spec import ClusterSpec

TELL = f"python3 {FOLDER}/agent.py limits"
TELL_SECONDS = 30.0


def relimit(
    context: Context,
    connection: Connection | None,
    record: ClusterRecord,
    *,
    idle_hours: float | None = None,
    max_hours: float | None = None,
    budget_usd: float | None = None,
    then: str | None = None,
) -> ClusterSpec:
    """Change those limits that are given; the spec that holds then. A parked cluster, which cannot be connected to,
    has them from its next start on.

    ``max_hours`` counts from the last start, ``budget_usd`` all that was spent; 0 of either is no limit. Raises
    SpecError for what makes no sense, CloudError, SshError, RemoteCommandFailed; nothing is changed then, or all may
    be tried again.
    """
    if record.spec is None:
        raise CloudError(f"the specification of {record.name!r} cannot be read from its tags: launch anew")
    now = record.spec
    spec = replace(
        now,
        idle_hours=now.idle_hours if idle_hours is None else idle_hours,
        max_hours=now.max_hours if max_hours is None else max_hours or None,
        budget_usd=now.budget_usd if budget_usd is None else budget_usd or None,
        then=now.then if then is None else then,
    )
    if spec.then == "park" != now.then and record.master.spot:
        raise CloudError(f"the master of {record.name!r} is a spot instance, which cannot be stopped")
    if budget_usd and record.usd_per_hour is None:
        raise CloudError("the budget cannot be watched, since the price is unknown: set --max-hours instead")
    kept = limits(spec, record, settings=context.settings, now=context.now())
    if connection is not None:
        connection.run(TELL, stdin=json.dumps(kept).encode(), timeout=TELL_SECONDS)
    if spec.then != now.then:
        at_shutdown: Literal["stop", "terminate"] = "stop" if spec.then == "park" else "terminate"
        context.ec2.set_shutdown_behavior(record.master.instance_id, at_shutdown)
    context.ec2.tag([node.instance_id for node in record.nodes if node.state.alive], tags.of_spec(spec))
    return spec
