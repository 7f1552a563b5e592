"""The one table of verbs and options.

A verb is ``ppe launch`` on the command line, ``%ppe launch`` and ``%ppe_launch`` in a notebook; all of
them, their help and their completion come from the same entry of ``VERBS``. Invariants: a long option name
means the same everywhere, a short one means one thing only within its verb. Pure: it does not know what verbs
do, nor how that is shown; it is imported with the notebook extension, so it imports nothing slow.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from .errors import UsageError

Face = Literal["magic", "cli"]
BOTH: tuple[Face, ...] = ("magic", "cli")
ALL_SLOTS = -1


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option, or a positional argument if ``nargs`` is given. ``bare`` is its value when none is typed."""

    name: str
    help: str
    short: str = ""
    kind: Callable[[str], object] = str
    metavar: str = ""
    dest: str = ""
    choices: tuple[str, ...] = ()
    values: str = ""  # what a front end may offer as completions: "cluster", "type", "variable"
    flag: bool = False
    repeat: bool = False
    bare: object = None
    nargs: Literal["", "?", "*", "1"] = ""

    @property
    def spellings(self) -> list[str]:
        """As it is typed, the long form first; empty for a positional argument."""
        return [] if self.nargs else [f"--{self.name}"] + ([f"-{self.short}"] if self.short else [])


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing to do. ``code`` names what the rest of the line (and a cell's body) is if it is not words."""

    name: str
    help: str
    detail: str = ""
    options: tuple[Option, ...] = ()
    code: str = ""
    cell: bool = False
    faces: tuple[Face, ...] = BOTH

    @property
    def magic(self) -> str:
        """Its own name as a magic, without the percent sign."""
        return self.name if self.name.startswith("remote_") else f"ppe_{self.name}"

    def option(self, spelling: str) -> Option | None:
        """The option that is typed so, or None."""
        return next((each for each in self.options if spelling in each.spellings), None)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


CLOUD = (
    Option(name="cloud", choices=("local", "aws"), help="this cloud instead of the configured one"),
    Option(name="profile", help="this AWS profile instead of the configured one"),
    Option(name="region", help="this AWS region instead of the configured one"),
)
CLUSTER = Option(name="cluster", values="cluster", help="this cluster instead of the connected one")
NAME = Option(name="name", nargs="?", values="cluster", help="the cluster; not needed if there is only one")
TIMEOUT = Option(name="timeout", kind=float, metavar="SECONDS", help="interrupt it after so many seconds")
YES = Option(name="yes", flag=True, help="do not ask")

VERBS: tuple[Verb, ...] = (
    Verb(
        name="config",
        help="show the settings, or set one",
        detail="Without arguments shows every setting, and which account would pay. Secrets are never shown.",
        options=(
            Option(name="setting", nargs="?", values="setting", help="KEY, or KEY=VALUE to set it"),
            Option(name="value", nargs="?", help="the new value"),
        ),
    ),
    Verb(
        name="types",
        help="instance types: physical cores, memory, network, price",
        options=CLOUD,
    ),
    Verb(
        name="launch",
        help="launch a cluster",
        detail="Shows first who pays, what will be created and what it costs. Asks before it spends money.",
        options=(
            Option(name="name", nargs="?", help="its name; generated if not given"),
            Option(name="nodes", kind=_count, metavar="N", help="number of nodes, the master included"),
            Option(name="type", dest="instance_type", values="type", help="instance type of each node"),
            Option(name="slots", kind=_count, metavar="N", help="ranks per node; else its physical cores"),
            Option(name="zone", help="availability zone"),
            Option(name="subnet", metavar="SUBNET-ID", help="subnet; else the default VPC's"),
            Option(name="image", metavar="AMI-ID", help="machine image; else the newest that fits"),
            Option(name="key", dest="key_name", help="EC2 key pair; else yours is made and kept"),
            Option(name="from", dest="caller_cidr", metavar="CIDR", help="who may reach port 22; else you"),
            Option(name="root-gb", kind=_count, metavar="GB", help="size of each node's root disk"),
            Option(name="tag", dest="tags", kind=_pair, repeat=True, metavar="KEY=VALUE", help="tag"),
            Option(name="dry-run", flag=True, help="stop after the review"),
            YES,
            Option(name="no-wait", flag=True, help="return when the machines are asked for"),
            *CLOUD,
        ),
    ),
    Verb(name="list", help="all clusters", options=CLOUD),
    Verb(name="status", help="one cluster: its state, cost and nodes", options=(NAME, *CLOUD)),
    Verb(
        name="connect",
        help="choose the cluster of the remote cells",
        detail="A sole running cluster is used without it.",
        options=(NAME, *CLOUD),
        faces=("magic",),
    ),
    Verb(name="disconnect", help="close the connection; what runs on the cluster goes on", faces=("magic",)),
    Verb(
        name="ssh",
        help="the ssh command line, or run a command on a node",
        options=(
            CLUSTER,
            Option(name="node", kind=int, metavar="N", help="its number in the status; else the master, 0"),
            *CLOUD,
        ),
        code="command",
    ),
    Verb(
        name="terminate",
        help="end clusters for good, with all that was made for them",
        options=(
            Option(name="names", nargs="*", values="cluster", help="the clusters; else the one in use"),
            YES,
            *CLOUD,
        ),
    ),
    Verb(
        name="local",
        help="the local cloud: start it, see it, take it down",
        options=(Option(name="action", nargs="1", choices=("up", "status", "down"), help="what to do"), YES),
        faces=("cli",),
    ),
    Verb(
        name="remote_r",
        help="run R in the master's session",
        detail=(
            "%%remote_r runs a cell and prints as R's console does; %remote_r returns the value of the last "
            "expression, unless -n is given or the line ends with a semicolon. The options are those of "
            "rpy2's %%R."
        ),
        options=(
            Option(name="input", short="i", repeat=True, values="variable", metavar="A,B", help="push first"),
            Option(
                name="output",
                short="o",
                repeat=True,
                metavar="A,B",
                help="pull afterwards; a dot in a name becomes _",
            ),
            Option(name="noreturn", short="n", flag=True, help="return nothing"),
            Option(name="width", short="w", kind=float, help="width of plots"),
            Option(name="height", short="h", kind=float, help="height of plots"),
            Option(name="units", short="u", choices=("px", "in", "cm", "mm"), help="units of both"),
            Option(name="res", short="r", kind=int, help="pixels per inch"),
            Option(name="pointsize", short="p", kind=int, help="point size of plots' text"),
            Option(name="bg", short="b", help="background of plots"),
            CLUSTER,
            TIMEOUT,
        ),
        code="R code",
        cell=True,
        faces=("magic",),
    ),
    Verb(
        name="remote_py",
        help="run Python on the master, or on every MPI rank",
        detail="With --ranks the code runs on that many ranks through mpi4py, output grouped by rank.",
        options=(
            Option(name="ranks", kind=_count, bare=ALL_SLOTS, metavar="N", help="on N ranks, or all slots"),
            CLUSTER,
            TIMEOUT,
        ),
        code="Python code",
        cell=True,
        faces=("magic",),
    ),
    Verb(
        name="remote_sh",
        help="run shell commands on the master, or on every node",
        options=(Option(name="all", flag=True, help="on every node"), CLUSTER, TIMEOUT),
        code="commands",
        cell=True,
        faces=("magic",),
    ),
    Verb(
        name="remote_push",
        help="copy Python variables to R",
        options=(Option(name="names", nargs="*", values="variable", help="their names"), CLUSTER),
        faces=("magic",),
    ),
    Verb(
        name="remote_pull",
        help="copy R variables to Python",
        options=(Option(name="names", nargs="*", help="their names"), CLUSTER),
        faces=("magic",),
    ),
    Verb(
        name="remote_interrupt",
        help="interrupt what the R session evaluates, whoever started it",
        options=(CLUSTER,),
        faces=("magic",),
    ),
)


def of(face: Face) -> dict[str, Verb]:
    """The verbs of a front end, by name."""
    return {verb.name: verb for verb in VERBS if face in verb.faces}


def find(name: str, *, face: Face) -> Verb:
    """The verb of that name. Raises UsageError that suggests the nearest."""
    known = of(face)
    if name not in known:
        sign = "%" if face == "magic" else ""
        raise UsageError(f"there is no verb {name!r}{suggestion(name, known)} (help: {sign}ppe --help)")
    return known[name]


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` if something known is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
