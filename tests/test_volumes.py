"""EBS volumes: made, attached, given a file system, mounted, unmounted, detached; on nodes of the local cloud."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from localcloud_nodes import client, until

from ppe_jupyter.cloud.facts import Volume
from ppe_jupyter.cloud.keeping.volumes import DEVICES, Volumes, find_node, table
from ppe_jupyter.cloud.pace import Pace
from ppe_jupyter.cloud.records import InstanceState
from ppe_jupyter.errors import CloudError, NothingToDo, RemoteCommandFailed, SpecError
from ppe_jupyter.localcloud import hooks

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager

MOUNT = "/srv/test-volumes"


class Disk:
    """One new volume, and the verbs on it for the session's cluster."""

    def __init__(self, volumes: Volumes, cluster: Cluster) -> None:
        self.volumes = volumes
        self.cluster = cluster
        self.id = volumes.create(gb=1, zone=cluster.master.zone, tags={"project": "bees"})

    def attach(self, **options: Any) -> dict[str, Any]:
        return self.volumes.attach(self.cluster.ssh(), self.cluster.record, self.id, **options)

    def detach(self, **options: Any) -> None:
        self.volumes.detach(self.cluster.ssh(), self.cluster.record, self.id, **options)

    def run(self, command: str, **options: Any) -> str:
        return self.cluster.ssh().run(command, **options).stdout.decode()

    @property
    def now(self) -> Volume:
        return self.volumes.get(self.id)


@pytest.fixture(scope="module")
def volumes(manager: Manager) -> Volumes:
    return manager._account.volumes


@pytest.fixture
def disk(volumes: Volumes, cluster: Cluster) -> Iterator[Disk]:
    disk = Disk(volumes, cluster)
    yield disk
    if disk.now.instance_id:
        disk.detach(force=True)
    disk.run(f"sudo rmdir {MOUNT} 2>/dev/null; sudo sed -i '/{disk.id}/d' /etc/fstab", check=False)
    volumes.delete(disk.id)


def test_an_empty_volume_is_formatted_once_and_mounted_for_the_user(disk: Disk) -> None:
    with pytest.raises(RemoteCommandFailed, match=r"no file system.*--format ext4"):
        disk.attach(mount=MOUNT)
    done = disk.attach(mount=MOUNT, format="ext4")
    assert (done["file_system"], done["formatted"], done["mounted"]) == ("ext4", True, MOUNT)
    assert disk.run(f"stat -c %U {MOUNT}").strip() == "admin"
    disk.run(f"echo kept > {MOUNT}/file")
    # Again: nothing is done anew, least of all the file system.
    assert disk.attach(mount=MOUNT, format="ext4") == {**done, "formatted": False}
    assert disk.attach(mount=MOUNT) == {**done, "formatted": False}
    with pytest.raises(RemoteCommandFailed, match="has ext4 and is never formatted anew"):
        disk.attach(mount=MOUNT, format="xfs")
    with pytest.raises(RemoteCommandFailed, match=f"mounted at {MOUNT} already"):
        disk.attach(mount="/srv/elsewhere")
    assert disk.run(f"cat {MOUNT}/file") == "kept\n"


def test_what_it_holds_goes_with_it_to_another_node(disk: Disk) -> None:
    disk.attach(mount=MOUNT, format="ext4")
    disk.run(f"echo kept > {MOUNT}/file")
    with pytest.raises(SpecError, match=r"is attached to i-.*%ppe_detach_volume"):
        disk.attach(mount=MOUNT, node="1")
    with pytest.raises(SpecError, match="is attached to"):
        disk.volumes.delete(disk.id)
    disk.detach()
    assert disk.now.state == "available"
    assert disk.id not in disk.run("cat /etc/fstab")
    with pytest.raises(NothingToDo):
        disk.detach()
    worker = disk.cluster.nodes[1]
    done = disk.attach(mount=MOUNT, node=worker.private_dns)
    assert (done["file_system"], done["formatted"]) == ("ext4", False)
    assert disk.run(f"ssh {worker.private_ip} cat {MOUNT}/file") == "kept\n"


def test_it_is_mounted_again_after_a_reboot(disk: Disk, local_cloud: Endpoint) -> None:
    worker = disk.cluster.nodes[2]
    disk.attach(mount=MOUNT, format="ext4", node=worker)
    where = f"ssh -o ConnectTimeout=5 {worker.private_ip}"
    booted = disk.run(f"{where} stat -c %Y /proc/1")
    client(local_cloud).reboot_instances(InstanceIds=[worker.instance_id])
    ask = f"{where} 'stat -c %Y /proc/1; findmnt -no FSTYPE {MOUNT}'"
    answer = until(lambda: (said := disk.run(ask, check=False)) and not said.startswith(booted) and said)
    assert answer.split()[1:] == ["ext4"]


def test_who_uses_it_is_named_and_not_cut_off_unless_forced(disk: Disk) -> None:
    disk.attach(mount=MOUNT, format="ext4")
    user = disk.cluster.ssh().popen(f"cd {MOUNT} && echo ready && exec sleep 300")
    try:
        assert user.recv() == b"ready\n"
        with pytest.raises(
            RemoteCommandFailed, match=rf"{MOUNT} cannot be unmounted: sleep \(\d+, admin\) use"
        ):
            disk.detach()
        assert disk.now.attachment == "attached"
        assert disk.run(f"findmnt -no TARGET {MOUNT}").strip() == MOUNT
        disk.detach(force=True)
        assert disk.now.state == "available"
    finally:
        disk.run("pkill -x sleep", check=False)
        user.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("printf 'label: gpt\\n,\\n' | sudo sfdisk -q {device}", r"a partition table \(gpt\)"),
        ("sudo mkswap -q {device}", "swap"),
    ],
    ids=["partitions", "swap"],
)
def test_what_holds_anything_is_never_formatted(disk: Disk, content: str, said: str) -> None:
    device = disk.attach(format=None)["device"]
    assert device == "/dev/sdf"  # as asked for; nobody has looked for its name there
    by_id = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{disk.id.replace('-', '')}"
    disk.run(content.format(device=by_id))
    before = disk.run(f"sudo head -c 2M {by_id} | sha256sum")
    with pytest.raises(RemoteCommandFailed, match=said):
        disk.attach(mount=MOUNT, format="ext4")
    assert disk.run(f"sudo head -c 2M {by_id} | sha256sum") == before


def test_nothing_is_formatted_for_a_place_or_a_file_system_that_cannot_be(disk: Disk) -> None:
    with pytest.raises(RemoteCommandFailed, match="is not empty"):
        disk.attach(mount="/etc", format="ext4")
    with pytest.raises(RemoteCommandFailed, match="no --format vfat, only ext4 and xfs"):
        disk.attach(mount=MOUNT, format="vfat")
    with pytest.raises(RemoteCommandFailed, match="no file system"):
        disk.attach(mount=MOUNT)


def test_another_zone_is_an_error_before_anything_happens(
    volumes: Volumes, cluster: Cluster, local_cloud: Endpoint
) -> None:
    elsewhere = volumes.create(gb=1, zone="us-east-1f")
    try:
        hooks.reset(local_cloud)
        with pytest.raises(SpecError, match=r"is in us-east-1f, node 0 .* us-east-1a.*--zone us-east-1f"):
            volumes.attach(cluster.ssh(), cluster.record, elsewhere, mount=MOUNT)
        assert "AttachVolume" not in hooks.calls(local_cloud)
    finally:
        volumes.delete(elsewhere)
    for wrong in ("data", "/", "/a b", "/data/", "/a/../etc"):
        with pytest.raises(SpecError, match="is no mount point"):
            volumes.attach(cluster.ssh(), cluster.record, "vol-00000000", mount=wrong)
    with pytest.raises(SpecError, match="no volume 'vol-00000000'"):
        volumes.attach(cluster.ssh(), cluster.record, "vol-00000000")
    with pytest.raises(SpecError, match=r"no node '7'; there are: 0 \(i-"):
        volumes.attach(cluster.ssh(), cluster.record, "vol-00000000", node="7")


def test_what_ec2_refuses_is_told_in_its_words(disk: Disk, local_cloud: Endpoint) -> None:
    hooks.inject(
        local_cloud, hooks.Fault(action="AttachVolume", code="AttachmentLimitExceeded", message="too many")
    )
    with pytest.raises(CloudError, match="AttachVolume failed: too many"):
        disk.attach(mount=MOUNT, format="ext4")
    assert disk.now.state == "available"
    # An answer that was lost: the volume is attached, and the repetition finds it so.
    hooks.inject(local_cloud, hooks.Fault(action="AttachVolume", drop=True, after=True))
    try:
        disk.attach()
    except CloudError:
        disk.attach()
    assert disk.now.attachment == "attached"


def test_a_volume_that_a_node_does_not_let_go_is_told_with_what_to_do(
    disk: Disk, manager: Manager, cluster: Cluster
) -> None:
    disk.attach(mount=MOUNT, format="ext4")
    clock = [0.0]

    def wait(event: threading.Event, seconds: float) -> bool:
        clock[0] += seconds
        return False

    hasty = replace(manager._account.context, pace=lambda: Pace(clock=lambda: clock[0], wait=wait))
    with pytest.raises(CloudError, match="cannot be unmounted before its node can be asked"):
        Volumes(hasty).detach(None, cluster.record, disk.id)
    # Of a node that is not known to run nobody unmounts it, and EC2 waits for that.
    nodes = tuple(replace(each, state=InstanceState.STOPPING) for each in cluster.nodes)
    with pytest.raises(CloudError, match=r"after 180 s .* has yet to be detached: .*--force, then reboot"):
        Volumes(hasty).detach(None, replace(cluster.record, nodes=nodes), disk.id)
    disk.detach(force=True)
    assert disk.now.state == "available"


def test_the_list_has_no_root_disks_and_says_what_is_where(disk: Disk) -> None:
    disk.attach()
    frame = table(disk.volumes.list(), [disk.cluster.record])
    roots = {each.volume_id for each in disk.volumes._ec2.volumes() if each.ends_with_instance}
    assert disk.id in frame.index and not roots & set(frame.index)
    row = frame.loc[disk.id]
    assert (row["state"], row["zone"], row["GB"]) == ("in-use", disk.cluster.master.zone, 1)
    assert row["attached to"] == f"{disk.cluster.name} node 0, /dev/sdf"
    assert row["tags"] == "project=bees"
    assert table([], []).empty
    assert disk.now.encrypted
    assert disk.now.tags["ppe:made"] == "volume"
    root = next(each for each in disk.volumes._ec2.volumes() if each.ends_with_instance)
    with pytest.raises(SpecError, match="goes with it"):
        disk.volumes.detach(disk.cluster.ssh(), disk.cluster.record, root.volume_id)


def test_nodes_are_named_as_users_name_them(cluster: Cluster) -> None:
    record = cluster.record
    worker = record.nodes[1]
    assert find_node(record, None) == find_node(record, "master") == find_node(record, "0") == record.master
    for name in (
        "1",
        worker.instance_id,
        worker.private_ip,
        worker.private_dns,
        worker.private_dns.split(".")[0],
    ):
        assert find_node(record, name) == worker


@pytest.mark.parametrize(
    ("operation", "sent"),
    [
        # Names that EC2 reserves for EBS volumes: user guide, device_naming.
        *[
            ("AttachVolume", {"VolumeId": "vol-1", "InstanceId": "i-1", "Device": device})
            for device in (DEVICES[0], DEVICES[-1])
        ],
        ("DetachVolume", {"VolumeId": "vol-1", "Force": True}),
        (
            "CreateImage",
            {
                "InstanceId": "i-1",
                "Name": "baked",
                "NoReboot": True,
                # User guide, block-device-mapping-concepts: NoDevice leaves a device out.
                "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "NoDevice": ""}],
                "TagSpecifications": [{"ResourceType": kind, "Tags": []} for kind in ("image", "snapshot")],
            },
        ),
    ],
)
def test_requests_are_of_the_shape_that_ec2_publishes(operation: str, sent: dict[str, Any]) -> None:
    model = botocore.session.get_session().get_service_model("ec2").operation_model(operation)
    shape: Any = model.input_shape
    report = ParamValidator().validate(sent, shape)
    assert not report.has_errors(), report.generate_report()
    assert (DEVICES[0], DEVICES[-1]) == ("/dev/sdf", "/dev/sdp")
