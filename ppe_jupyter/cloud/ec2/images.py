"""Machine images: the account's own, the stock ones that SSM's public parameters name, and how new ones are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..facts import Image
from . import shapes
from .session import Session, translated, unless_gone


class Images(Session):
    """Verbs on images."""

    @translated
    def images(self, image_ids: Sequence[str]) -> list[Image]:
        """Those of these images that exist, whosever they are."""
        if not image_ids:
            return []
        # Clusters outlive their images' term: a deprecated one can be launched still (user guide, ami-deprecate).
        answer = self._ec2.describe_images(
            Filters=[shapes.where("image-id", *image_ids)], IncludeDeprecated=True
        )
        return [shapes.image(each) for each in answer["Images"]]

    def image(self, image_id: str) -> Image | None:
        """The image of that id."""
        return next(iter(self.images([image_id])), None)

    @translated
    def own_images(self) -> list[Image]:
        """All images of this account, in whatever state, the newest first."""
        answer = self._ec2.describe_images(Owners=["self"])
        return sorted(map(shapes.image, answer["Images"]), key=lambda image: image.created, reverse=True)

    @translated
    def parameters(self, names: Sequence[str]) -> dict[str, str]:
        """The values of those of these SSM parameters that exist; at most ten names."""
        answer = self._ssm.get_parameters(Names=names)
        return {each["Name"]: each["Value"] for each in answer["Parameters"]}

    @translated
    def create_image(
        self, instance_id: str, *, name: str, reboot: bool, without: Sequence[str], tags: Mapping[str, str]
    ) -> str:
        """Ask for an image of the instance's disks, but for the devices ``without``; its id.

        A running instance is shut down for it and started again if ``reboot``. The tags go on the snapshots too.
        """
        answer = self._ec2.create_image(
            InstanceId=instance_id,
            Name=name,
            NoReboot=not reboot,
            BlockDeviceMappings=[{"DeviceName": device, "NoDevice": ""} for device in without],
            TagSpecifications=[shapes.tagged("image", tags), shapes.tagged("snapshot", tags)],
        )
        return answer["ImageId"]

    @translated
    def deregister_image(self, image_id: str) -> None:
        """Let no instance be launched from it any more; its snapshots stay."""
        with unless_gone("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"):
            self._ec2.deregister_image(ImageId=image_id)

    @translated
    def run_copy(
        self,
        image_id: str,
        *,
        instance_type: str,
        subnet_id: str,
        group_ids: Sequence[str],
        user_data: str,
        token: str,
        tags: Mapping[str, str],
    ) -> str:
        """Run one instance that stops when it shuts itself down, with no key to it; its id."""
        answer = self._ec2.run_instances(
            ImageId=image_id,
            InstanceType=instance_type,  # type: ignore[arg-type]  # any string
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet_id,
            SecurityGroupIds=group_ids,
            UserData=user_data,
            ClientToken=token,
            InstanceInitiatedShutdownBehavior="stop",
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            TagSpecifications=[shapes.tagged("instance", tags), shapes.tagged("volume", tags)],
        )
        return answer["Instances"][0]["InstanceId"]
