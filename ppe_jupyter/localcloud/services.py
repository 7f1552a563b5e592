"""Fakes of the AWS services that a client asks besides EC2, called fakes: small tables, not records.

Service Quotas, the price list, the free tier, Cost Explorer and the public parameters of Systems Manager, as far
as a review of a launch and a bill need them. Requests and answers are the JSON that botocore's models describe;
the tests hold them against those. Pure: knows neither HTTP nor moto.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from . import REGION, price_list
from .controls import Controls, Market

ACCOUNT = "123456789012"  # moto's
Json = dict[str, Any]
Action = Callable[[Json], "Json | None"]
PER_PAGE = 100


class FakeRefusal(Exception):
    """A service's error; ``code`` as its model names it."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class FakeQuotas:
    """Service Quotas: the vCPU quotas of the standard types, as they are switched."""

    CODES: Mapping[str, tuple[Market, str]] = {
        "L-1216C47A": ("on-demand", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
        "L-34B43A08": ("spot", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    }

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def get_service_quota(self, request: Json) -> Json:
        """GetServiceQuota."""
        code = request["QuotaCode"]
        if request["ServiceCode"] != "ec2" or code not in self.CODES:
            raise FakeRefusal("NoSuchResourceException", f"there is no quota {code}")
        market, name = self.CODES[code]
        quota = {
            "ServiceCode": "ec2", "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{REGION}:{ACCOUNT}:ec2/{code}", "QuotaCode": code,
            "QuotaName": name, "Value": float(self._controls.vcpus[market]), "Unit": "None",
            "Adjustable": True, "GlobalQuota": False, "QuotaAppliedAtLevel": "ACCOUNT",
        }  # fmt: skip
        return {"Quota": quota}


class FakePriceList:
    """The price list: on-demand Linux instances of one region, shared tenancy."""

    def get_products(self, request: Json) -> Json:
        """GetProducts: a page of the products whose attributes equal every filter's value."""
        filters = request.get("Filters", [])
        if any(each["Type"] not in ("TERM_MATCH", "EQUALS") for each in filters):
            raise FakeRefusal("InvalidParameterException", "the fake has TERM_MATCH and EQUALS filters only")
        if request["ServiceCode"] != "AmazonEC2":
            return {"FormatVersion": "aws_v1", "PriceList": []}
        products = [_product(name, row) for name, row in price_list.types().items()]
        for each in filters:
            products = [p for p in products if _attributes(p).get(each["Field"]) == each["Value"]]
        start, size = int(request.get("NextToken", 0)), int(request.get("MaxResults", PER_PAGE))
        page = [json.dumps(product) for product in products[start : start + size]]
        more = {"NextToken": str(start + size)} if start + size < len(products) else {}
        return {"FormatVersion": "aws_v1", "PriceList": page, **more}


class FakeFreeTier:
    """The account's plan, as it is switched."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def get_account_plan_state(self, _: Json) -> Json:
        """GetAccountPlanState."""
        plan: Json = {"accountId": ACCOUNT, "accountPlanType": "PAID", "accountPlanStatus": "ACTIVE"}
        if self._controls.free_plan:
            credit = {"amount": 100.0, "unit": "USD"}
            plan |= {"accountPlanType": "FREE", "accountPlanRemainingCredits": credit}
        return plan


class FakeCostExplorer:
    """Cost Explorer: the same bill every day, refused until it is switched on."""

    # service, cluster, usage type, USD a day
    BILL = (
        ("Amazon Elastic Compute Cloud - Compute", "brisk-otter", "BoxUsage:c7a.2xlarge", 4.0),
        ("Amazon Elastic Compute Cloud - Compute", "", "BoxUsage:m5.xlarge", 2.0),
        ("EC2 - Other", "brisk-otter", "EBS:VolumeUsage.gp3", 0.25),
        ("EC2 - Other", "", "EBS:SnapshotUsage", 0.125),
        ("Amazon Virtual Private Cloud", "brisk-otter", "PublicIPv4:InUseAddress", 0.5),
    )
    TAG = "ppe:cluster"

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    def get_cost_and_usage(self, request: Json) -> Json:
        """GetCostAndUsage, by day or month, filtered and grouped by service, usage type or tag."""
        if not self._controls.cost_explorer:
            message = (
                f"User: arn:aws:sts::{ACCOUNT}:user/moto is not authorized to perform: ce:GetCostAndUsage on"
                f" resource: arn:aws:ce:{REGION}:{ACCOUNT}:/GetCostAndUsage because no identity-based policy"
                " allows the ce:GetCostAndUsage action"
            )
            raise FakeRefusal("AccessDeniedException", message)
        definitions, period = request.get("GroupBy", []), request["TimePeriod"]
        lines = [line for line in self.BILL if self._wanted(line, request.get("Filter"))]
        results = []
        for start, end in _periods(
            period["Start"], period["End"], monthly=request["Granularity"] == "MONTHLY"
        ):
            days = (end - start).days
            groups: dict[tuple[str, ...], float] = {}
            for line in lines:
                keys = tuple(self._key(line, each) for each in definitions)
                groups[keys] = groups.get(keys, 0.0) + line[3] * days
            costs = [
                {"Keys": list(keys), "Metrics": _metrics(request["Metrics"], usd)}
                for keys, usd in sorted(groups.items())
            ]
            total = {} if definitions else _metrics(request["Metrics"], sum(groups.values()))
            results.append({
                "TimePeriod": {"Start": start.isoformat(), "End": end.isoformat()},
                "Total": total, "Groups": costs if definitions else [], "Estimated": True,
            })  # fmt: skip
        return {"ResultsByTime": results, "GroupDefinitions": definitions, "DimensionValueAttributes": []}

    def _key(self, line: tuple[str, str, str, float], definition: Json) -> str:
        if definition["Type"] == "TAG":
            return f"{definition['Key']}${line[1] if definition['Key'] == self.TAG else ''}"
        return self._dimension(line, definition["Key"])

    def _dimension(self, line: tuple[str, str, str, float], name: str) -> str:
        known = {"SERVICE": line[0], "USAGE_TYPE": line[2], "LINKED_ACCOUNT": ACCOUNT, "REGION": REGION}
        if name not in known:
            raise FakeRefusal("ValidationException", f"the fake has no dimension {name}")
        return known[name]

    def _wanted(self, line: tuple[str, str, str, float], condition: Json | None) -> bool:
        """An Expression, https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_Expression.html"""
        if condition is None:
            return True
        if "And" in condition:
            return all(self._wanted(line, each) for each in condition["And"])
        if "Or" in condition:
            return any(self._wanted(line, each) for each in condition["Or"])
        if "Not" in condition:
            return not self._wanted(line, condition["Not"])
        if "Dimensions" in condition:
            return self._dimension(line, condition["Dimensions"]["Key"]) in condition["Dimensions"]["Values"]
        tag = condition["Tags"]
        value = line[1] if tag["Key"] == self.TAG else ""
        return not value if "ABSENT" in tag.get("MatchOptions", []) else value in tag.get("Values", [])


class FakeParameters:
    """Systems Manager's public parameters that name images; ``images`` gives parameter and AMI id."""

    def __init__(self, images: Callable[[], Mapping[str, str]]) -> None:
        self._images = images

    def get_parameter(self, request: Json) -> Json | None:
        """GetParameter."""
        images = self._images()
        return {"Parameter": _parameter(request["Name"], images)} if request["Name"] in images else None

    def get_parameters(self, request: Json) -> Json | None:
        """GetParameters."""
        images, names = self._images(), request["Names"]
        if not any(name in images for name in names):
            return None
        known = [_parameter(name, images) for name in names if name in images]
        return {"Parameters": known, "InvalidParameters": [name for name in names if name not in images]}

    def get_parameters_by_path(self, request: Json) -> Json | None:
        """GetParametersByPath."""
        images, path = self._images(), request["Path"].rstrip("/") + "/"
        below = [name for name in images if name.startswith(path)]
        if not below:
            return None
        if not request.get("Recursive"):
            below = [name for name in below if "/" not in name.removeprefix(path)]
        start, size = int(request.get("NextToken", 0)), int(request.get("MaxResults", 10))
        page = [_parameter(name, images) for name in below[start : start + size]]
        return {"Parameters": page} | ({"NextToken": str(start + size)} if start + size < len(below) else {})


def fakes(controls: Controls, images: Callable[[], Mapping[str, str]]) -> Mapping[tuple[str, str], Action]:
    """What answers an action of a service (by its signing name); an answer of None is left to moto."""
    quotas, free_tier, costs = FakeQuotas(controls), FakeFreeTier(controls), FakeCostExplorer(controls)
    parameters = FakeParameters(images)
    return {
        ("servicequotas", "GetServiceQuota"): quotas.get_service_quota,
        ("pricing", "GetProducts"): FakePriceList().get_products,
        ("freetier", "GetAccountPlanState"): free_tier.get_account_plan_state,
        ("ce", "GetCostAndUsage"): costs.get_cost_and_usage,
        ("ssm", "GetParameter"): parameters.get_parameter,
        ("ssm", "GetParameters"): parameters.get_parameters,
        ("ssm", "GetParametersByPath"): parameters.get_parameters_by_path,
    }


def _parameter(name: str, images: Mapping[str, str]) -> Json:
    arn = f"arn:aws:ssm:{REGION}::parameter{name}"
    kind = {"Type": "String", "DataType": "aws:ec2:image", "Version": 1}
    return {"Name": name, "Value": images[name], "ARN": arn, **kind, "LastModifiedDate": 1767225600.0}


def _attributes(product: Json) -> Json:
    """What GetProducts can filter by."""
    described = product["product"]
    return {**described["attributes"], "productFamily": described["productFamily"], "sku": described["sku"]}


def _product(name: str, row: Mapping[str, str]) -> Json:
    """One item of the price list, in the shape of AWS's own (the SKU is made up)."""
    sku = re.sub(r"[^A-Z0-9]", "", name.upper()).rjust(16, "0")[:16]
    term, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    price, published = f"{float(row['usd_per_hour']):.10f}", f"{price_list.as_of()}T00:00:00Z"
    attributes = {
        "servicecode": "AmazonEC2", "servicename": "Amazon Elastic Compute Cloud",
        "location": "US East (N. Virginia)", "locationType": "AWS Region", "regionCode": REGION,
        "instanceType": name, "currentGeneration": "Yes" if row["current"] == "1" else "No",
        "vcpu": str(int(row["cores"]) * int(row["threads_per_core"])),
        "memory": f"{int(row['memory_mib']) / 1024:g} GiB", "tenancy": "Shared", "operatingSystem": "Linux",
        "licenseModel": "No License required", "preInstalledSw": "NA", "capacitystatus": "Used",
        "usagetype": f"BoxUsage:{name}", "operation": "RunInstances", "marketoption": "OnDemand",
    }  # fmt: skip
    dimension = {
        "unit": "Hrs", "beginRange": "0", "endRange": "Inf", "rateCode": rate, "appliesTo": [],
        "description": f"${row['usd_per_hour']} per On Demand Linux {name} Instance Hour",
        "pricePerUnit": {"USD": price},
    }  # fmt: skip
    offer = {
        "sku": sku, "offerTermCode": "JRTCKXETXF", "effectiveDate": published, "termAttributes": {},
        "priceDimensions": {rate: dimension},
    }  # fmt: skip
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2", "terms": {"OnDemand": {term: offer}},
        "version": price_list.as_of().replace("-", ""), "publicationDate": published,
    }  # fmt: skip


def _periods(start: str, end: str, *, monthly: bool) -> Iterable[tuple[date, date]]:
    """The days, or months cut at both ends, from the first day to the one before the last."""
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    while first < last:
        step = timedelta(days=32 - first.day if monthly else 1)
        following = (first + step).replace(day=1) if monthly else first + step
        yield first, min(following, last)
        first = following


def _metrics(names: Iterable[str], usd: float) -> Json:
    return {name: {"Amount": f"{usd:.10f}", "Unit": "USD"} for name in names}
