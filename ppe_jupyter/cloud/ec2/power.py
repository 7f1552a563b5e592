"""Power: stop, start and reboot instances; what they were given at their first boot."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from .session import Session, translated


class Power(Session):
    """Verbs on instances that stay."""

    @translated
    def start_instances(self, instance_ids: Sequence[str]) -> None:
        """Ask for stopped instances to run again. Raises CapacityError when their zone has no room for them."""
        self._ec2.start_instances(InstanceIds=instance_ids)

    @translated
    def stop_instances(self, instance_ids: Sequence[str]) -> None:
        """Ask for instances to stop. Raises CloudError, code UnsupportedOperation, for one-time spot ones."""
        self._ec2.stop_instances(InstanceIds=instance_ids)

    @translated
    def reboot_instances(self, instance_ids: Sequence[str]) -> None:
        """Ask for a reboot, which EC2 only queues: the instances' state stays running."""
        self._ec2.reboot_instances(InstanceIds=instance_ids)

    @translated
    def user_data(self, instance_id: str) -> bytes:
        """What cloud-init was given at the instance's first boot."""
        answer = self._ec2.describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
        return base64.b64decode(answer.get("UserData", {}).get("Value", ""))
