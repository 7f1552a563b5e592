"""boto3's clients and errors: how this package talks to AWS, or to an endpoint that behaves like it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import boto3
import botocore.exceptions as boto_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from ...errors import CapacityError, CloudError, CredentialsError
from ...settings import Settings
from . import shapes

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

P = ParamSpec("P")
T = TypeVar("T")


def translated(verb: Callable[P, T]) -> Callable[P, T]:
    """Raise this package's errors where boto raises its own."""

    @functools.wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return verb(*args, **kwargs)
        except boto_errors.ClientError as exc:
            raise refusal(exc) from exc
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


class Session:
    """The clients of one account in one region."""

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
            retries={"mode": "standard", "total_max_attempts": settings.retries},
            proxies={"https": proxy, "http": proxy} if proxy else {},
        )
        self._session = session
        self._config = config
        # The local cloud's endpoint answers for every service; a configured one only for EC2.
        self._endpoint_url = endpoint_url
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()  # boto3's sessions are not made for threads; its clients are
        self._ec2: EC2Client = session.client(
            "ec2", endpoint_url=endpoint_url or settings.endpoint_url, config=config
        )
        self._ec2.meta.events.register_first("needs-retry.ec2", _capacity_is_no_fault)
        self.region: str = self._ec2.meta.region_name

    def _client(self, service: str, *, region: str | None = None) -> Any:
        """The client of another service, made when it is first wanted; ``region`` if it lives in one only."""
        with self._making:
            if service not in self._clients:
                self._clients[service] = self._session.client(  # type: ignore[call-overload]
                    service,
                    endpoint_url=self._endpoint_url,
                    config=self._config,
                    region_name=None if self._endpoint_url else region,
                )
        return self._clients[service]

    @property
    def _sts(self) -> STSClient:
        return self._client("sts")  # type: ignore[no-any-return]

    @property
    def _ssm(self) -> SSMClient:
        return self._client("ssm")  # type: ignore[no-any-return]


def _capacity_is_no_fault(response: tuple[Any, Mapping[str, Any]] | None, **_: Any) -> None:
    """EC2 says with 500 that a zone has no capacity; botocore would ask it again and again."""
    if response is not None and response[1].get("Error", {}).get("Code") in CAPACITY_CODES:
        response[0].status_code = 400


def tags_filter(tags: Mapping[str, str]) -> list[FilterTypeDef]:
    """The filters for those values of our tags."""
    return [shapes.where(f"tag:ppe:{key}", value) for key, value in tags.items()]


@contextlib.contextmanager
def unless_gone(*codes: str) -> Any:
    """That it is gone already is no error."""
    try:
        yield
    except boto_errors.ClientError as exc:
        if error_code(exc) not in codes:
            raise


def error_code(exc: boto_errors.ClientError) -> str:
    """EC2's code of the error."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def refusal(exc: boto_errors.ClientError) -> CloudError:
    """This package's error for it."""
    code, operation = error_code(exc), exc.operation_name
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
