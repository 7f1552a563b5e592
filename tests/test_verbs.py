"""The table of verbs, and the parsers, help and completion that come from it."""

from argparse import Namespace
from collections import Counter
from typing import Any

import pytest

from ppe_jupyter.catalog import SORTS
from ppe_jupyter.cloud.spec import ClusterSpec
from ppe_jupyter.errors import UsageError
from ppe_jupyter.frontends import typed
from ppe_jupyter.frontends.actions.actions import ACTIONS
from ppe_jupyter.frontends.notebook.cells import CELLS
from ppe_jupyter.verbs import VERBS, Face, Option, Verb, clusters, find, of


def test_every_verb_does_something() -> None:
    assert {verb.name for verb in VERBS} == {*ACTIONS, *CELLS}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_spellings_are_unique_and_described(verb: Verb) -> None:
    spellings = Counter(spelling for option in verb.options for spelling in option.spellings)
    assert max(spellings.values(), default=1) == 1
    for face in verb.faces:
        text = typed.help_text(verb, face)
        assert all(
            (option.help in " ".join(text.split())) is (face in option.faces) for option in verb.options
        )
        assert text.startswith(f"usage: {typed.program(verb, face)}")


def test_a_long_name_means_one_thing() -> None:
    kinds: dict[str, set[tuple[object, bool]]] = {}
    for option in (option for verb in VERBS for option in verb.options if option.spellings):
        kinds.setdefault(option.name, set()).add((option.kind, option.flag))
    # EC2 calls types cluster-capable that a cluster placement group takes. For %remote_push and
    # %remote_pull R is this machine's, and takes all names; for ranks it is the master's.
    assert {name for name, kind in kinds.items() if len(kind) > 1} == {"cluster", "from-r", "to-r"}


def test_launch_has_an_option_for_every_field_of_the_spec() -> None:
    arguments = typed.parse(find("launch", face="cli"), [], face="cli")
    assert set(ClusterSpec.__dataclass_fields__) <= set(vars(arguments or ()))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"nodes": None, "name": None, "tags": [], "yes": None}),
        ("lab --nodes 3 --type c7a.large", {"name": "lab", "nodes": 3, "instance_type": "c7a.large"}),
        ("--nodes=3 lab", {"name": "lab", "nodes": 3}),
        (
            "--tag a=1 --tag 'b=x y' --no-wait",
            {"tags": [("a", "1"), ("b", "x y")], "no_wait": True},
        ),
        ("--from 10.0.0.0/8 --key mine", {"caller_cidr": "10.0.0.0/8", "key_name": "mine"}),
        ("--idle 90m --max-hours 1d --budget 5", {"idle_hours": 1.5, "max_hours": 24, "budget_usd": 5}),
        ("--idle off --then terminate", {"idle_hours": 0, "then": "terminate"}),
        ("--spot --spot-price 0.1", {"spot": True, "spot_max_usd": 0.1, "spot_fallback": None}),
        ("--no-encryption --imdsv1", {"encrypted": False, "imdsv2": False}),
        ("", {"encrypted": None, "imdsv2": None, "spot": None}),
        ("--volume vol-1:/data --volume vol-2", {"volumes": ["vol-1:/data", "vol-2"]}),
    ],
)
def test_launch_is_parsed(line: str, expected: dict[str, object]) -> None:
    arguments = vars(typed.parse(find("launch", face="magic"), line, face="magic") or ())
    assert {key: arguments[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("verb", "line", "expected"),
    [
        ("remote_r", "x <- 'a  b'; mean(x)  # -n", {"code": "x <- 'a  b'; mean(x)  # -n"}),
        ("remote_r", "-i a,b -i c -o d -n f(x)", {"input": ["a,b", "c"], "output": ["d"], "code": "f(x)"}),
        ("remote_r", "-w5 --height=4 -u in -r 200", {"width": 5, "height": 4, "units": "in", "res": 200}),
        ("remote_r", "-h 4 -p 9 -b white plot(1)", {"height": 4, "pointsize": 9, "bg": "white"}),
        ("remote_r", "-1 + 2", {"code": "-1 + 2"}),
        ("remote_r_log", "--since 0 --lines 5", {"since": 0, "lines": 5}),
        ("remote_r", "-- -x", {"code": "-x"}),
        ("remote_r", "cat(\"it's", {"code": "cat(\"it's"}),
        ("remote_py", "", {"ranks": None}),
        ("remote_py", "--ranks", {"ranks": -1}),
        ("remote_py", "--ranks 6", {"ranks": 6}),
        (
            "remote_r",
            "--ranks all --fresh -i x:scatter f",
            {"ranks": -1, "input": ["x:scatter"], "code": "f"},
        ),
        ("remote_py", "--ranks print(1)", {"ranks": -1, "code": "print(1)"}),
        ("remote_sh", "--all uptime -p | tr a b", {"all": True, "code": "uptime -p | tr a b"}),
        ("ssh", "--node 2 ls -l '~/a b'", {"node": "2", "code": "ls -l '~/a b'"}),
    ],
)
def test_options_come_before_code(verb: str, line: str, expected: dict[str, object]) -> None:
    arguments = vars(typed.parse(find(verb, face="magic"), line, face="magic") or ())
    assert {key: arguments[key] for key in expected} == expected


def test_a_percent_sign_in_a_help_is_one() -> None:
    verb = Verb(
        name="x", help="100 % of it", options=(Option(name="all", flag=True, help="as %(prog)s, 5 %"),)
    )
    assert "as %(prog)s, 5 %" in typed.help_text(verb, "magic")


@pytest.mark.parametrize("line", ["--timeout 5", "-c rules", "-d showing"])
def test_what_needs_somebody_who_waits_is_not_for_the_background(line: str) -> None:
    arguments = typed.parse(find("remote_r", face="magic"), f"--background {line}", face="magic")
    nobody: Any = None
    with pytest.raises(UsageError, match="not with --background"):
        CELLS["remote_r"](nobody, arguments or Namespace(), "1", {}, nobody)


def test_a_command_keeps_its_words_apart() -> None:
    arguments = typed.parse(find("ssh", face="cli"), ["--node", "1", "ls", "-l", "a b"], face="cli")
    assert arguments and arguments.code == "ls -l 'a b'"
    arguments = typed.parse(find("ssh", face="cli"), ["cd /; ls"], face="cli")
    assert arguments and arguments.code == "cd /; ls"


@pytest.mark.parametrize(
    ("verb", "line", "message"),
    [
        ("launch", "--ndoes 3", "did you mean --nodes?"),
        ("launch", "--nodes three", "three"),
        ("launch", "--tag colour", "'colour' is not KEY=VALUE"),
        ("launch", "--cloud moon", "moon"),
        ("launch", "one two", "'two' is not understood"),
        ("launch", "--idle soon", "'soon' is not a duration such as 2h, 90m or off"),
        ("limit", "--budget off5", "'off5' is not an amount of USD such as 12.50, or off"),
        ("limit", "--max-hours 1off", "'1off' is not a duration such as 2h, 90m or off"),
        ("launch", "--idle 1.h.", "is not a duration"),
        ("resize", "lab", "required: --nodes"),
        ("costs", "--month May", "'May' is not a month"),
        ("status", "'lab", "no closing quotation"),
        ("remote_r", "--timeout", "expected one argument"),
        ("remote_r_log", "--since -1", "'-1' is not a whole number from 0"),
        ("remote_r", "--colour x", "--colour"),
    ],
)
def test_what_is_typed_wrongly_is_named(verb: str, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"%\w+|quotation") as caught:
        typed.parse(find(verb, face="magic"), line, face="magic")
    assert message in str(caught.value)


def test_an_unknown_verb_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean launch"):
        find("lunch", face="magic")
    with pytest.raises(UsageError, match="no verb 'local'"):
        find("local", face="magic")


@pytest.mark.parametrize("face", ["magic", "cli"])
def test_help_is_asked_for(face: Face) -> None:
    assert all(typed.parse(verb, "--help", face=face) is None for verb in of(face).values())


def test_words_and_options_come_in_any_order() -> None:
    arguments = typed.parse(find("attach-volume", face="magic"), "vol-1 --mount /data 2", face="magic")
    assert arguments and (arguments.volume, arguments.node, arguments.mount) == ("vol-1", "2", "/data")


@pytest.mark.parametrize(
    ("before", "some", "none"),
    [
        ("%ppe ", {"launch ", "terminate "}, {"local "}),
        ("%ppe la", {"launch "}, set()),
        ("%ppe_launch --", {"--nodes", "--type"}, {"--ranks"}),
        ("%ppe launch --nodes 3 --tag a=b --", {"--type", "--tag"}, {"--nodes"}),
        ("%ppe launch --cloud ", {"local", "aws"}, {"--nodes"}),
        ("%ppe_status ", {"lab"}, set()),
        ("%ppe_terminate lab ", {"lab", "--yes"}, set()),
        ("%%remote_r -i ", {"x"}, {"--timeout"}),
        ("%%remote_r --cluster ", {"lab"}, set()),
        ("%ppe_attach_volume ", {"vol-1"}, set()),
        ("%ppe_launch --volume ", {"vol-1"}, set()),
        ("%ppe_types --sort ", {"spot", "price-per-core"}, set()),
        ("%ppe nonsense ", set(), {"--nodes"}),
    ],
)
def test_completion(before: str, some: set[str], none: set[str]) -> None:
    offers = {"cluster": lambda: ["lab"], "variable": lambda: ["x"], "volume": lambda: ["vol-1"]}
    found = set(typed.complete(before, face="magic", offers=offers))
    assert some <= found
    assert not none & found


def test_types_are_sorted_as_the_catalog_can() -> None:
    assert set(SORTS) == set(clusters.SORTS)


def test_a_positional_argument_is_not_an_option() -> None:
    assert Option(name="x", help="", nargs="?").spellings == []
