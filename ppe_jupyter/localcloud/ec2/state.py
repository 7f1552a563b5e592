"""What the local cloud's EC2 actions share: its state beyond moto's records, and moto's request parsing.

The class attributes are set once by the endpoint. Knows moto's response class, no containers.
"""

from __future__ import annotations

from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_id

from ..controls import Controls
from ..machines.reconciler import Reconciler
from .instances import ContainerInstance

ENDED = ("shutting-down", "terminated")


class PlacementGroup(TaggedEC2Resource):
    """A placement group; attributes are named so that moto serializes them."""

    def __init__(self, backend: Any, name: str, strategy: str, tags: dict[str, str]) -> None:
        self.ec2_backend = backend
        self.id = self.group_id = random_id(prefix="pg")
        self.group_name = name
        self.strategy = strategy
        self.state = "available"
        self.group_arn = f"arn:aws:ec2:{backend.region_name}:{backend.account_id}:placement-group/{name}"
        self.add_tags(tags)


class Ec2Actions(EC2Response):
    """One request to EC2, and what there is besides moto's records."""

    reconciler: ClassVar[Reconciler]
    controls: ClassVar[Controls]
    placement_groups: ClassVar[dict[str, PlacementGroup]] = {}
    spot_requests: ClassVar[dict[str, Any]] = {}  # by id; see spot.py

    def _instances(self) -> list[ContainerInstance]:
        return list(self.ec2_backend.all_instances())

    def _alive(self) -> list[ContainerInstance]:
        return [instance for instance in self._instances() if instance.state not in ENDED]

    def _placement_group(self, name: str) -> PlacementGroup:
        if name not in self.placement_groups:
            raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
        return self.placement_groups[name]

    def _dry(self) -> bool:
        return bool(self._get_param("DryRun", False))
