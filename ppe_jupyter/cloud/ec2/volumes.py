"""EBS volumes and their snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import TYPE_CHECKING

from ..facts import Snapshot, Volume
from . import shapes
from .session import Session, translated, unless_gone

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import VolumeAttachmentTypeDef, VolumeTypeDef

PAGE = {"PageSize": 500}


class Volumes(Session):
    """Verbs on volumes."""

    @translated
    def volumes(self, *, volume_id: str | None = None, instance_id: str | None = None) -> list[Volume]:
        """The volumes of the region; the one of that id, if it exists; those attached to that instance."""
        wanted = {"volume-id": volume_id, "attachment.instance-id": instance_id}
        filters = [shapes.where(name, value) for name, value in wanted.items() if value]
        pages = self._ec2.get_paginator("describe_volumes").paginate(Filters=filters, PaginationConfig=PAGE)  # type: ignore[arg-type]
        return [_volume(each) for page in pages for each in page["Volumes"]]

    @translated
    def create_volume(
        self, *, gb: int, zone: str, encrypted: bool, token: str, tags: Mapping[str, str]
    ) -> str:
        """Create an empty gp3 volume and return its id; the same ``token`` creates it once."""
        answer = self._ec2.create_volume(
            AvailabilityZone=zone,
            Size=gb,
            VolumeType="gp3",
            Encrypted=encrypted,
            ClientToken=token,
            TagSpecifications=[shapes.tagged("volume", tags)],
        )
        return answer["VolumeId"]

    @translated
    def delete_volume(self, volume_id: str) -> None:
        """Delete it; that it is gone already is no error."""
        with unless_gone("InvalidVolume.NotFound"):
            self._ec2.delete_volume(VolumeId=volume_id)

    @translated
    def attach_volume(self, volume_id: str, *, instance_id: str, device: str) -> None:
        """Ask for it to be attached; ``device`` is a name such as /dev/sdf."""
        self._ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)

    @translated
    def detach_volume(self, volume_id: str, *, force: bool) -> None:
        """Ask for it to be detached; that it is not attached is no error. ``force`` may cost its last writes."""
        with unless_gone("IncorrectState"):
            self._ec2.detach_volume(VolumeId=volume_id, Force=force)

    @translated
    def snapshots(self) -> list[Snapshot]:
        """The snapshots that this package has made."""
        pages = self._ec2.get_paginator("describe_snapshots").paginate(
            OwnerIds=["self"],
            Filters=[shapes.where("tag-key", "ppe:owner")],
            PaginationConfig=PAGE,  # type: ignore[arg-type]
        )
        return [
            Snapshot(
                snapshot_id=each["SnapshotId"],
                volume_id=each.get("VolumeId", ""),
                gb=each.get("VolumeSize", 0),
                created=each["StartTime"].astimezone(timezone.utc),
                tags=shapes.tags(each.get("Tags", ())),
            )
            for page in pages
            for each in page["Snapshots"]
        ]

    @translated
    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete it. Raises CloudError, code InvalidSnapshot.InUse, while an image needs it."""
        with unless_gone("InvalidSnapshot.NotFound"):
            self._ec2.delete_snapshot(SnapshotId=snapshot_id)


def _volume(volume: VolumeTypeDef) -> Volume:
    nowhere: VolumeAttachmentTypeDef = {}
    attachment = next(iter(volume.get("Attachments", ())), nowhere)
    return Volume(
        volume_id=volume["VolumeId"],
        state=volume["State"],
        zone=volume["AvailabilityZone"],
        gb=volume["Size"],
        kind=volume.get("VolumeType", ""),
        encrypted=volume.get("Encrypted", False),
        created=volume["CreateTime"].astimezone(timezone.utc),
        tags=shapes.tags(volume.get("Tags", ())),
        instance_id=attachment.get("InstanceId", ""),
        device=attachment.get("Device", ""),
        attachment=attachment.get("State", ""),
        ends_with_instance=attachment.get("DeleteOnTermination", False),
    )
