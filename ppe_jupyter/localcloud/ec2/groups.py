"""Placement groups, which moto lacks, and security groups that know what uses them.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/placement-groups.html
"""

from __future__ import annotations

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import DependencyViolationError, EC2ClientError
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, EC2_RESOURCE_TO_PREFIX, generic_filter

from .state import Ec2Actions, PlacementGroup

# moto knows a resource that can be tagged by its prefix.
EC2_RESOURCE_TO_PREFIX["placement-group"], EC2_PREFIX_TO_RESOURCE["pg"] = "pg", "placement-group"


class GroupActions(Ec2Actions):
    """Making, listing and deleting groups."""

    def create_placement_group(self) -> ActionResult:
        """Make one; only the strategy matters here, the machine is one anyway."""
        name, strategy = self._get_param("GroupName"), self._get_param("Strategy", "cluster")
        if not name:
            raise EC2ClientError("MissingParameter", "The request must contain the parameter GroupName")
        if strategy not in ("cluster", "spread", "partition"):
            raise EC2ClientError(
                "InvalidParameterValue", f"Value ({strategy}) for parameter strategy is invalid"
            )
        if name in self.placement_groups:
            raise EC2ClientError(
                "InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists."
            )
        tags = self._parse_tag_specification("placement-group").get("placement-group", {})
        self.placement_groups[name] = PlacementGroup(self.ec2_backend, name, strategy, tags)
        return ActionResult({"PlacementGroup": self.placement_groups[name]})

    def describe_placement_groups(self) -> ActionResult:
        """List them, all or by name, id or filter."""
        names, ids = self._get_param("GroupNames", []), self._get_param("GroupIds", [])
        groups = [self._placement_group(name) for name in names] or list(self.placement_groups.values())
        groups = [group for group in groups if not ids or group.id in ids]
        return ActionResult({"PlacementGroups": generic_filter(self._filters_from_querystring(), groups)})

    def delete_placement_group(self) -> EmptyResult:
        """Delete one that no instance is in."""
        group = self._placement_group(self._get_param("GroupName"))
        if any(each.placement.group_name == group.group_name for each in self._alive()):
            message = f"The placement group '{group.group_name}' is in use and may not be deleted."
            raise EC2ClientError("InvalidPlacementGroup.InUse", message)
        del self.placement_groups[group.group_name]
        return EmptyResult()

    def authorize_security_group_ingress(self) -> ActionResult:
        """Let in; the answer names every new rule, where moto's names the last permission's only."""
        group_id = self._get_param("GroupId")
        before = self._ingress_rules(group_id)
        answer = super().authorize_security_group_ingress()
        if group_id:
            rules = [rule for rule_id, rule in self._ingress_rules(group_id).items() if rule_id not in before]
            answer = ActionResult({"Return": True, "SecurityGroupRules": rules})
        return answer

    def delete_security_group(self) -> ActionResult:
        """Delete one that no interface has and no other group names."""
        wanted = self._get_param("GroupId") or self._get_param("GroupName")
        group = self.ec2_backend.get_security_group_by_name_or_id(wanted)
        if group is not None:
            if group.is_default or group.name == "default":
                message = "the specified group is a default group and cannot be deleted"
                raise EC2ClientError("CannotDelete", message)
            others = [g for vpc in self.ec2_backend.groups.values() for g in vpc.values() if g is not group]
            named = any(r.source_group.get("GroupId") == group.id for g in others for r in g.ingress_rules)
            if named or any(
                group in i.nics[0].group_set for i in self._instances() if i.state != "terminated"
            ):
                raise DependencyViolationError(f"resource {group.id} has a dependent object")
        return super().delete_security_group()

    def _ingress_rules(self, group_id: str | None) -> dict[str, object]:
        group = self.ec2_backend.get_security_group_from_id(group_id) if group_id else None
        return {rule.id: rule for rule in group.ingress_rules} if group else {}
