"""AWS Signature Version 4, both ends of it, on the standard library alone.

The endpoint starts containers as root, so it serves nobody but the holder of the key: every request is
verified here. Our own requests (is it alive, stop) are signed here too, because importing botocore takes
longer than asking. Follows
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html for services
that, unlike S3, encode the path twice.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
CLOCK_SKEW = timedelta(minutes=5)
AUTHORIZATION = re.compile(
    ALGORITHM
    + r" Credential=(?P<key>[^/,\s]+)/(?P<scope>\d{8}/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request),"
    r"\s*SignedHeaders=(?P<headers>[\w;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


class Refused(Exception):
    """The request is not signed as it must be; ``code`` is EC2's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """What is signed. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def sign(
    request: Request, *, key: str, secret: str, region: str, service: str, now: datetime
) -> dict[str, str]:
    """The request's headers with the date and the signature added."""
    headers = {**request.headers, "x-amz-date": now.strftime(TIME_FORMAT)}
    scope = f"{now:%Y%m%d}/{region}/{service}/aws4_request"
    names = sorted(headers)
    signed = Request(request.method, request.path, request.query, headers, request.body)
    signature = _signature(signed, names=names, scope=scope, secret=secret)
    headers["authorization"] = (
        f"{ALGORITHM} Credential={key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return headers


def verify(request: Request, *, key: str, secret: str, region: str, now: datetime) -> str:
    """The service that the request is signed for. Raises Refused, saying as little as AWS does."""
    match = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise Refused("MissingAuthenticationToken", "the request is not signed with Signature Version 4")
    names = match["headers"].split(";")
    expected = _signature(request, names=names, scope=match["scope"], secret=secret)
    known = hmac.compare_digest(match["key"].encode(), key.encode())
    if not hmac.compare_digest(expected, match["signature"]) or not known:
        raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials")
    if not {"host", "x-amz-date"} <= set(names):
        raise Refused("IncompleteSignature", "the headers host and x-amz-date must be signed")
    date = request.headers["x-amz-date"]
    try:
        age = now - datetime.strptime(date, TIME_FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        raise Refused("IncompleteSignature", "x-amz-date is not a date") from None
    if abs(age) > CLOCK_SKEW or not match["scope"].startswith(date[:8]):
        raise Refused("RequestExpired", "the request is too old, or from the future")
    if match["region"] != region:
        message = (
            f"Credential should be scoped to a valid region, not '{match['region']}':"
            f" the local cloud has {region} only"
        )
        raise Refused("AuthFailure", message)
    return match["service"]


def _signature(request: Request, *, names: list[str], scope: str, secret: str) -> str:
    canonical = "\n".join([
        request.method,
        quote(request.path, safe="/-_.~%"),
        # By name and then by value: "=" alone would sort behind a digit.
        "&".join(
            f"{name}={value}"
            for name, _, value in sorted(part.partition("=") for part in request.query.split("&") if part)
        ),
        *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
        "",
        ";".join(names),
        hashlib.sha256(request.body).hexdigest(),
    ])  # fmt: skip
    date = request.headers.get("x-amz-date", "")
    text = "\n".join([ALGORITHM, date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing_key = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    return hmac.digest(signing_key, text.encode(), "sha256").hex()
