"""Orphans: what is found, what is not, and that it goes; instances are records only, but for the running cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ppe_jupyter import ssh
from ppe_jupyter.cloud import tags
from ppe_jupyter.cloud.access import rule_description
from ppe_jupyter.cloud.changing.cleanup import clean_up, orphans, same_owner
from ppe_jupyter.cloud.context import Context
from ppe_jupyter.cloud.ec2.shapes import InstanceRequest
from ppe_jupyter.cloud.facts import Instance
from ppe_jupyter.cloud.keeping.ledger import Ledger
from ppe_jupyter.cloud.records import ClusterState, Cost, InstanceState
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import NoSuchCluster, NothingToDo
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint

SPEC = ClusterSpec(name="left", nodes=2, instance_type="m5.xlarge")
SOON = timedelta(minutes=20)
STRANGER = "mallory@elsewhere arn:aws:iam::123456789012:user/mallory"


class Region:
    """What a dead client may have left, made with this package's own tags."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ec2 = context.ec2
        self.owner = context.owner()
        self.subnet = self.ec2.subnets()[0]

    def tags(self, *, busy: bool = True, owner: str = "", **changes: str) -> dict[str, str]:
        until = self.context.now() + SOON * (1 if busy else -1)
        made = tags.for_everything(
            SPEC, name="left", owner=owner or self.owner, launch="L1", busy_until=until
        )
        return {**made, **changes}

    def groups(self, **options: Any) -> tuple[str, str]:
        made = self.tags(**options)
        group = self.ec2.create_security_group("ppe-left", vpc_id=self.subnet.vpc_id, tags=made)
        self.ec2.create_placement_group("ppe-left", tags=made)
        return group, "ppe-left"

    def key_pair(self, name: str = "ppe-left-key") -> str:
        pair = ssh.generate_key_pair()
        self.ec2.import_key_pair(name, pair.public, tags={tags.OWNER: self.owner})
        return name

    def instances(self, count: int, made: dict[str, str], **options: Any) -> list[Instance]:
        image = next(each for each in self.ec2.own_images() if each.node)
        request = InstanceRequest(
            count=count,
            instance_type="m5.xlarge",
            image=image,
            group_id=self.ec2.security_groups(cluster="left")[0],
            key_name=self.key_pair(),
            user_data=b"#cloud-config\n",
            root_gb=30,
            placement_group="ppe-left",
            instance_tags=tags.for_instances(
                made,
                slots=2,
                login_user="admin",
                launch_host_key="ssh-ed25519 LAUNCH",
                cost=Cost(spent_usd=0.0, usd_per_hour=0.4, since=self.context.now()),
                price=0.192,
                **options,
            ),
            other_tags=made,
        )
        return self.ec2.run_instances(request, self.subnet, client_token=ssh.generate_key_pair().public[-60:])

    def volume(self, token: str, made: dict[str, str]) -> str:
        return self.ec2.create_volume(gb=1, zone=self.subnet.zone, encrypted=True, token=token, tags=made)

    def found(self, *, later: timedelta = timedelta(), **options: Any) -> list[tuple[str, str]]:
        """(kind, id) of the orphans that are not the test session's own."""
        context = replace(self.context, now=lambda: datetime.now(timezone.utc) + later)
        return [(each.kind, each.id) for each in orphans(context, **options)]

    def clean_up(self, **options: Any) -> dict[str, str]:
        found = orphans(self.context, **options)
        return dict(clean_up(self.context, found, report=lambda progress: None).leftovers)


@pytest.fixture
def region(manager: Manager, local_cloud: Endpoint) -> Iterator[Region]:
    region = Region(manager._account.context)
    hooks.set_containerless(local_cloud, True)
    region.clean_up(force=True, images=True)
    assert region.found(force=True, images=True) == []
    yield region
    with contextlib.suppress(NoSuchCluster, NothingToDo):
        manager.terminate("left")
    region.clean_up(force=True, images=True, everyone=True)
    hooks.set_containerless(local_cloud, False)


def test_of_a_running_cluster_nothing_is_an_orphan(cluster: Cluster, region: Region) -> None:
    assert region.found(everyone=True, images=True) == []
    assert region.found(everyone=True, later=timedelta(days=30)) == []


def test_what_a_dead_launch_has_left_is_found_when_nobody_can_be_at_work(region: Region) -> None:
    group, placement = region.groups()
    instances = region.instances(2, region.tags())
    assert region.found() == []
    everything = [
        *(("instance", each.instance_id) for each in instances),
        ("security group", group),
        ("placement group", placement),
        ("key pair", "ppe-left-key"),  # theirs alone
    ]
    assert sorted(region.found(later=2 * SOON)) == sorted(everything)
    assert sorted(region.found(force=True)) == sorted(everything)
    assert region.clean_up(force=True) == {}
    assert not region.ec2.our_key_pairs().get("ppe-left-key")


def test_groups_without_instances_are_found(region: Region) -> None:
    group, placement = region.groups(busy=False)
    assert region.found() == [("security group", group), ("placement group", placement)]
    assert region.clean_up() == {}
    assert region.found() == []


def test_others_are_left_alone_unless_asked_for(region: Region) -> None:
    group, _ = region.groups(busy=False, owner=STRANGER)
    assert region.found(force=True) == []
    assert ("security group", group) in region.found(everyone=True)
    (orphan, *_) = orphans(region.context, everyone=True)
    assert (orphan.owner, orphan.cluster, orphan.region) == (STRANGER, "left", region.ec2.region)


@pytest.mark.parametrize("state", [ClusterState.PARKED, ClusterState.CONFIGURING, ClusterState.RUNNING])
def test_what_was_a_cluster_once_is_left_to_its_user(region: Region, state: ClusterState) -> None:
    """Parked, or degraded because a client died while it started it: retry mends it."""
    region.groups(busy=False)
    (instance, _) = region.instances(2, region.tags(busy=False))
    region.ec2.tag([instance.instance_id], tags.in_state(state))
    if state is ClusterState.PARKED:
        region.ec2.stop_instances([instance.instance_id])
    assert [kind for kind, _ in region.found() if kind != "key pair"] == []


def test_what_a_dead_resize_has_added_is_found(region: Region) -> None:
    region.groups(busy=False)
    old = region.instances(2, region.tags(busy=False))
    region.ec2.tag([each.instance_id for each in old], tags.in_state(ClusterState.RUNNING))
    grown = tags.for_everything(
        replace(SPEC, nodes=3),
        name="left",
        owner=region.owner,
        launch="L1",
        busy_until=region.context.now() + SOON,
    )
    (new,) = region.instances(1, grown, first_index=2)
    assert region.found() == []
    assert ("instance", new.instance_id) in region.found(force=True)
    assert not {("instance", each.instance_id) for each in old} & set(region.found(force=True))


def test_what_another_launch_of_the_name_has_left_is_found(region: Region) -> None:
    region.groups(busy=False)
    (runs,) = region.instances(1, region.tags(busy=False))
    region.ec2.tag([runs.instance_id], tags.in_state(ClusterState.RUNNING))
    (lost,) = region.instances(1, region.tags(busy=False, **{tags.LAUNCH: "L0"}))
    (orphan,) = [each for each in orphans(region.context) if each.kind == "instance"]
    assert orphan.id == lost.instance_id


def test_instances_without_a_cluster_are_found(region: Region) -> None:
    """Such as a bake's copy of a node."""
    region.groups(busy=False)
    busy = {tags.OWNER: region.owner, **tags.busy(region.context.now() + SOON)}
    (copy,) = region.instances(1, busy)
    assert ("instance", copy.instance_id) not in region.found()
    assert ("instance", copy.instance_id) in region.found(later=2 * SOON)
    assert region.clean_up(force=True) == {}


def test_data_volumes_are_orphans_only_when_they_are_old_and_nobody_wants_them(region: Region) -> None:
    data = region.volume("data", {tags.OWNER: region.owner, "ppe:made": "volume"})
    disk = region.volume("disk", region.tags(busy=False))
    foreign = region.volume("foreign", {"project": "x"})
    assert region.found() == [("volume", disk)]
    assert set(region.found(later=timedelta(days=8))) == {("volume", disk), ("data volume", data)}
    (orphan,) = [
        each
        for each in orphans(
            replace(region.context, now=lambda: datetime.now(timezone.utc) + timedelta(days=8))
        )
        if each.id == data
    ]
    assert "its data go too" in orphan.why
    assert orphan.usd_per_hour == pytest.approx(0.08 / 730)
    assert region.clean_up() == {}
    left = {each.volume_id for each in region.ec2.volumes()}
    assert disk not in left and {data, foreign} <= left
    region.ec2.delete_volume(data)
    region.ec2.delete_volume(foreign)


def test_images_and_snapshots_only_when_asked_for(cluster: Cluster, region: Region) -> None:
    made = {tags.OWNER: region.owner, "ppe:made": "image"}
    master = cluster.master.instance_id
    image_id = region.ec2.create_image(master, name="baked", reboot=False, without=(), tags=made)
    pace = region.context.pace()
    for last in pace.tries(seconds=60):
        image = region.ec2.image(image_id)
        assert image is not None and not last
        if image.state == "available":
            (snapshot,) = image.snapshot_ids
            break
    assert region.found() == []
    assert region.found(images=True) == [("image", image_id), ("snapshot", snapshot)]
    assert region.clean_up(images=True) == {}
    assert region.ec2.image(image_id) is None
    assert snapshot not in [each.snapshot_id for each in region.ec2.snapshots()]


def test_rules_for_former_addresses_of_this_client_go(cluster: Cluster, region: Region) -> None:
    (group,) = region.ec2.security_groups(cluster=cluster.name)
    before = region.ec2.ssh_rules([group])
    region.ec2.allow_ssh(group, "203.0.113.9/32", description=rule_description(given=False))
    region.ec2.allow_ssh(group, "203.0.113.10/32", description="SSH from bob@desk")
    assert region.found() == [("SSH rule", f"{group} 203.0.113.9/32")]
    assert region.clean_up() == {}
    region.ec2.revoke_ssh(group, ["203.0.113.10/32"])
    assert region.ec2.ssh_rules([group]) == before


def test_a_cluster_on_which_a_client_died_is_brought_in_order(
    cluster: Cluster, region: Region, local_cloud: Endpoint
) -> None:
    pid = cluster.r().eval("Sys.getpid()")
    ids = [node.instance_id for node in cluster.nodes]
    region.ec2.tag(ids, {**tags.busy(region.context.now() + SOON), **tags.in_state(ClusterState.REBOOTING)})
    assert cluster.refresh().state is ClusterState.REBOOTING
    assert region.found() == []
    assert region.found(force=True) == [("mark", cluster.name)]
    assert region.clean_up(force=True) == {}
    assert cluster.refresh().state is ClusterState.RUNNING
    assert region.found(force=True) == []
    assert cluster.r().eval("Sys.getpid()") == pid


def test_what_cannot_be_removed_is_named_and_the_rest_goes(region: Region, local_cloud: Endpoint) -> None:
    group, _ = region.groups(busy=False)
    found = orphans(region.context)
    hooks.inject(
        local_cloud, hooks.Fault(action="DeleteSecurityGroup", code="UnauthorizedOperation", status=403)
    )
    removed = clean_up(region.context, found, report=lambda progress: None)
    assert list(removed.leftovers) == [group]
    assert "UnauthorizedOperation" in removed.leftovers[group]
    assert region.ec2.placement_groups(cluster="left") == []


def test_whose_the_remains_of_a_launch_are(region: Region, manager: Manager) -> None:
    region.groups()
    assert manager.foreign_remains("left") == ""
    region.ec2.tag(
        region.ec2.security_groups(cluster="left"), {tags.OWNER: "ann@desk arn:aws:iam::1:user/ann"}
    )
    assert manager.foreign_remains("left") == "ann@desk arn:aws:iam::1:user/ann"
    assert manager.foreign_remains("other") == ""


def test_instances_end_before_their_groups(region: Region) -> None:
    region.groups(busy=False)
    instances = region.instances(2, region.tags(busy=False))
    assert region.clean_up() == {}
    states = {each.instance_id: each.state for each in region.ec2.our_instances()}
    assert {states[each.instance_id] for each in instances} == {InstanceState.TERMINATED}
    assert region.ec2.security_groups(cluster="left") == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("alice@laptop arn:aws:iam::1:user/alice", "alice@desk arn:aws:iam::1:user/alice", True),
        ("alice@laptop arn:aws:iam::1:user/alice", "bob@laptop arn:aws:iam::1:user/alice", False),
        ("alice@laptop arn:aws:iam::1:user/alice", "alice@laptop arn:aws:iam::2:user/alice", False),
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html: role, then session
        ("a@b arn:aws:sts::1:assumed-role/Dev/a-1", "a@b arn:aws:sts::1:assumed-role/Dev/a-2", True),
        ("a@b arn:aws:sts::1:assumed-role/Dev/a-1", "a@b arn:aws:sts::1:assumed-role/Ops/a-1", False),
    ],
)
def test_whose_it_is(one: str, other: str, same: bool) -> None:
    assert same_owner(one, other) is same


# -- through the manager ------------------------------------------------------------------------------------


def test_the_local_cloud_has_one_region_and_every_flag_counts(region: Region, manager: Manager) -> None:
    region.groups()
    (mine,) = region.instances(1, region.tags())
    (others,) = region.instances(1, region.tags(owner=STRANGER))

    def found(**flags: bool) -> list[str]:
        return [each.id for each in manager.orphans(**flags) if each.kind == "instance"]

    assert found() == found(all_regions=True) == []
    assert found(force=True) == found(force=True, all_regions=True) == [mine.instance_id]
    theirs = found(force=True, everyone=True, all_regions=True)
    assert sorted(theirs) == sorted([mine.instance_id, others.instance_id])


def test_what_is_removed_has_an_end_in_the_ledger(
    region: Region, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    monkeypatch.setitem(vars(manager._account), "_ledger", ledger)
    region.groups()
    region.instances(1, region.tags())
    manager._account.note("launch", manager.cluster("left").record)
    assert manager.clean_up(manager.orphans(force=True)).leftovers == {}
    *_, launched, ended = ledger.entries()
    assert (launched.id, ended.id, ended.event, ended.rates) == ("L1", "L1", "terminate", {})
    assert ended.spent is not None and ended.spent > 0
