"""plan_launch as tables: what is asked and known on the left, what is done and said on the right."""

import re
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.cloud import bill
from ppe_jupyter.cloud.facts import (
    AccountPlan,
    Caps,
    Facts,
    Image,
    PlacementGroup,
    Quota,
    Rule,
    SecurityGroup,
    Subnet,
    UserKey,
    Volume,
)
from ppe_jupyter.cloud.plan import Plan
from ppe_jupyter.cloud.planning.plan_launch import plan_launch
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, InstanceState, Node
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.cloud.steps import (
    AttachVolume,
    Configure,
    CreatePlacementGroup,
    CreateSecurityGroup,
    ImportKeyPair,
    RunInstances,
)
from ppe_jupyter.errors import SpecError

TODAY = datetime(2026, 1, 1, tzinfo=timezone.utc)
NODE_IMAGE = Image(
    image_id="ami-0123456789abcdef0",
    name="ppe-node-debian-12-x86_64-1234",
    architecture="x86_64",
    login_user="admin",
    node=True,
    root_device="/dev/xvda",
    root_gb=8,
)
STOCK = replace(NODE_IMAGE, node=False, name="debian-12-amd64-20260601")
SUBNETS = tuple(
    Subnet(
        subnet_id=f"subnet-0000000{zone}",
        vpc_id="vpc-1",
        zone=f"us-east-1{zone}",
        cidr=cidr,
        public=True,
        way_out="internet",
        free_addresses=4091,
    )
    for zone, cidr in [("b", "172.31.16.0/20"), ("a", "172.31.0.0/20"), ("c", "172.31.32.0/20")]
)
SPEC = ClusterSpec(nodes=3, instance_type="m5.xlarge")
SPOT = replace(SPEC, spot=True)
GROUP = SecurityGroup(
    group_id="sg-12345678",
    name="mine",
    vpc_id="vpc-1",
    rules=(
        Rule(protocol="tcp", first_port=22, last_port=22, sources=("203.0.113.0/24",)),
        Rule(protocol="-1", first_port=0, last_port=65535, sources=("sg-12345678",)),
    ),
)
WITH_GROUP = replace(SPEC, security_group="sg-12345678")
VOLUME = Volume(
    volume_id="vol-12345678",
    state="available",
    zone="us-east-1b",
    gb=100,
    kind="gp3",
    encrypted=True,
    created=TODAY,
    tags={},
)
WITH_VOLUME = replace(SPEC, volumes=("vol-12345678:/data",))
OUTSIDE = {"caller_cidr": "9.9.9.9/32"}  # on the internet
PRIVATE = {"caller_cidr": "172.31.5.5/32"}  # this client is inside the VPC


def facts(type_name: str = "m5.xlarge", **changes: Any) -> Facts:
    kind = catalog.instance_types().get(type_name)
    known = Facts(
        name="brisk-otter",
        owner="alice",
        idle_hours=2.0,
        instance_type=kind,
        zones=frozenset({"us-east-1a", "us-east-1b"}),
        subnets=SUBNETS,
        image=NODE_IMAGE,
        user_key=UserKey(name="ppe-alice-laptop-12345678", in_ec2=True, private_here=True),
        caller_cidr="203.0.113.7/32",
        usd_per_hour=kind.usd_per_hour if kind else None,
        prices="us-east-1, AWS price list as of 2026-08-01",
    )
    return replace(known, **changes)


def kind(**changes: Any) -> dict[str, Any]:
    """The fact that m5.xlarge is another one."""
    return {"instance_type": replace(catalog.instance_types()["m5.xlarge"], **changes)}


def elsewhere(**changes: Any) -> dict[str, Any]:
    """The fact that the subnets are other ones."""
    return {"subnets": tuple(replace(subnet, **changes) for subnet in SUBNETS)}


def kinds(made: Plan) -> list[type]:
    return [type(step) for step in made.steps]


def runs(made: Plan) -> list[RunInstances]:
    return [step for step in made.steps if isinstance(step, RunInstances)]


# -- steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance_type", "nodes", "placed", "cores"),
    [
        ("m5.xlarge", 3, True, 2),
        ("m5.xlarge", 1, False, 2),  # one node has nobody to be near to
        ("t3.xlarge", 3, False, 2),  # burstable types cannot (user guide, placement-groups)
        ("a1.large", 3, True, None),  # no ValidThreadsPerCore: CpuOptions must be left out
        ("c7a.2xlarge", 2, True, 8),
    ],
)
def test_steps_follow_from_the_type(instance_type: str, nodes: int, placed: bool, cores: int | None) -> None:
    image = replace(NODE_IMAGE, architecture="arm64") if instance_type.startswith("a1") else NODE_IMAGE
    made = plan_launch(
        ClusterSpec(nodes=nodes, instance_type=instance_type), facts(instance_type, image=image)
    )
    made.check()
    placement = [CreatePlacementGroup] if placed else []
    assert kinds(made) == [CreateSecurityGroup, *placement, RunInstances, Configure]
    assert [(run.cores, run.count, run.public) for run in runs(made)] == [(cores, nodes, True)]


def test_a_new_key_pair_is_imported_first() -> None:
    key = UserKey(name="ppe-a-b-12345678", in_ec2=False, private_here=True, public="ssh-ed25519 AAAA")
    made = plan_launch(SPEC, facts(user_key=key))
    assert made.steps[0] == ImportKeyPair(name="ppe-a-b-12345678", public="ssh-ed25519 AAAA")


def test_what_exists_is_not_created() -> None:
    group = PlacementGroup(name="near", strategy="cluster")
    made = plan_launch(replace(WITH_GROUP, placement="near"), facts(group=GROUP, placement_group=group))
    made.check()
    assert kinds(made) == [RunInstances, Configure]


def test_volumes_are_attached_last_and_choose_the_zone() -> None:
    made = plan_launch(WITH_VOLUME, facts(volumes={"vol-12345678": VOLUME}))
    made.check()
    assert made.steps[-1] == AttachVolume(volume_id="vol-12345678", mount="/data")
    assert [subnet.zone for subnet in runs(made)[0].subnets] == ["us-east-1b"]


def test_spot_workers_and_public_masters_are_requests_of_their_own() -> None:
    spec = replace(SPOT, spot_max_usd=0.15, spot_fallback=True)
    master, workers = runs(plan_launch(spec, facts(spot_usd={"us-east-1a": 0.07, "us-east-1b": 0.08})))
    assert (master.count, master.first_index, master.spot, master.price) == (1, 0, False, 0.192)
    assert (workers.count, workers.first_index, workers.spot, workers.price) == (2, 1, True, 0.08)
    assert (workers.spot_max_usd, workers.spot_fallback) == (0.15, True)

    master, workers = runs(plan_launch(replace(SPEC, public_addresses="master"), facts()))
    assert (master.count, master.public, workers.count, workers.public) == (1, True, 2, False)

    (all_of_them,) = runs(plan_launch(replace(SPEC, public_addresses="none"), facts(**PRIVATE)))
    assert (all_of_them.count, all_of_them.public) == (3, False)


@pytest.mark.parametrize(
    ("spec", "changes", "zones"),
    [
        (SPEC, {}, ["us-east-1a", "us-east-1b"]),  # not c: the type is not offered there
        (replace(SPEC, zone="us-east-1b"), {}, ["us-east-1b"]),
        (
            replace(SPEC, placement="near"),
            {
                "placement_group": PlacementGroup(
                    name="near", strategy="cluster", zones=frozenset({"us-east-1b"})
                )
            },
            ["us-east-1b"],
        ),
        (SPEC, {"subnets": (replace(SUBNETS[0], free_addresses=2), *SUBNETS[1:])}, ["us-east-1a"]),
    ],
)
def test_zones_to_try_in_order(spec: ClusterSpec, changes: dict[str, Any], zones: list[str]) -> None:
    assert [subnet.zone for subnet in runs(plan_launch(spec, facts(**changes)))[0].subnets] == zones


def test_what_is_left_open_is_filled_in() -> None:
    made = plan_launch(SPEC, facts())
    assert (made.slots, made.spec.idle_hours, made.spec.name) == (2, 2.0, "brisk-otter")
    assert plan_launch(replace(SPEC, slots=1, idle_hours=0, max_hours=1), facts()).spec.idle_hours == 0
    assert plan_launch(replace(SPEC, slots=1), facts()).slots == 1
    (run,) = runs(plan_launch(replace(SPEC, login_user="me"), facts()))
    assert run.image.login_user == "me"
    (run,) = runs(plan_launch(replace(SPEC, threads_per_core=2), facts()))
    assert run.cores is None


def test_planning_is_pure() -> None:
    assert plan_launch(SPEC, facts()) == plan_launch(SPEC, facts())


# -- money ----------------------------------------------------------------------------------------------------


def test_the_price_is_of_all_nodes_with_disks_and_addresses() -> None:
    one = catalog.usd_per_hour("m5.xlarge", root_gb=30)
    assert one is not None
    assert plan_launch(SPEC, facts()).usd_per_hour == pytest.approx(3 * one)
    private = plan_launch(SPEC, facts(**elsewhere(way_out="nat")))
    assert private.usd_per_hour == pytest.approx(3 * (one - 0.005))
    master = plan_launch(replace(SPEC, public_addresses="master"), facts())
    assert master.usd_per_hour == pytest.approx(3 * one - 2 * 0.005)
    disks = plan_launch(replace(SPEC, root_gb=100, root_type="gp2"), facts())
    assert disks.usd_per_hour == pytest.approx(3 * (0.192 + 100 * 0.10 / 730 + 0.005))


def test_an_images_surcharge_is_shown_and_charged_to_each_node() -> None:
    image = replace(NODE_IMAGE, surcharge=0.03)
    made = plan_launch(SPEC, facts(image=image))
    free = plan_launch(SPEC, facts())
    assert made.usd_per_hour == pytest.approx(free.usd_per_hour + 3 * 0.03)  # type: ignore[operator]
    assert runs(made)[0].price == pytest.approx(0.192 + 0.03)
    assert "the image's surcharge $0.090" in made.review()


@pytest.mark.parametrize(
    ("spec", "workers", "rise"),
    [
        (SPOT, 0.08, 0.192 - 0.08),  # to the on-demand price, EC2's own maximum
        (replace(SPOT, spot_max_usd=0.1), 0.08, 0.02),
        (replace(SPOT, spot_max_usd=0.1, spot_fallback=True), 0.08, 0.192 - 0.08),
        (replace(SPOT, spot_max_usd=9.0), 0.08, 0.192 - 0.08),
    ],
)
def test_what_spot_workers_cost_and_may_come_to_cost(spec: ClusterSpec, workers: float, rise: float) -> None:
    made = plan_launch(
        spec, facts(spot_usd={"us-east-1a": 0.07, "us-east-1b": 0.08, "us-east-1c": 0.01})
    ).bill
    assert made is not None
    assert made.instances == pytest.approx(0.192 + 2 * workers)
    assert made.rise == pytest.approx(2 * rise)
    assert f"up to ${made.most:.3f} an hour if the spot price rises" in list(made.rows())


def test_a_spot_price_that_is_unknown_is_counted_as_on_demand() -> None:
    made = plan_launch(SPOT, facts()).bill
    assert made is not None
    assert (made.instances, made.rise) == (pytest.approx(3 * 0.192), 0)
    assert made.prices.startswith(
        "spot price of workers unknown, so counted as on demand; on demand: us-east-1"
    )


RATE = 3 * (0.192 + 30 * 0.08 / 730 + 0.005)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            [
                "parked after 2 h without work",
                f"costs ${2 * RATE:.2f} at most from its last work until it is parked",
                "while it works there is no limit",
            ],
        ),
        (
            {"max_hours": 8},
            [
                "parked 8 h after its launch or last start",
                f"costs ${8 * RATE:.2f} at most until it is parked",
            ],
        ),
        ({"max_hours": 8, "budget_usd": 3}, ["parked when $3.00 are spent", "costs $3.00 at most"]),
        ({"budget_usd": 3}, ["$2.40 a month while it is parked: its master's disk"]),
        (
            {"max_hours": 8, "then": "terminate"},
            ["terminated 8 h after", "at most until it is terminated"],
        ),
        ({"idle_hours": 1.5}, ["parked after 90 min without work"]),
    ],
)
def test_the_review_says_what_the_limits_let_it_cost(changes: dict[str, Any], said: list[str]) -> None:
    made = plan_launch(replace(SPEC, **changes), facts())
    limits = "\n".join(text for what, text in made.rows() if what == "limit")
    for text in said:
        assert text in limits


def test_the_watchdog_counts_spot_workers_at_the_price_of_the_launch() -> None:
    made = plan_launch(replace(SPOT, budget_usd=3), facts(spot_usd={"us-east-1a": 0.07}))
    assert made.bill is not None
    assert f"costs ${3 * made.bill.most / made.bill.total:.2f} at most" in made.review()


def test_no_limit_at_all_is_warned_of() -> None:
    made = plan_launch(replace(SPEC, idle_hours=0), facts())
    assert "no limit is set" in dict(made.rows())["warning"]
    assert [text for what, text in made.rows() if what == "limit" and "not set up" not in text] == []


@pytest.mark.parametrize(
    ("changes", "image", "after"),
    [
        ({}, NODE_IMAGE, "30 min"),
        ({}, STOCK, "90 min"),
        ({"r_packages": ("lme4",)}, NODE_IMAGE, "90 min"),
        ({"bootstrap": "#!/bin/sh\n"}, NODE_IMAGE, "90 min"),
        ({"r_packages": ("lme4",)}, STOCK, "2.5 h"),
    ],
)
def test_what_a_client_that_dies_leaves_ends_by_itself(
    changes: dict[str, Any], image: Image, after: str
) -> None:
    said = plan_launch(replace(SPEC, **changes), facts(image=image)).review()
    assert (
        f"a node that is not set up {after} after its boot ends itself, even if this client is gone" in said
    )


def test_hours_are_said_as_people_do() -> None:
    said = {0.5: "30 min", 1: "1 h", 1.5: "90 min", 2.5: "2.5 h", 48: "48 h"}
    assert {number: bill.hours(number) for number in said} == said


def test_the_review_names_everything_that_will_exist() -> None:
    review = plan_launch(SPEC, facts()).review()
    for piece in [
        "brisk-otter: 3 nodes, 6 slots",
        "security group ppe-brisk-otter",
        "placement group",
        "3 × m5.xlarge in us-east-1a (or us-east-1b)",
        "an encrypted gp3 disk of 30 GB and a public address",
        "203.0.113.7/32",
        "$0.601 an hour, $14.42 a day on EC2",
        "instances $0.576, disks $0.010, public addresses $0.015 an hour",
        "on demand: us-east-1, AWS price list as of 2026-08-01",
    ]:
        assert piece in review


# -- problems ---------------------------------------------------------------------------------------------------

NO_NETWORK = {"group": GROUP, **elsewhere(vpc_id="vpc-2")}


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        # money
        (SPEC, {"caps": Caps(max_nodes=2)}, "max_nodes = 2"),
        (SPEC, {"caps": Caps(max_usd_per_hour=0.5)}, r"\$0.601 an hour is more than max_usd_per_hour = 0.5"),
        (
            SPOT,
            {"caps": Caps(max_usd_per_hour=0.5), "spot_usd": {"us-east-1a": 0.01}},
            "may rise: --spot-price",
        ),
        (replace(SPEC, budget_usd=5), {"usd_per_hour": None}, "budget cannot be watched"),
        # machines
        (SPEC, {"instance_type": None}, "no instance type 'm5.xlarge'.*like it: m5.*%ppe_types"),
        (SPEC, kind(encryption=False), "cannot have encrypted disks"),
        (SPEC, {"image": None}, "image for this type cannot be found"),
        (replace(SPEC, image="ami-12345678"), {"image": None}, "image ami-12345678 cannot be found"),
        (SPEC, {"image": replace(NODE_IMAGE, state="pending")}, "is pending"),
        (SPEC, {"image": replace(NODE_IMAGE, architecture="arm64")}, "is for arm64, m5.xlarge is x86_64"),
        (
            SPEC,
            {"image": replace(NODE_IMAGE, virtualization="paravirtual")},
            "is paravirtual, m5.xlarge is hvm",
        ),
        (
            SPEC,
            {"image": replace(NODE_IMAGE, boot_mode="uefi"), **kind(boot_modes=("legacy-bios",))},
            "boots by uefi, m5.xlarge by legacy-bios",
        ),
        (SPEC, {"image": replace(NODE_IMAGE, ena=False), **kind(ena="required")}, "enhanced networking"),
        (SPEC, {"image": replace(NODE_IMAGE, root_gb=50)}, "root disk of 50 GB"),
        (replace(SPEC, threads_per_core=1), kind(valid_threads=()), "cannot be told to run one thread"),
        (replace(SPEC, threads_per_core=2), kind(threads_per_core=1), "has one thread per core"),
        (replace(SPEC, placement="near"), {}, "no placement group 'near'"),
        (
            replace(SPEC, placement="near"),
            {"placement_group": PlacementGroup(name="near", strategy="cluster"), **kind(cluster=False)},
            "cannot be in the cluster placement group near",
        ),
        (
            replace(SPEC, nodes=8, placement="far"),
            {"placement_group": PlacementGroup(name="far", strategy="spread")},
            "at most 7 in a zone",
        ),
        (SPOT, kind(spot=False), "not to be had as a spot instance"),
        (
            replace(SPOT, spot_max_usd=0.05),
            {"spot_usd": {"us-east-1a": 0.07}},
            r"\$0.05 .* below the spot price",
        ),
        (SPEC, {"account_plan": AccountPlan(free=True)}, "free plan, which does not have m5.xlarge"),
        (
            SPEC,
            {"quotas": {"on-demand": Quota(name="Standard", limit=8, used=4)}},
            "12 vCPUs, 4 in use.*quota of 8",
        ),
        (
            SPOT,
            {"quotas": {"spot": Quota(name="Spot", limit=3, used=0)}},
            "8 vCPUs, 0 in use.*spot quota of 3",
        ),
        # volumes
        (WITH_VOLUME, {}, "no volume vol-12345678"),
        (
            WITH_VOLUME,
            {"volumes": {"vol-12345678": replace(VOLUME, state="in-use", instance_id="i-1")}},
            "is attached to i-1; detach it with: %ppe_detach_volume vol-12345678",
        ),
        (WITH_VOLUME, {"volumes": {"vol-12345678": replace(VOLUME, state="creating")}}, "is creating"),
        (
            replace(WITH_VOLUME, zone="us-east-1a"),
            {"volumes": {"vol-12345678": VOLUME}},
            "is in us-east-1b, not in us-east-1a",
        ),
        (
            WITH_VOLUME,
            {"volumes": {"vol-12345678": replace(VOLUME, zone="us-east-1c")}},
            "not to be had.*offered in us-east-1a, us-east-1b; vol-12345678 is in us-east-1c",
        ),
        (
            replace(SPEC, volumes=("vol-12345678", "vol-87654321")),
            {
                "volumes": {
                    "vol-12345678": VOLUME,
                    "vol-87654321": replace(VOLUME, volume_id="vol-87654321", zone="us-east-1a"),
                }
            },
            "in different zones",
        ),
        # network
        (SPEC, {"subnets": ()}, "no default VPC: name a --subnet"),
        (replace(SPEC, subnet="subnet-12345678"), {"subnets": ()}, "no subnet subnet-12345678"),
        (replace(SPEC, zone="us-east-1c"), {}, "not to be had in us-east-1c; it is offered in us-east-1a"),
        (SPEC, elsewhere(free_addresses=2), "no subnet has 3 free addresses: 2 at most"),
        (SPEC, {"caller_cidr": None, "caller_problem": "no answer"}, "address.*unknown: no answer"),
        (SPEC, {"proxy": "proxy_jump"}, "SSH comes from the jump host.*--from ADDRESS/32"),
        (replace(SPEC, public_addresses="none"), OUTSIDE, "nobody comes from 9.9.9.9/32: .*--from CIDR"),
        (SPEC, OUTSIDE | elsewhere(way_out="nat"), "nobody comes from 9.9.9.9/32: .*--from CIDR"),
        (SPEC, {"image": STOCK, **elsewhere(way_out="none")}, "no way out to fetch R and Open MPI"),
        (replace(SPEC, public_addresses="master"), {"image": STOCK}, "no way out"),
        (replace(SPEC, public_addresses="none", r_packages=("lme4",)), {}, "no way out to fetch packages"),
        (replace(SPEC, efs="fs-12345678"), {"local": True}, "the local cloud has no EFS: leave out --efs"),
        (WITH_GROUP, {}, "no security group sg-12345678"),
        (WITH_GROUP, NO_NETWORK, "security group sg-12345678 is of vpc-1"),
        (
            WITH_GROUP,
            {"group": GROUP, "caller_cidr": "198.51.100.7/32"},
            "does not let 198.51.100.7/32 reach",
        ),
        (WITH_GROUP, {"group": replace(GROUP, rules=GROUP.rules[:1])}, "without which MPI hangs"),
        # rights
        (
            SPEC,
            {"user_key": UserKey(name="k", in_ec2=True, private_here=False)},
            "private half.*'k'.*key_name k and.*key_file",
        ),
        (SPEC, {"user_key": UserKey(name="k", in_ec2=False, private_here=True)}, "EC2 has no key pair 'k'"),
        (replace(SPEC, instance_profile="mine"), {"instance_profile": False}, "no instance profile 'mine'"),
        (SPEC, {"denied": ("your credentials do not allow ec2:RunInstances (IAM)",)}, "ec2:RunInstances"),
        (replace(SPEC, apt_packages=("x" * 60,) * 30), {}, "does not fit the tags"),
    ],
)
def test_errors_forbid_the_launch(spec: ClusterSpec, changes: dict[str, Any], said: str) -> None:
    made = plan_launch(spec, facts(**changes))
    assert made.steps == ()
    with pytest.raises(SpecError, match=said):
        made.check()
    assert "error" in dict(made.rows())


def test_a_bootstrap_script_that_does_not_fit_the_user_data_is_an_error() -> None:
    incompressible = "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(8000))
    made = plan_launch(replace(SPEC, bootstrap=incompressible), facts())
    assert re.search(r"user data has \d+ bytes", made.errors[0])


def test_an_unknown_price_cannot_pass_a_cap() -> None:
    free = plan_launch(SPEC, facts(usd_per_hour=None))
    assert free.usd_per_hour is None
    assert not free.errors
    assert dict(free.rows())["price"] == "unknown"
    capped = plan_launch(SPEC, facts(usd_per_hour=None, caps=Caps(max_usd_per_hour=1.0)))
    assert "cannot be held against" in capped.errors[0]


@pytest.mark.parametrize(
    ("spec", "changes", "grade", "said"),
    [
        (SPEC, {"usd_per_hour": None}, "warning", "the price of m5.xlarge is unknown"),
        (replace(SPEC, budget_usd=0.3), {}, "warning", "the budget of $0.30 lasts 30 minutes"),
        (
            SPEC,
            {"unchecked": ("the quota of vCPUs (denied)",)},
            "info",
            "not checked: the quota of vCPUs (denied)",
        ),
        (replace(SPEC, slots=4), {}, "warning", "4 slots on 2 physical cores"),
        (SPEC, kind(burstable=True), "warning", "m5.xlarge is burstable"),
        (SPEC, kind(gpus=4), "info", "has GPUs"),
        (SPEC, kind(storage_gb=900), "info", "own disks (900 GB) are /scratch on each node"),
        (SPEC, kind(valid_threads=()), "info", "cannot be told to run one thread"),
        (SPEC, kind(cluster=False), "info", "cannot be in a cluster placement group"),
        (
            replace(SPEC, placement="far"),
            {"placement_group": PlacementGroup(name="far", strategy="spread")},
            "warning",
            "keeps nodes apart",
        ),
        (SPOT, {}, "warning", "that kills the MPI run"),
        (SPOT, {"spot_role": False}, "warning", "create-service-linked-role"),
        (
            replace(SPOT, spot_max_usd=0.05, spot_fallback=True),
            {"spot_usd": {"us-east-1a": 0.07}},
            "warning",
            "so workers will be on demand",
        ),
        (
            SPEC,
            {"account_plan": AccountPlan(free=True, credits_usd=87.5), **kind(free_tier=True)},
            "warning",
            "credits ($87.50 left) are used up",
        ),
        # 12 vCPUs are too many, 6 with one thread per core are not, and what counts is not documented.
        (SPEC, {"quotas": {"on-demand": Quota(name="Q", limit=8, used=0)}}, "warning", "12 vCPUs, 0 in use"),
        (SPEC, {"image": STOCK}, "info", "not a node yet"),
        (SPEC, {"image": replace(STOCK, name="al2023-ami")}, "warning", "neither Debian nor Ubuntu"),
        (
            SPEC,
            PRIVATE | {"image": STOCK, **elsewhere(way_out="nat")},
            "info",
            "your NAT gateway, at $0.045 a GB",
        ),
        (
            replace(SPEC, public_addresses="none"),
            {"image": STOCK, **PRIVATE, **elsewhere(way_out="")},
            "warning",
            "way out",
        ),
        (
            replace(SPEC, public_addresses="none"),
            OUTSIDE | {"caller_given": True},
            "warning",
            "where nobody comes from 9.9.9.9/32",
        ),
        (SPEC, {"proxy": "proxy_command"}, "warning", "AWS Session Manager comes from the node itself"),
        (SPEC, PRIVATE | elsewhere(way_out="nat"), "info", "leads to no internet gateway"),
        (
            replace(SPEC, public_addresses="master", r_packages=("lme4",)),
            {},
            "info",
            "through a proxy on the master",
        ),
        (replace(SPEC, efs="fs-12345678"), {}, "info", "lets them reach its port 2049"),
        (SPEC, {"caller_cidr": "0.0.0.0/0"}, "warning", "port 22 will be open to 0.0.0.0/0"),
        (SPEC, {"caller_cidr": "203.0.113.0/28"}, "info", "16 addresses; your own is enough"),
        (
            WITH_GROUP,
            {"group": GROUP, "caller_cidr": "198.51.100.7/32", "proxy": "proxy_jump"},
            "warning",
            "does not let 198.51.100.7/32",
        ),
        (
            WITH_GROUP,
            {
                "group": replace(
                    GROUP,
                    rules=(
                        GROUP.rules[1],
                        Rule(protocol="tcp", first_port=0, last_port=100, sources=("0.0.0.0/0",)),
                    ),
                )
            },
            "warning",
            "opens port 22 to the whole internet",
        ),
    ],
)
def test_other_problems_are_said_only(
    spec: ClusterSpec, changes: dict[str, Any], grade: str, said: str
) -> None:
    made = plan_launch(spec, facts(**changes))
    made.check()
    assert [problem.grade for problem in made.problems if said in problem.text] == [grade]
    assert (grade, next(p.text for p in made.problems if said in p.text)) in made.rows()


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (SPEC, {}),
        (replace(SPEC, public_addresses="none"), {"proxy": "proxy_jump", "caller_given": True}),
        (replace(SPEC, public_addresses="none"), PRIVATE),
        (WITH_GROUP, {"group": GROUP}),
        (WITH_VOLUME, {"volumes": {"vol-12345678": VOLUME}}),
        (SPEC, {"quotas": {"on-demand": Quota(name="Q", limit=12, used=0)}, "spot_role": False}),
        (SPEC, {"account_plan": AccountPlan(free=False)}),
        (replace(SPEC, instance_profile="mine"), {"instance_profile": None}),  # not known is not refused
    ],
)
def test_nothing_is_said_of_what_is_well(spec: ClusterSpec, changes: dict[str, Any]) -> None:
    assert plan_launch(spec, facts(**changes)).problems == ()


# -- what exists ------------------------------------------------------------------------------------------------


def existing(state: ClusterState, spec: ClusterSpec | None, *, configured: bool = True) -> ClusterRecord:
    node = Node(
        instance_id="i-1",
        index=0,
        role="master",
        state=InstanceState.RUNNING,
        private_ip="10.0.0.1",
        private_dns="ip-10-0-0-1.ec2.internal",
        public_ip="",
        public_dns="",
        instance_type="m5.xlarge",
        zone="us-east-1a",
        subnet_id="subnet-12345678",
        slots=2,
        launched=TODAY,
        host_key="",
        configured=configured,
    )
    return ClusterRecord(
        name="brisk-otter",
        state=state,
        nodes=(node,),
        usd_per_hour=0.6,
        launched=TODAY,
        owner="bob",
        slots=2,
        login_user="admin",
        key_name="k",
        spec=spec,
        busy_until=None,
        troubles=("node 2 is gone",),
    )


NAMED = replace(SPEC, name="brisk-otter")
HELD = plan_launch(NAMED, facts()).spec  # as the tags hold it


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        (NAMED, HELD),
        (NAMED, replace(HELD, idle_hours=9.0)),  # the settings have changed since
        (replace(NAMED, idle_hours=2.0), HELD),
        (NAMED, replace(HELD, zone="us-east-1b", slots=1, image="debian-12")),  # any would have been right
        (replace(NAMED, r_packages=("lme4",)), replace(HELD, r_packages=("lme4", "snow"))),  # installed later
    ],
)
def test_the_same_cluster_running_is_nothing_to_do(asked: ClusterSpec, held: ClusterSpec) -> None:
    made = plan_launch(asked, facts(existing=existing(ClusterState.RUNNING, held)))
    made.check()
    assert (made.steps, made.spec, made.slots) == ((), held, 2)
    assert made.review() == "cluster  brisk-otter is running already: nothing to launch"


def test_rstudio_is_no_difference_and_still_wanted() -> None:
    for asked, held in ((replace(NAMED, rstudio=True), HELD), (NAMED, replace(HELD, rstudio=True))):
        made = plan_launch(asked, facts(existing=existing(ClusterState.RUNNING, held)))
        made.check()
        assert made.spec == replace(held, rstudio=asked.rstudio)


@pytest.mark.parametrize(
    ("asked", "held", "said"),
    [
        (
            NAMED,
            replace(HELD, nodes=2),
            "another specification .nodes: 2, not 3.*%ppe_resize brisk-otter --nodes 3",
        ),
        (replace(NAMED, max_hours=8), HELD, "max_hours: none, not 8.*%ppe_connect brisk-otter.*%ppe_limit"),
        (NAMED, replace(HELD, max_hours=8), "max_hours: 8, not none"),  # no limit was wanted
        (
            replace(NAMED, zone="us-east-1a"),
            replace(HELD, zone="us-east-1b"),
            "zone: us-east-1b, not us-east-1a",
        ),
        (replace(NAMED, idle_hours=1), HELD, "idle_hours: 2.0, not 1"),
        (replace(NAMED, apt_packages=("gsl",)), HELD, "apt_packages"),
    ],
)
def test_another_specification_is_refused_with_the_difference(
    asked: ClusterSpec, held: ClusterSpec, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        plan_launch(asked, facts(existing=existing(ClusterState.RUNNING, held))).check()


@pytest.mark.parametrize(
    ("state", "configured", "said"),
    [
        (ClusterState.PENDING, False, "being launched already, by bob"),
        (ClusterState.CONFIGURING, False, "launched already, by bob.*%ppe_retry brisk-otter --force"),
        (ClusterState.SHUTTING_DOWN, True, "still shutting down"),
        (ClusterState.PARKING, True, "is parking; wait"),
        (ClusterState.REBOOTING, True, "is rebooting; wait"),
        (ClusterState.PARKED, True, "start it with: %ppe_start brisk-otter"),
        (ClusterState.DEGRADED, True, "degraded .node 2 is gone.; mend it with: %ppe_retry brisk-otter"),
        (ClusterState.DEGRADED, False, "by bob ended half-way; finish it with: %ppe_retry brisk-otter"),
    ],
)
def test_a_cluster_that_does_not_run_says_how_it_would(
    state: ClusterState, configured: bool, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        plan_launch(NAMED, facts(existing=existing(state, HELD, configured=configured))).check()


def test_other_verbs_are_reviewed_too() -> None:
    made = Plan(
        verb="park",
        spec=HELD,
        name="brisk-otter",
        owner="alice",
        steps=(),
        usd_per_hour=0.003,
        problems=(),
        existing=existing(ClusterState.RUNNING, HELD),
        slots=2,
    )
    assert dict(made.rows())["price"] == "$0.003 an hour, $0.07 a day on EC2"
    assert "limit" not in dict(made.rows())
