"""Publishes to a topic of SNS with the credentials of the instance's own profile.

One signed request (AWS Signature Version 4, as the AWS general reference has it); a node has no SDK, and this is the
one call that is made there. Must not know what is told.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

METADATA = "http://169.254.169.254/latest"
SECONDS = 20.0
MOST_SUBJECT = 100  # characters, and ASCII (API reference, Publish)


class Refused(Exception):
    """There are no credentials, or SNS does not take them."""


def publish(topic: str, *, subject: str, message: str, metadata: str = METADATA, endpoint: str = "") -> None:
    """Publish to the topic of that ARN. Raises Refused, OSError."""
    region = topic.split(":")[3]
    suffix = ".cn" if region.startswith("cn-") else ""
    url = endpoint or f"https://sns.{region}.amazonaws.com{suffix}"
    fields = {"Action": "Publish", "Version": "2010-03-31", "TopicArn": topic, "Message": message}
    fields["Subject"] = subject.encode("ascii", "replace").decode()[:MOST_SUBJECT]
    body = urllib.parse.urlencode(fields).encode()
    headers = signed(url, body, credentials(metadata), region=region, now=time.gmtime())
    try:
        _open(urllib.request.Request(f"{url}/", data=body, headers=headers))  # noqa: S310
    except urllib.error.HTTPError as exc:
        raise Refused(f"SNS answers {exc.code}: {exc.read().decode(errors='replace')[:300]}") from exc


def about(name: str, metadata: str = METADATA) -> str:
    """What the metadata service (version 2) says of this instance. Raises OSError."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = _ask(urllib.request.Request(f"{metadata}/api/token", headers=ttl, method="PUT"))  # noqa: S310
    headers = {"X-aws-ec2-metadata-token": token.decode()}
    return _ask(urllib.request.Request(f"{metadata}/meta-data/{name}", headers=headers)).decode()  # noqa: S310


def credentials(metadata: str = METADATA) -> Mapping[str, Any]:
    """Those of the instance profile. Raises Refused if there is none."""
    place = "iam/security-credentials/"
    try:
        role = about(place, metadata).split()[0]
        found: Mapping[str, Any] = json.loads(about(f"{place}{role}", metadata))
    except (OSError, ValueError, IndexError) as exc:
        raise Refused(f"this instance has no credentials (launch it with --instance-profile): {exc}") from exc
    if not {"AccessKeyId", "SecretAccessKey", "Token"} <= set(found):
        raise Refused(f"the instance profile gives no credentials: {found.get('Message', found.get('Code'))}")
    return found


def signed(
    url: str, body: bytes, keys: Mapping[str, Any], *, region: str, now: time.struct_time
) -> dict[str, str]:
    """The headers of a signed POST to the root of ``url``."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", now)
    scope = f"{stamp[:8]}/{region}/sns/aws4_request"
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": urllib.parse.urlsplit(url).netloc,
        "x-amz-date": stamp,
        "x-amz-security-token": str(keys["Token"]),
    }
    names = ";".join(headers)  # in the order of the alphabet, as they stand above
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = "\n".join(["POST", "/", "", *lines, "", names, hashlib.sha256(body).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys['SecretAccessKey']}".encode()
    for part in (stamp[:8], region, "sns", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={keys['AccessKeyId']}/{scope}"
    authorization = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": authorization}


def _ask(request: urllib.request.Request) -> bytes:
    """Ask the metadata service itself: its secrets are nothing for a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS) as answer:
        found: bytes = answer.read()
    return found


def _open(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  # fixed places, and tests'
        found: bytes = answer.read()
    return found
