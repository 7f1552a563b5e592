"""What is asked before money is spent, data is lost or somebody else's cluster is touched.

The manager and its clusters are fakes that note what they are told to do: no test may reach AWS.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.catalog import InstanceType
from ppe_jupyter.cloud.facts import Image
from ppe_jupyter.cloud.keeping.images import ImageInfo
from ppe_jupyter.cloud.keeping.install import Installed
from ppe_jupyter.cloud.launching.removal import Removed
from ppe_jupyter.cloud.plan import Grade, Plan, Problem
from ppe_jupyter.cloud.records import ClusterState, InstanceState
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.cloud.steps import RebootInstances
from ppe_jupyter.errors import CloudError, NoSuchCluster, NothingToDo, SpecError, UsageError
from ppe_jupyter.frontends import progress, typed
from ppe_jupyter.frontends.actions import locks
from ppe_jupyter.frontends.actions.actions import ACTIONS
from ppe_jupyter.frontends.desk import Desk
from ppe_jupyter.overview import lists
from ppe_jupyter.remote.sessions.watchdog import Losses
from ppe_jupyter.settings import Settings
from ppe_jupyter.verbs import find

NOTHING = Losses(objects=(), files=(), jobs=())
STEPS = (RebootInstances(instance_ids=("i-1",)),)


def plan(verb: str, *, problems: Sequence[Problem] = (), name: str = "lab") -> Plan:
    return Plan(
        verb=verb,
        spec=ClusterSpec(name=name),
        name=name,
        owner="me",
        steps=() if problems else STEPS,
        usd_per_hour=1.234,
        problems=tuple(problems),
    )


class FakeCluster:
    """A running cluster that notes what is done with it."""

    is_free, cost_so_far, gone = False, 2.5, False
    nodes: tuple[Any, ...] = ()

    def __init__(self, manager: FakeManager, name: str, owner: str = "me") -> None:
        self.manager, self.name, self.state = manager, name, ClusterState.RUNNING
        self.record = Namespace(
            name=name,
            owner=owner,
            slots=4,
            wanted=0,
            launched=datetime.now(timezone.utc),
            usd_per_hour=1.234,
            troubles=(),
            spec=ClusterSpec(name=name, budget_usd=20.0),
        )
        self.lost, self.values = NOTHING, {"x": 1, "my.y": 2}
        self.problems: list[Problem] = []
        self.master = Namespace(instance_type="m5.xlarge", price=0.192)

    def refresh(self) -> FakeCluster:
        if self.gone:
            raise NoSuchCluster(self.name)
        return self

    def close(self) -> None:
        pass

    def bake(self, name: str | None, *, report: Any) -> str:
        self.manager.done.append(f"bake {self.name}")
        return "ami-1"

    def install(self, *, report: Any, **packages: Any) -> Installed:
        self.manager.done.append(f"install on {self.name}")
        return Installed(versions={}, notes=())

    def attach_volume(self, volume: str, *, report: Any, **place: Any) -> None:
        self.manager.done.append(f"attach {volume} to {self.name}")

    def detach_volume(self, volume: str, *, force: bool, report: Any) -> None:
        self.manager.done.append(f"detach {volume} from {self.name}")

    def losses(self) -> Losses:
        return self.lost

    def r(self, session: str) -> Any:
        return self

    def pull(self, name: str) -> int:
        self.lost = NOTHING
        return self.values[name]

    def plan(self, verb: str, **options: Any) -> Plan:
        self.options = options
        return plan(verb, problems=self.problems, name=self.name)

    def plan_limits(self, **limits: Any) -> Plan:
        return plan("limit", problems=self.problems, name=self.name)

    def set_limits(self, **limits: Any) -> FakeCluster:
        self.limits = limits
        self.manager.done.append(f"limit {self.name}")
        return self

    def watchdog(self) -> None:
        return None

    def carry_out(self, plan: Plan, *, report: Any) -> FakeCluster:
        self.manager.done.append(f"{plan.verb} {self.name}")
        return self


class FakeManager:
    """Notes what it is told to do."""

    def __init__(self, cloud: Any) -> None:
        self.settings, self.is_free = Settings(cloud=cloud), cloud == "local"
        self.done: list[str] = []
        self.found = {name: FakeCluster(self, name) for name in ("lab", "hut")}
        self.left: list[Any] = []
        self.broken: dict[str, BaseException] = {}
        self.remains: dict[str, str] = {}
        self.existing: Any = None

    def whose(self) -> str:
        return "AWS account 123456789012, region us-east-1, profile default"

    def mine(self, record: Any) -> bool:
        return bool(record.owner == "me")

    def clusters(self) -> list[Any]:
        return list(self.found.values())

    def cluster(self, name: str | None = None) -> Any:
        return self.found[name or "lab"]

    def plan(self, spec: ClusterSpec, *, dry_run: bool = False, lock: Any = None) -> Plan:
        self.spec = spec
        if self.existing is None:
            return plan("launch")
        return replace(plan("launch"), steps=(), existing=self.existing, spec=spec)

    def foreign_remains(self, name: str) -> str:
        return self.remains.get(name, "")

    def images(self) -> list[ImageInfo]:
        kind = {"architecture": "x86_64", "login_user": "admin", "root_device": "/dev/xvda", "root_gb": 8}
        image = Image(image_id="ami-1", name="mine", node=True, boot_mode="uefi", **kind)
        return [ImageInfo(name="mine", image=image, software={}, base="debian-12", own=True)]

    def instance_type(self, name: str) -> InstanceType | None:
        known = catalog.instance_types().get(name)
        return known and replace(known, boot_modes=("legacy-bios",))

    def launch(self, plan: Plan, *, report: Any = None, wait: bool = True) -> Any:
        self.done.append("launch")
        return self.found["lab"]

    def terminate(self, name: str, *, report: Any) -> None:
        if self.found.get(name) is None:
            raise NothingToDo(f"{name} is gone already")
        if name in self.broken:
            raise self.broken[name]
        self.done.append(f"terminate {name}")

    def orphans(self, **flags: bool) -> list[Any]:
        self.flags = {name for name, is_set in flags.items() if is_set}
        return self.left

    def clean_up(self, orphans: Any, *, report: Any) -> Removed:
        self.done.append(f"removed {len(orphans)}")
        return Removed(len(orphans), {each.id: "in use" for each in orphans if each.id == "sg-used"})

    def volumes(self) -> list[Any]:
        return [Namespace(volume_id="vol-1", instance_id="")]

    def delete_volume(self, volume_id: str) -> None:
        self.done.append(f"deleted {volume_id}")


class FakeDesk(Desk):
    """A desk whose only manager is a fake."""

    fake: Any

    def manager(self, arguments: Any = None) -> Any:
        return self.fake


class Session:
    """Types verbs, answers questions from a list, and keeps what was shown."""

    def __init__(self, cloud: str) -> None:
        self.manager = FakeManager(cloud)
        self.answers: list[str] = []
        self.shown: list[str] = []
        self.kept: dict[str, Any] = {}
        self.desk = FakeDesk(
            say=self.shown.append,
            show=lambda each: self.shown.append(str(each)),
            ask=self.ask,
            display=progress.PlainProgress,
            notice=lambda level, text: self.shown.append(text),
            keep=self.kept.update,
            sign="%ppe_",
        )
        self.desk.fake = self.manager

    def ask(self, question: str, instead: str) -> str:
        if not self.answers:
            raise UsageError(f"{question} There is nobody here to ask; add {instead}.")
        self.shown.append(question)
        return self.answers.pop(0)

    def __call__(self, line: str, *answers: str) -> list[str]:
        """Type the line; what was done. Raises UsageError for a question more than there are answers."""
        self.answers, self.manager.done[:], self.shown[:] = list(answers), [], []
        verb = find(line.split()[0], face="magic")
        arguments = typed.parse(verb, line.partition(" ")[2], face="magic")
        assert arguments is not None
        ACTIONS[verb.name](self.desk, arguments)
        assert not self.answers, "not everything was asked"
        return list(self.manager.done)


@pytest.fixture
def local() -> Session:
    return Session("local")


@pytest.fixture
def aws() -> Session:
    return Session("aws")


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("launch lab --no-wait", "launch"),
        ("reboot lab", "reboot lab"),
        ("park lab", "park lab"),
        ("start lab", "start lab"),
        ("resize lab --nodes 3", "resize lab"),
        ("retry lab --replace", "retry lab"),
        ("terminate lab", "terminate lab"),
    ],
)
def test_money_is_asked_for_and_the_local_cloud_is_free(
    local: Session, aws: Session, line: str, done: str
) -> None:
    assert local(line) == [done]
    assert aws(line, "y") == [done]
    assert "AWS account 123456789012" in aws.shown[0]
    assert aws(f"{line} --yes") == [done]
    with pytest.raises(NothingToDo):
        aws(line, "")
    with pytest.raises(UsageError, match=r"nobody here to ask; add --yes") as refused:
        aws(line)
    assert "AWS account 123456789012" in str(refused.value) and aws.manager.done == []
    if not line.startswith("terminate"):
        assert "$1.23 an hour" in str(refused.value)


def test_what_a_plan_forbids_is_shown_and_not_asked(local: Session) -> None:
    local.manager.found["lab"].problems = [Problem(Grade.ERROR, "max_nodes = 2")]
    with pytest.raises(SpecError, match="resize is not possible: max_nodes = 2"):
        local("resize lab --nodes 3 --yes")
    assert local.manager.done == [] and "max_nodes" not in local.shown[-1]  # said once


def test_nothing_to_do_says_so(local: Session) -> None:
    local.manager.found["lab"].problems = [Problem(Grade.INFO, "lab has 3 nodes already")]
    with pytest.raises(NothingToDo, match="lab has 3 nodes already"):
        local("resize lab --nodes 3")


def test_a_dry_run_stops_after_the_review(aws: Session) -> None:
    assert aws("launch lab --dry-run") == [] and aws("resize lab --nodes 3 --dry-run") == []
    assert "$1.23" in aws.shown[-2] and "nothing was changed" in aws.shown[-1]


def test_a_dry_run_of_what_runs_already_installs_nothing_and_saves(aws: Session, tmp_path: Path) -> None:
    aws.manager.existing = aws.manager.found["lab"].record
    path = tmp_path / "cluster.toml"
    assert aws(f"launch lab --rstudio --dry-run --save {path}") == [] and path.exists()
    assert "running already" in aws.shown[0] and aws.shown[-1].endswith("nothing was launched or installed")
    assert aws("launch lab --rstudio") == ["launch"]


def test_options_reach_the_plan(local: Session) -> None:
    lab = local.manager.found["lab"]
    local("reboot lab --node 2")
    assert lab.options == {"node": "2", "force": False}
    local("start lab --nodes 3 --force")
    assert lab.options == {"nodes": 3, "force": True}


def test_limits_that_may_cost_more_are_asked_for(local: Session, aws: Session) -> None:
    assert aws("limit lab --budget 10") == ["limit lab"], "nothing to think about"
    assert aws.manager.found["lab"].limits == {"budget_usd": 10.0}
    assert "parked when $20.00 are spent" in aws.shown[-1]
    for session in (local, aws):
        session.manager.found["lab"].problems = [Problem(Grade.WARNING, "budget $20.00 → off")]
    assert local("limit lab --budget off") == ["limit lab"]
    assert local.manager.found["lab"].limits == {"budget_usd": 0.0}
    assert aws("limit lab --budget off --yes") == aws("limit lab --budget off", "y") == ["limit lab"]
    assert "AWS account 123456789012" in aws.shown[0] and "budget $20.00 → off" in aws.shown[0]
    with pytest.raises(UsageError, match=r"Set these limits of lab.*nobody here to ask; add --yes"):
        aws("limit lab --budget off")
    assert aws.manager.done == []
    assert aws("limit lab") == [], "only shown"


def test_the_limits_of_somebody_elses_cluster_are_asked_for(local: Session) -> None:
    local.manager.found["hut"].record.owner = "ann on her laptop"
    with pytest.raises(UsageError, match="which ann on her laptop launched"):
        local("limit hut --idle 1h")
    assert local("limit hut --idle 1h", "y") == ["limit hut"]
    assert local("limit hut") == []


def test_limits_that_cannot_be_kept_are_not_asked_for(aws: Session) -> None:
    aws.manager.found["lab"].problems = [Problem(Grade.ERROR, "the price is unknown")]
    with pytest.raises(SpecError, match="limit is not possible: the price is unknown"):
        aws("limit lab --budget 5")
    assert aws.manager.done == []


@pytest.mark.parametrize("way", ["wait", "replace", "drop"])
def test_retry_asks_which_way(local: Session, way: str) -> None:
    lab = local.manager.found["lab"]
    local("retry lab")  # it runs: there is nothing to choose from
    assert lab.options["choice"] == "wait"
    lab.state = ClusterState.DEGRADED
    local("retry lab", way[:2])
    assert local.manager.found["lab"].options["choice"] == way
    with pytest.raises(UsageError, match="add --wait, --replace or --drop"):
        local("retry lab")
    with pytest.raises(UsageError, match="one of --wait and --drop only"):
        local("retry lab --wait --drop")


def test_the_end_of_unpulled_objects_asks_in_the_local_cloud_too(local: Session) -> None:
    lab = local.manager.found["lab"]
    lab.lost = Losses(objects=(("x", 2_000_000, False), ("my.y", 10, False)), files=(), jobs=())
    with pytest.raises(UsageError, match="add --yes"):
        local("terminate lab")
    assert "in R, never pulled: x (2 MB), my.y (10 bytes)" in local.shown[-1]
    with pytest.raises(NothingToDo):
        local("terminate lab", "")
    assert local("terminate lab", "t") == ["terminate lab"]
    assert local("terminate lab --yes") == ["terminate lab"]
    assert "in R, never pulled: x (2 MB)" in local.shown[0]
    assert local("terminate lab", "park") == ["park lab"]
    assert local("terminate lab", "pull") == ["terminate lab"] and local.kept == {
        "lab_objects": {"x": 1, "my.y": 2}
    }


def test_objects_of_every_session_are_told_of_and_pulled(local: Session) -> None:
    lab, there = local.manager.found["lab"], (("x", 2, False), ("has", 9, True))
    lab.lost = Losses(objects=(), files=(), jobs=(), others=(("s.2", there), ("s3", None)))
    assert local("terminate lab", "pull") == ["terminate lab"]
    assert "in R session s.2, never pulled: x (2 bytes)" in local.shown[0]
    assert "R session s3 is busy" in local.shown[0]
    assert local.kept == {"lab_s_2_objects": {"x": 1}}


@pytest.mark.parametrize("state", [ClusterState.PARKING, ClusterState.REBOOTING, ClusterState.PENDING])
def test_the_disk_of_a_master_that_was_in_use_is_a_loss(local: Session, state: ClusterState) -> None:
    lab = local.manager.found["lab"]
    lab.state = state
    assert local("terminate lab") == ["terminate lab"], "a launch that was never ready"
    master = Namespace(role="master", state=InstanceState.RUNNING, was_configured=True)
    lab.nodes = (master,)
    with pytest.raises(UsageError, match="add --yes"):
        local("terminate lab")
    assert "the master's disk, with home and workspace" in local.shown[-1]
    assert local("terminate lab", "terminate") == ["terminate lab"]


def test_after_a_pull_aws_still_asks(aws: Session) -> None:
    aws.manager.found["lab"].lost = Losses(objects=(("x", 1, False),), files=(), jobs=())
    assert aws("terminate lab", "pull", "yes") == ["terminate lab"]


def test_busy_r_and_files_are_losses_that_cannot_be_pulled(local: Session) -> None:
    local.manager.found["lab"].lost = Losses(objects=None, files=(("a.csv", 5),), jobs=("R evaluates",))
    with pytest.raises(NothingToDo):
        local("terminate lab", "pull")
    assert "pull" not in local.shown[-1] and "a.csv" in local.shown[0]


def test_all_is_mine_only_unless_everyone_is_said(local: Session) -> None:
    local.manager.found["hut"].record.owner = "ann on her laptop"
    assert local("terminate --all") == ["terminate lab"]
    with pytest.raises(UsageError, match="--yes --everyone"):
        local("terminate --all --everyone")
    assert local("terminate --all --everyone --yes") == ["terminate lab", "terminate hut"]


def test_somebody_elses_cluster_is_asked_for_with_its_owners_name(local: Session) -> None:
    local.manager.found["hut"].record.owner = "ann on her laptop"
    with pytest.raises(UsageError, match="add --yes --everyone"):
        local("terminate hut --yes")
    assert "ann on her laptop launched it" in local.shown[-1]
    assert local("terminate hut", "terminate") == ["terminate hut"]
    with pytest.raises(UsageError, match="which ann on her laptop launched"):
        local("park hut")


def test_what_is_left_of_somebody_elses_launch_is_asked_for(local: Session) -> None:
    local.manager.found["dead"] = FakeCluster(local.manager, "dead")
    known = local.manager.clusters
    local.manager.clusters = lambda: [each for each in known() if each.name != "dead"]  # type: ignore[method-assign]
    assert local("terminate dead") == ["terminate dead"]
    local.manager.remains["dead"] = "ann on her laptop"
    with pytest.raises(UsageError, match="add --yes --everyone"):
        local("terminate dead --yes")
    assert "ann on her laptop launched it" in local.shown[-1]
    assert local("terminate dead", "t") == local("terminate dead --yes --everyone") == ["terminate dead"]


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("bake --cluster hut", "bake hut"),
        ("install --apt jq --cluster hut", "install on hut"),
        ("attach_volume vol-1 --cluster hut", "attach vol-1 to hut"),
        ("detach_volume vol-1 --cluster hut", "detach vol-1 from hut"),
        ("launch hut --rstudio", "launch"),
    ],
)
def test_somebody_elses_cluster_is_not_worked_on_unasked(local: Session, line: str, done: str) -> None:
    hut = local.manager.found["hut"]
    local.manager.existing = hut.record
    assert local(line) == [done]
    hut.record.owner = "ann on her laptop"
    with pytest.raises(UsageError, match=r"which ann on her laptop launched .*add --yes"):
        local(line)
    assert local.manager.done == []
    assert local(line, "y") == local(f"{line} --yes") == [done]


def test_a_lock_is_not_put_on_somebody_elses_cluster_unasked(
    local: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    hut, satisfied = local.manager.found["hut"], []
    local.manager.existing = hut.record
    monkeypatch.setattr(locks, "wanted", lambda arguments: "lock")
    monkeypatch.setattr(locks, "satisfy", lambda desk, cluster, lock: satisfied.append(cluster.name))
    local("launch hut")
    hut.record.owner = "ann on her laptop"
    with pytest.raises(
        UsageError, match=r"Install the lock's packages on .*, which ann on her laptop launched"
    ):
        local("launch hut")
    assert len(satisfied) == 1
    local("launch hut", "y")
    assert len(satisfied) == 2


def test_all_is_asked_before_anything_ends(aws: Session) -> None:
    with pytest.raises(UsageError):
        aws("terminate lab hut", "y")
    assert aws.manager.done == []
    assert aws("terminate lab hut", "y", "y") == ["terminate lab", "terminate hut"]


def test_that_the_connected_cluster_is_gone_does_not_turn_to_another(local: Session) -> None:
    lab = local.manager.found.pop("lab")
    local.desk.connect(lab)
    lab.gone = True
    with pytest.raises(NoSuchCluster, match="lab"):
        local("terminate")
    assert local.desk.connected is None
    assert local("terminate") == ["terminate hut"], "now it is the only one"


def test_one_that_is_gone_does_not_keep_the_others(local: Session) -> None:
    assert local("terminate gone hut") == ["terminate hut"]
    assert local.shown == ["gone is gone already", "hut is terminated; nothing of it is left"]


def test_one_that_cannot_be_ended_does_not_keep_the_others(local: Session) -> None:
    local.manager.broken["lab"] = CloudError("sg-1 is in use")
    with pytest.raises(CloudError, match="1 of 2 clusters did not end: lab: sg-1 is in use"):
        local("terminate --all")
    assert local.manager.done == ["terminate hut"]
    local.manager.found["lab"].problems = [Problem(Grade.ERROR, "a spot instance")]
    local.manager.found["lab"].lost = Losses(objects=None, files=(), jobs=())
    with pytest.raises(CloudError, match=r"lab: .*park is not possible: a spot instance"):
        local("terminate lab hut", "park")
    assert local.manager.done == ["terminate hut"]
    with pytest.raises(CloudError, match=r"^sg-1 is in use$"):
        local("terminate lab --yes")


def test_stopped_it_names_those_that_have_not_ended(local: Session) -> None:
    local.manager.broken["lab"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        local("terminate --all")
    assert local.manager.done == [] and local.shown[-1].endswith("%ppe_terminate lab hut")


@dataclass(frozen=True)
class FakeOrphan:
    kind: str
    usd_per_hour: float | None = 0.0
    id: str = "x-1"


def test_cleanup_asks_before_data_goes(local: Session, aws: Session) -> None:
    with pytest.raises(NothingToDo, match="nothing is left behind"):
        local("cleanup")
    for session in (local, aws):
        session.manager.left = [FakeOrphan("security group")]
        assert session("cleanup --dry-run") == []
    assert local("cleanup") == ["removed 1"]
    assert local.manager.flags == set()
    local("cleanup --dry-run --images --everyone --force --all-regions")
    assert local.manager.flags == {"images", "everyone", "force", "all_regions"}
    assert aws("cleanup", "y") == ["removed 1"]
    local.manager.left.append(FakeOrphan("volume", 0.003))
    with pytest.raises(UsageError, match=r"Remove 2 things \(AWS"):
        local("cleanup")
    assert local("cleanup --yes") == ["removed 2"]


def test_cleanup_deletes_stored_data_only_when_asked_about_them(local: Session) -> None:
    local.manager.left = [FakeOrphan("volume"), FakeOrphan("data volume", 0.003, "vol-1")]
    assert local("cleanup --yes") == ["removed 1"]
    assert "kept, with what is on them: vol-1" in "".join(map(str, local.shown))
    assert local("cleanup", "y") == ["removed 2"]


def test_cleanup_says_what_is_still_there(local: Session) -> None:
    local.manager.left = [FakeOrphan("security group"), FakeOrphan("security group", 0.0, "sg-used")]
    local("cleanup --yes")
    said = "".join(map(str, local.shown))
    assert "still there: sg-used (in use)" in said and "removed: " not in said


def test_deleting_a_volume_asks_everywhere(local: Session) -> None:
    with pytest.raises(UsageError, match="Delete vol-1 with all that is on it"):
        local("delete_volume vol-1")
    assert local("delete_volume vol-1", "y") == ["deleted vol-1"]
    with pytest.raises(UsageError, match="no volume 'vol-2'"):
        local("delete_volume vol-2")


def test_what_is_wrong_is_said_with_the_option_that_was_typed(local: Session) -> None:
    with pytest.raises(SpecError, match=r"spot_max_usd \(--spot-price\)"):
        local("launch lab --spot-price 0.1 --dry-run")


def test_what_is_typed_becomes_the_specification(local: Session, tmp_path: Path) -> None:
    script = tmp_path / "boot.sh"
    script.write_text("echo hi")
    local(
        f"launch lab --nodes 3 --spot --idle off --apt a,b --apt c --no-encryption --bootstrap {script} "
        "--volume vol-0123456789abcdef0:/data --tag k=v --no-wait"
    )
    assert local.manager.spec == ClusterSpec(
        name="lab",
        nodes=3,
        spot=True,
        idle_hours=0,
        apt_packages=("a", "b", "c"),
        encrypted=False,
        bootstrap="echo hi",
        volumes=("vol-0123456789abcdef0:/data",),
        tags={"k": "v"},
    )
    with pytest.raises(UsageError, match="cannot read the bootstrap script"):
        local("launch lab --bootstrap /nowhere")


def test_a_specification_may_be_in_the_home(
    local: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    local("launch lab --nodes 4 --no-wait --save ~/cluster.toml")
    assert (tmp_path / "cluster.toml").exists()
    local("launch --spec ~/cluster.toml --no-wait")
    assert local.manager.spec.nodes == 4


def test_a_specification_is_saved_and_what_is_typed_comes_before_it(local: Session, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    local(f"launch lab --nodes 4 --slots 2 --idle 90m --tag a=b --r lme4 --no-wait --save {path}")
    saved = local.manager.spec
    local(f"launch --spec {path} --no-wait")
    assert local.manager.spec == saved
    path.write_text(path.read_text() + "max_hours = 8\nbudget_usd = 20.0\n")
    local(f"launch --spec {path} --max-hours off --budget 0 --idle off --no-wait")
    assert local.manager.spec == replace(saved, idle_hours=0.0), "off undoes what the file says"
    local(f"launch hut --spec {path} --max-hours off --budget off --nodes 2 --tag c=d --no-wait")
    assert local.manager.spec == replace(saved, name="hut", nodes=2, tags={"a": "b", "c": "d"})


def test_a_bake_says_what_it_costs_and_what_goes_along(aws: Session) -> None:
    with pytest.raises(
        UsageError, match=r"One more m5.xlarge runs .* at \$0.19 an hour.* \$0.05 a GB and month"
    ):
        aws("bake")
    assert "other files go along" in aws.shown[0]
    assert aws("bake", "y") == ["bake lab"]
    assert "lab (AWS account 123456789012, region us-east-1" in aws.shown[1]


def test_which_images_fit_is_asked_of_ec2(aws: Session) -> None:
    arguments = typed.parse(find("images", face="magic"), "--type m5.xlarge", face="magic")
    assert arguments is not None
    why = "boots by uefi, m5.xlarge by legacy-bios"
    assert why in str(ACTIONS["images"](aws.desk, arguments))
    manager: Any = aws.manager
    assert lists.images(manager, "m5.xlarge")[0]["why"] == why
