import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_jupyter.cloud.spec import NAME, ClusterSpec, generate_name
from ppe_jupyter.errors import SpecError


def test_the_default_is_two_nodes_of_c7a_2xlarge() -> None:
    spec = ClusterSpec()
    assert (spec.nodes, spec.instance_type, spec.slots, spec.name) == (2, "c7a.2xlarge", None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Upper"),
        ("name", "-dash"),
        ("name", "dash-"),
        ("name", "9lives"),
        ("name", "a" * 41),
        ("name", ""),
        ("name", "x; rm -rf /"),
        ("nodes", 0),
        ("nodes", 1001),
        ("nodes", 2.5),
        ("nodes", True),
        ("slots", 0),
        ("root_gb", 4),
        ("instance_type", "large"),
        ("zone", "us-east"[:2]),
        ("subnet", "subnet-xyz"),
        ("image", "debian"),
        ("caller_cidr", "1.2.3.4/33"),
        ("caller_cidr", "somewhere"),
        ("caller_cidr", "10.0.0.1/8"),
        ("tags", {"ppe:cluster": "mine"}),
        ("tags", {"aws:x": "y"}),
        ("tags", {"Name": "x"}),
        ("tags", {"": "x"}),
        ("tags", {"x": "y" * 257}),
        ("tags", {f"k{i}": "" for i in range(11)}),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(SpecError, match=re.escape(field.rstrip("s"))) as caught:
        ClusterSpec(**{field: value})
    assert len(caught.value.problems) == 1


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        ClusterSpec(name="Bad Name", nodes=0, root_gb=1)
    assert len(caught.value.problems) == 3


def test_differences_name_the_field_and_both_values() -> None:
    assert ClusterSpec(nodes=2).differences(ClusterSpec(nodes=3, zone="us-east-1a")) == [
        "nodes: 2, not 3",
        "zone: None, not us-east-1a",
    ]
    assert ClusterSpec().differences(ClusterSpec()) == []


SPECS = st.builds(
    ClusterSpec,
    name=st.none() | st.from_regex(NAME, fullmatch=True),
    nodes=st.integers(1, 1000),
    slots=st.none() | st.integers(1, 1024),
    zone=st.none() | st.sampled_from(["us-east-1a", "eu-central-1b", "us-west-2-lax-1a"]),
    image=st.none() | st.from_regex(r"\Aami-[0-9a-f]{17}\Z"),
    caller_cidr=st.none() | st.sampled_from(["203.0.113.7/32", "10.0.0.0/8"]),
    root_gb=st.integers(8, 16384),
    tags=st.dictionaries(st.text("abc-.", min_size=1), st.text(max_size=256), max_size=10),
)


@given(SPECS)
def test_a_spec_survives_its_tag(spec: ClusterSpec) -> None:
    text = spec.to_tag()
    assert len(text) <= 256
    assert ClusterSpec.from_tag(text, name=spec.name or "", tags=spec.tags) == (spec if spec.name else None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes":"many"}', '{"unknown":1}', "null"])
def test_a_damaged_tag_is_no_spec(text: str) -> None:
    assert ClusterSpec.from_tag(text, name="x", tags={}) is None


class Stuck(random.Random):
    """Always chooses the first."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return 0


@pytest.mark.parametrize("rng", [random.Random(1), Stuck()], ids=["random", "stuck"])
def test_generated_names_are_valid_and_not_taken(rng: random.Random) -> None:
    taken: set[str] = set()
    for _ in range(20):
        name = generate_name(taken, rng=rng)
        assert name not in taken
        assert ClusterSpec(name=name).name == name
        taken.add(name)
