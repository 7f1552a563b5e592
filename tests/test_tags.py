"""Clusters as their tags tell them, without a cloud."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from ppe_jupyter import catalog, ssh
from ppe_jupyter.cloud import tagged, tags
from ppe_jupyter.cloud.facts import Instance
from ppe_jupyter.cloud.records import TRANSITIONS, ClusterRecord, ClusterState, Cost, InstanceState
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import CloudError

NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
SPEC = ClusterSpec(name="brisk-otter", nodes=3, instance_type="m5.xlarge", tags={"project": "x"})


COST = Cost(spent_usd=0.0, usd_per_hour=0.6, since=NOW)


def instance(index: int = 0, *, launch: str = "L1", first_index: int = 0, **changes: object) -> Instance:
    common = tags.for_everything(
        SPEC, name="brisk-otter", owner="alice", launch=launch, busy_until=NOW + timedelta(minutes=5)
    )
    made = Instance(
        instance_id=f"i-{launch}{first_index + index}",
        launch_index=index,
        state=InstanceState.RUNNING,
        reason="",
        private_ip=f"10.0.0.{index}",
        private_dns=f"ip-10-0-0-{index}.ec2.internal",
        public_ip=f"203.0.113.{index}",
        public_dns="",
        instance_type="m5.xlarge",
        zone="us-east-1a",
        subnet_id="subnet-1",
        key_name="k",
        launched=NOW,
        tags=tags.for_instances(
            common,
            slots=2,
            login_user="admin",
            launch_host_key="ssh-ed25519 LAUNCH",
            cost=COST,
            price=0.192,
            first_index=first_index,
        ),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def three(**changes: object) -> list[Instance]:
    return [instance(index, **changes) for index in range(3)]


def running(instances: list[Instance], keys: list[str] | None = None, **more: str) -> list[Instance]:
    keys = keys or [ssh.generate_key_pair().public for _ in instances]
    written = {**tags.when_running(dict(enumerate(keys))), **more}
    return [replace(each, tags={**each.tags, **written}) for each in instances]


def only(instances: list[Instance], *, now: datetime = NOW) -> ClusterRecord:
    (record,) = tagged.clusters(instances, now=now)
    return record


def test_a_launched_cluster_is_found_again_from_its_tags() -> None:
    record = only(running(three())[::-1])
    assert record.state is ClusterState.RUNNING
    assert [node.index for node in record.nodes] == [0, 1, 2]
    assert [node.role for node in record.nodes] == ["master", "worker", "worker"]
    assert record.master.instance_id == "i-L10"
    assert (record.slots, record.login_user, record.key_name, record.owner) == (6, "admin", "k", "alice")
    assert record.spec == SPEC


def test_every_node_has_its_own_host_key_once_the_cluster_runs() -> None:
    keys = [ssh.generate_key_pair().public for _ in range(3)]
    assert [node.host_key for node in only(three()).nodes] == ["ssh-ed25519 LAUNCH"] * 3
    assert [node.host_key for node in only(running(three(), keys)).nodes] == keys


@pytest.mark.parametrize("count", [1, 5, 6, 90, 500])
def test_host_keys_fit_the_tags_of_one_call(count: int) -> None:
    keys = [ssh.generate_key_pair().public for _ in range(count)]
    written = tags.when_running(dict(enumerate(keys)))
    packages = tuple(f"package-number-{i}" for i in range(70))
    spec = ClusterSpec(r_packages=packages, tags={f"user{i}": "" for i in range(10)})
    assert len(tags.of_spec(spec)) == tags.MAX_SPEC_TAGS + 1
    full = {**instance().tags, **tags.of_spec(spec), **spec.tags, **written, **tags.of_master("i-1")}
    # Using_Tags: at most 50 tags a resource, values of at most 256 characters.
    assert len(full) <= 50
    assert all(len(value) <= 256 for value in written.values())
    published = min(count, tags.KEYS_PER_TAG * tags.MAX_HOST_KEY_TAGS)
    assert [tagged.host_key(full, index) for index in range(published)] == keys[:published]
    assert all(tagged.host_key(full, index) == "ssh-ed25519 LAUNCH" for index in range(published, count))


P, R, D, T, S, STOPPING = (
    InstanceState.PENDING,
    InstanceState.RUNNING,
    InstanceState.SHUTTING_DOWN,
    InstanceState.TERMINATED,
    InstanceState.STOPPED,
    InstanceState.STOPPING,
)


@pytest.mark.parametrize(
    ("instances", "tagged", "busy", "expected"),
    [
        ([P, P, P], "pending", True, ClusterState.PENDING),
        ([R, P, P], "pending", True, ClusterState.PENDING),
        ([R, R, R], "pending", True, ClusterState.CONFIGURING),
        ([R, R, R], "pending", False, ClusterState.DEGRADED),  # the client that launched it died
        ([R, R, R], "running", True, ClusterState.RUNNING),
        ([R, R, R], "running", False, ClusterState.RUNNING),
        ([R, R], "running", False, ClusterState.DEGRADED),
        ([R, R, T], "running", False, ClusterState.DEGRADED),
        ([R, S, R], "running", False, ClusterState.DEGRADED),
        ([R, D, D], "running", True, ClusterState.DEGRADED),
        ([R, R, R], "rebooting", True, ClusterState.REBOOTING),
        ([R, R, R], "rebooting", False, ClusterState.RUNNING),
        ([R, T, T], "parking", True, ClusterState.PARKING),
        ([STOPPING, T, T], "running", False, ClusterState.PARKING),
        ([S, D, D], "running", False, ClusterState.PARKED),
        ([S, T, T], "running", False, ClusterState.PARKED),
        ([S], "parking", False, ClusterState.PARKED),
        ([P], "pending", True, ClusterState.PENDING),
        ([D, T, T], "running", False, ClusterState.SHUTTING_DOWN),
        ([T, T, T], "running", False, ClusterState.TERMINATED),
    ],
)
def test_state_follows_from_instances_and_tags(
    instances: list[InstanceState], tagged: str, busy: bool, expected: ClusterState
) -> None:
    found = [instance(index, state=state) for index, state in enumerate(instances)]
    tagged_so = [replace(each, tags={**each.tags, tags.STATE: tagged}) for each in found]
    assert only(tagged_so, now=NOW if busy else NOW + timedelta(hours=1)).state is expected


def test_every_state_leads_to_terminated() -> None:
    assert set(TRANSITIONS) == set(ClusterState)
    for state in ClusterState:
        reached = {state}
        while more := {after for each in reached for after in TRANSITIONS[each]} - reached:
            reached |= more
        assert ClusterState.TERMINATED in reached


def test_a_new_cluster_takes_the_name_of_a_terminated_one() -> None:
    old = three(launch="L0", state=InstanceState.TERMINATED, launched=NOW - timedelta(hours=1))
    record = only(running(three()) + old)
    assert record.state is ClusterState.RUNNING
    assert len(record.nodes) == 3


def test_a_cluster_that_has_run_keeps_its_name_from_a_later_launch_that_ended_half_way() -> None:
    late = three(launch="L2", launched=NOW + timedelta(minutes=1))
    assert only(late + running(three())).launch == "L1"
    ended = [replace(each, state=InstanceState.TERMINATED) for each in running(three())]
    assert only(late + ended).launch == "L2"


def test_terminated_nodes_cost_nothing_more() -> None:
    whole = only(running(three())).usd_per_hour
    less = only(running([*three()[:2], instance(2, state=InstanceState.TERMINATED)])).usd_per_hour
    assert whole is not None and less is not None
    assert less == pytest.approx(whole * 2 / 3)


def test_cost_so_far_counts_from_the_launch_and_only_the_disk_while_it_is_parked() -> None:
    record = only(running(three()))
    assert record.cost_so_far(NOW + timedelta(hours=2)) == pytest.approx(1.2)
    stopped = NOW + timedelta(hours=1)
    parked = only(running([instance(0, state=S, stopped=stopped)]))
    disk = catalog.disk_usd_per_hour(30)
    assert parked.cost_so_far(NOW + timedelta(hours=5)) == pytest.approx(0.6 + 4 * disk)


def test_nodes_that_are_added_go_on_counting() -> None:
    record = only(running([*three(), instance(0, first_index=3), instance(1, first_index=3)]))
    assert [node.index for node in record.nodes] == [0, 1, 2, 3, 4]
    assert [node.role for node in record.nodes] == ["master"] + 4 * ["worker"]


def test_a_node_that_was_replaced_is_forgotten_and_one_that_is_lost_is_named() -> None:
    lost = instance(1, state=T, reason="Server.SpotInstanceTermination: no capacity")
    record = only(running([instance(0), lost, instance(2)]))
    assert record.troubles == (f"node 1 ({lost.instance_id}) is terminated: {lost.reason}",)
    replaced = only(running([instance(0), lost, instance(2), instance(0, first_index=1, launched=NOW)]))
    assert replaced.troubles == ()
    assert replaced.state is ClusterState.RUNNING
    assert only(running([instance(0), instance(1)])).troubles == ("node 2 is gone, or never was",)


def test_another_node_can_be_the_master() -> None:
    lost = instance(0, state=T)
    record = only(running([lost, instance(1), instance(2)], **tags.of_master("i-L11")))
    assert record.master.index == 1
    assert [node.role for node in record.nodes] == ["worker", "master", "worker"]


def test_a_lost_master_is_named() -> None:
    record = only(running([instance(0, state=InstanceState.TERMINATED), instance(1), instance(2)]))
    with pytest.raises(CloudError, match=r"lost its master.*%ppe_retry brisk-otter.*%ppe_terminate"):
        record.master  # noqa: B018


def test_damaged_tags_still_make_a_cluster() -> None:
    damage = {
        f"{tags.SPEC}0": "{",
        tags.BUSY_UNTIL: "soon",
        tags.SLOTS: "x",
        tags.COST: "much",
        tags.PRICE: "?",
    }
    record = only([replace(each, tags={**each.tags, **damage}) for each in three()])
    assert record.spec is None
    assert record.state is ClusterState.DEGRADED
    assert record.slots == 3
    assert record.cost_so_far(NOW) is None
    assert record.usd_per_hour is not None  # the catalog's


def test_foreign_instances_are_no_cluster() -> None:
    assert tagged.clusters([instance(tags={"Name": "someone's"})], now=NOW) == []


@pytest.mark.parametrize(
    ("state", "configured", "was"),
    [
        ("pending", False, False),
        ("configuring", False, True),
        ("running", True, True),
        ("parked", True, True),
    ],
)
def test_what_was_configured_once_may_hold_results(state: str, configured: bool, was: bool) -> None:
    (record,) = tagged.clusters([instance(tags={**instance().tags, tags.STATE: state})], now=NOW)
    assert (record.nodes[0].configured, record.nodes[0].was_configured) == (configured, was)
