"""Objects of S3 to the nodes and back: moto's S3 on the bridge, boto3 on the node, credentials of its profile."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import boto3
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from localcloud_nodes import client, until
from test_runs import CLIENT

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


class Regional(BaseHTTPRequestHandler):
    """EC2 as nodes reach it: it does what their instance profile's credentials have signed, unless that ``refuses``."""

    endpoint: ClassVar[Endpoint]
    refuses: ClassVar[bool] = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert "Credential=ASIALOCALCLOUDEXAMPLE/" in self.headers["Authorization"]
        status, answer = (
            403,
            b"<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error>",
        )
        answer += b"</Errors><RequestID>1</RequestID></Response>"
        if not self.refuses:
            ours = self.endpoint
            request = AWSRequest(
                "POST", ours.url, data=body, headers={"Content-Type": self.headers["Content-Type"]}
            )
            SigV4Auth(Credentials(ours.access_key, ours.secret_key), "ec2", ours.region).add_auth(request)
            done = requests.post(ours.url, data=body, headers=dict(request.headers), timeout=60)
            status, answer = done.status_code, done.content
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *about: object) -> None:
        pass


@pytest.fixture(scope="module")
def regional(local_cloud: Endpoint) -> Iterator[str]:
    """Its address."""
    Regional.endpoint = local_cloud
    server = ThreadingHTTPServer((local_cloud.caller_address, 0), Regional)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{local_cloud.caller_address}:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def profile(local_cloud: Endpoint) -> Iterator[str]:
    """The name of an instance profile."""
    iam = client(local_cloud, "iam")
    iam.create_instance_profile(InstanceProfileName="reader")
    yield "reader"
    iam.delete_instance_profile(InstanceProfileName="reader")


@pytest.fixture(scope="module")
def profiled(manager: Manager, profile: str, s3: Any) -> Iterator[Cluster]:
    """Two nodes with an instance profile, whose boto3 knows where that S3 is."""
    spec = ppe.ClusterSpec(name="s3", nodes=2, instance_type="m5.large", instance_profile=profile)
    cluster = manager.launch(spec)
    endpoint = s3.meta.endpoint_url
    cluster.ssh().run(f"mkdir -p ~/.aws && printf '[default]\\nendpoint_url = {endpoint}\\n' >~/.aws/config")
    yield cluster
    cluster.terminate()


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


SERVICES = """mkdir -p ~/.aws && cat >~/.aws/config <<'END'
[default]
services = here
[services here]
s3 =
  endpoint_url = {s3}
ec2 =
  endpoint_url = {ec2}
END"""


@pytest.mark.slow
def test_a_cluster_whose_results_are_stored_terminates_itself(
    manager: Manager, profile: str, regional: str, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Regional, "refuses", True)
    s3.create_bucket(Bucket="stored")
    (tmp_path / "it.sh").write_text(
        "echo begun; until [ -e ~/.go ]; do sleep 0.1; done; mkdir out; echo 1 > out/a"
    )
    spec = ppe.ClusterSpec(name="stored", nodes=2, instance_type="m5.large", instance_profile=profile)
    cluster = manager.launch(spec)
    words = [
        "run",
        "it.sh",
        "--cluster",
        "stored",
        "--fetch",
        "out/*",
        "--to",
        "s3://stored",
        "--then",
        "terminate",
    ]

    def goes_on_alone() -> None:
        with subprocess.Popen([sys.executable, "-c", CLIENT, *words], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            until(lambda: process.stdout.readline() == b"begun\n", seconds=90)
            process.send_signal(signal.SIGKILL)
        cluster.ssh().run("touch ~/.go")
        cluster.close()

    def stored() -> list[str]:
        return [
            each["Key"].rpartition("/")[2] for each in s3.list_objects_v2(Bucket="stored").get("Contents", ())
        ]

    try:
        cluster.ssh().run(SERVICES.format(s3=s3.meta.endpoint_url, ec2=regional))
        goes_on_alone()
        until(lambda: str(manager.cluster("stored").state) == "parked", seconds=240)
        assert sorted(stored()) == ["a", "output.log"]
        cluster = manager.cluster("stored").start()
        (run,) = cluster.runs()
        assert run.fetched and "is parked instead of terminated, since" in run.troubles[0], run.troubles
        assert "UnauthorizedOperation" in run.troubles[0]
        monkeypatch.setattr(Regional, "refuses", False)
        cluster.ssh().run("rm ~/.go")
        goes_on_alone()
        until(lambda: "stored" not in [each.name for each in manager.clusters()], seconds=240)
        assert sorted(stored()) == ["a", "a", "output.log", "output.log"]
    finally:
        manager.terminate("stored")
