"""EBS volumes with EC2's rules; the reconciler plugs them into containers.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-lifecycle.html has the states and
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html the errors. A volume made by a launch
is a record only, and none is made from a snapshot. Knows moto's request parsing and records, no containers.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError

from ..machines.reconciler import Action
from .instances import DiskAttachment
from .state import Ec2Actions

# GiB: https://docs.aws.amazon.com/ebs/latest/userguide/ebs-volume-types.html
SIZES = {"gp2": (1, 16384), "gp3": (1, 65536), "io1": (4, 16384), "io2": (4, 65536), "standard": (1, 1024)}
SIZES |= dict.fromkeys(("st1", "sc1"), (125, 16384))
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html
DEVICE = re.compile(r"/dev/(sd[b-z]|xvd[b-d]?[a-z])\d*")


class _Creating:
    """A volume as CreateVolume answers it."""

    state = status = "creating"

    def __init__(self, volume: Any) -> None:
        self._volume = volume

    def __getattr__(self, name: str) -> Any:
        return getattr(self._volume, name)


class VolumeActions(Ec2Actions):
    """Making, attaching, detaching and deleting volumes."""

    def create_volume(self) -> ActionResult:
        """An empty volume."""
        zone, size, kind = (
            self._get_param("AvailabilityZone"),
            self._get_param("Size"),
            self._get_param("VolumeType"),
        )
        if self.ec2_backend.get_zone_by_name(zone) is None:
            raise EC2ClientError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
        if self._get_param("SnapshotId"):
            message = "the local cloud does not make volumes from snapshots"
            raise EC2ClientError("InvalidParameterCombination", message)
        least, most = SIZES.get(kind or "gp2", (1, 0))
        if size is not None and not least <= int(size) <= most:
            message = f"Volume of {size}GiB is not possible with volume type {kind}: {least} to {most}GiB are"
            raise EC2ClientError("InvalidParameterValue", message)
        volume: Any = super().create_volume().result
        self.reconciler.volumes.create(volume.id, int(volume.size))
        return ActionResult(_Creating(volume))

    def describe_volumes(self) -> ActionResult:
        """Of each attachment whether the volume ends with its instance, which moto knows of the instance only."""
        for volume in self.ec2_backend.volumes.values():
            if attached := volume.attachment:
                disk = attached.instance.block_device_mapping.get(attached.device)
                attached.delete_on_termination = bool(disk and disk.delete_on_termination)
        return super().describe_volumes()

    def modify_volume(self) -> ActionResult:
        """Not here: moto's record would change, and not the disk."""
        raise NotImplementedError("make another volume")

    def create_snapshot(self) -> ActionResult:
        """Not here: moto's snapshot would be empty."""
        raise NotImplementedError("a volume lives as long as the local cloud")

    create_snapshots = create_snapshot

    def delete_volume(self) -> ActionResult:
        """Delete one that is attached to nothing, with what it holds."""
        result = super().delete_volume()
        self.reconciler.volumes.delete(self._get_param("VolumeId"))
        return result

    def attach_volume(self) -> ActionResult:
        """Let it become a disk of an instance in its zone, that runs or is stopped."""
        volume = self.ec2_backend.get_volume(self._get_param("VolumeId"))
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        device = self._get_param("Device")
        if volume.attachment is not None:
            raise EC2ClientError("VolumeInUse", f"{volume.id} is already attached to an instance")
        if volume.availability_zone != instance.availability_zone:
            message = (
                f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'"
            )
            raise EC2ClientError("InvalidVolume.ZoneMismatch", message)
        if instance.state not in ("running", "stopped"):
            raise EC2ClientError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
        if not DEVICE.fullmatch(str(device)):
            message = (
                f"Value ({device}) for parameter device is invalid. {device} is not a valid EBS device name."
            )
            raise EC2ClientError("InvalidParameterValue", message)
        if device in instance.block_device_mapping:
            message = f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
            raise EC2ClientError("InvalidParameterValue", message)
        taken = {wish.device for wish in instance.disks()}
        nvme = next(name for n in count(1) if (name := f"nvme{n}n1") not in taken)
        result = super().attach_volume()
        volume.attachment = DiskAttachment(volume, instance, device, nvme)
        instance.block_device_mapping[device].status = "attaching"
        self.reconciler.submit(Action.DISKS, instance)
        return result

    def detach_volume(self) -> ActionResult:
        """Take it out of its instance: when it is not mounted any more, or with force at once."""
        volume = self.ec2_backend.get_volume(self._get_param("VolumeId"))
        attachment, instance_id = volume.attachment, self._get_param("InstanceId")
        if attachment is None:
            raise EC2ClientError("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
        instance, device = attachment.instance, self._get_param("Device")
        if instance_id not in (None, instance.id) or device not in (None, attachment.device):
            message = f"The volume '{volume.id}' is not attached to '{instance_id}' as '{device}'"
            raise EC2ClientError("InvalidAttachment.NotFound", message)
        if not isinstance(attachment, DiskAttachment):
            if instance.state != "stopped":
                message = f"Unable to detach root volume '{volume.id}' from instance '{instance.id}'"
                raise EC2ClientError("OperationNotPermitted", message)
            return super().detach_volume()
        attachment.leaving, attachment.status = True, "detaching"
        attachment.forced = attachment.forced or bool(self._get_param("Force", False))
        instance.block_device_mapping[attachment.device].status = "detaching"
        self.reconciler.submit(Action.DISKS, instance)
        return ActionResult(
            {
                "VolumeId": volume.id,
                "InstanceId": instance.id,
                "Device": attachment.device,
                "State": "detaching",
                "AttachTime": attachment.attach_time,
            }
        )
