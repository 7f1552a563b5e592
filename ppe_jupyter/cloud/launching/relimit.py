"""relimit: other limits for a cluster: its watchdog is told if it runs, and its tags say what holds."""

from __future__ import annotations

import json
from functools import partial

from ...delivery import FOLDER
from ...ssh import Connection
from .. import tags
from ..configure import limits
from ..context import Context
from ..plan import Plan

TELL = f"python3 {FOLDER}/agent.py limits"
TELL_SECONDS = 30.0


def relimit(context: Context, connection: Connection | None, plan: Plan) -> None:
    """Carry out a plan of ``plan_limits``. A parked cluster, which cannot be connected to, has them from its next
    start on.

    Raises SpecError for a plan with errors, CloudError, SshError, RemoteCommandFailed; all may be tried again then.
    """
    plan.check()
    record, spec = plan.existing, plan.spec
    assert record is not None
    kept = limits(spec, record, settings=context.settings, now=context.now())
    set_behavior = partial(context.ec2.set_shutdown_behavior, record.master.instance_id)
    changed = record.spec is not None and spec.then != record.spec.then
    # Both ends are a shutdown, and EC2 decides what becomes of the disk: it keeps it first, and lets it go last.
    if changed and spec.then == "park":
        set_behavior("stop")
    if connection is not None:
        connection.run(TELL, stdin=json.dumps(kept).encode(), timeout=TELL_SECONDS)
    if changed and spec.then == "terminate":
        set_behavior("terminate")
    context.ec2.tag([node.instance_id for node in record.nodes if node.state.alive], tags.of_spec(spec))
