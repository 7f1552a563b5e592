"""Growth: new nodes for a cluster that exists, like its others: zone, groups, image, keys, the user's own script.

Buys them; must not know what becomes of them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ... import ssh
from ...errors import CloudError
from .. import tags
from ..context import Context
from ..ec2.shapes import InstanceRequest
from ..facts import Instance
from ..launching.boot import PhaseReport
from ..launching.order import first_boot, instance_request, on_demand
from ..launching.purchase import Purchased, purchase
from ..pace import Pace
from ..plan import Plan
from ..records import ClusterRecord, Cost
from ..spec import DIGEST
from ..steps import RunInstances
from ..userdata import SCRIPTS


@dataclass(frozen=True, kw_only=True)
class Growth:
    """``template`` is one of the cluster's instances, ``master_id`` its master if the tags name it.

    ``host_key`` is the new nodes' launch host key, ``cluster_key`` the public half by which the master gets in.
    """

    context: Context
    plan: Plan
    template: Instance
    master_id: str
    busy_until: datetime
    cost: Cost
    host_key: ssh.KeyPair
    cluster_key: str

    def buy(self, step: RunInstances, *, pace: Pace, report: PhaseReport) -> Purchased:
        """The nodes of that step. Raises CapacityError; CloudError too when another client is at the same."""
        bought = purchase(
            self.context,
            self._offers(step),
            step.subnets,
            token=self._token(step),
            pace=pace,
            say=lambda line: report("starting", 0, line),
        )
        if bought.offer:
            report("starting", 0, "there is no spot capacity: the new nodes are on demand")
        return bought

    def _offers(self, step: RunInstances) -> list[list[InstanceRequest]]:
        """The step's instances, and the same on demand if it may fall back on that."""
        record, spec = self._record, self.plan.spec
        common = tags.for_everything(
            spec,
            name=record.name,
            owner=record.owner,
            launch=record.launch,
            busy_until=self.busy_until,
        )
        if self.master_id:
            common |= tags.of_master(self.master_id)
        data = first_boot(
            step.image,
            replace(spec, bootstrap=self._script()),
            self.context,
            host_key=self.host_key,
            cluster_key=self.cluster_key,
        )
        wanted = [step]
        if step.spot_fallback:
            price = next((node.price for node in record.nodes if not node.spot), None)
            wanted.append(on_demand(step, price))
        return [
            [
                instance_request(
                    each,
                    spec,
                    group_id=self.template.group_ids[0],
                    placement_group=self.template.placement_group or None,
                    key_name=self.plan.key_name,
                    user_data=data,
                    instance_tags=self._tags(each, common),
                    other_tags=common,
                )
            ]
            for each in wanted
        ]

    @property
    def _record(self) -> ClusterRecord:
        assert self.plan.existing is not None
        return self.plan.existing

    def _tags(self, step: RunInstances, common: Mapping[str, str]) -> dict[str, str]:
        return tags.for_instances(
            common,
            slots=self.plan.slots,
            login_user=step.image.login_user,
            launch_host_key=self.host_key.public,
            cost=self.cost,
            price=step.price,
            first_index=step.first_index,
        )

    def _token(self, step: RunInstances) -> str:
        """The same for two clients that change the same state of the cluster: EC2 then refuses the second."""
        record = self._record
        what = f"{record.launch} {record.busy_until} {self.plan.verb} {step.first_index} {step.count}"
        return hashlib.sha256(what.encode()).hexdigest()

    def _script(self) -> str | None:
        """The user's own bootstrap script; the tags hold only its digest, the nodes' user data all of it."""
        script = self.plan.spec.bootstrap
        if script is None or not DIGEST.fullmatch(script):
            return script
        instance_id = self.template.instance_id
        config = json.loads(gzip.decompress(self.context.ec2.user_data(instance_id)).partition(b"\n")[2])
        for file in config.get("write_files", ()):
            if file["path"] == f"{SCRIPTS}/extra":
                return str(file["content"])
        raise CloudError(f"{instance_id}'s user data do not hold the bootstrap script of {self.plan.name!r}")
