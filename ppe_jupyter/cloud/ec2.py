"""EC2, STS and SSM as typed verbs: the only importer of boto3.

Each verb is one API call (or its pages), takes and gives this package's own values, and raises only errors of
``errors``: boto's are translated here, once. Throttling and passing faults are retried by botocore's standard
mode. Nothing is decided and nothing is waited for here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import boto3
import botocore.exceptions as boto_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from ..catalog import InstanceType
from ..errors import CapacityError, CloudError, CredentialsError
from ..settings import Settings
from . import shapes
from .facts import Identity, Image, Instance, Subnet
from .tags import IMAGE

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef
    from mypy_boto3_ssm.client import SSMClient
    from mypy_boto3_sts.client import STSClient

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
CAPACITY_CODES = {
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "Unsupported",
    "VcpuLimitExceeded",
}
CREDENTIALS_CODES = {
    "AuthFailure",
    "AccessDenied",
    "AccessDeniedException",
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "OptInRequired",
    "PendingVerification",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
}
READ_TIMEOUT = 60
ATTEMPTS = 5
DEBIAN_PARAMETER = "/aws/service/debian/release/12/latest/{arch}"
DEBIAN_ARCH = {"x86_64": "amd64", "arm64": "arm64"}

P = ParamSpec("P")
T = TypeVar("T")


def translated(verb: Callable[P, T]) -> Callable[P, T]:
    """Raise this package's errors where boto raises its own."""

    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except boto_errors.ClientError as exc:
            raise _refusal(exc) from exc
        except (
            boto_errors.NoCredentialsError,
            boto_errors.PartialCredentialsError,
            boto_errors.CredentialRetrievalError,
            boto_errors.ProfileNotFound,
            boto_errors.SSOError,
        ) as exc:
            raise CredentialsError(f"no AWS credentials: {exc}; see: %ppe_config") from exc
        except boto_errors.NoRegionError as exc:
            raise CredentialsError("no AWS region is set; set one with: %ppe_config region REGION") from exc
        except (boto_errors.BotoCoreError, ResponseParserError) as exc:
            raise CloudError(f"the cloud cannot be asked: {exc}", operation=verb.__name__) from exc

    return call


class EC2:
    """One account in one region."""

    @translated
    def __init__(
        self,
        settings: Settings,
        *,
        endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        region: str | None = None,
    ) -> None:
        """The keywords are given for the local cloud only, whose endpoint answers for STS and SSM too."""
        session = boto3.Session(
            region_name=region or settings.region,
            profile_name=None if access_key else settings.profile,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )
        proxy = None if access_key else settings.proxy
        config = Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            proxies={"https": proxy, "http": proxy} if proxy else {},
        )
        self._ec2: EC2Client = session.client(
            "ec2", endpoint_url=endpoint_url or settings.endpoint_url, config=config
        )
        self._sts: STSClient = session.client("sts", endpoint_url=endpoint_url, config=config)
        self._ssm: SSMClient = session.client("ssm", endpoint_url=endpoint_url, config=config)
        self.region: str = self._ec2.meta.region_name

    # -- facts ------------------------------------------------------------------------------------------

    @translated
    def identity(self) -> Identity:
        """Whose account this is."""
        answer = self._sts.get_caller_identity()
        return Identity(account=answer["Account"], arn=answer["Arn"], region=self.region)

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

    @translated
    def subnets(self, subnet_id: str | None = None) -> list[Subnet]:
        """The default VPC's subnets, or the one of that id; none if there is none."""
        wanted = shapes.where("subnet-id", subnet_id) if subnet_id else shapes.where("default-for-az", "true")
        pages = self._ec2.get_paginator("describe_subnets").paginate(Filters=[wanted])
        return [
            Subnet(
                subnet_id=each["SubnetId"],
                vpc_id=each["VpcId"],
                zone=each["AvailabilityZone"],
                cidr=each["CidrBlock"],
                public=each.get("MapPublicIpOnLaunch", False),
            )
            for page in pages
            for each in page["Subnets"]
        ]

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

    @translated
    def has_key_pair(self, name: str) -> bool:
        """Whether EC2 knows a key pair of that name."""
        return bool(self._ec2.describe_key_pairs(Filters=[shapes.where("key-name", name)])["KeyPairs"])

    @translated
    def instances(self, **tags: str) -> list[Instance]:
        """All instances with our tag; ``cluster`` and ``launch`` narrow to those values of ours.

        By filter, not by id: an instance not yet listed is then missing, not an error.
        """
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=_with(tags) or [shapes.where("tag-key", "ppe:cluster")],
            PaginationConfig={"PageSize": 1000},
        )
        return [
            shapes.instance(each)
            for page in pages
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
        ]

    @translated
    def console_output(self, instance_id: str) -> str:
        """What the instance's boot printed, as far as EC2 has it."""
        return self._ec2.get_console_output(InstanceId=instance_id).get("Output", "")

    # -- making -----------------------------------------------------------------------------------------

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
            if _code(exc) != "InvalidKeyPair.Duplicate":
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
    def open_security_group(self, group_id: str, *, ssh_from: str) -> None:
        """Let in SSH from that range, and everything from members of the group."""
        self._ec2.authorize_security_group_ingress(
            GroupId=group_id,
            IpPermissions=[
                {
                    "IpProtocol": "tcp",
                    "FromPort": 22,
                    "ToPort": 22,
                    "IpRanges": [{"CidrIp": ssh_from, "Description": "SSH from the cluster's user"}],
                },
                {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]},
            ],
        )

    @translated
    def create_placement_group(self, name: str, *, tags: Mapping[str, str]) -> None:
        """Create a placement group of the cluster strategy."""
        self._ec2.create_placement_group(
            GroupName=name, Strategy="cluster", TagSpecifications=[shapes.tagged("placement-group", tags)]
        )

    @translated
    def run_instances(self, request: shapes.InstanceRequest) -> list[Instance]:
        """Run all the instances or none. Raises CapacityError when the zone has not enough of them."""
        answer = self._ec2.run_instances(**shapes.run_arguments(request))
        return [shapes.instance(each) for each in answer["Instances"]]

    @translated
    def tag(self, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set the same tags on all the resources (at most 1000 of them)."""
        self._ec2.create_tags(Resources=resource_ids, Tags=shapes.tag_list(tags))

    # -- removing ---------------------------------------------------------------------------------------

    @translated
    def terminate_instances(self, instance_ids: Sequence[str]) -> None:
        """Ask for the instances' end; that some are gone already is no error."""
        self._ec2.terminate_instances(InstanceIds=instance_ids)

    @translated
    def security_groups(self, **tags: str) -> list[str]:
        """The ids of the security groups with those values of our tags."""
        pages = self._ec2.get_paginator("describe_security_groups").paginate(Filters=_with(tags))
        return [each["GroupId"] for page in pages for each in page["SecurityGroups"]]

    @translated
    def delete_security_group(self, group_id: str) -> None:
        """Delete the group. Raises CloudError with code DependencyViolation while instances use it."""
        with _unless_gone("InvalidGroup.NotFound", "InvalidGroupId.NotFound"):
            self._ec2.delete_security_group(GroupId=group_id)

    @translated
    def placement_groups(self, **tags: str) -> list[str]:
        """The names of the placement groups with those values of our tags."""
        answer = self._ec2.describe_placement_groups(Filters=_with(tags))
        return [each["GroupName"] for each in answer["PlacementGroups"] if each.get("State") != "deleted"]

    @translated
    def delete_placement_group(self, name: str) -> None:
        """Delete the group. Raises CloudError, code InvalidPlacementGroup.InUse, while instances use it."""
        with _unless_gone("InvalidPlacementGroup.Unknown"):
            self._ec2.delete_placement_group(GroupName=name)


def _with(tags: Mapping[str, str]) -> list[FilterTypeDef]:
    """The filters for those values of our tags."""
    return [shapes.where(f"tag:ppe:{key}", value) for key, value in tags.items()]


@contextlib.contextmanager
def _unless_gone(*codes: str) -> Any:
    try:
        yield
    except boto_errors.ClientError as exc:
        if _code(exc) not in codes:
            raise


def _code(exc: boto_errors.ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def _refusal(exc: boto_errors.ClientError) -> CloudError:
    code, operation = _code(exc), exc.operation_name
    said = exc.response.get("Error", {}).get("Message", "") or str(exc)
    if code in CAPACITY_CODES:
        return CapacityError(f"{said} ({code})", code=code, operation=operation)
    if code in CREDENTIALS_CODES:
        return CredentialsError(
            f"the cloud refuses {operation}: {said} ({code}); see: %ppe_config",
            code=code,
            operation=operation,
        )
    return CloudError(f"{operation} failed: {said} ({code})", code=code, operation=operation)
