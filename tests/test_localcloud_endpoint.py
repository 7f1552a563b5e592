"""The endpoint serves its owner and nobody else, and answers everything in EC2's own form."""

from __future__ import annotations

import stat
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timedelta, timezone

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from localcloud_nodes import client

from ppe_jupyter.localcloud import Endpoint, sigv4
from ppe_jupyter.settings import Settings

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
KEY, SECRET = "AKIAEXAMPLE", "secret/with+signs"


def verify(request: sigv4.Request, *, now: datetime = NOW, secret: str = SECRET) -> str:
    return sigv4.verify(request, key=KEY, secret=secret, region="us-east-1", now=now)


def signed(body: bytes = b"", *, now: datetime = NOW, path: str = "/", query: str = "") -> sigv4.Request:
    plain = sigv4.Request("POST", path, query, {"host": "127.0.0.1:5000"}, body)
    headers = sigv4.sign(plain, key=KEY, secret=SECRET, region="us-east-1", service="ec2", now=now)
    return sigv4.Request("POST", path, query, headers, body)


@given(body=st.binary(max_size=200), query=st.dictionaries(st.text(min_size=1), st.text(), max_size=3))
def test_what_botocore_signs_is_accepted(body: bytes, query: dict[str, str]) -> None:
    url = "http://127.0.0.1:5000/" + ("?" + urllib.parse.urlencode(query) if query else "")
    theirs = AWSRequest("POST", url, data=body, headers={"Content-Type": "text/plain; charset=utf-8"})
    SigV4Auth(Credentials(KEY, SECRET), "ec2", "us-east-1").add_auth(theirs)
    headers = {name.lower(): str(value) for name, value in theirs.headers.items()}
    headers["host"] = "127.0.0.1:5000"
    request = sigv4.Request("POST", "/", urllib.parse.urlsplit(url).query, headers, body)
    assert verify(request, now=datetime.now(timezone.utc)) == "ec2"


def test_any_change_after_signing_is_refused() -> None:
    request = signed(b"Action=DescribeInstances", query="a=b")
    assert verify(request) == "ec2"
    changed = [
        sigv4.Request("GET", request.path, request.query, request.headers, request.body),
        sigv4.Request("POST", "/moto-api/reset", request.query, request.headers, request.body),
        sigv4.Request("POST", request.path, "a=c", request.headers, request.body),
        sigv4.Request("POST", request.path, request.query, request.headers, b"Action=RunInstances"),
        sigv4.Request("POST", "/", "a=b", {**request.headers, "host": "elsewhere"}, request.body),
        sigv4.Request("POST", "/", "a=b", {"host": "127.0.0.1:5000"}, request.body),
    ]
    for other in changed:
        with pytest.raises(sigv4.Refused):
            verify(other)
    with pytest.raises(sigv4.Refused):
        verify(request, secret="another")


@pytest.mark.parametrize("minutes", [-10, 10])
def test_an_old_request_is_refused(minutes: int) -> None:
    with pytest.raises(sigv4.Refused) as refused:
        verify(signed(), now=NOW + timedelta(minutes=minutes))
    assert refused.value.code == "RequestExpired"


@pytest.mark.parametrize(
    "change",
    [
        {"aws_secret_access_key": "foreign"},
        {"aws_access_key_id": "AKIAFOREIGN"},
        {"region_name": "eu-west-1"},
    ],
)
def test_a_foreign_request_is_refused(local_cloud: Endpoint, change: dict[str, str]) -> None:
    for service, call in (("ec2", "describe_instances"), ("sts", "get_caller_identity")):
        with pytest.raises(ClientError) as refused:
            getattr(client(local_cloud, service, **change), call)()
        assert refused.value.response["Error"]["Code"] == "AuthFailure"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("path", ["/", "/moto-api/data.json", "/moto-api/reset", "/ppe-local/stop"])
@pytest.mark.parametrize("data", [None, b"Action=TerminateInstances"])
def test_an_unsigned_request_is_refused(local_cloud: Endpoint, path: str, data: bytes | None) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(local_cloud.url + path, data=data, timeout=5)
    with refused.value as answer:
        assert answer.code == 403
        assert b"<Code>MissingAuthenticationToken</Code>" in answer.read()


def test_the_owner_is_served_by_three_services(local_cloud: Endpoint) -> None:
    assert client(local_cloud, "sts").get_caller_identity()["Account"] == "123456789012"
    assert client(local_cloud, "ssm").describe_parameters()["Parameters"] == []
    (image,) = client(local_cloud).describe_images(Owners=["self"])["Images"]
    assert image["Name"].startswith("ppe-node-debian-12-")
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert tags == {"ppe:image": "node", "ppe:login-user": "admin", "ppe:base": "debian-12"}


def test_what_it_lacks_it_says_in_the_protocols_form(local_cloud: Endpoint) -> None:
    ec2 = client(local_cloud)
    with pytest.raises(ClientError, match=r"InvalidAction.*DescribeTrunkInterfaceAssociations"):
        ec2.describe_trunk_interface_associations()
    with pytest.raises(ClientError, match=r"InvalidAMIID"):
        ec2.run_instances(ImageId="ami-12345678", InstanceType="c5.large", MinCount=1, MaxCount=1)
    with pytest.raises(ClientError, match="InvalidAction"):
        client(local_cloud, "pricing").describe_services()


def test_the_key_is_its_owners_alone(local_cloud: Endpoint, settings: Settings) -> None:
    folder = settings.state_dir / "localcloud"
    assert stat.S_IMODE((folder / "endpoint.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert local_cloud.url.startswith("http://127.0.0.1:")
    assert "secret_key=" not in repr(local_cloud), "a secret does not belong into a traceback"
