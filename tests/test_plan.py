"""plan as tables: what is asked and known on the left, what is done and said on the right."""

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.cloud.facts import Caps, Facts, Image, Subnet, UserKey
from ppe_jupyter.cloud.plan import Plan, plan
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, InstanceState, Node
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.cloud.steps import (
    Configure,
    CreatePlacementGroup,
    CreateSecurityGroup,
    ImportKeyPair,
    RunInstances,
)
from ppe_jupyter.errors import SpecError

NODE_IMAGE = Image(
    image_id="ami-0123456789abcdef0",
    name="ppe-node-debian-12-x86_64-1234",
    architecture="x86_64",
    login_user="admin",
    node=True,
    root_device="/dev/xvda",
    root_gb=8,
)
SUBNETS = tuple(
    Subnet(subnet_id=f"subnet-0000000{zone}", vpc_id="vpc-1", zone=f"us-east-1{zone}", cidr=cidr, public=True)
    for zone, cidr in [("b", "172.31.16.0/20"), ("a", "172.31.0.0/20"), ("c", "172.31.32.0/20")]
)
SPEC = ClusterSpec(nodes=3, instance_type="m5.xlarge")


def facts(instance_type: str = "m5.xlarge", **changes: Any) -> Facts:
    known = Facts(
        name="brisk-otter",
        owner="alice",
        instance_type=catalog.instance_types().get(instance_type),
        zones=frozenset({"us-east-1a", "us-east-1b"}),
        subnets=SUBNETS,
        image=NODE_IMAGE,
        user_key=UserKey(name="ppe-alice-laptop-12345678", in_ec2=True, private_here=True),
        caller_cidr="203.0.113.7/32",
    )
    return replace(known, **changes)


def kinds(made: Plan) -> list[type]:
    return [type(step) for step in made.steps]


def run_step(made: Plan) -> RunInstances:
    return next(step for step in made.steps if isinstance(step, RunInstances))


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
    made = plan(ClusterSpec(nodes=nodes, instance_type=instance_type), facts(instance_type, image=image))
    made.check()
    placement = [CreatePlacementGroup] if placed else []
    assert kinds(made) == [CreateSecurityGroup, *placement, RunInstances, Configure]
    assert run_step(made).cores == cores
    assert run_step(made).count == nodes


def test_a_new_key_pair_is_imported_first() -> None:
    key = UserKey(name="ppe-a-b-12345678", in_ec2=False, private_here=True, public="ssh-ed25519 AAAA")
    made = plan(SPEC, facts(user_key=key))
    assert made.steps[0] == ImportKeyPair(name="ppe-a-b-12345678", public="ssh-ed25519 AAAA")


@pytest.mark.parametrize(
    ("spec", "zones"),
    [
        (SPEC, ["us-east-1a", "us-east-1b"]),  # not c: the type is not offered there
        (replace(SPEC, zone="us-east-1b"), ["us-east-1b"]),
    ],
)
def test_zones_to_try_in_order(spec: ClusterSpec, zones: list[str]) -> None:
    assert [subnet.zone for subnet in run_step(plan(spec, facts())).subnets] == zones


def test_slots_are_physical_cores_or_as_given() -> None:
    assert plan(SPEC, facts()).slots == 2
    assert plan(replace(SPEC, slots=1), facts()).slots == 1


def test_the_price_is_of_all_nodes_with_disks_and_addresses() -> None:
    one = catalog.usd_per_hour("m5.xlarge", root_gb=30)
    assert one is not None
    assert plan(SPEC, facts()).usd_per_hour == pytest.approx(3 * one)
    private = tuple(replace(subnet, public=False) for subnet in SUBNETS)
    assert plan(SPEC, facts(subnets=private)).usd_per_hour == pytest.approx(3 * (one - 0.005))


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        (SPEC, {"caps": Caps(max_nodes=2)}, "max_nodes = 2"),
        (SPEC, {"caps": Caps(max_usd_per_hour=0.5)}, r"\$0.601 an hour is more than max_usd_per_hour = 0.5"),
        (SPEC, {"instance_type": None}, "no instance type 'm5.xlarge'.*like it: m5"),
        (SPEC, {"image": None}, "image for this type cannot be found"),
        (replace(SPEC, image="ami-12345678"), {"image": None}, "image ami-12345678 cannot be found"),
        (SPEC, {"image": replace(NODE_IMAGE, architecture="arm64")}, "is for arm64, m5.xlarge is x86_64"),
        (SPEC, {"image": replace(NODE_IMAGE, root_gb=50)}, "root disk of 50 GB"),
        (SPEC, {"subnets": ()}, "no default VPC"),
        (replace(SPEC, subnet="subnet-12345678"), {"subnets": ()}, "no subnet subnet-12345678"),
        (replace(SPEC, zone="us-east-1c"), {}, "not to be had in us-east-1c; it is offered in us-east-1a"),
        (SPEC, {"caller_cidr": None, "caller_problem": "no answer"}, "address.*unknown: no answer"),
        (
            SPEC,
            {"user_key": UserKey(name="k", in_ec2=True, private_here=False)},
            "private half.*'k'.*key_file",
        ),
        (SPEC, {"user_key": UserKey(name="k", in_ec2=False, private_here=True)}, "EC2 has no key pair 'k'"),
    ],
)
def test_errors_forbid_the_launch(spec: ClusterSpec, changes: dict[str, Any], said: str) -> None:
    made = plan(spec, facts(**changes))
    assert made.steps == ()
    with pytest.raises(SpecError, match=said):
        made.check()
    assert "error" in dict(made.rows())


def test_an_unknown_price_cannot_pass_a_cap() -> None:
    kind = next(kind for kind in catalog.instance_types().values() if kind.usd_per_hour is None)
    spec = ClusterSpec(instance_type=kind.name)
    image = replace(NODE_IMAGE, architecture=kind.architectures[-1])
    free = plan(spec, facts(kind.name, image=image))
    assert free.usd_per_hour is None
    assert not free.errors
    capped = plan(spec, facts(kind.name, image=image, caps=Caps(max_usd_per_hour=1.0)))
    assert "cannot be held against" in capped.errors[0]


@pytest.mark.parametrize(
    ("spec", "changes", "grade", "said"),
    [
        (replace(SPEC, slots=4), {}, "warning", "4 slots on 2 physical cores"),
        (SPEC, {"caller_cidr": "0.0.0.0/0"}, "warning", "port 22 will be open to 0.0.0.0/0"),
        (SPEC, {"image": replace(NODE_IMAGE, node=False)}, "info", "not a node yet"),
        (
            SPEC,
            {
                "image": replace(NODE_IMAGE, node=False),
                "subnets": tuple(replace(subnet, public=False) for subnet in SUBNETS),
            },
            "warning",
            "NAT gateway",
        ),
    ],
)
def test_other_problems_are_said_only(
    spec: ClusterSpec, changes: dict[str, Any], grade: str, said: str
) -> None:
    made = plan(spec, facts(**changes))
    made.check()
    assert [problem.grade for problem in made.problems if said in problem.text] == [grade]


def existing(state: ClusterState, spec: ClusterSpec | None) -> ClusterRecord:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
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
        slots=2,
        launched=now,
        host_key="",
    )
    return ClusterRecord(
        name="brisk-otter",
        state=state,
        nodes=(node,),
        usd_per_hour=0.6,
        launched=now,
        owner="bob",
        slots=2,
        login_user="admin",
        key_name="k",
        spec=spec,
        launching_until=None,
    )


NAMED = replace(SPEC, name="brisk-otter")


def test_the_same_cluster_running_is_nothing_to_do() -> None:
    made = plan(NAMED, facts(existing=existing(ClusterState.RUNNING, NAMED)))
    made.check()
    assert made.steps == ()
    assert "running already" in made.review()


@pytest.mark.parametrize(
    ("state", "spec", "said"),
    [
        (ClusterState.RUNNING, replace(NAMED, nodes=2), "another specification .nodes: 2, not 3"),
        (ClusterState.PENDING, NAMED, "being launched already, by bob"),
        (ClusterState.CONFIGURING, NAMED, "being launched already, by bob"),
        (ClusterState.SHUTTING_DOWN, NAMED, "still shutting down"),
        (ClusterState.DEGRADED, NAMED, "%ppe_terminate brisk-otter"),
    ],
)
def test_a_name_in_use_is_refused(state: ClusterState, spec: ClusterSpec, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        plan(NAMED, facts(existing=existing(state, spec))).check()


def test_planning_is_pure() -> None:
    assert plan(SPEC, facts()) == plan(SPEC, facts())


def test_the_review_names_everything_that_will_exist() -> None:
    review = plan(SPEC, facts()).review()
    for piece in ["security group ppe-brisk-otter", "placement group", "3 × m5.xlarge", "203.0.113.7/32"]:
        assert piece in review
    assert "$0.601 an hour" in review
    assert catalog.prices_as_of() in review
