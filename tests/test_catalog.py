import csv
import datetime
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ppe_jupyter import catalog
from ppe_jupyter.errors import UsageError


def test_every_type_has_cores_memory_and_an_architecture() -> None:
    types = catalog.instance_types()
    assert len(types) > 1000
    for kind in types.values():
        assert kind.cores >= 1
        assert kind.memory_mib > 0
        assert kind.architectures
        assert kind.usd_per_hour is None or 0 < kind.usd_per_hour < 1000


def test_prices_are_dated() -> None:
    assert datetime.date.fromisoformat(catalog.prices_as_of()) >= datetime.date(2026, 7, 20)


@pytest.mark.parametrize(
    ("name", "cores", "threads", "one_thread", "cluster", "price"),
    [
        ("c7a.2xlarge", 8, 1, True, True, 0.41056),
        ("m5.xlarge", 2, 2, True, True, 0.192),
        ("t3.xlarge", 2, 2, True, False, 0.1664),
        ("a1.large", 2, 1, False, True, 0.051),
    ],
)
def test_known_types(
    name: str, cores: int, threads: int, one_thread: bool, cluster: bool, price: float
) -> None:
    kind = catalog.instance_types()[name]
    assert (kind.cores, kind.threads_per_core) == (cores, threads)
    assert kind.one_thread_per_core is one_thread
    assert kind.cluster is cluster
    assert kind.usd_per_hour == price


def test_a_node_costs_instance_disk_and_address() -> None:
    # 0.192 + 30 GB of gp3 at 0.08 a month of 730 hours + 0.005 for the address
    assert catalog.usd_per_hour("m5.xlarge", root_gb=30) == pytest.approx(0.192 + 30 * 0.08 / 730 + 0.005)
    private = catalog.usd_per_hour("m5.xlarge", root_gb=30, public_address=False)
    assert private == pytest.approx(0.192 + 30 * 0.08 / 730)


def test_an_unknown_price_is_none() -> None:
    assert catalog.usd_per_hour("x9.huge", root_gb=30) is None
    unpriced = next(kind for kind in catalog.instance_types().values() if kind.usd_per_hour is None)
    assert catalog.usd_per_hour(unpriced.name, root_gb=30) is None


def test_images_fit_by_architecture() -> None:
    types = catalog.instance_types()
    assert types["m5.xlarge"].fits("x86_64")
    assert not types["m5.xlarge"].fits("arm64")
    assert types["c7g.xlarge"].fits("arm64")


def test_the_builder_makes_the_shipped_table(tmp_path: Path) -> None:
    """From its own prices and moto's facts it is the same again, if moto is of the version that it names."""
    path = Path(catalog.__file__).parent / "data"
    shipped = (path / "instance_types.csv").read_text("utf-8")
    if f"moto {version('moto')} " not in shipped:
        pytest.skip("another moto has other facts")
    rows = csv.DictReader(line for line in shipped.splitlines() if not line.startswith("#"))
    prices = [f"us-east-1,{row['instance_type']},{row['usd_per_hour']},{row['network_mbps']}" for row in rows]
    (tmp_path / "prices.csv").write_text(
        "\n".join(["region,instance_type,usd_per_hour,network_mbps", *prices])
    )
    command = [sys.executable, path / "build_catalog.py", tmp_path / "prices.csv", catalog.prices_as_of()]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == shipped


def test_the_table_has_every_type_that_can_be_paid_or_all() -> None:
    assert len(catalog.table(all=True)) == len(catalog.instance_types())
    table = catalog.table()
    assert len(table) < len(catalog.instance_types())
    assert table["USD/h"].notna().all()
    assert table.loc["m5.xlarge", "USD/core-h"] == pytest.approx(0.096)
    assert table["USD/core-h"].is_monotonic_increasing
    assert table.attrs["source"] == f"shipped catalog, us-east-1 prices of {catalog.prices_as_of()}"
    assert {"c7a.2xlarge", "t3.xlarge"} <= set(table.index)


def test_the_table_is_filtered() -> None:
    table = catalog.table(min_cores=16, min_gb=64, cluster=True, arch="arm64", max_price=2.0)
    assert len(table) > 3
    assert (table["cores"] >= 16).all()
    assert (table["GB"] >= 64).all()
    assert table["cluster"].all()
    assert set(table["arch"]) == {"arm64"}
    assert (table["USD/h"] <= 2).all()
    assert "t3.xlarge" not in catalog.table(cluster=True).index
    assert "t3.xlarge" in catalog.table(cluster=False).index
    assert len(catalog.table(min_cores=5000)) == 0


@pytest.mark.parametrize(
    ("sort", "column", "falling"),
    [
        ("price", "USD/h", False),
        ("price per core", "USD/core-h", False),
        ("spot", "spot USD/h", False),
        ("cores", "cores", True),
        ("gb", "GB", True),
        ("network", "Gbit/s", True),
    ],
)
def test_the_table_is_sorted(sort: str, column: str, falling: bool) -> None:
    spot = {"m5.xlarge": 0.07, "c7a.2xlarge": 0.15, "c7g.xlarge": 0.06}
    values = catalog.table(sort=sort, spot=spot)[column].dropna()
    assert values.is_monotonic_decreasing if falling else values.is_monotonic_increasing


def test_a_sort_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"by 'beauty'; there are: price-per-core, price, spot"):
        catalog.table(sort="beauty")
