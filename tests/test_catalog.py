import datetime

import pytest

from ppe_jupyter import catalog


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


def test_the_table_has_a_row_for_each_type() -> None:
    table = catalog.table()
    assert len(table) == len(catalog.instance_types())
    assert table.loc["m5.xlarge", "USD/core-h"] == pytest.approx(0.096)
