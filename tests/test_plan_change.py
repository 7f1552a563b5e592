"""plan_change as tables: a cluster, a verb and what is known on the left, what is done and said on the right."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.cloud.facts import Caps, Image, Subnet
from ppe_jupyter.cloud.plan import Plan
from ppe_jupyter.cloud.planning.draft import ChangeFacts, ranges, renumbered
from ppe_jupyter.cloud.planning.plan_change import plan_change
from ppe_jupyter.cloud.records import (
    ClusterRecord,
    Cost,
    InstanceState,
    Node,
    cluster_state,
    troubles,
    usd_per_hour,
)
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.cloud.steps import RunInstances
from ppe_jupyter.errors import UsageError

NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
R, P, T, S = (
    InstanceState.RUNNING,
    InstanceState.PENDING,
    InstanceState.TERMINATED,
    InstanceState.STOPPED,
)
SPEC = ClusterSpec(name="brisk-otter", nodes=3, instance_type="m5.xlarge")
RSTUDIO = replace(SPEC, rstudio=True)
SPOT = replace(SPEC, spot=True, spot_fallback=True)
SUBNET = Subnet(subnet_id="subnet-1", vpc_id="vpc-1", zone="us-east-1a", cidr="172.31.0.0/20", public=True)
IMAGE = Image(
    image_id="ami-0123456789abcdef0",
    name="node",
    architecture="x86_64",
    login_user="admin",
    node=True,
    root_device="/dev/xvda",
    root_gb=8,
)
FACTS = ChangeFacts(now=NOW, subnet=SUBNET, image=IMAGE, instance_type=catalog.instance_types()["m5.xlarge"])


def node(index: int, state: InstanceState = R, **changes: Any) -> Node:
    made = Node(
        instance_id=f"i-{index}",
        index=index,
        role="worker" if index else "master",
        state=state,
        private_ip=f"10.0.0.{index}",
        private_dns=f"ip-10-0-0-{index}.ec2.internal",
        public_ip="" if state is S else f"203.0.113.{index}",
        public_dns="",
        instance_type="m5.xlarge",
        zone="us-east-1a",
        subnet_id="subnet-1",
        slots=2,
        launched=NOW,
        host_key="ssh-ed25519 OWN",
        price=0.192,
        configured=True,
        was_configured=True,
    )
    return replace(made, **changes)


def cluster(
    *nodes: Node, spec: ClusterSpec | None = SPEC, tag: str = "running", **changes: Any
) -> ClusterRecord:
    nodes = nodes or (node(0), node(1), node(2))
    expected = spec.nodes if spec else len(nodes)
    record = ClusterRecord(
        name="brisk-otter",
        state=cluster_state(nodes, tagged=[tag], expected=expected, busy=False),
        nodes=nodes,
        usd_per_hour=usd_per_hour(nodes, root_gb=30, root_type="gp3"),
        launched=NOW,
        owner="alice@laptop arn:aws:iam::123456789012:user/alice",
        slots=6,
        login_user="admin",
        key_name="k",
        spec=spec,
        busy_until=None,
        cost=Cost(spent_usd=1.0, usd_per_hour=0.6, since=NOW),
        troubles=troubles(nodes, expected=expected),
    )
    return replace(record, **changes)


PARKED = cluster(node(0, S, stopped=NOW))


def steps(plan: Plan) -> list[str]:
    """The plan's steps in short."""
    return [_short(step) for step in plan.steps]


def _short(step: Any) -> str:
    ids = getattr(step, "instance_ids", None) or [getattr(step, "instance_id", "")]
    if isinstance(step, RunInstances):
        ids = [f"{step.count}@{step.first_index}{'s' * step.spot}"]
    elif type(step).__name__ == "Configure":
        ids = [str(step.nodes)]
    return " ".join([type(step).__name__.removesuffix("Instances").lower(), *filter(None, ids)])


def said(plan: Plan, grade: str) -> str:
    return "; ".join(problem.text for problem in plan.problems if problem.grade.value == grade)


@pytest.mark.parametrize(
    ("record", "verb", "options", "expected"),
    [
        (cluster(), "reboot", {}, ["saveworkspace", "reboot i-0 i-1 i-2", "configure 3"]),
        (cluster(), "reboot", {"node": 2}, ["reboot i-2", "configure 3"]),
        (cluster(), "reboot", {"node": "ip-10-0-0-1"}, ["reboot i-1", "configure 3"]),
        (cluster(node(0), node(1)), "reboot", {}, ["saveworkspace", "reboot i-0 i-1", "configure 2"]),
        (cluster(), "park", {}, ["saveworkspace", "terminate i-1 i-2", "stop i-0"]),
        # A client died while it parked: what it had done is not repeated.
        (cluster(node(0), node(1, T), node(2, T)), "park", {}, ["saveworkspace", "stop i-0"]),
        (PARKED, "start", {}, ["start i-0", "run 2@1", "configure 3"]),
        (PARKED, "start", {"nodes": 1}, ["start i-0", "configure 1"]),
        (replace(PARKED, spec=SPOT), "start", {}, ["start i-0", "run 2@1s", "configure 3"]),
        # The master was stopped by hand while the workers ran on.
        (cluster(node(0, S), node(2)), "start", {}, ["start i-0", "run 1@1", "configure 3"]),
        (cluster(), "resize", {"nodes": 5}, ["run 2@3", "configure 5"]),
        (cluster(), "resize", {"nodes": 1}, ["configure 1", "terminate i-1 i-2"]),
        (cluster(spec=SPOT), "resize", {"nodes": 4}, ["run 1@3s", "configure 4"]),
        (cluster(), "terminate", {}, ["terminate i-0 i-1 i-2"]),
    ],
)
def test_steps(record: ClusterRecord, verb: str, options: dict[str, Any], expected: list[str]) -> None:
    plan = plan_change(record, verb, FACTS, **options)
    assert not plan.errors
    assert steps(plan) == expected


LOST_WORKER = cluster(node(0), node(1, T, reason="Server.SpotInstanceTermination"), node(2))
LOST_MASTER = cluster(node(0, T), node(1), node(2))
HALF_WAY = cluster(
    *(node(index, configured=False, was_configured=False) for index in range(3)), tag="pending"
)


@pytest.mark.parametrize(
    ("record", "choice", "facts", "expected"),
    [
        (LOST_WORKER, "wait", FACTS, ["configure 2"]),
        (LOST_WORKER, "replace", FACTS, ["run 1@1", "configure 3"]),
        (LOST_WORKER, "drop", FACTS, ["configure 2"]),
        (cluster(node(0), node(1, P), node(2)), "wait", FACTS, ["configure 3"]),
        (
            cluster(node(0), node(1, P), node(2)),
            "replace",
            FACTS,
            ["terminate i-1", "run 1@1", "configure 3"],
        ),
        (cluster(node(0), node(1, S), node(2)), "wait", FACTS, ["start i-1", "configure 3"]),
        # It runs, as EC2 sees it, and does not answer.
        (
            cluster(),
            "replace",
            replace(FACTS, silent={"i-2": "x"}),
            ["terminate i-2", "run 1@2", "configure 3"],
        ),
        (cluster(), "drop", replace(FACTS, silent={"i-2": "x"}), ["terminate i-2", "configure 2"]),
        (cluster(), "wait", replace(FACTS, silent={"i-2": "x"}), ["configure 3"]),
        # Setting it up failed: to wait is to try again, to replace is to replace it.
        (cluster(node(0), node(1, configured=False), node(2)), "wait", FACTS, ["configure 3"]),
        (
            cluster(node(0), node(1, configured=False), node(2)),
            "replace",
            FACTS,
            ["terminate i-1", "run 1@1", "configure 3"],
        ),
        # The client that launched it died: nothing is wrong with the nodes.
        (HALF_WAY, "wait", FACTS, ["configure 3"]),
        (HALF_WAY, "replace", FACTS, ["configure 3"]),
        (cluster(*HALF_WAY.nodes[:2], tag="pending"), "replace", FACTS, ["run 1@2", "configure 3"]),
        # One request for each unbroken run of indices.
        (
            cluster(node(0), node(3), spec=replace(SPEC, nodes=6)),
            "replace",
            FACTS,
            ["run 2@1", "run 2@4", "configure 6"],
        ),
        (LOST_MASTER, "wait", FACTS, ["promote i-1", "configure 2"]),
        (LOST_MASTER, "drop", FACTS, ["promote i-1", "configure 2"]),
        (LOST_MASTER, "replace", FACTS, ["promote i-1", "run 1@0", "configure 3"]),
        # A master that never came up has nothing to lose.
        (
            HALF_WAY,
            "replace",
            replace(FACTS, silent={"i-0": "no SSH"}),
            ["terminate i-0", "promote i-1", "run 1@0", "configure 3"],
        ),
        # It was being rebooted when its client died: it is configured anew, and keeps its disk.
        (cluster(node(0, configured=False), node(1), node(2)), "replace", FACTS, ["configure 3"]),
        (
            cluster(node(0, T), node(1, configured=False), node(2)),
            "wait",
            FACTS,
            ["promote i-2", "configure 2"],
        ),
        # Only what a client outside reaches can be the master.
        (cluster(node(0, T), node(1, public_ip=""), node(2)), "drop", FACTS, ["promote i-2", "configure 2"]),
        # A master on spot could be interrupted, and not be parked.
        (
            cluster(node(0, T), node(1, spot=True), node(2, spot=True), spec=SPOT),
            "replace",
            FACTS,
            ["run 1@0", "configure 3"],
        ),
        (
            cluster(node(0, T), node(1, T), node(2, spot=True), spec=SPOT),
            "replace",
            FACTS,
            ["run 1@0", "run 1@1s", "configure 3"],
        ),
        (
            cluster(node(0, T), node(1, spot=True), node(2, spot=True), spec=SPOT),
            "drop",
            FACTS,
            ["promote i-1", "configure 2"],
        ),
    ],
)
def test_retry(record: ClusterRecord, choice: str, facts: ChangeFacts, expected: list[str]) -> None:
    plan = plan_change(record, "retry", facts, choice=choice)
    assert not plan.errors
    assert steps(plan) == expected
    if choice == "drop":
        assert plan.spec.nodes == int(expected[-1].split()[1])
    if "promote" in str(expected):
        assert "new R session" in said(plan, "warning")


@pytest.mark.parametrize(
    ("record", "there", "expected"),
    [
        (cluster(spec=RSTUDIO), False, ["installrstudio"]),
        (cluster(spec=RSTUDIO), True, []),
        (cluster(), False, []),
        (cluster(node(0), node(1, T), node(2), spec=RSTUDIO), True, ["run 1@1", "configure 3"]),
        (
            cluster(node(0), node(1, T), node(2), spec=RSTUDIO),
            False,
            ["run 1@1", "configure 3", "installrstudio"],
        ),
        (
            cluster(node(0, T), node(1), node(2), spec=RSTUDIO),
            True,
            ["promote i-1", "run 1@0", "configure 3", "installrstudio"],
        ),
    ],
)
def test_retry_installs_rstudio_where_it_is_missing(
    record: ClusterRecord, there: bool, expected: list[str]
) -> None:
    plan = plan_change(record, "retry", replace(FACTS, rstudio=there), choice="replace")
    assert not plan.errors and steps(plan) == expected


@pytest.mark.parametrize("choice", ["replace", "drop"])
@pytest.mark.parametrize(
    ("record", "facts"),
    [
        (cluster(), replace(FACTS, silent={"i-0": "no SSH"})),
        (cluster(node(0, P), node(1), node(2)), FACTS),
    ],
)
def test_a_master_that_only_does_not_answer_is_given_up_by_force_alone(
    record: ClusterRecord, facts: ChangeFacts, choice: str
) -> None:
    """Its disk has home and results, and it may be this client's own network that is down."""
    plan = plan_change(record, "retry", facts, choice=choice)
    (error,) = plan.errors
    assert plan.steps == () and f"%ppe_retry brisk-otter --{choice} --force" in error
    assert "check your network" in error and "its disk kept: %ppe_park brisk-otter --force" in error
    forced = plan_change(record, "retry", facts, choice=choice, force=True)
    assert steps(forced)[:2] == ["terminate i-0", "promote i-1"]
    assert "home and results, goes with it" in said(forced, "warning")
    assert steps(plan_change(record, "retry", facts, choice="wait")) == ["configure 3"]


@pytest.mark.parametrize("choice", ["replace", "drop"])
def test_the_only_node_is_not_given_up_either(choice: str) -> None:
    alone = cluster(node(0), spec=replace(SPEC, nodes=1))
    (error,) = plan_change(alone, "retry", replace(FACTS, silent={"i-0": "no SSH"}), choice=choice).errors
    assert "its disk kept" in error and "terminate" not in error


def test_the_volumes_of_a_lost_master_go_to_the_new_one() -> None:
    spec = replace(SPEC, volumes=("vol-12345678:/data",))
    plan = plan_change(cluster(node(0, T), node(1), node(2), spec=spec), "retry", FACTS, choice="replace")
    assert steps(plan)[-1] == "attachvolume"
    kept = plan_change(cluster(node(0), node(1, T), node(2), spec=spec), "retry", FACTS, choice="replace")
    assert "attachvolume" not in steps(kept)


@pytest.mark.parametrize(
    ("record", "verb", "options", "reason"),
    [
        (PARKED, "reboot", {}, "it is parked: only a cluster that runs"),
        (
            cluster(node(0), node(1, S), node(2)),
            "reboot",
            {"node": 1},
            "node 1 is stopped: only what runs.*%ppe_retry",
        ),
        (LOST_MASTER, "reboot", {}, "lost its master; mend it with: %ppe_retry brisk-otter"),
        (cluster(node(0, spot=True)), "park", {}, "spot instance, which cannot be stopped"),
        (LOST_MASTER, "park", {}, "lost its master"),
        (LOST_WORKER, "start", {}, "it is degraded, not parked; mend it with: %ppe_retry"),
        (PARKED, "resize", {"nodes": 2}, "%ppe_start brisk-otter --nodes 2"),
        (LOST_WORKER, "resize", {"nodes": 2}, "mend it first"),
        (cluster(), "resize", {"nodes": 0}, "one node at least.*%ppe_terminate"),
        (
            cluster(node(0, role="worker"), node(1, role="master")),
            "resize",
            {"nodes": 1},
            "the master is node 1",
        ),
        (PARKED, "retry", {}, "start it with: %ppe_start"),
        (cluster(node(0, T), node(1, T), node(2, T)), "retry", {"choice": "drop"}, "no node of it is left"),
        (cluster(spec=None), "resize", {"nodes": 4}, "specification, a tag, is damaged"),
        (
            replace(cluster(), busy_until=NOW + timedelta(minutes=9)),
            "park",
            {},
            "client of alice@laptop.*12:09 UTC",
        ),
        (
            replace(PARKED, spec=replace(SPEC, budget_usd=0.5)),
            "start",
            {},
            r"budget of \$0.50 is used up \(\$1.00\).*%ppe_limit brisk-otter --budget",
        ),
    ],
)
def test_what_forbids_a_change(
    record: ClusterRecord, verb: str, options: dict[str, Any], reason: str
) -> None:
    plan = plan_change(record, verb, FACTS, **options)
    assert plan.steps == ()
    assert [text for text in plan.errors if re.search(reason, text)], plan.errors


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(FACTS, caps=Caps(max_nodes=4)), "5 nodes are more than max_nodes = 4"),
        (
            replace(FACTS, caps=Caps(max_usd_per_hour=0.9)),
            r"\$1.001 an hour is more than max_usd_per_hour = 0.9",
        ),
        (replace(FACTS, image=None), "its image is gone"),
        (replace(FACTS, subnet=None), "its subnet is gone"),
        (
            replace(
                FACTS,
                image=replace(IMAGE, node=False),
                subnet=replace(SUBNET, way_out="none"),
            ),
            "no way out to fetch R and Open MPI",
        ),
    ],
)
def test_what_forbids_new_nodes(facts: ChangeFacts, reason: str) -> None:
    (error,) = plan_change(cluster(), "resize", facts, nodes=5).errors
    assert re.search(reason, error)


SPOT_CLUSTER = cluster(node(0), node(1, spot=True, price=0.05), node(2, spot=True, price=0.05), spec=SPOT)


@pytest.mark.parametrize(
    ("spec", "options", "forbidden"),
    [
        # Ten nodes at the spot prices of now are $0.8 an hour, on demand $2.0.
        (SPOT, {"nodes": 10}, True),
        (replace(SPOT, spot_fallback=False), {"nodes": 10}, True),
        (replace(SPOT, spot_fallback=False, spot_max_usd=0.06), {"nodes": 10}, False),
        (replace(SPOT, spot_max_usd=0.06), {"nodes": 10}, True),
        (SPOT, {"nodes": 4}, False),
    ],
)
def test_spot_prices_may_rise_to_what_the_cap_forbids(
    spec: ClusterSpec, options: dict[str, Any], forbidden: bool
) -> None:
    facts = replace(FACTS, caps=Caps(max_usd_per_hour=0.9), usd_per_hour=0.192, spot_usd=0.055)
    plan = plan_change(replace(SPOT_CLUSTER, spec=spec), "resize", facts, **options)
    assert [bool(re.search("spot prices may rise, is more than", each)) for each in plan.errors] == (
        [True] if forbidden else []
    )
    parked = replace(PARKED, spec=replace(spec, **options))
    assert bool(plan_change(parked, "start", facts).errors) is forbidden


def test_a_cap_does_not_forbid_what_makes_less_of_it() -> None:
    facts = replace(FACTS, caps=Caps(max_nodes=1, max_usd_per_hour=0.1))
    assert steps(plan_change(cluster(), "resize", facts, nodes=2)) == ["configure 2", "terminate i-2"]
    assert steps(plan_change(cluster(), "park", facts)) == ["saveworkspace", "terminate i-1 i-2", "stop i-0"]
    unknown = cluster(node(0), node(1), node(2, price=None))
    assert steps(plan_change(unknown, "resize", facts, nodes=2))[-1] == "terminate i-2"
    silent = replace(facts, silent={"i-2": "x"})
    assert steps(plan_change(cluster(), "retry", silent, choice="replace"))[1] == "run 1@2"
    for record, verb, options in [
        (cluster(), "resize", {"nodes": 4}),
        (LOST_WORKER, "retry", {"choice": "replace"}),
        (PARKED, "start", {}),
    ]:
        assert len(plan_change(record, verb, facts, **options).errors) == 2, verb
    assert "$0.2" in plan_change(PARKED, "start", facts, nodes=1).errors[0]


def test_new_nodes_are_priced_as_the_region_says_with_the_images_surcharge() -> None:
    """A parked spot cluster's workers, and a cluster whose prices are not known."""
    image = replace(IMAGE, surcharge=0.01)
    facts = replace(FACTS, image=image, usd_per_hour=0.2, spot_usd=0.07, prices="eu-west-1, AWS price list")

    def price(record: ClusterRecord, known: ChangeFacts = facts) -> float | None:
        (step,) = [
            step for step in plan_change(record, "start", known).steps if isinstance(step, RunInstances)
        ]
        return step.price

    unknown = replace(PARKED, nodes=(replace(PARKED.nodes[0], price=None),))
    assert price(PARKED) == 0.192
    assert price(unknown) == pytest.approx(0.21)
    assert price(replace(PARKED, spec=SPOT)) == pytest.approx(0.08)
    assert price(replace(PARKED, spec=SPOT), replace(facts, spot_usd=None)) == 0.192
    assert price(unknown, FACTS) is None
    assert "eu-west-1, AWS price list" in said(plan_change(unknown, "start", facts), "info")


def test_a_budget_that_could_not_be_watched_forbids_new_nodes() -> None:
    nodes = (node(0, price=None), node(1, price=None))
    record = cluster(*nodes, spec=replace(SPEC, nodes=2, budget_usd=20.0))
    (error,) = plan_change(record, "resize", FACTS, nodes=3).errors
    assert "%ppe_limit brisk-otter --budget off --max-hours" in error
    assert not plan_change(record, "resize", FACTS, nodes=1).errors
    assert not plan_change(record, "park", FACTS).errors


@pytest.mark.parametrize(
    ("record", "verb", "options"),
    [
        (PARKED, "park", {}),
        (cluster(), "start", {}),
        (cluster(), "resize", {"nodes": 3}),
        (cluster(), "retry", {"choice": "replace"}),
    ],
)
def test_what_is_so_already(record: ClusterRecord, verb: str, options: dict[str, Any]) -> None:
    plan = plan_change(record, verb, FACTS, **options)
    assert (plan.steps, plan.errors, len(plan.problems)) == ((), [], 1)


def test_nodes_on_which_work_runs_are_let_go_only_by_force() -> None:
    busy = replace(FACTS, busy={"i-2": "2 × R", "i-1": "mpirun"})
    plan = plan_change(cluster(), "resize", busy, nodes=2)
    assert plan.errors == [
        "node 2 runs 2 × R, which ends with it; close R's workers and wait for jobs first, or add --force"
    ]
    forced = plan_change(cluster(), "resize", busy, nodes=2, force=True)
    assert steps(forced) == ["configure 2", "terminate i-2"]
    assert "node 2 runs 2 × R" in said(forced, "warning")


def test_another_client_at_work_is_respected_but_for_force_and_terminate() -> None:
    busy = replace(cluster(), busy_until=NOW + timedelta(minutes=9))
    assert "%ppe_reboot brisk-otter --force" in plan_change(busy, "reboot", FACTS).errors[0]
    assert plan_change(busy, "reboot", FACTS, force=True).steps
    assert (
        "%ppe_resize brisk-otter --nodes 5 --force" in plan_change(busy, "resize", FACTS, nodes=5).errors[0]
    )
    assert plan_change(busy, "terminate", FACTS).steps
    assert plan_change(busy, "reboot", replace(FACTS, now=NOW + timedelta(minutes=10))).steps


def test_prices_afterwards() -> None:
    disk, address = catalog.disk_usd_per_hour(30), catalog.USD_PER_HOUR_PUBLIC_IPV4
    one = 0.192 + disk + address
    prices = [
        (cluster(), "resize", {"nodes": 5}, 5 * one),
        (cluster(), "resize", {"nodes": 2}, 2 * one),
        (cluster(), "park", {}, disk),
        (PARKED, "start", {}, 3 * one),
        (LOST_WORKER, "replace", {}, 3 * one),
        (LOST_WORKER, "drop", {}, 2 * one),
        (cluster(), "terminate", {}, 0.0),
        # Of spot nodes that are gone nobody knows the price: the catalog's is the most that it can be.
        (replace(PARKED, spec=SPOT), "start", {}, 3 * one),
    ]
    for record, verb, options, expected in prices:
        retried = {"choice": verb} if verb in ("replace", "drop") else options
        plan = plan_change(record, "retry" if verb in ("replace", "drop") else verb, FACTS, **retried)
        assert plan.usd_per_hour == pytest.approx(expected), verb


def test_new_nodes_are_like_the_others() -> None:
    private = replace(SPEC, public_addresses="master", spot=True, spot_max_usd=0.1, root_gb=50)
    plan = plan_change(cluster(spec=private), "resize", FACTS, nodes=4)
    (step,) = [step for step in plan.steps if isinstance(step, RunInstances)]
    assert (step.public, step.spot, step.spot_max_usd, step.root_gb) == (False, True, 0.1, 50)
    assert (step.cores, step.price, step.subnets) == (2, 0.192, (FACTS.subnet,))
    threads = plan_change(cluster(spec=replace(SPEC, threads_per_core=2)), "resize", FACTS, nodes=4)
    assert [step.cores for step in threads.steps if isinstance(step, RunInstances)] == [None]


def test_a_cluster_of_the_master_alone_has_no_spot_workers() -> None:
    assert plan_change(cluster(spec=SPOT), "resize", FACTS, nodes=1).spec.spot is False


def test_mistakes_are_told() -> None:
    for verb, options in [
        ("reboot", {"node": 7}),
        ("retry", {"choice": "hope"}),
        ("resize", {}),
        ("sing", {}),
    ]:
        with pytest.raises(UsageError):
            plan_change(cluster(), verb, FACTS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("indices", "apart", "runs"),
    [
        ([], None, []),
        ([1, 2, 3], None, [(1, 3)]),
        ([1, 3, 4], None, [(1, 1), (3, 2)]),
        ([0, 1, 2], 0, [(0, 1), (1, 2)]),
        ([1, 2, 3], 2, [(1, 1), (2, 1), (3, 1)]),
    ],
)
def test_runs_of_indices(indices: list[int], apart: int | None, runs: list[tuple[int, int]]) -> None:
    assert list(ranges(indices, apart=apart)) == runs


@pytest.mark.parametrize(
    ("left", "moved"),
    [
        ([0, 1], {}),
        ([0, 2], {"i-2": 1}),
        ([1, 2], {"i-2": 0}),
        ([0, 3, 4], {"i-3": 1, "i-4": 2}),
        ([5], {"i-5": 0}),
    ],
)
def test_no_holes_remain(left: list[int], moved: dict[str, int]) -> None:
    assert renumbered([node(index) for index in left]) == moved
