"""EBS volumes of the local cloud are real disks: EC2's states, a file system inside, and nothing left on the host."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from localcloud_nodes import Nodes, until

from ppe_jupyter import ssh
from ppe_jupyter.localcloud import Endpoint

ZONE = "us-east-1a"


class Disks:
    """Volumes and instances of a test."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.ec2 = nodes, nodes.ec2

    def create(self, zone: str = ZONE) -> str:
        made = self.ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp3")
        assert made["State"] == "creating"
        volume_id = str(made["VolumeId"])
        self.reaches(volume_id, "available")
        return volume_id

    def describe(self, volume_id: str) -> Any:
        return self.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]

    def reaches(self, volume_id: str, state: str, attachment: str | None = None) -> None:
        def there() -> bool:
            volume = self.describe(volume_id)
            states = [each["State"] for each in volume["Attachments"]]
            return volume["State"] == state and states == ([attachment] if attachment else [])

        until(there)

    def attach(self, volume_id: str, instance_id: str, device: str = "/dev/sdf") -> None:
        answer = self.ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=device)
        assert answer["State"] == "attaching"
        self.reaches(volume_id, "in-use", "attached")

    def detach(self, volume_id: str, **more: Any) -> None:
        assert self.ec2.detach_volume(VolumeId=volume_id, **more)["State"] == "detaching"

    def refused(self, code: str, call: Callable[..., Any], **arguments: Any) -> None:
        with pytest.raises(self.ec2.exceptions.ClientError) as refusal:
            call(**arguments)
        assert refusal.value.response["Error"]["Code"] == code


@pytest.fixture(scope="module")
def nodes(local_cloud: Endpoint) -> Iterator[Nodes]:
    nodes = Nodes(local_cloud, "volumes-test")
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def disks(nodes: Nodes) -> Disks:
    return Disks(nodes)


@pytest.fixture(scope="module")
def instance(nodes: Nodes) -> str:
    (instance_id,) = nodes.launch(Placement={"AvailabilityZone": ZONE})
    nodes.reaches(instance_id, "running")
    return instance_id


@pytest.fixture(scope="module")
def connection(nodes: Nodes, instance: str) -> Iterator[ssh.Connection]:
    with nodes.connect(instance) as connection:
        yield connection


def does(connection: ssh.Connection, command: str) -> str:
    done = connection.run(command, check=False, timeout=60)
    assert done.status == 0, f"{command}: {(done.stdout + done.stderr).decode()}"
    return done.stdout.decode().strip()


def fails(connection: ssh.Connection, command: str) -> str:
    done = connection.run(command, check=False, timeout=60)
    assert done.status != 0, command
    return (done.stdout + done.stderr).decode()


def loops() -> str:
    return subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout


def test_a_volume_is_formatted_mounted_used_and_detached(
    disks: Disks, instance: str, connection: ssh.Connection
) -> None:
    volume = disks.create()
    disks.attach(volume, instance)
    # https://docs.aws.amazon.com/ebs/latest/userguide/identify-nvme-ebs-device.html
    link = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
    assert does(connection, f"readlink -f {link}") == "/dev/nvme1n1"
    fails(connection, f"sudo blkid {link}")
    assert "bad superblock" in fails(connection, f"sudo mount {link} /mnt")
    does(connection, f"sudo mkfs.ext4 -q {link}")
    assert 'TYPE="ext4"' in does(connection, f"sudo blkid {link}")
    does(connection, f"sudo mkdir -p /data && sudo mount {link} /data && sudo chown admin /data")
    does(connection, "echo kept > /data/file")
    assert does(connection, "df --output=source,target /data | tail -n 1").split() == [
        "/dev/nvme1n1",
        "/data",
    ]
    assert "nosuid,nodev" in does(connection, "grep /data /proc/mounts")
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/data " in line]

    disks.detach(volume)
    disks.reaches(volume, "in-use", "busy")
    does(connection, "sh -c 'cd /data; sleep 100 >/dev/null 2>&1 & echo $! > /tmp/user'")
    assert does(connection, "cat /tmp/user") in does(connection, "fuser -m /data 2>/dev/null").split()
    assert "busy" in fails(connection, "sudo umount /data")
    does(connection, "kill $(cat /tmp/user); sleep 0.1; sudo umount /data")
    disks.reaches(volume, "available")
    fails(connection, f"test -e {link} -o -e /dev/nvme1n1")
    assert volume not in loops()

    disks.attach(volume, instance, "/dev/sdg")
    uuid = does(connection, f"sudo blkid -s UUID -o value {link}")
    does(connection, f"sudo mount -o ro UUID={uuid} /data")
    assert does(connection, "cat /data/file") == "kept"
    fails(connection, "touch /data/other")
    disks.detach(volume, Force=True)
    disks.reaches(volume, "available")
    assert does(connection, "cat /proc/mounts | grep -c /data || true") == "0"
    disks.ec2.delete_volume(VolumeId=volume)
    disks.refused("InvalidVolume.NotFound", disks.describe, volume_id=volume)


def test_ec2s_rules(disks: Disks, instance: str) -> None:
    ec2, volume, elsewhere = disks.ec2, disks.create(), disks.create("us-east-1b")
    attach = {"InstanceId": instance, "Device": "/dev/sdf"}
    disks.refused("InvalidVolume.ZoneMismatch", ec2.attach_volume, VolumeId=elsewhere, **attach)
    disks.refused("InvalidParameterValue", ec2.attach_volume, VolumeId=volume, **(attach | {"Device": "sdf"}))
    disks.refused("IncorrectState", ec2.detach_volume, VolumeId=volume)
    disks.attach(volume, instance)
    disks.refused("VolumeInUse", ec2.attach_volume, VolumeId=volume, **attach)
    disks.refused("VolumeInUse", ec2.delete_volume, VolumeId=volume)
    second = disks.create()
    disks.refused("InvalidParameterValue", ec2.attach_volume, VolumeId=second, **attach)
    disks.attach(second, instance, "/dev/sdg")
    mappings = disks.nodes.describe(instance)["BlockDeviceMappings"]
    found = {each["DeviceName"]: each["Ebs"]["VolumeId"] for each in mappings}
    assert found["/dev/sdf"] == volume and found["/dev/sdg"] == second
    (root,) = set(found.values()) - {volume, second}
    disks.refused("OperationNotPermitted", ec2.detach_volume, VolumeId=root)
    for each in (volume, second):
        disks.detach(each)
        disks.reaches(each, "available")
    for each in (volume, second, elsewhere):
        ec2.delete_volume(VolumeId=each)
    disks.refused("InvalidParameterValue", ec2.create_volume, AvailabilityZone=ZONE, Size=0, VolumeType="gp3")


def test_the_host_mounts_no_more_than_the_callers_volumes_on_its_own_directories(
    disks: Disks, instance: str, connection: ssh.Connection
) -> None:
    volume = disks.create()
    disks.attach(volume, instance)
    does(connection, "sudo mkfs.ext4 -q /dev/nvme1n1")
    ask = (
        "import http.client, json, sys; h = http.client.HTTPConnection('169.254.169.254', source_address=('', {}));"
        "h.request('POST', '/ppe/{}', json.dumps({})); print(h.getresponse().read().decode())"
    )

    ports = iter(range(400, 500))  # mount itself takes others

    def post(what: str, wish: dict[str, Any], port: int = 0) -> str:
        return does(connection, f'sudo python3 -c "{ask.format(port or next(ports), what, wish)}"')

    mount = {"source": "nvme1n1", "target": "/mnt", "type": "auto", "options": ""}
    assert "only root" in post("mount", mount, 5000)
    for target in ("/proc", "/proc/sys", "/sys", "/dev", "/run", "/dev/shm"):
        assert "root disk or of a volume only" in post("mount", mount | {"target": target})
    assert "does not exist" in post("mount", mount | {"source": "loop0"})
    assert "does not exist" in post("mount", mount | {"source": "../vda"})
    assert "bad superblock" in post("mount", mount | {"type": "tmpfs"})
    assert "option" in post("mount", mount | {"options": "dev,suid"})
    assert "Error" in post("mount", mount | {"target": 7})
    for target in ("/proc/sys", "/proc", "/dev/shm", "/", "/mnt"):
        assert "not a mounted volume" in post("umount", {"target": target, "lazy": False})
    does(connection, "sudo rm -rf /tmp/way && ln -s /proc/1/root/mnt /tmp/way")
    assert '""' not in post("mount", mount | {"target": "/tmp/way"}), "no magic links"
    does(connection, "sudo ln -sfn /mnt /tmp/way && sudo mount /dev/nvme1n1 /tmp/way && mountpoint /mnt")
    does(connection, "sudo umount /tmp/way")
    fails(connection, "mount /dev/nvme1n1 /mnt")
    disks.detach(volume)
    disks.reaches(volume, "available")
    disks.ec2.delete_volume(VolumeId=volume)


def test_a_volume_outlives_instances_and_is_mounted_at_boot(disks: Disks, nodes: Nodes) -> None:
    (instance_id,) = nodes.launch(Placement={"AvailabilityZone": ZONE})
    volume = disks.create()
    nodes.reaches(instance_id, "running")
    disks.attach(volume, instance_id)
    with nodes.connect(instance_id) as connection:
        does(connection, "sudo mkfs.ext4 -q -L results /dev/nvme1n1 && sudo mkdir /data")
        does(connection, "echo 'LABEL=results /data ext4 defaults,nofail 0 2' | sudo tee -a /etc/fstab")
        does(connection, "sudo mount -a && sudo mount -a && echo kept | sudo tee /data/file")
    for restart in ("reboot", "stop"):
        if restart == "reboot":
            nodes.run(instance_id, "touch /dev/shm/old; sudo reboot")
            until(lambda: nodes.run(instance_id, "test -e /dev/shm/old")[0] == 1)
        else:
            nodes.ec2.stop_instances(InstanceIds=[instance_id])
            nodes.reaches(instance_id, "stopped")
            until(lambda: volume not in loops())
            assert disks.describe(volume)["State"] == "in-use"
            nodes.ec2.start_instances(InstanceIds=[instance_id])
            nodes.reaches(instance_id, "running")
        look = "cat /data/file; sudo blkid -s LABEL -o value /dev/nvme1n1"
        assert nodes.run(instance_id, look) == (0, "kept\nresults\n"), restart
    nodes.ec2.terminate_instances(InstanceIds=[instance_id])
    disks.reaches(volume, "available")
    nodes.reaches(instance_id, "terminated")
    until(lambda: volume not in loops())

    (instance_id,) = nodes.launch(Placement={"AvailabilityZone": ZONE})
    nodes.reaches(instance_id, "running")
    nodes.ec2.stop_instances(InstanceIds=[instance_id])
    nodes.reaches(instance_id, "stopped")
    disks.attach(volume, instance_id)
    nodes.ec2.start_instances(InstanceIds=[instance_id])
    assert nodes.run(instance_id, "sudo mount /dev/nvme1n1 /mnt && cat /mnt/file") == (0, "kept\n")
    nodes.ec2.terminate_instances(InstanceIds=[instance_id])
    disks.reaches(volume, "available")
    disks.ec2.delete_volume(VolumeId=volume)
