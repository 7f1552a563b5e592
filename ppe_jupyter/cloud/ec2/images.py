"""Machine images: the account's own, and the stock ones that SSM's public parameters name."""

from __future__ import annotations

from collections.abc import Sequence

from .. import shapes
from ..facts import Image
from ..tags import IMAGE
from .session import Session, translated

DEBIAN_PARAMETER = "/aws/service/debian/release/12/latest/{arch}"
DEBIAN_ARCH = {"x86_64": "amd64", "arm64": "arm64"}


class Images(Session):
    """Verbs on images."""

    @translated
    def image(self, image_id: str) -> Image | None:
        """The image of that id."""
        answer = self._ec2.describe_images(Filters=[shapes.where("image-id", image_id)])
        return next((shapes.image(each) for each in answer["Images"]), None)

    @translated
    def own_node_image(self, architectures: Sequence[str]) -> Image | None:
        """The newest image of this account that is a node already and fits one of the architectures."""
        answer = self._ec2.describe_images(
            Owners=["self"],
            Filters=[
                shapes.where(f"tag:{IMAGE}", "node"),
                shapes.where("architecture", *architectures),
                shapes.where("state", "available"),
            ],
        )
        return max(map(shapes.image, answer["Images"]), key=lambda image: image.created, default=None)

    @translated
    def debian_image(self, architectures: Sequence[str]) -> Image | None:
        """Debian 12's current image, by its SSM public parameter."""
        arch = next((DEBIAN_ARCH[each] for each in architectures if each in DEBIAN_ARCH), None)
        if arch is None:
            return None
        try:
            found = self._ssm.get_parameter(Name=DEBIAN_PARAMETER.format(arch=arch))
        except self._ssm.exceptions.ParameterNotFound:
            return None
        return self.image(found["Parameter"]["Value"])
