"""Prices: AWS's list through the local cloud's fake of it, how long it is kept, and what stands in for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.cloud.context import Context
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.ec2.prices import _priced
from ppe_jupyter.cloud.planning.prices import Prices, cheapest, shipped
from ppe_jupyter.localcloud import Endpoint, hooks
from ppe_jupyter.localcloud.hooks import Fault
from ppe_jupyter.settings import Settings

TODAY = datetime(2026, 8, 1, 12, tzinfo=timezone.utc)
Ask = Callable[..., Prices]


@pytest.fixture
def cloud(local_cloud: Endpoint) -> Iterator[Endpoint]:
    hooks.reset(local_cloud)
    yield local_cloud
    hooks.reset(local_cloud)


@pytest.fixture
def ask(cloud: Endpoint, settings: Settings, tmp_path: Path) -> Ask:
    def prices(*, days: int = 0, **chosen: object) -> Prices:
        mine = replace(settings, state_dir=tmp_path, **chosen)  # type: ignore[arg-type]
        keys = {"access_key": cloud.access_key, "secret_key": cloud.secret_key}
        ec2 = EC2(mine, endpoint_url=cloud.url, region=cloud.region, **keys)
        now = TODAY + timedelta(days=days)
        return Prices(Context(ec2=ec2, settings=mine, caller_address=str, now=lambda: now))

    return prices


def test_a_price_is_asked_for_once_a_week(ask: Ask, cloud: Endpoint) -> None:
    found = ask().on_demand("m5.xlarge")
    assert found.usd_per_hour["m5.xlarge"] == 0.192
    assert found.source == "us-east-1, AWS price list as of 2026-08-01"
    assert ask(days=6).on_demand("m5.xlarge") == found
    assert hooks.calls(cloud) == ["GetProducts"]
    assert ask(days=7).on_demand("m5.xlarge").source.endswith("2026-08-08")
    assert len(hooks.calls(cloud)) == 2


def test_a_type_that_is_not_sold_is_asked_for_once_too(ask: Ask, cloud: Endpoint) -> None:
    assert "x9.huge" not in ask().on_demand("x9.huge").usd_per_hour
    assert "x9.huge" not in ask().on_demand("x9.huge").usd_per_hour
    assert hooks.calls(cloud) == ["GetProducts"]


def test_all_prices_serve_for_each(ask: Ask, cloud: Endpoint) -> None:
    every = ask().on_demand().usd_per_hour
    priced = {each.name: each.usd_per_hour for each in catalog.instance_types().values() if each.usd_per_hour}
    assert every == priced
    pages = len(hooks.calls(cloud))
    assert pages == -(-len(priced) // 100), "a hundred on a page, as many as there may be"
    assert ask().on_demand("m5.xlarge").usd_per_hour["m5.xlarge"] == 0.192
    assert "x9.huge" not in ask().on_demand("x9.huge").usd_per_hour
    assert len(hooks.calls(cloud)) == pages


def test_each_cloud_has_prices_of_its_own(ask: Ask, cloud: Endpoint) -> None:
    ask().on_demand("m5.xlarge")
    ask(cloud="aws").on_demand("m5.xlarge")
    assert hooks.calls(cloud) == ["GetProducts"] * 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GetProducts", code="AccessDeniedException"),
        Fault("GetProducts", code="InternalErrorException", status=500, times=9),
        Fault("GetProducts", drop=True, times=9),
    ],
    ids=["refused", "broken", "cut"],
)
def test_the_shipped_prices_stand_in_and_are_not_kept(ask: Ask, cloud: Endpoint, fault: Fault) -> None:
    hooks.inject(cloud, fault)
    found = ask(retries=1).on_demand("m5.xlarge")
    assert found == shipped("us-east-1")
    assert found.source == f"shipped catalog, us-east-1 prices of {catalog.prices_as_of()}"
    hooks.clear_faults(cloud)
    assert "AWS price list" in ask().on_demand("m5.xlarge").source


def test_another_region_is_told_that_prices_differ() -> None:
    assert shipped("eu-central-1").source.endswith(", which in eu-central-1 differ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"m5.xlarge": 1}', '{"m5.xlarge": ["yesterday"]}', "\x00"])
def test_a_damaged_file_is_as_none(ask: Ask, tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices" / "local-us-east-1.json"
    file.parent.mkdir()
    file.write_text(text)
    assert ask().on_demand("m5.xlarge").usd_per_hour["m5.xlarge"] == 0.192
    assert json.loads(file.read_text())["m5.xlarge"] == ["2026-08-01", 0.192]


def test_a_file_that_cannot_be_written_is_no_error(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "prices").write_text("in the way")
    assert ask().on_demand("m5.xlarge").usd_per_hour["m5.xlarge"] == 0.192


def test_spot_prices_are_of_now_by_zone(ask: Ask, cloud: Endpoint, settings: Settings) -> None:
    keys = {"access_key": cloud.access_key, "secret_key": cloud.secret_key}
    found = EC2(settings, endpoint_url=cloud.url, region=cloud.region, **keys).spot_prices(["m5.xlarge"])
    zones = found["m5.xlarge"]
    assert list(found) == ["m5.xlarge"]
    assert zones["us-east-1a"] == pytest.approx(0.0672)
    assert zones["us-east-1b"] > zones["us-east-1a"]
    assert cheapest(found, ["m5.xlarge", "x9.huge"]) == {"m5.xlarge": pytest.approx(0.0672)}


def test_only_what_is_sold_by_the_hour_has_a_price() -> None:
    """The shape of https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/reading-an-offer.html."""

    def product(unit: str, usd: str) -> dict[str, object]:
        dimension = {"unit": unit, "pricePerUnit": {"USD": usd}}
        return {
            "product": {"attributes": {"instanceType": "m5.xlarge"}},
            "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}},
        }

    assert list(_priced(product("Hrs", "0.1920000000"))) == [("m5.xlarge", 0.192)]
    assert (
        list(_priced(product("Hrs", "0.0000000000"))) == []
    )  # paid for otherwise: reserved, a dedicated host
    assert list(_priced(product("Quantity", "100"))) == []
    assert list(_priced({"product": {}, "terms": {"Reserved": {}}})) == []
