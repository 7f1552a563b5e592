"""The ledger's file, and what the costs of things that are over, parked, lost or living are reckoned to be."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.cloud.account import Account
from ppe_jupyter.cloud.ec2 import EC2
from ppe_jupyter.cloud.facts import Identity, Instance, Snapshot, Volume
from ppe_jupyter.cloud.keeping import costs
from ppe_jupyter.cloud.keeping.ledger import Entry, Ledger, rates
from ppe_jupyter.cloud.keeping.spending import items
from ppe_jupyter.cloud.records import ClusterRecord, ClusterState, Cost, InstanceState, Node, Progress
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import LaunchFailed, UsageError
from ppe_jupyter.localcloud import hooks
from ppe_jupyter.manager import Manager

if TYPE_CHECKING:
    from ppe_jupyter.localcloud import Endpoint
    from ppe_jupyter.settings import Settings

NOW = datetime(2026, 5, 20, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WHOSE = Identity(account="123456789012", arn="arn:aws:iam::123456789012:user/ann", region="us-east-1")
DISK = catalog.disk_usd_per_hour(30)


def node(index: int, **changes: Any) -> Node:
    values: dict[str, Any] = {
        "instance_id": f"i-{index:017x}", "index": index, "role": "worker" if index else "master",
        "state": InstanceState.RUNNING, "private_ip": f"10.0.0.{index + 4}", "private_dns": f"ip-{index}.ec2.internal",
        "public_ip": f"203.0.113.{index}", "public_dns": "", "instance_type": "m5.xlarge", "zone": "us-east-1a",
        "subnet_id": "subnet-12345678", "slots": 2, "launched": NOW - 10 * HOUR, "host_key": "", "price": 0.2,
    }  # fmt: skip
    return Node(**(values | changes))


def cluster(name: str = "brisk-otter", *, parked: datetime | None = None, **changes: Any) -> ClusterRecord:
    """Two nodes that were launched ten hours ago for 0.5 USD an hour, or its master that stopped by itself."""
    stopped = {"state": InstanceState.STOPPED, "stopped": parked, "public_ip": ""}
    values: dict[str, Any] = {
        "name": name, "launch": f"launch-of-{name}", "owner": "ann@laptop arn", "login_user": "admin", "key_name": "k",
        "state": ClusterState.PARKED if parked else ClusterState.RUNNING, "slots": 4, "busy_until": None,
        "nodes": (node(0, **stopped),) if parked else (node(0), node(1)), "launched": NOW - 10 * HOUR,
        "usd_per_hour": DISK if parked else 0.4 + 2 * DISK + 2 * catalog.USD_PER_HOUR_PUBLIC_IPV4,
        "cost": Cost(spent_usd=0.0, usd_per_hour=0.5, since=NOW - 10 * HOUR),
        "spec": ClusterSpec(name=name, instance_type="m5.xlarge", tags={"project": "bees"}),
    }  # fmt: skip
    return ClusterRecord(**(values | changes))


def entry(event: str, hours_ago: float, spent: float | None, **changes: Any) -> Entry:
    values: dict[str, Any] = {
        "time": NOW - hours_ago * HOUR, "event": event, "kind": "cluster", "id": "launch-of-old", "name": "old",
        "cloud": "aws", "account": WHOSE.account, "region": WHOSE.region, "owner": "ann@laptop arn", "spent": spent,
        "rates": {} if event == "terminate" else {"instances": 0.4, "disks": 0.1}, "nodes": 2,
        "instance_type": "m5.xlarge", "tags": {"project": "ants"},
    }  # fmt: skip
    return Entry(**(values | changes))


def table(
    entries: Sequence[Entry] = (),
    *,
    records: Sequence[ClusterRecord] = (),
    volumes: Sequence[Volume] = (),
    snapshots: Sequence[Snapshot] = (),
    by: str = "cluster",
    month: str | None = None,
    billed: Mapping[str, float] | None = None,
) -> Any:
    found = items(
        entries, whose=WHOSE, cloud="aws", now=NOW, records=records, volumes=volumes, snapshots=snapshots
    )
    start, end = costs.month_of(month) if month else (NOW - 10000 * HOUR, NOW)
    return costs.table(found, start=start, end=end, by=by, billed=billed)


# -- the file -----------------------------------------------------------------------------------------------


def test_the_ledger_is_the_users_alone_and_only_grows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state")
    assert ledger.entries() == []
    written = [entry("launch", 9, 0.0), entry("resize", 5, None, rates=None), entry("terminate", 1, 4.0)]
    for each in reversed(written):
        ledger.record(each)
    assert ledger.entries() == written
    file = tmp_path / "state" / "ledger.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_damaged_line_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(entry("launch", 9, 0.0))
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-05-20T12:00:00"}\n[1]\n\xff\n{"time": 7}\n')
        file.write(b'{"time": "2026-05-20T12:00:00+00:00", "event": "laun')  # its writer died here
    ledger.record(entry("terminate", 1, 4.0))
    assert [each.event for each in ledger.entries()] == ["launch", "terminate"]


def test_entries_written_at_once_are_all_there_and_whole(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for i in range(50):
            Ledger(tmp_path).record(entry("launch", 9, float(i), id=f"{number}-{i}", tags={"k": "v" * 200}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.id for each in Ledger(tmp_path).entries()}) == 400


def test_a_ledger_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    Ledger(tmp_path).record(entry("launch", 9, 0.0))
    assert Ledger(tmp_path).entries() == []


def test_an_entry_says_what_a_cluster_costs_by_part_and_has_cost() -> None:
    made = Entry.of_cluster("launch", cluster(), whose=WHOSE, cloud="aws", now=NOW)
    assert made.rates == {"instances": 0.4, "disks": pytest.approx(2 * DISK), "addresses": 0.01}
    assert made.spent == pytest.approx(5.0)
    assert rates(cluster(parked=NOW)) == {"instances": 0, "disks": pytest.approx(DISK), "addresses": 0}
    assert rates(cluster(nodes=(node(0, price=None),), usd_per_hour=None)) is None
    assert Entry.of_cluster("terminate", cluster(), whose=WHOSE, cloud="aws", now=NOW).rates == {}


# -- costs --------------------------------------------------------------------------------------------------


def test_what_is_over_costs_what_was_known_at_its_end() -> None:
    row = table([entry("launch", 9, 0.0), entry("resize", 5, 2.0), entry("terminate", 1, 9.0)]).loc["old"]
    assert row["USD"] == pytest.approx(9.0)
    assert row["instances"] == pytest.approx(9.0 * 0.8)
    assert (row["USD/h now"], row["state"], row["note"]) == (0.0, "ended", "")


def test_where_nothing_was_known_the_rate_counts() -> None:
    entries = [entry("launch", 9, None), entry("terminate", 1, None)]
    assert table(entries).loc["old", "USD"] == pytest.approx(8 * 0.5)
    unknown = [entry("launch", 9, None, rates=None), entry("terminate", 1, None)]
    assert table(unknown).empty


def test_what_vanished_without_an_end_is_marked_with_what_it_may_have_cost() -> None:
    row = table([entry("launch", 9, 0.0), entry("resize", 4, 2.5)]).loc["old"]
    assert row["USD"] == pytest.approx(2.5)
    assert row["note"].startswith("its end is unknown") and "since 2026-05-20 08:00 UTC" in row["note"]
    assert "at most $2.00 more" in row["note"]
    ends_itself = [entry("launch", 9, 0.0), entry("limit", 4, 2.5, budget_usd=3.0)]
    assert "at most $0.50 more" in table(ends_itself).loc["old", "note"]
    parked = entry("park", 4, 2.5, budget_usd=3.0, rates={"instances": 0.0, "disks": 0.5})
    assert "at most $2.00 more" in table([entry("launch", 9, 0.0), parked]).loc["old", "note"]
    alone = table([entry("launch", 9, 0.0, region="eu-west-1")]).loc["old"]
    assert alone["USD"] == 0
    assert "another account or region" in alone["note"]


def test_a_living_cluster_needs_no_ledger() -> None:
    row = table(records=[cluster()]).loc["brisk-otter"]
    assert row["USD"] == pytest.approx(5.0)
    assert row["USD/h now"] == pytest.approx(0.4 + 2 * DISK + 0.01)
    assert row["where"] == "123456789012 us-east-1"
    # The same, known to the ledger: nothing counts twice.
    launch = Entry.of_cluster("launch", cluster(), whose=WHOSE, cloud="aws", now=NOW - 9.9 * HOUR)
    assert table([launch], records=[cluster()])["USD"].sum() == pytest.approx(5.0)


def test_a_cluster_that_parked_itself_costs_its_disk_since() -> None:
    row = table(records=[cluster(parked=NOW - 8 * HOUR)]).loc["brisk-otter"]
    assert row["USD"] == pytest.approx(2 * 0.5 + 8 * DISK)
    assert row["disks"] == pytest.approx(8 * DISK + 2 * 2 * DISK)
    assert row["state"] == "parked"


def test_a_terminated_cluster_that_ec2_still_lists_is_no_living_one() -> None:
    gone = cluster(nodes=(node(0, state=InstanceState.TERMINATED),), state=ClusterState.TERMINATED)
    assert table(records=[gone]).empty


def test_volumes_and_snapshots_cost_by_their_size() -> None:
    month = timedelta(days=730 / 24)
    common: Any = {"gb": 100, "created": NOW - month, "tags": {"ppe:owner": "ann", "project": "bees"}}
    volume = Volume(
        volume_id="vol-1", state="available", zone="us-east-1a", kind="gp3", encrypted=True, **common
    )
    snapshot = Snapshot(snapshot_id="snap-1", volume_id="vol-1", **common)
    found = table(volumes=[volume], snapshots=[snapshot])
    # https://aws.amazon.com/ebs/pricing: 0.08 and 0.05 USD a GB and month.
    assert found.loc["vol-1", "disks"] == pytest.approx(8.0)
    assert found.loc["snap-1", "snapshots"] == pytest.approx(5.0)
    assert "at most" in found.loc["snap-1", "note"]
    # One that was deleted is known from the ledger alone.
    deleted = Entry.of_storage("delete", volume, whose=WHOSE, cloud="aws", now=NOW)
    created = Entry.of_storage("create", volume, whose=WHOSE, cloud="aws", now=NOW - month)
    assert table([created, deleted]).loc["vol-1", "disks"] == pytest.approx(8.0)
    made = Entry.of_storage("create", snapshot, whose=WHOSE, cloud="aws", now=NOW - month)
    assert table([made], snapshots=[snapshot])["snapshots"].sum() == pytest.approx(5.0)
    gone = Entry.of_storage("delete", snapshot, whose=WHOSE, cloud="aws", now=NOW)
    assert table([made, gone]).loc["snap-1", "snapshots"] == pytest.approx(5.0)


def test_a_month_gets_its_part() -> None:
    # 20 days at 1 USD a day: 10 of them in April.
    launched = datetime(2026, 4, 21, tzinfo=timezone.utc)
    ended = datetime(2026, 5, 11, tzinfo=timezone.utc)
    entries = [entry("launch", 0, 0.0, time=launched), entry("terminate", 0, 20.0, time=ended)]
    assert table(entries, month="2026-04").loc["old", "USD"] == pytest.approx(10.0)
    assert table(entries, month="2026-03").empty
    assert table(entries, by="month")["USD"].to_dict() == pytest.approx({"2026-04": 10.0, "2026-05": 10.0})
    for wrong in ("2026", "2026-13", "May"):
        with pytest.raises(UsageError, match="2026-05"):
            costs.month_of(wrong)


def test_costs_are_grouped_by_what_is_asked() -> None:
    entries = [entry("launch", 9, 0.0), entry("terminate", 1, 4.0)]
    local = [
        entry("launch", 9, 0.0, cloud="local", id="other"),
        entry("terminate", 1, 3.0, cloud="local", id="other"),
    ]
    by_tag = table([*entries, *local], records=[cluster()], by="project").reset_index()
    assert by_tag.set_index(["project", "where"])["USD"].to_dict() == pytest.approx(
        {
            ("ants", "123456789012 us-east-1"): 4.0,
            ("ants", "local cloud: free"): 3.0,
            ("bees", "123456789012 us-east-1"): 5.0,
        }
    )
    assert table(entries, by="owner").index.to_list() == ["ann@laptop arn"]
    assert table(entries, by="type").index.to_list() == ["m5.xlarge"]
    assert table(entries, by="team").index.to_list() == ["(not tagged)"]


def test_what_aws_has_billed_stands_beside_it() -> None:
    entries = [entry("launch", 9, 0.0), entry("terminate", 1, 4.0)]
    found = table(entries, billed={"old": 4.4, "colleague": 7.0, "": 100.0})
    assert found["billed USD"].to_dict() == {"old": 4.4, "colleague": 7.0, "(not tagged)": 100.0}
    assert found.loc["colleague", "note"] == "not in the ledger"


# -- asking EC2 and Cost Explorer ---------------------------------------------------------------------------


def test_the_table_has_what_ec2_lists_and_on_request_what_was_billed(
    manager: Manager, local_cloud: Endpoint, tmp_path: Path
) -> None:
    account = manager._account
    ledger = Ledger(tmp_path)
    asked = costs.Costs(account.context, ledger)
    volume_id = account.volumes.create(gb=1, zone="us-east-1a")
    try:
        frame = asked.table([])
        assert frame.loc[volume_id, "where"] == "local cloud: free"
        assert frame.loc[volume_id, "state"] == "available"
        assert "what EC2 would have charged" in frame.attrs["notes"][0]
        hooks.reset(local_cloud)
        refused = asked.table([], explorer=True)
        assert "Cost Explorer cannot be asked" in refused.attrs["notes"][-1]
        hooks.set_account(local_cloud, cost_explorer=True)
        billed = asked.table([], explorer=True)
        assert "brisk-otter" in billed.index[billed["billed USD"] > 0]
        assert "(not tagged)" in billed.index
        by_owner = asked.table([], by="owner", explorer=True)
        assert "Cost allocation tags" in by_owner.attrs["notes"][-1]
        assert (
            "only by cluster, owner or a tag" in asked.table([], by="type", explorer=True).attrs["notes"][-1]
        )
        assert hooks.calls(local_cloud).count("GetCostAndUsage") == 3
    finally:
        hooks.reset(local_cloud)
        account.volumes.delete(volume_id)


def test_cost_explorer_is_asked_for_the_days_of_the_month_and_no_other(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def billed(ec2: EC2, tag: str, *, start: date, end: date) -> dict[str, float]:
        asked.append((start.isoformat(), end.isoformat()))
        return {}

    monkeypatch.setattr(EC2, "billed", billed)
    context = manager._account.context
    for now in (NOW, NOW.replace(month=3)):  # its end is exclusive
        there = costs.Costs(replace(context, now=lambda now=now: now), Ledger(tmp_path))
        there.table([], month="2026-03", explorer=True)
    assert asked == [("2026-03-01", "2026-04-01"), ("2026-03-01", "2026-03-21")]


def test_the_instance_that_an_image_was_made_of_has_its_line(manager: Manager, tmp_path: Path) -> None:
    account = Account(manager._account.context)
    vars(account)["_ledger"] = Ledger(tmp_path)
    now = account.context.now()
    copy = Instance(
        instance_id="i-copy", launch_index=0, state=InstanceState.STOPPED, reason="", private_ip="", private_dns="",
        public_ip="", public_dns="", instance_type="m5.xlarge", zone="", subnet_id="", key_name="",
        launched=now - 2 * HOUR, stopped=now - HOUR, tags={"Name": "ppe-bake-mine", "ppe:owner": "ann"},
    )  # fmt: skip
    account.note_copy(copy, None)
    account.note_copy(copy, 0.2)
    row = account.costs.table([]).loc["ppe-bake-mine"]
    assert (row["USD"], row["state"]) == (pytest.approx(0.2, abs=1e-3), "ended")


# -- what ends without its user's word ----------------------------------------------------------------------


@pytest.fixture
def fresh(local_cloud: Endpoint, settings: Settings, tmp_path: Path) -> Iterator[Manager]:
    """A client whose ledger is empty, and whose instances are records only."""
    manager = Manager(settings)
    vars(manager._account)["_ledger"] = Ledger(tmp_path)
    hooks.set_containerless(local_cloud, True)
    yield manager
    hooks.set_containerless(local_cloud, False)


def test_a_launch_that_failed_is_in_the_ledger_with_its_end(fresh: Manager) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "booting":
            raise KeyboardInterrupt

    with pytest.raises(LaunchFailed, match="it was stopped"):
        fresh.launch(ClusterSpec(name="stopped", nodes=1, instance_type="m5.xlarge"), report=stop)
    row = fresh.costs().loc["stopped"]
    assert (row["state"], row["note"]) == ("ended", "")
    assert [each.event for each in fresh._account._ledger.entries()] == ["launch", "terminate"]


@pytest.mark.parametrize("says", [True, False], ids=["its console says when", "nobody says when"])
def test_a_cluster_that_was_ended_elsewhere_has_an_end(
    fresh: Manager, monkeypatch: pytest.MonkeyPatch, says: bool
) -> None:
    account = fresh._account
    began = account.context.now() - 10 * HOUR
    cost = Cost(spent_usd=0.0, usd_per_hour=0.5, since=began)
    gone = cluster("gone", nodes=(node(0, state=InstanceState.TERMINATED),), state=ClusterState.TERMINATED)
    gone = replace(gone, cost=cost, launched=began, usd_per_hour=0.0)
    account.note("launch", cluster("gone", cost=cost, launched=began), at=began)
    said = f"ppe-watchdog: parking at {began + 2 * HOUR:%Y-%m-%dT%H:%M:%SZ}, spent 1.0\n" if says else ""
    monkeypatch.setattr(account.context.ec2, "console_output", lambda *_, **__: said)
    for _ in range(2):
        account.note_ends([gone, cluster("strange", state=ClusterState.TERMINATED)])
    assert [each.event for each in account._ledger.entries()] == ["launch", "terminate"]
    row = fresh.costs().loc["gone"]
    assert (row["state"], row["note"]) == ("ended", "")
    assert row["USD"] == pytest.approx(1.0 if says else 5.0, abs=1e-2)
