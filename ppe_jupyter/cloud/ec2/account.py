"""The account: whose it is, what it may, and how much of its quotas is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import botocore.exceptions as boto_errors
from botocore import xform_name

from ...errors import CloudError
from ..facts import AccountPlan, Identity, Quota
from . import shapes
from .session import Session, error_code, translated

SPOT_ROLE = "AWSServiceRoleForEC2Spot"
# Of families that share a quota of vCPUs: on demand, spot; None where there is none or its code is not certain.
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
QUOTAS: Mapping[str, tuple[str, str | None]] = {
    "a c d h i im is m r t z": ("L-1216C47A", "L-34B43A08"),
    "dl": ("L-6E869C2A", "L-85EED4F7"),
    "f": ("L-74FC7D96", "L-88CF9481"),
    "g gr vt": ("L-DB2E81BA", "L-3819A6DF"),
    "hpc": ("L-F7808C92", None),
    "inf": ("L-1945791B", "L-B5D1601B"),
    "p": ("L-417A185B", "L-7212CCBC"),
    "trn": ("L-2C3B7624", None),
    "u": ("L-43DA4232", None),
    "x": ("L-7295265B", "L-E3A00192"),
}
# What a dry run says once permission was granted: the ids it was asked with are made up.
MADE_UP = re.compile(r"Invalid\w*\.(NotFound|Unknown|Malformed)|InvalidID|IncorrectInstanceState")


class Account(Session):
    """Verbs on the account."""

    _identity: Identity | None = None

    @translated
    def identity(self) -> Identity:
        """Whose account this is; asked once, since a session's credentials are of one account."""
        if self._identity is None:
            answer = self._sts.get_caller_identity()
            self._identity = Identity(account=answer["Account"], arn=answer["Arn"], region=self.region)
        return self._identity

    @property
    def profile(self) -> str:
        """The profile of the AWS tools' files that is used."""
        return str(self._session.profile_name)

    @translated
    def credentials(self) -> str:
        """Which of boto3's sources the credentials are from, and the end of the access key's id; no secret."""
        found = self._session.get_credentials()
        if found is None:
            return "none; the AWS tools' usual places are empty (aws configure fills them)"
        return f"from {found.method}, access key …{found.access_key[-4:]}"

    @translated
    def alias(self) -> str:
        """The account's alias, "" if it has none."""
        return next(iter(self._client("iam").list_account_aliases()["AccountAliases"]), "")

    @translated
    def regions(self) -> list[str]:
        """The regions that the account can use."""
        return sorted(each["RegionName"] for each in self._ec2.describe_regions()["Regions"])

    @translated
    def account_plan(self) -> AccountPlan:
        """Whether the account is on the free plan."""
        client = self._client("freetier", region="us-east-1")
        if not hasattr(client, "get_account_plan_state"):
            raise CloudError("this machine's boto3 does not know account plans yet")
        answer = client.get_account_plan_state()
        credit = answer.get("accountPlanRemainingCredits", {}).get("amount")
        return AccountPlan(free=answer.get("accountPlanType") == "FREE", credits_usd=credit)

    @translated
    def vcpu_quotas(self, instance_type: str, *, spot: bool) -> dict[str, Quota]:
        """The type's quotas of vCPUs, "on-demand" and if wanted "spot", and how much of them is used now."""
        family = _family(instance_type)
        group = next((group for group in QUOTAS if family in group.split()), None)
        if group is None:
            raise CloudError(f"no quota is known for {instance_type}")
        codes = zip(("on-demand", "spot"), QUOTAS[group], strict=True)
        limits = {
            market: self._client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)[
                "Quota"
            ]
            for market, code in codes
            if code and (spot or market == "on-demand")
        }
        used = self._vcpus_in_use(group.split())
        return {
            market: Quota(name=limit["QuotaName"], limit=limit["Value"], used=used[market])
            for market, limit in limits.items()
        }

    def _vcpus_in_use(self, families: list[str]) -> dict[str, int]:
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=[shapes.where("instance-state-name", "pending", "running")],
            PaginationConfig={"PageSize": 1000},
        )
        used = {"on-demand": 0, "spot": 0}
        for page in pages:
            for reservation in page["Reservations"]:
                for each in reservation["Instances"]:
                    if _family(each["InstanceType"]) in families:
                        cpu = each.get("CpuOptions", {})
                        market = "spot" if each.get("InstanceLifecycle") == "spot" else "on-demand"
                        used[market] += cpu.get("CoreCount", 1) * cpu.get("ThreadsPerCore", 1)
        return used

    @translated
    def has_spot_role(self) -> bool:
        """Whether EC2's service-linked role for spot instances exists."""
        return self._exists("get_role", "NoSuchEntity", RoleName=SPOT_ROLE)

    @translated
    def has_instance_profile(self, profile: str) -> bool:
        """Whether there is an instance profile of that name or ARN."""
        name = profile.rpartition("/")[2]
        return self._exists("get_instance_profile", "NoSuchEntity", InstanceProfileName=name)

    def _exists(self, operation: str, absent: str, **arguments: str) -> bool:
        try:
            getattr(self._client("iam"), operation)(**arguments)
        except boto_errors.ClientError as exc:
            if error_code(exc) == absent:
                return False
            raise
        return True

    @translated
    def dry_run(self, operation: str, arguments: Mapping[str, Any]) -> str | None:
        """Ask EC2 whether we may: None if so, else the IAM action that is refused. Nothing is done.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/CommonParameters.html: DryRun is answered with the
        error DryRunOperation, or UnauthorizedOperation. Raises CloudError for what EC2 finds wrong with the call.
        """
        try:
            getattr(self._ec2, xform_name(operation))(**arguments, DryRun=True)
        except boto_errors.ClientError as exc:
            code = error_code(exc)
            if code == "UnauthorizedOperation":
                named = re.search(r"not authorized to perform: ([\w:]+)", str(exc))
                return named[1] if named else f"ec2:{operation}"
            if code != "DryRunOperation" and not MADE_UP.fullmatch(code):
                raise
        return None


def _family(instance_type: str) -> str:
    """The letters that a type begins with: "c" of c7a.2xlarge, "u" of u-6tb1.metal."""
    found = re.match(r"[a-z]+", instance_type)
    return found[0] if found else ""
