"""Security groups, placement groups and key pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import botocore.exceptions as boto_errors

from . import shapes
from .session import Session, error_code, tags_filter, translated, unless_gone

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import IpPermissionTypeDef, IpRangeTypeDef

SSH = 22


@dataclass(frozen=True)
class SshRule:
    """A range that may reach port 22, and what was noted of it."""

    cidr: str
    description: str


class Groups(Session):
    """Verbs on what instances are launched into."""

    @translated
    def has_key_pair(self, name: str) -> bool:
        """Whether EC2 knows a key pair of that name."""
        return bool(self._ec2.describe_key_pairs(Filters=[shapes.where("key-name", name)])["KeyPairs"])

    @translated
    def key_pairs(self) -> list[str]:
        """The names of all key pairs of the region."""
        return sorted(each["KeyName"] for each in self._ec2.describe_key_pairs()["KeyPairs"])

    @translated
    def all_security_groups(self) -> dict[str, str]:
        """The name of each security group of the region, by its id."""
        pages = self._ec2.get_paginator("describe_security_groups").paginate()
        return {each["GroupId"]: each["GroupName"] for page in pages for each in page["SecurityGroups"]}

    @translated
    def import_key_pair(self, name: str, public: str, *, tags: Mapping[str, str]) -> None:
        """Make a public key known; that it is known already is no error."""
        try:
            self._ec2.import_key_pair(
                KeyName=name,
                PublicKeyMaterial=public.encode(),
                TagSpecifications=[shapes.tagged("key-pair", tags)],
            )
        except boto_errors.ClientError as exc:
            if error_code(exc) != "InvalidKeyPair.Duplicate":
                raise

    @translated
    def create_security_group(self, name: str, *, vpc_id: str, tags: Mapping[str, str]) -> str:
        """Create the group, closed, and return its id."""
        answer = self._ec2.create_security_group(
            GroupName=name,
            Description=f"Cluster {name}, made by ppe_jupyter",
            VpcId=vpc_id,
            TagSpecifications=[shapes.tagged("security-group", tags)],
        )
        return answer["GroupId"]

    @translated
    def open_security_group(self, group_id: str, *, ssh_from: str, description: str) -> None:
        """Let in SSH from that range, and everything from members of the group; twice is once."""
        members: IpPermissionTypeDef = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}
        self._let_in(group_id, [_ssh_from([ssh_from], description), members])

    @translated
    def allow_ssh(self, group_id: str, cidr: str, *, description: str) -> None:
        """Let in SSH from that range too; twice is once."""
        self._let_in(group_id, [_ssh_from([cidr], description)])

    @translated
    def revoke_ssh(self, group_id: str, cidrs: Sequence[str]) -> None:
        """Let in SSH from those ranges no longer; that it was not is no error."""
        with unless_gone("InvalidPermission.NotFound"):
            self._ec2.revoke_security_group_ingress(GroupId=group_id, IpPermissions=[_ssh_from(cidrs)])

    def _let_in(self, group_id: str, permissions: Sequence[IpPermissionTypeDef]) -> None:
        with unless_gone("InvalidPermission.Duplicate"):
            self._ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=permissions)

    @translated
    def ssh_rules(self, group_ids: Sequence[str]) -> list[SshRule]:
        """The IPv4 ranges that those groups let reach port 22."""
        answer = self._ec2.describe_security_groups(GroupIds=group_ids)
        return [
            SshRule(each["CidrIp"], each.get("Description", ""))
            for group in answer["SecurityGroups"]
            for permission in group["IpPermissions"]
            if permission["IpProtocol"] == "-1"
            or (permission["IpProtocol"] == "tcp" and permission["FromPort"] <= SSH <= permission["ToPort"])
            for each in permission["IpRanges"]
        ]

    @translated
    def security_groups(self, **tags: str) -> list[str]:
        """The ids of the security groups with those values of our tags."""
        pages = self._ec2.get_paginator("describe_security_groups").paginate(Filters=tags_filter(tags))
        return [each["GroupId"] for page in pages for each in page["SecurityGroups"]]

    @translated
    def delete_security_group(self, group_id: str) -> None:
        """Delete the group. Raises CloudError with code DependencyViolation while instances use it."""
        with unless_gone("InvalidGroup.NotFound", "InvalidGroupId.NotFound"):
            self._ec2.delete_security_group(GroupId=group_id)

    @translated
    def create_placement_group(self, name: str, *, tags: Mapping[str, str]) -> None:
        """Create a placement group of the cluster strategy."""
        self._ec2.create_placement_group(
            GroupName=name, Strategy="cluster", TagSpecifications=[shapes.tagged("placement-group", tags)]
        )

    @translated
    def placement_groups(self, **tags: str) -> list[str]:
        """The names of the placement groups with those values of our tags."""
        answer = self._ec2.describe_placement_groups(Filters=tags_filter(tags))
        return [each["GroupName"] for each in answer["PlacementGroups"] if each.get("State") != "deleted"]

    @translated
    def delete_placement_group(self, name: str) -> None:
        """Delete the group. Raises CloudError, code InvalidPlacementGroup.InUse, while instances use it."""
        with unless_gone("InvalidPlacementGroup.Unknown"):
            self._ec2.delete_placement_group(GroupName=name)


def _ssh_from(cidrs: Sequence[str], description: str = "") -> IpPermissionTypeDef:
    ranges: list[IpRangeTypeDef] = [{"CidrIp": cidr} for cidr in cidrs]
    if description:
        ranges = [{**each, "Description": description} for each in ranges]
    return {"IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, "IpRanges": ranges}
