import random
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppe_jupyter.cloud import spec_file
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
        ("image", "Debian 12"),
        ("image", "ami-xyz!"),
        ("login_user", "root; rm"),
        ("security_group", "default"),
        ("placement", ""),
        ("public_addresses", "some"),
        ("root_type", "io2"),
        ("then", "sleep"),
        ("threads_per_core", 4),
        ("volumes", ["vol-12345678:data"]),
        ("spot_max_usd", 0),
        ("idle_hours", -1),
        ("max_hours", 0),
        ("budget_usd", "many"),
        ("bootstrap", "x" * 8193),
        ("apt_packages", ["r-base; reboot"]),
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
        ClusterSpec(**{"spot": field == "spot_max_usd", field: value})
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"spot_max_usd": 0.1}, "need spot"),
        ({"spot_fallback": True}, "need spot"),
        ({"spot": True, "nodes": 1}, "the master is always on demand"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ClusterSpec(**fields)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        ClusterSpec(name="Bad Name", nodes=0, root_gb=1)
    assert len(caught.value.problems) == 3


def test_differences_name_the_field_and_both_values() -> None:
    assert ClusterSpec(nodes=2).differences(ClusterSpec(nodes=3, zone="us-east-1a")) == [
        "nodes: 2, not 3",
        "zone: none, not us-east-1a",
    ]
    assert ClusterSpec().differences(ClusterSpec()) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
PACKAGES = st.lists(st.sampled_from(["libgsl-dev", "lme4", "numpy==2.0"]), max_size=3, unique=True)
SPECS = st.builds(
    ClusterSpec,
    name=st.none() | st.from_regex(NAME, fullmatch=True),
    nodes=st.integers(2, 1000),
    slots=st.none() | st.integers(1, 1024),
    zone=st.none() | st.sampled_from(["us-east-1a", "eu-central-1b", "us-west-2-lax-1a"]),
    image=st.none() | st.from_regex(r"\Aami-[0-9a-f]{17}\Z") | st.just("debian-12"),
    caller_cidr=st.none() | st.sampled_from(["203.0.113.7/32", "10.0.0.0/8"]),
    placement=st.sampled_from(["auto", "off", 'my "group"']),
    root_gb=st.integers(8, 16384),
    encrypted=st.booleans(),
    volumes=st.lists(st.sampled_from(["vol-12345678", "vol-12345678:/data"]), max_size=2),
    spot=st.booleans(),
    idle_hours=st.none() | st.floats(0, 100),
    budget_usd=st.none() | st.floats(0.01, 1e6),
    bootstrap=st.none() | TEXT,
    apt_packages=PACKAGES,
    python_packages=PACKAGES,
    rstudio=st.booleans(),
    tags=st.dictionaries(st.text("abc-. \"'", min_size=1), TEXT, max_size=10),
)


@given(SPECS)
def test_a_spec_survives_its_tag(spec: ClusterSpec) -> None:
    restored = ClusterSpec.from_tag(spec.to_tag(), name=spec.name or "", tags=spec.tags)
    if spec.name is None:
        assert restored is None
    else:
        assert restored is not None
        assert restored.differences(spec) == []
        assert replace(restored, bootstrap=spec.bootstrap) == spec


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


# -- files --------------------------------------------------------------------------------------------------


@given(SPECS)
def test_a_spec_survives_its_file(tmp_path_factory: pytest.TempPathFactory, spec: ClusterSpec) -> None:
    path = tmp_path_factory.getbasetemp() / "cluster.toml"
    spec_file.save(spec, path)
    assert ClusterSpec(**spec_file.load(path)) == spec


def test_a_saved_file_says_what_every_field_means(tmp_path: Path) -> None:
    assert list(spec_file.MEANINGS) == [each.name for each in fields(ClusterSpec)]
    path = tmp_path / "cluster.toml"
    spec_file.save(ClusterSpec(zone="us-east-1b", bootstrap="#!/bin/sh\ndate\n"), path)
    text = path.read_text()
    for name, (_, meaning) in spec_file.MEANINGS.items():
        assert re.search(rf"^(# )?{name} = ", text, re.MULTILINE)
        assert meaning in text
    assert '\nzone = "us-east-1b"' in text
    assert "\n# image = " in text
    # The examples are ones that load takes.
    path.write_text(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    everything = spec_file.load(path)
    assert everything["max_hours"] == 8.0
    assert ClusterSpec(**{**everything, "spot": True}).volumes == ("vol-0123456789abcdef0:/data",)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('idle_hours = "2h"', {"idle_hours": 2.0}),
        ('idle_hours = "90m"', {"idle_hours": 1.5}),
        ('idle_hours = "off"', {"idle_hours": 0.0}),
        ('max_hours = "1.5 d"', {"max_hours": 36.0}),
        ("max_hours = 3", {"max_hours": 3}),
        ('# nothing\n[tags]\nproject = "rain"', {"tags": {"project": "rain"}}),
        ("", {}),
    ],
)
def test_files_may_say_some_things_only(tmp_path: Path, text: str, wanted: dict[str, Any]) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    assert spec_file.load(path) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodez = 3", "no field 'nodez'; did you mean nodes?"),
        ("flavour = 3", "no field 'flavour'$"),
        ('nodes = "3"', "nodes is not a whole number"),
        ("encrypted = 1", "encrypted is not true or false"),
        ('apt_packages = "gsl"', "apt_packages is not a list of strings"),
        ("tags = {a = 1}", "tags is not a table of strings"),
        ('idle_hours = "soon"', "idle_hours is not a number, or a time such as 90m"),
        ('budget_usd = "2h"', "budget_usd is not a number$"),
        ("nodes = ", "is not TOML"),
        ('bootstrap = "x"\nbootstrap_file = "y"', "exclude each other"),
        ('bootstrap_file = "nowhere.sh"', "nowhere.sh cannot be read"),
    ],
)
def test_what_a_file_says_wrongly_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        spec_file.load(path)


def test_a_bootstrap_file_is_found_beside_the_specification(tmp_path: Path) -> None:
    (tmp_path / "mine.sh").write_text("#!/bin/sh\ndate\n")
    path = tmp_path / "cluster.toml"
    path.write_text('bootstrap_file = "mine.sh"')
    assert spec_file.load(path) == {"bootstrap": "#!/bin/sh\ndate\n"}


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*No such file"):
        spec_file.load(tmp_path / "cluster.toml")
    with pytest.raises(SpecError, match=r"cannot write .*No such file"):
        spec_file.save(ClusterSpec(), tmp_path / "nowhere" / "cluster.toml")
