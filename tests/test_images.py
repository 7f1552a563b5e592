"""The catalog of images; a node that is baked, launched from, and thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from localcloud_nodes import client, until

import ppe_jupyter as ppe
from ppe_jupyter import catalog
from ppe_jupyter.cloud.facts import Instance
from ppe_jupyter.cloud.keeping.images import ImageStore, table
from ppe_jupyter.cloud.records import ClusterState, Progress
from ppe_jupyter.errors import CloudError, SpecError
from ppe_jupyter.localcloud import hooks

if TYPE_CHECKING:
    from ppe_jupyter.cluster import Cluster
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.manager import Manager


@pytest.fixture
def store(manager: Manager) -> ImageStore:
    return ImageStore(manager._account.context)


@pytest.fixture
def existing(local_cloud: Endpoint) -> Callable[[], set[str]]:
    """The ids of all instances that live, images and snapshots."""
    ec2 = client(local_cloud)

    def ids() -> set[str]:
        wanted = ["pending", "running", "stopping", "stopped", "shutting-down"]
        filters = [{"Name": "instance-state-name", "Values": wanted}]
        reservations = ec2.describe_instances(Filters=filters)["Reservations"]
        return {
            *(each["InstanceId"] for one in reservations for each in one["Instances"]),
            *(each["ImageId"] for each in ec2.describe_images(Owners=["self"])["Images"]),
            *(each["SnapshotId"] for each in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]),
        }

    return ids


# -- the catalog --------------------------------------------------------------------------------------------


def test_the_catalog_has_own_images_and_the_publishers_of_both_architectures(store: ImageStore) -> None:
    found = [(each.name, each.image.architecture, each.image.login_user) for each in store.list()]
    for architecture in ("x86_64", "arm64"):
        assert ("debian-12", architecture, "admin") in found
        assert ("debian-13", architecture, "admin") in found
        assert ("ubuntu-24.04", architecture, "ubuntu") in found
    own = [each for each in store.list() if each.own]
    assert own == list(store.list()[: len(own)])
    assert own[0].image.node
    assert own[0].software["R"] == "4.2.2"


def test_an_image_that_does_not_fit_the_type_is_marked(store: ImageStore) -> None:
    graviton = catalog.instance_types()["c7g.2xlarge"]
    frame = table(store.list(), graviton)
    by_arch = frame.groupby("arch")["fits"].unique().map(list).to_dict()
    assert by_arch == {"x86_64": ["is for x86_64, c7g.2xlarge is arm64"], "arm64": ["yes"]}
    assert "fits" not in table(store.list())
    assert table([]).empty
    newest = store.list()[-1]  # as a launch would say
    assert "is paravirtual" in replace(
        newest, image=replace(newest.image, virtualization="paravirtual")
    ).unfit(graviton)


@pytest.mark.parametrize(
    ("name", "architecture", "found"),
    [
        ("debian-12", "x86_64", "debian-12-amd64"),
        ("debian-12", "arm64", "debian-12-arm64"),
        ("debian-13", "x86_64", "debian-13-amd64"),
        ("ubuntu-24.04", "arm64", "ubuntu-noble-24.04-arm64"),
        (None, "x86_64", "ppe-node"),
        # There is no own image for it: Debian 12 is made a node.
        (None, "arm64", "debian-12-arm64"),
    ],
)
def test_names_are_resolved_for_the_types_architecture(
    store: ImageStore, name: str | None, architecture: str, found: str
) -> None:
    image = store.resolve(name, [architecture])
    assert image is not None
    assert found in image.name
    assert image.architecture == architecture
    assert store.resolve(image.image_id, ["x86_64"]) == image


def test_what_is_not_there_is_not_resolved(store: ImageStore) -> None:
    for name in ("ami-00000000000000000", "debian-9", "debian-12"):
        assert store.resolve(name, ["i386"]) is None
    own = store.list()[0].image
    # Another architecture than asked for is found by name, so that a review can say what is wrong with it.
    assert store.resolve(own.name, ["arm64"]) == own
    with pytest.raises(SpecError, match="no image 'ami-00000000000000000'"):
        store.delete("ami-00000000000000000")


# -- baking -------------------------------------------------------------------------------------------------


@pytest.fixture
def undisturbed(cluster: Cluster, existing: Callable[[], set[str]]) -> Iterator[None]:
    """The cluster and its R session are as before, and nothing else is left."""
    before = existing()
    cluster.r().eval("kept <- 41")
    yield
    until(lambda: existing() == before)
    assert cluster.refresh().state is ClusterState.RUNNING
    assert cluster.r().eval("kept + 1") == 42


@pytest.mark.usefixtures("undisturbed")
def test_a_baked_image_has_the_software_and_no_secret(
    cluster: Cluster, manager: Manager, store: ImageStore, local_cloud: Endpoint
) -> None:
    made = "/usr/local/bin/test-baked"
    personal = (
        "echo 'x <- 1; save.image()' | R --vanilla -q; echo secret > ~/.bash_history; echo mine > ~/mine; "
        "mkdir ~/.aws; echo key > ~/.aws/credentials; echo TOKEN=1 | tee ~/.Renviron > ~/.netrc"
    )
    cluster.ssh().run(f"sudo touch {made}; {personal}")
    phases: list[str] = []
    with pytest.raises(SpecError, match="already"):
        store.bake(cluster.ssh(), cluster.record, "debian-12")
    # The answer to the first CreateImage is lost; the repetition finds the name taken.
    hooks.inject(local_cloud, hooks.Fault(action="CreateImage", drop=True, after=True))
    copies: list[tuple[Instance, float | None]] = []
    noting = ImageStore(store._context, on_copy=lambda copy, usd: copies.append((copy, usd)))
    image_id = noting.bake(
        cluster.ssh(), cluster.record, "baked", report=lambda progress: phases.append(progress.phase)
    )
    try:
        assert list(dict.fromkeys(phases)) == ["copying the master", "cleaning the copy", "making the image"]
        info = store.list()[0]
        assert (info.name, info.image.image_id, info.base) == ("baked", image_id, "debian-12")
        assert info.software == {"R": "4.2.2", "Open MPI": "4.1.4", "Rmpi": "0.6-9.2"}
        assert store.resolve(None, ["x86_64"]) == store.resolve("baked", ["x86_64"]) == info.image
        ((copy, usd_per_hour),) = copies
        assert copy.stopped and copy.stopped > copy.launched and usd_per_hour == cluster.master.price
        assert [each.tags["Name"] for each in store.snapshots(info.image)] == ["baked"]
        spec = ppe.ClusterSpec(name="from-baked", nodes=1, instance_type="m5.xlarge", image="baked")
        other = manager.launch(spec)
        try:
            ssh = other.ssh()
            ssh.run(f"test -e {made} && test -e ~/mine")
            gone = "~/.RData ~/.bash_history ~/.aws ~/.netrc ~/.Renviron"
            assert ssh.run(f"ls -d {gone} 2>/dev/null", check=False).stdout == b""
            # Neither the cluster's key nor the host key has come along.
            keys = "ssh-keygen -y -f ~/.ssh/id_ed25519; cat /etc/ssh/ssh_host_ed25519_key.pub"
            old = cluster.ssh().run(keys).stdout
            for line in old.decode().splitlines():
                found = ssh.run(f"sudo grep -rls {line.split()[1]} /etc /home /root", check=False)
                assert found.stdout == b""
            assert other.r().eval("exists('x')") is False
            assert other.losses().files == ()  # what was baked in is no loss
        finally:
            other.terminate()
    finally:
        cluster.ssh().run(f"sudo rm -rf {made} ~/.RData ~/mine ~/.aws ~/.netrc ~/.Renviron")
        store.delete(image_id)


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "fault",
    [
        hooks.Fault(action="CreateImage", code="ResourceLimitExceeded", message="EC2's words", skip=1),
        # A copy of which only its tags tell: botocore gives up before it has heard of it.
        hooks.Fault(
            action="RunInstances",
            code="InternalError",
            message="EC2's words",
            status=500,
            after=True,
            times=9,
        ),
    ],
    ids=["refused", "the answer is lost"],
)
def test_a_bake_that_fails_leaves_nothing(
    cluster: Cluster, store: ImageStore, local_cloud: Endpoint, fault: hooks.Fault
) -> None:
    hooks.inject(local_cloud, fault)
    try:
        with pytest.raises(CloudError, match="EC2's words"):
            store.bake(cluster.ssh(), cluster.record, "never")
    finally:
        hooks.clear_faults(local_cloud)


@pytest.mark.slow
@pytest.mark.usefixtures("undisturbed")
def test_a_copy_that_may_have_given_up_makes_no_image(cluster: Cluster, store: ImageStore) -> None:
    """It stops by itself in the end, cleaned or not: here this client finds it an hour later."""
    late = replace(store._context, now=lambda: datetime.now(timezone.utc) + timedelta(hours=1))
    with pytest.raises(CloudError, match=r"the copy i-\w+ of the master is stopped"):
        ImageStore(late).bake(cluster.ssh(), cluster.record, "never")


@pytest.mark.slow
@pytest.mark.usefixtures("undisturbed")
def test_a_bake_that_is_stopped_leaves_nothing(cluster: Cluster, store: ImageStore) -> None:
    class Enough(Exception):
        pass

    def report(progress: Progress) -> None:
        if progress.phase == "cleaning the copy":
            raise Enough

    with pytest.raises(Enough):
        store.bake(cluster.ssh(), cluster.record, "never", report=report)
