"""Objects of S3 to the nodes and back: moto's S3 on the bridge, boto3 on the node, credentials of its profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from localcloud_nodes import client, until

import ppe_jupyter as ppe
from ppe_jupyter.errors import TransferFailed, UsageError

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager

BIG = bytes(range(256)) * 50_000  # 12.8 MB: more than one part


@pytest.fixture(scope="module")
def s3(local_cloud: Endpoint) -> Iterator[Any]:
    """A client of an S3 that nodes reach; its buckets are of this test."""
    from moto.server import ThreadedMotoServer

    gateway = local_cloud.caller_address
    server = ThreadedMotoServer(ip_address=gateway, port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield boto3.client(
        "s3",
        endpoint_url=f"http://{gateway}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    server.stop()


@pytest.fixture(scope="module")
def profiled(manager: Manager, local_cloud: Endpoint, s3: Any) -> Iterator[Cluster]:
    """Two nodes with an instance profile, whose boto3 knows where that S3 is."""
    iam = client(local_cloud, "iam")
    iam.create_instance_profile(InstanceProfileName="reader")
    spec = ppe.ClusterSpec(name="s3", nodes=2, instance_type="m5.large", instance_profile="reader")
    cluster = manager.launch(spec)
    endpoint = s3.meta.endpoint_url
    cluster.ssh().run(f"mkdir -p ~/.aws && printf '[default]\\nendpoint_url = {endpoint}\\n' >~/.aws/config")
    yield cluster
    cluster.terminate()
    iam.delete_instance_profile(InstanceProfileName="reader")


def read(cluster: Cluster, path: str) -> bytes:
    return cluster.ssh().run(f"cat {path}").stdout


@pytest.mark.slow
def test_objects_come_to_all_nodes_and_results_go_back(profiled: Cluster, s3: Any) -> None:
    s3.create_bucket(Bucket="rain")
    for key, body in {
        "2026/a.csv": b"1\n",
        "2026/b.csv": b"2\n",
        "2026/deep/c.txt": b"3",
        "big": BIG,
    }.items():
        s3.put_object(Bucket="rain", Key=key, Body=body)
    worker = f"ssh {profiled.nodes[1].private_ip}"

    said: list[Any] = []
    done = profiled.upload(
        "s3://rain/2026/", to="~/data", all_nodes=True, on_progress=lambda tally: said.append(tally.phase)
    )
    assert (done.files, done.bytes, done.total) == (3, 5, 5)
    assert "installing boto3" in said
    assert said[-1] == "passed on to 1 of 1 nodes"
    for there in ("", f"{worker} "):
        found = profiled.ssh().run(f"{there}find data -type f").stdout.decode().split()
        assert sorted(found) == ["data/2026/a.csv", "data/2026/b.csv", "data/2026/deep/c.txt"]
    again = profiled.upload("s3://rain/2026/", to="~/data")
    assert (again.bytes, again.total) == (0, 5)

    assert profiled.upload("s3://rain/2026/*.csv", to="~/flat").files == 2
    assert profiled.ssh().run("cat flat/*").stdout == b"1\n2\n"
    profiled.upload("s3://rain/big", to="~/renamed")
    assert read(profiled, "~/renamed") == BIG

    profiled.download("~/renamed", to="s3://rain/out/again")
    assert s3.get_object(Bucket="rain", Key="out/again")["Body"].read() == BIG
    profiled.download("~/data/2026", "~/flat/*.csv", to="s3://rain/run1")
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="rain", Prefix="run1/")["Contents"]]
    assert keys == ["run1/2026/a.csv", "run1/2026/b.csv", "run1/2026/deep/c.txt", "run1/a.csv", "run1/b.csv"]

    with pytest.raises(TransferFailed, match="there is nothing at s3://rain/none/"):
        profiled.upload("s3://rain/none/")
    with pytest.raises(TransferFailed, match="404"):
        profiled.upload("s3://rain/none")
    with pytest.raises(UsageError, match="without other files"):
        profiled.upload("s3://rain/big", __file__)
    profiled.ssh().run(f"mkdir /tmp/out; {worker} touch /tmp/out")
    with pytest.raises(TransferFailed, match=r"node 10\.[\d.]+: /tmp/out cannot be made: File exists"):
        profiled.upload("s3://rain/2026/a.csv", to="/tmp/out", all_nodes=True)


@pytest.mark.slow
def test_a_run_leaves_its_results_there(profiled: Cluster, s3: Any, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="results")
    script = tmp_path / "quick.sh"
    script.write_text("mkdir out; echo 1 > out/a; echo printed")
    run = profiled.run(script, fetch=["out/*"], store="s3://results/mine")
    run.watch(lambda output: None)
    assert run.fetched and run.store == f"s3://results/mine/{run.name}/"
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="results")["Contents"]]
    assert keys == [f"mine/{run.name}/a", f"mine/{run.name}/output.log"]
    for options, said in (
        ({"fetch": ["none"], "store": "s3://results/mine"}, "nothing matches none"),
        ({"fetch": ["out/*"], "store": "s3://nowhere"}, "could not be stored in s3://nowhere/"),
    ):
        lost = profiled.run(script, **options)
        lost.watch(lambda output: None)
        until(lambda lost=lost: lost.refresh().troubles)
        assert said in lost.troubles[0] and not lost.fetched


@pytest.mark.slow
def test_a_node_without_a_profile_says_so(cluster: Cluster) -> None:
    with pytest.raises(
        TransferFailed, match="no credentials of AWS: launch the cluster with --instance-profile"
    ):
        cluster.upload("s3://rain/2026/a.csv")
    cluster.ssh().run("rm -rf ~/.ppe/aws ~/.ppe/aws.lock")
