"""Buying instances: zones, markets, quotas, placement groups, lost answers; on records without containers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cloud_client import Cloud

from ppe_jupyter import ssh
from ppe_jupyter.cloud.ec2.shapes import InstanceRequest
from ppe_jupyter.cloud.facts import Instance, Subnet
from ppe_jupyter.cloud.launching.purchase import Purchased, purchase
from ppe_jupyter.cloud.pace import Pace
from ppe_jupyter.errors import CapacityError, CloudError, CredentialsError
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.localcloud.hooks import Fault

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings

TAGS = {"ppe:cluster": "bought", "ppe:owner": "test"}
ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]


class Shop:
    """Purchases of one test, in a group of their own."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.context = cloud.context()
        self.said: list[str] = []
        self.groups = 0
        ec2 = self.context.ec2
        self.subnets = [each for each in ec2.subnets() if each.zone in ZONES]
        self.subnets.sort(key=lambda each: each.zone)
        ec2.import_key_pair("bought", ssh.generate_key_pair().public, tags=TAGS)
        image = next(each for each in ec2.own_images() if each.node)
        self.master = InstanceRequest(
            count=1,
            instance_type="m5.xlarge",
            image=image,
            group_id=ec2.create_security_group("ppe-bought", vpc_id=self.subnets[0].vpc_id, tags=TAGS),
            key_name="bought",
            user_data=b"#cloud-config\n{}",
            root_gb=30,
            instance_tags=TAGS,
            other_tags=TAGS,
        )
        self.workers = replace(self.master, count=3, spot=True)

    def buy(self, *offers: list[InstanceRequest], subnets: list[Subnet] | None = None) -> Purchased:
        return purchase(
            self.context,
            offers or [[self.master]],
            subnets or self.subnets,
            token=uuid.uuid4().hex,
            pace=Pace(),
            say=self.said.append,
            regroup=self.regroup,
        )

    def regroup(self) -> str:
        self.groups += 1
        self.context.ec2.create_placement_group(f"bought-{self.groups}", tags=TAGS)
        return f"bought-{self.groups}"

    def alive(self) -> list[Instance]:
        return [each for each in self.context.ec2.instances(cluster="bought") if each.state.alive]

    def launched(self) -> int:
        return hooks.calls(self.cloud.endpoint).count("RunInstances")


@pytest.fixture
def shop(local_cloud: Endpoint, settings: Settings) -> Iterator[Shop]:
    cloud = Cloud(local_cloud, settings)
    with cloud.unchanged():
        hooks.reset(local_cloud)
        hooks.set_containerless(local_cloud, True)
        yield Shop(cloud)
        hooks.clear_faults(local_cloud)
        cloud.terminate("bought")
        cloud.ec2().delete_key_pair("bought")
        hooks.set_containerless(local_cloud, False)


def test_the_first_zone_that_has_them_is_taken_and_each_try_is_told(shop: Shop) -> None:
    hooks.set_capacity(shop.cloud.endpoint, zone="us-east-1a", available=False)
    bought = shop.buy()
    assert (bought.subnet.zone, len(bought.instances)) == ("us-east-1b", 1)
    assert [(zone, what) for zone, what, _ in bought.tried] == [("us-east-1a", "1 × m5.xlarge")]
    assert shop.said[0] == "1 × m5.xlarge in us-east-1a"
    assert "us-east-1a has no 1 × m5.xlarge" in shop.said[1]
    assert shop.launched() == 2  # 500 is the status of that refusal: not asked again and again


def test_the_zones_that_the_refusal_names_come_first(shop: Shop) -> None:
    message = (
        "We currently do not have sufficient m5.xlarge capacity in the Availability Zone you requested (us-east-1a). "
        "Our system will be working on provisioning additional capacity. You can currently get m5.xlarge capacity by "
        "not specifying an Availability Zone in your request or choosing us-east-1f, us-east-1c."
    )
    fault = Fault("RunInstances", code="InsufficientInstanceCapacity", message=message, status=500)
    hooks.inject(shop.cloud.endpoint, fault)
    assert shop.buy().subnet.zone == "us-east-1c"


@pytest.mark.parametrize(
    "code",
    [
        "InsufficientHostCapacity",
        "SpotMaxPriceTooLow",
        "Unsupported",
        "InsufficientFreeAddressesInSubnet",
    ],
)
def test_these_refusals_are_a_zones_own(shop: Shop, code: str) -> None:
    hooks.inject(shop.cloud.endpoint, Fault("RunInstances", code=code, message="not here"))
    assert shop.buy().subnet.zone == "us-east-1b"


@pytest.mark.parametrize("code", ["VcpuLimitExceeded", "MaxSpotInstanceCountExceeded"])
def test_a_quota_is_the_regions_so_no_other_zone_is_asked(shop: Shop, code: str) -> None:
    hooks.inject(shop.cloud.endpoint, Fault("RunInstances", code=code, message="too many", times=9))
    with pytest.raises(CapacityError, match="Service Quotas") as caught:
        shop.buy()
    assert (caught.value.code, shop.launched()) == (code, 1)


def test_what_was_tried_is_in_the_error(shop: Shop) -> None:
    hooks.set_capacity(shop.cloud.endpoint, zone=None, available=False)
    with pytest.raises(CapacityError, match=r"no zone has 1 × m5\.xlarge now") as caught:
        shop.buy()
    assert [zone for zone, _, _ in caught.value.tried] == ZONES
    assert all(f"\n  {zone}: 1 × m5.xlarge: " in str(caught.value) for zone in ZONES)
    assert shop.alive() == []


def test_spot_workers_and_master_are_had_together_or_not_at_all(shop: Shop) -> None:
    """The master's zone lacks spot ones, the next zone lacks the master: the third has both, in a group of its own."""
    hooks.set_capacity(shop.cloud.endpoint, zone="us-east-1a", available=False, market="spot")
    hooks.set_capacity(shop.cloud.endpoint, zone="us-east-1b", available=False, market="on-demand")
    group = shop.regroup()
    wanted = [replace(each, placement_group=group) for each in (shop.master, shop.workers)]
    bought = shop.buy(wanted)
    assert bought.subnet.zone == "us-east-1c"
    assert sorted(each.spot for each in bought.instances) == [False, True, True, True]
    assert {each.instance_id for each in shop.alive()} == {each.instance_id for each in bought.instances}
    # Of us-east-1b's the spot ones were had, so the group they were in belongs to that zone.
    assert {each.placement_group for each in shop.alive()} == {"bought-2"}


def test_on_demand_is_the_way_back_only_if_it_is_offered(shop: Shop) -> None:
    hooks.set_capacity(
        shop.cloud.endpoint,
        zone=None,
        available=False,
        market="spot",
        code="MaxSpotInstanceCountExceeded",
    )
    with pytest.raises(CapacityError):
        shop.buy([shop.master, shop.workers])
    assert shop.alive() == []
    bought = shop.buy([shop.master, shop.workers], [shop.master, replace(shop.workers, spot=False)])
    assert (bought.offer, len(bought.instances), bought.subnet.zone) == (1, 4, "us-east-1a")
    assert not any(each.spot for each in bought.instances)


def test_a_price_below_the_market_is_refused_in_each_zone(shop: Shop) -> None:
    cheap = replace(shop.workers, spot_max_usd=0.002)
    with pytest.raises(CapacityError, match=r"SpotMaxPriceTooLow") as caught:
        shop.buy([cheap])
    assert len(caught.value.tried) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault("RunInstances", drop=True, after=True, times=7),
        Fault("RunInstances", code="RequestLimitExceeded", status=503, times=6),
        Fault("RunInstances", code="InternalError", status=500, after=True, times=6),
        Fault("RunInstances", code="InvalidGroup.NotFound", times=2),
    ],
    ids=["answers lost", "throttled", "faults of the server's", "group not yet known"],
)
@pytest.mark.slow
def test_passing_faults_are_absorbed_and_nothing_is_launched_twice(shop: Shop, fault: Fault) -> None:
    """More often than botocore itself repeats a call."""
    hooks.inject(shop.cloud.endpoint, fault)
    bought = shop.buy([shop.workers])
    assert len(shop.alive()) == 3
    assert {each.instance_id for each in shop.alive()} == {each.instance_id for each in bought.instances}


def test_another_refusal_is_the_users_and_ends_it(shop: Shop) -> None:
    hooks.inject(shop.cloud.endpoint, Fault("RunInstances", code="UnauthorizedOperation", status=403, skip=1))
    with pytest.raises(CredentialsError):
        shop.buy([shop.master, shop.workers])
    assert shop.alive() == []
    hooks.inject(shop.cloud.endpoint, Fault("RunInstances", code="InvalidParameterCombination"))
    with pytest.raises(CloudError, match="InvalidParameterCombination"):
        shop.buy()
    assert shop.launched() == 3


def test_addresses_are_given_and_withheld_against_the_subnets_default(shop: Shop) -> None:
    assert shop.subnets[0].public
    bought = shop.buy([shop.master, replace(shop.workers, public=False)])
    assert [bool(each.public_ip) for each in bought.instances if not each.spot] == [True]
    assert [bool(each.public_ip) for each in bought.instances if each.spot] == [False] * 3
    assert all(each.group_ids == (shop.master.group_id,) for each in bought.instances)
