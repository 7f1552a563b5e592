"""Images made of instances: their states, what is in them, and their files' end; and the stock image."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from localcloud_nodes import Nodes, client, until

from ppe_jupyter.localcloud import Endpoint, image
from ppe_jupyter.settings import Settings


@pytest.fixture(scope="module")
def nodes(local_cloud: Endpoint) -> Iterator[Nodes]:
    nodes = Nodes(local_cloud, "images-test")
    yield nodes
    nodes.close()


def describe(nodes: Nodes, ami_id: str) -> Any:
    return nodes.ec2.describe_images(ImageIds=[ami_id])["Images"][0]


def bake(nodes: Nodes, instance_id: str, name: str, **more: Any) -> str:
    ami_id = str(nodes.ec2.create_image(InstanceId=instance_id, Name=name, **more)["ImageId"])
    until(lambda: describe(nodes, ami_id)["State"] == "available")
    return ami_id


def files(ami_id: str) -> list[Path]:
    return list(Path("/var/lib/ppe_jupyter/clouds").glob(f"*/images/{ami_id}"))


def test_images_of_instances_stack_and_end(nodes: Nodes) -> None:
    ec2 = nodes.ec2
    (first,) = nodes.launch(BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20}}])
    nodes.run(first, "echo one > one; sudo rm /etc/motd; touch /dev/shm/before")
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "ppe:image", "Value": kind}]}
        for kind in ("image", "snapshot")
    ]
    ami_id = bake(nodes, first, "images-test-1", TagSpecifications=tags)
    made = describe(nodes, ami_id)
    assert made["RootDeviceName"] == "/dev/xvda"
    assert made["Tags"] == [{"Key": "ppe:image", "Value": "image"}]
    (mapping,) = made["BlockDeviceMappings"]
    assert mapping["Ebs"]["VolumeSize"] == 20
    by_tag = [{"Name": "tag:ppe:image", "Values": ["snapshot"]}]
    (snapshot,) = ec2.describe_snapshots(Filters=by_tag)["Snapshots"]
    assert snapshot["SnapshotId"] == mapping["Ebs"]["SnapshotId"]
    assert (snapshot["State"], snapshot["VolumeSize"]) == ("completed", 20)
    assert snapshot["Tags"] == [{"Key": "ppe:image", "Value": "snapshot"}]
    assert nodes.run(first, "test -e /dev/shm/before")[0] == 1, "CreateImage reboots"
    assert nodes.state(first) == "running"
    with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidAMIName\.Duplicate"):
        ec2.create_image(InstanceId=first, Name="images-test-1")

    (second,) = nodes.launch(ImageId=ami_id)
    look = "cat one two; test -e /etc/motd || echo none; sudo cloud-init query instance_id"
    assert "one\n" in nodes.run(second, look)[1]
    nodes.run(second, "echo two > two; touch /dev/shm/before")
    upon = bake(nodes, second, "images-test-2", NoReboot=True)
    assert nodes.run(second, "test -e /dev/shm/before")[0] == 0, "NoReboot does not reboot"

    ec2.stop_instances(InstanceIds=[second])
    nodes.reaches(second, "stopped")
    of_stopped = bake(nodes, second, "images-test-3")
    assert nodes.state(second) == "stopped"
    (third,) = nodes.launch(ImageId=upon)
    assert nodes.run(third, look) == (0, f"one\ntwo\nnone\n{third}\n")

    with pytest.raises(ec2.exceptions.ClientError, match=r"InvalidSnapshot\.InUse"):
        ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    for each in (ami_id, upon, of_stopped):
        ec2.deregister_image(ImageId=each, **({} if each == ami_id else {"DeleteAssociatedSnapshots": True}))
        with pytest.raises(ec2.exceptions.ClientError, match="InvalidAMIID"):
            nodes.launch(ImageId=each)
    until(lambda: not files(of_stopped))
    ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    assert files(ami_id) and files(upon), "instances lie on them"
    ec2.start_instances(InstanceIds=[second])
    assert nodes.run(second, "cat one two") == (0, "one\ntwo\n"), "its image is still there"
    ec2.terminate_instances(InstanceIds=[first, second, third])
    until(lambda: not files(ami_id) and not files(upon))


@pytest.mark.slow
def test_a_stock_image_becomes_a_node_by_user_data(nodes: Nodes, settings: Settings) -> None:
    image.ensure_stock(settings.local_root, report=lambda line: None)
    name = {"x86_64": "amd64", "arm64": "arm64"}[image.architecture()]
    ssm = client(nodes.endpoint, "ssm")
    found = ssm.get_parameter(Name=f"/aws/service/debian/release/12/latest/{name}")
    ami_id = found["Parameter"]["Value"]
    script = base64.b64encode(gzip.compress(image.BOOTSTRAP.read_bytes())).decode()
    config = (
        f"write_files:\n- {{path: /root/bootstrap.sh, encoding: gz+b64, content: {script}}}\n"
        "runcmd:\n- [sh, -c, 'bash /root/bootstrap.sh && touch /run/done || touch /run/failed']\n"
    )
    (instance_id,) = nodes.launch(ImageId=ami_id, config=config)
    with nodes.connect(instance_id) as connection:
        assert connection.run("command -v R mpirun", check=False).status != 0
        until(
            lambda: not connection.run("ls /run/done /run/failed 2>&1 | grep -q ^/run", check=False).status,
            seconds=300,
        )
        end = connection.run("tail -n 20 /var/log/cloud-init-output.log").stdout.decode()
        assert connection.run("test -e /run/done", check=False).status == 0, end
        assert connection.run("mpirun --version && Rscript -e 'library(Rmpi)'", check=False).status == 0
