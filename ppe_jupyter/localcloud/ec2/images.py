"""CreateImage with what it leads to: snapshots, DeregisterImage, DeleteSnapshot, launches of what was made.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/creating-an-ami-ebs.html. An image's files belong to its
snapshot: they go with that, once nothing lies on them. Knows moto's request parsing and records, no containers.
"""

from __future__ import annotations

import re
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.amis import Ami
from moto.ec2.utils import random_ami_id

from ..machines.machine import Action, Capture
from .instances import ContainerInstance
from .state import Ec2Actions

NAME = re.compile(r"[\w ().\-/'@\[\]]{3,128}", re.ASCII)


class InstanceImage(Ami):
    """An image made of an instance, of the size of that one's root volume."""

    state_reason: dict[str, str] | None = None

    def __init__(self, instance: ContainerInstance, name: str, description: str) -> None:
        ami_id, backend = random_ami_id(), instance.ec2_backend
        super().__init__(
            backend, ami_id, instance=instance, name=name, description=description, state="pending",
            hypervisor="xen", root_device_type="ebs", root_device_name=instance.root_device_name,
            image_location=f"{backend.account_id}/{name}", region_name=instance.availability_zone or "",
            snapshot_description=f"Created by CreateImage({instance.id}) for {ami_id}",
        )  # fmt: skip
        root = instance.block_device_mapping[instance.root_device_name]
        self.ebs_snapshot.volume = backend.volumes[root.volume_id]
        self.ebs_snapshot.encrypted = self.ebs_snapshot.volume.encrypted
        self.ebs_snapshot.status = "pending"

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """Its root volume."""
        volume = self.ebs_snapshot.volume
        ebs = {
            "SnapshotId": self.ebs_snapshot.id, "VolumeSize": volume.size, "VolumeType": volume.volume_type,
            "Encrypted": volume.encrypted, "DeleteOnTermination": True,
        }  # fmt: skip
        return [{"DeviceName": self.root_device_name, "Ebs": ebs}]


class ImageActions(Ec2Actions):
    """Making images of instances, and doing away with them."""

    def create_image(self) -> ActionResult:
        """Copy an instance's file system: rebooting it, unless NoReboot says to take it as it is."""
        name, instance = self._get_param("Name"), self.ec2_backend.get_instance(self._get_param("InstanceId"))
        if not NAME.fullmatch(name or ""):
            message = (
                f"AMI names must be between 3 and 128 characters long, of certain characters: {name!r} is not"
            )
            raise EC2ClientError("InvalidAMIName.Malformed", message)
        if any(
            ami.name == name and ami.owner_id == instance.owner_id for ami in self.ec2_backend.amis.values()
        ):
            message = f"AMI name {name} is already in use by another AMI"
            raise EC2ClientError("InvalidAMIName.Duplicate", message)
        if instance.state not in ("running", "stopped"):
            message = f"The instance '{instance.id}' is not in the 'running' or 'stopped' state."
            raise EC2ClientError("IncorrectState", message)
        ami = InstanceImage(instance, name, self._get_param("Description", ""))
        tags = self._parse_tag_specification()
        ami.add_tags(tags.get("image", {}))
        ami.ebs_snapshot.add_tags(tags.get("snapshot", {}))
        self.ec2_backend.amis[ami.id] = ami

        def done(problem: str) -> None:
            with ContainerInstance.lock:
                ami.state, ami.ebs_snapshot.status = (
                    ("failed", "error") if problem else ("available", "completed")
                )
                ami.state_reason = {"Code": "Server.InternalError", "Message": problem} if problem else None
                if not problem:
                    ContainerInstance.machine_images[ami.id] = self.reconciler.captures.rootfs(ami.id)

        reboot = not self._get_param("NoReboot", False)
        self.reconciler.submit(Action.CAPTURE, instance, Capture(ami.id, reboot, done))
        return ActionResult({"ImageId": ami.id})

    def run_instances(self) -> ActionResult:
        """Launch, but not a deregistered image, which moto still takes."""
        ami_id = self._get_param("ImageId")
        if ami_id in self.ec2_backend.deleted_amis:
            raise EC2ClientError(
                "InvalidAMIID.Unavailable", f"The image ID '{ami_id}' is no longer available"
            )
        return super().run_instances()

    def deregister_image(self) -> ActionResult:
        """It cannot be launched any more; its snapshot stays, unless it shall go too."""
        ami = self.ec2_backend.amis.get(self._get_param("ImageId"))
        result = super().deregister_image()
        if self._get_param("DeleteAssociatedSnapshots", False) and isinstance(ami, InstanceImage):
            self._delete_snapshot(ami.ebs_snapshot.id)
        return result

    def delete_snapshot(self) -> ActionResult:
        """Delete one that no registered image has."""
        self._delete_snapshot(self._get_param("SnapshotId"))
        return EmptyResult()

    def _delete_snapshot(self, snapshot_id: str) -> None:
        snapshot = self.ec2_backend.delete_snapshot(snapshot_id)
        if snapshot.from_ami:
            self.reconciler.captures.give_up(snapshot.from_ami)
