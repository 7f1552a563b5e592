"""The fakes of the services beside EC2: their answers are of the shapes that AWS publishes, and reach a client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from localcloud_nodes import client

from ppe_jupyter import catalog
from ppe_jupyter.localcloud import Endpoint, hooks, services
from ppe_jupyter.localcloud.controls import Controls

DEBIAN_12 = "/aws/service/debian/release/12/latest/{arch}"
DEBIAN_13 = "/aws/service/debian/release/13/latest/{arch}"
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
MONTHS = {
    "TimePeriod": {"Start": "2026-01-15", "End": "2026-03-01"},
    "Granularity": "MONTHLY",
    "Metrics": ["UnblendedCost"],
}
DAY = {**MONTHS, "TimePeriod": {"Start": "2026-02-28", "End": "2026-03-01"}, "Granularity": "DAILY"}
BY_TAG = [{"Type": "TAG", "Key": "ppe:cluster"}]
BY_SERVICE = [{"Type": "DIMENSION", "Key": "SERVICE"}]
M5 = [
    {"Type": "TERM_MATCH", "Field": name, "Value": value}
    for name, value in {
        "instanceType": "m5.xlarge",
        "regionCode": "us-east-1",
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
    }.items()
]


@pytest.fixture
def cloud(local_cloud: Endpoint) -> Iterator[Endpoint]:
    hooks.reset(local_cloud)
    yield local_cloud
    hooks.reset(local_cloud)


def fake(service: str, action: str, request: dict[str, Any]) -> Any:
    """A fake's answer, with all switches on, held against botocore's models of request and answer."""
    names = {"servicequotas": "service-quotas"}
    model = botocore.session.get_session().get_service_model(names.get(service, service))
    operation = model.operation_model(action)
    controls = Controls(free_plan=True, cost_explorer=True)
    images = {DEBIAN_12.format(arch="amd64"): "ami-1", DEBIAN_12.format(arch="arm64"): "ami-2"}
    answer = services.fakes(controls, lambda: images)[service, action](request)
    for value, shape in ((request, operation.input_shape), (answer, operation.output_shape)):
        report = ParamValidator().validate(value, shape)
        assert not report.has_errors(), report.generate_report()
    return answer


@pytest.mark.parametrize(
    ("service", "action", "request_"),
    [
        ("servicequotas", "GetServiceQuota", {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}),
        ("servicequotas", "GetServiceQuota", {"ServiceCode": "ec2", "QuotaCode": "L-34B43A08"}),
        ("pricing", "GetProducts", {"ServiceCode": "AmazonEC2", "Filters": M5}),
        ("pricing", "GetProducts", {"ServiceCode": "AmazonEC2", "MaxResults": 5}),
        ("freetier", "GetAccountPlanState", {}),
        ("ce", "GetCostAndUsage", {**MONTHS, "GroupBy": BY_SERVICE}),
        ("ce", "GetCostAndUsage", DAY),
        ("ssm", "GetParameter", {"Name": DEBIAN_12.format(arch="amd64")}),
        ("ssm", "GetParameters", {"Names": [DEBIAN_12.format(arch="amd64"), "/none"]}),
        (
            "ssm",
            "GetParametersByPath",
            {"Path": "/aws/service/debian/release", "Recursive": True, "MaxResults": 1},
        ),
    ],
)
def test_answers_are_of_the_shape_that_the_service_publishes(
    service: str, action: str, request_: dict[str, Any]
) -> None:
    assert fake(service, action, request_)


def test_prices_are_items_of_a_price_list() -> None:
    """awsaccountbilling/latest/aboutv2/using-price-list-query-api.html: JSON texts, priced by SKU, term and rate."""
    (text,) = fake("pricing", "GetProducts", {"ServiceCode": "AmazonEC2", "Filters": M5})["PriceList"]
    item = json.loads(text)
    assert item["product"]["productFamily"] == "Compute Instance"
    assert (item["product"]["attributes"]["vcpu"], item["product"]["attributes"]["memory"]) == ("4", "16 GiB")
    ((term, offer),) = item["terms"]["OnDemand"].items()
    ((rate, dimension),) = offer["priceDimensions"].items()
    assert (term, rate) == (f"{offer['sku']}.JRTCKXETXF", dimension["rateCode"])
    assert dimension["unit"] == "Hrs"
    assert float(dimension["pricePerUnit"]["USD"]) == catalog.instance_types()["m5.xlarge"].usd_per_hour
    windows = [{"Type": "TERM_MATCH", "Field": "operatingSystem", "Value": "Windows"}]
    assert fake("pricing", "GetProducts", {"ServiceCode": "AmazonEC2", "Filters": windows})["PriceList"] == []


def test_all_prices_come_in_pages(cloud: Endpoint) -> None:
    pages = client(cloud, "pricing").get_paginator("get_products").paginate(ServiceCode="AmazonEC2")
    items = [json.loads(text) for page in pages for text in page["PriceList"]]
    priced = {name for name, kind in catalog.instance_types().items() if kind.usd_per_hour is not None}
    assert {item["product"]["attributes"]["instanceType"] for item in items} == priced
    assert len({item["product"]["sku"] for item in items}) == len(items)


def test_costs_are_cut_to_the_period_grouped_and_filtered(cloud: Endpoint) -> None:
    """API_GetCostAndUsage: the end is exclusive, groups are key$value, refused without permission."""
    ce = client(cloud, "ce")
    with pytest.raises(ClientError, match="AccessDenied"):
        ce.get_cost_and_usage(**MONTHS)
    hooks.set_account(cloud, cost_explorer=True)
    january, february = ce.get_cost_and_usage(**MONTHS)["ResultsByTime"]
    assert [january["TimePeriod"], february["TimePeriod"]] == [
        {"Start": "2026-01-15", "End": "2026-02-01"},
        {"Start": "2026-02-01", "End": "2026-03-01"},
    ]
    assert float(february["Total"]["UnblendedCost"]["Amount"]) == 28 * 6.875
    (day,) = ce.get_cost_and_usage(**DAY, GroupBy=BY_TAG)["ResultsByTime"]
    costs = {group["Keys"][0]: float(group["Metrics"]["UnblendedCost"]["Amount"]) for group in day["Groups"]}
    assert costs == {"ppe:cluster$": 2.125, "ppe:cluster$brisk-otter": 4.75}
    compute = {"Dimensions": {"Key": "SERVICE", "Values": ["Amazon Elastic Compute Cloud - Compute"]}}
    mine = {"Tags": {"Key": "ppe:cluster", "Values": ["brisk-otter"]}}
    for condition, usd in (
        ({"And": [compute, mine]}, 4.0),
        ({"Or": [compute, mine]}, 6.75),
        ({"Not": compute}, 0.875),
        ({"Tags": {"Key": "ppe:cluster", "MatchOptions": ["ABSENT"]}}, 2.125),
    ):
        (day,) = ce.get_cost_and_usage(**DAY, Filter=condition)["ResultsByTime"]
        assert float(day["Total"]["UnblendedCost"]["Amount"]) == usd


def test_the_accounts_quotas_plan_alias_and_role_are_as_switched(cloud: Endpoint) -> None:
    quotas, iam = client(cloud, "service-quotas"), client(cloud, "iam")

    def quota(code: str) -> float:
        return float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])

    hooks.set_quota(cloud, vcpus=16)
    assert quota("L-1216C47A") == 16
    assert quota("L-34B43A08") > 10_000
    with pytest.raises(ClientError, match="NoSuchResource"):
        quota("L-00000000")
    assert client(cloud, "freetier").get_account_plan_state()["accountPlanType"] == "PAID"
    hooks.set_account(cloud, free_plan=True)
    assert client(cloud, "freetier").get_account_plan_state()["accountPlanType"] == "FREE"
    assert iam.list_account_aliases()["AccountAliases"] == ["local-cloud"]
    role = iam.get_role(RoleName="AWSServiceRoleForEC2Spot")["Role"]
    assert role["Path"] == "/aws-service-role/spot.amazonaws.com/"


@pytest.mark.parametrize(
    ("parameter", "owner", "root", "title"),
    [
        (DEBIAN_12, "136693071363", "/dev/xvda", "Debian 12"),
        (DEBIAN_13, "136693071363", "/dev/xvda", "Debian 13"),
        (UBUNTU, "099720109477", "/dev/sda1", "Ubuntu 24.04"),
    ],
)
@pytest.mark.parametrize(("architecture", "arch"), [("x86_64", "amd64"), ("arm64", "arm64")])
def test_public_images_are_resolved_and_described(
    cloud: Endpoint, parameter: str, owner: str, root: str, title: str, architecture: str, arch: str
) -> None:
    """wiki.debian.org/Cloud/AmazonEC2Image, documentation.ubuntu.com/aws: the publishers' accounts and parameters."""
    found = client(cloud, "ssm").get_parameter(Name=parameter.format(arch=arch))["Parameter"]
    ec2 = client(cloud)
    (image,) = ec2.describe_images(ImageIds=[found["Value"]])["Images"]
    assert (image["OwnerId"], image["RootDeviceName"], image["Architecture"]) == (owner, root, architecture)
    assert image["Public"]
    assert image["ImageId"] in {each["ImageId"] for each in ec2.describe_images(Owners=[owner])["Images"]}
    if title != "Debian 12":
        with pytest.raises(ClientError, match=f"the local cloud has no {title} image"):
            ec2.run_instances(ImageId=found["Value"], InstanceType="m5.xlarge", MinCount=1, MaxCount=1)


def test_parameters_are_found_by_name_and_path(cloud: Endpoint) -> None:
    ssm = client(cloud, "ssm")
    names = [DEBIAN_12.format(arch="amd64"), "/aws/service/debian/release/9/latest/amd64"]
    found = ssm.get_parameters(Names=names)
    assert [each["Name"] for each in found["Parameters"]] == names[:1]
    assert found["InvalidParameters"] == names[1:]
    pages = ssm.get_paginator("get_parameters_by_path").paginate(
        Path="/aws/service/debian/release", Recursive=True, PaginationConfig={"PageSize": 3}
    )
    assert len([each for page in pages for each in page["Parameters"]]) == 4
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name=names[1])
    assert ssm.describe_parameters()["Parameters"] == [], "public parameters are nobody's own"
