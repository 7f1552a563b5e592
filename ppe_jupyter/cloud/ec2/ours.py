"""Ours: everything that carries this package's tags, whatever cluster it was made for, for cleanup."""

from __future__ import annotations

from collections.abc import Mapping

from ..facts import Instance
from . import shapes
from .session import Session, translated, unless_gone

# On all that this package makes, what is no cluster's too.
OURS = shapes.where("tag-key", "ppe:owner")

TagsById = dict[str, Mapping[str, str]]


class Ours(Session):
    """Verbs that list by our tags, and delete what only cleanup deletes."""

    @translated
    def our_instances(self) -> list[Instance]:
        """All instances that we made, the terminated ones too as long as EC2 lists them."""
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=[OURS], PaginationConfig={"PageSize": 1000}
        )
        return [
            shapes.instance(each)
            for page in pages
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
        ]

    @translated
    def our_security_groups(self) -> TagsById:
        """The tags of the security groups that we made, by id."""
        pages = self._ec2.get_paginator("describe_security_groups").paginate(Filters=[OURS])
        return {
            each["GroupId"]: shapes.tags(each.get("Tags", ()))
            for page in pages
            for each in page["SecurityGroups"]
        }

    @translated
    def our_placement_groups(self) -> TagsById:
        """The tags of the placement groups that we made, by name."""
        answer = self._ec2.describe_placement_groups(Filters=[OURS])
        return {
            each["GroupName"]: shapes.tags(each.get("Tags", ()))
            for each in answer["PlacementGroups"]
            if each.get("State") != "deleted"
        }

    @translated
    def our_key_pairs(self) -> TagsById:
        """The tags of the key pairs that we imported, by name."""
        answer = self._ec2.describe_key_pairs(Filters=[OURS])
        return {each["KeyName"]: shapes.tags(each.get("Tags", ())) for each in answer["KeyPairs"]}

    @translated
    def delete_key_pair(self, name: str) -> None:
        """Let EC2 forget the public half; that it has already is no error."""
        with unless_gone("InvalidKeyPair.NotFound"):
            self._ec2.delete_key_pair(KeyName=name)
