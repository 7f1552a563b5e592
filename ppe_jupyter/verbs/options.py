"""What a verb and an option are, and how the words after an option become values. Pure; imports nothing slow."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Face = Literal["magic", "cli"]
BOTH: tuple[Face, ...] = ("magic", "cli")

ALL, ALL_SLOTS = "all", -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Option:
    """An option, or a positional argument if ``nargs`` is given. ``bare`` is its value when none is typed.

    ``flag`` takes no value: typed it is ``sets``, else None.
    """

    name: str
    help: str
    short: str = ""
    also: str = ""  # another name that is understood
    kind: Callable[[str], object] = str
    metavar: str = ""
    dest: str = ""
    choices: tuple[str, ...] = ()
    values: str = ""  # what a front end may offer as completions: "cluster", "type", "variable"
    flag: bool = False
    sets: object = True
    repeat: bool = False
    many: bool = False  # of a verb without positional arguments: several words
    required: bool = False
    bare: object = None
    nargs: Literal["", "?", "*", "1"] = ""
    faces: tuple[Face, ...] = BOTH

    @property
    def attribute(self) -> str:
        """What the parsed arguments call it."""
        return self.dest or self.name.replace("-", "_")

    @property
    def spellings(self) -> list[str]:
        """As it is typed, the long form first; empty for a positional argument."""
        if self.nargs:
            return []
        others = ([f"-{self.short}"] if self.short else []) + ([f"--{self.also}"] if self.also else [])
        return [f"--{self.name}", *others]


@dataclass(frozen=True, kw_only=True, eq=False)
class Verb:
    """One thing to do. ``code`` names what the rest of the line (and a cell's body) is if it is not words; ``after``
    what words behind ``--`` are."""

    name: str
    help: str
    detail: str = ""
    options: tuple[Option, ...] = ()
    code: str = ""
    cell: bool = False
    after: str = ""
    faces: tuple[Face, ...] = BOTH

    @property
    def magic(self) -> str:
        """Its own name as a magic, without the percent sign."""
        return self.name if self.name.startswith("remote_") else f"ppe_{self.name}"

    def option(self, spelling: str) -> Option | None:
        """The option that is typed so, or None."""
        return next((each for each in self.options if spelling in each.spellings), None)


def pair(text: str) -> tuple[str, str]:
    """``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def count(text: str) -> int:
    """A whole number from 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def ranks(text: str) -> int:
    """A whole number from 1, or all slots."""
    return ALL_SLOTS if text == ALL else count(text)


def number(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def hours(text: str) -> float:
    """A duration such as 2h, 90m or 1d in hours; a bare number is hours, ``off`` is 0."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd]?)", "0" if text == "off" else text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 2h, 90m or off")
    return float(found[1]) * {"m": 1 / 60, "d": 24.0}.get(found[2], 1.0)


def usd(text: str) -> float:
    """An amount of USD; ``off`` is 0."""
    found = re.fullmatch(r"\d+(?:\.\d+)?", "0" if text == "off" else text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of USD such as 12.50, or off")
    return float(found[0])


def month(text: str) -> str:
    """``YYYY-MM``."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a month such as 2026-03")
    return text


CLOUD = (
    Option(name="cloud", choices=("local", "aws"), help="this cloud instead of the configured one"),
    Option(name="profile", help="this AWS profile instead of the configured one"),
    Option(name="region", help="this AWS region instead of the configured one"),
)
CLUSTER = Option(name="cluster", values="cluster", help="this cluster instead of the connected one")
NAME = Option(name="name", nargs="?", values="cluster", help="the cluster; not needed if there is only one")
SESSION = Option(
    name="session", metavar="NAME", help="an R session beside the main one; it starts if there is none"
)
TIMEOUT = Option(name="timeout", kind=float, metavar="SECONDS", help="interrupt it after so many seconds")
LINES = Option(
    name="lines", kind=count, metavar="N", help="show N lines of text, and the last 100; 2,000 if not given"
)
YES = Option(name="yes", flag=True, help="do not ask")
DRY_RUN = Option(name="dry-run", flag=True, help="stop after the review")
FORCE = Option(
    name="force", flag=True, help="even if another client, or a program, seems to be at work on it"
)
EVERYONE = Option(name="everyone", flag=True, help="other people's too, not only yours")
TAG = Option(name="tag", dest="tags", kind=pair, repeat=True, metavar="KEY=VALUE", help="tag; repeat it")
PACKAGES = tuple(
    Option(
        name=name, also=also, dest=f"{also or name}_packages", repeat=True, metavar="A,B",
        help=f"{words} packages to install",
    )
    for name, also, words in (("apt", "", "Debian"), ("r", "", "R"), ("py", "python", "Python"))
)  # fmt: skip
# What follows the end of what runs without a client.
SEQUEL = (
    Option(
        name="then",
        dest="end",
        choices=("park", "terminate", "nothing"),
        help="what becomes of the cluster then, with or without you",
    ),
    Option(name="discard", flag=True, help="terminate it whatever was not fetched"),
    Option(
        name="notify",
        repeat=True,
        metavar="COMMAND|ARN",
        help="at the end run this on the master (PPE_JOB, PPE_STATUS, PPE_CLUSTER), or publish to this SNS topic",
    ),
)
