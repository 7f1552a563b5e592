"""Instance types, and where they are offered."""

from __future__ import annotations

from collections.abc import Sequence

from ...catalog import InstanceType
from ...errors import CloudError
from .. import shapes
from .session import Session, translated


class Types(Session):
    """Verbs on instance types."""

    def instance_type(self, name: str) -> InstanceType | None:
        """What EC2 says of the type, with the catalog's price; None if the region has no such type."""
        try:
            return next(iter(self.instance_types([name])), None)
        except CloudError as exc:
            if exc.code == "InvalidInstanceType":
                return None
            raise

    @translated
    def instance_types(self, names: Sequence[str] = ()) -> list[InstanceType]:
        """The types of those names, or all of the region."""
        pages = self._ec2.get_paginator("describe_instance_types").paginate(InstanceTypes=names)  # type: ignore[arg-type]
        return [shapes.instance_type(info) for page in pages for info in page["InstanceTypes"]]

    @translated
    def zones_offering(self, instance_type: str) -> frozenset[str]:
        """The availability zones of the region that offer the type."""
        pages = self._ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[shapes.where("instance-type", instance_type)]
        )
        return frozenset(each["Location"] for page in pages for each in page["InstanceTypeOfferings"])
