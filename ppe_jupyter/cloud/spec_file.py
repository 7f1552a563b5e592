"""Specifications in TOML files: what ``--spec FILE`` reads and ``--save FILE`` writes.

A file may hold some of the fields only; what the command line says goes before it. Knows the fields' kinds and
meanings, not whether they make sense together: that is ClusterSpec's.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import tomlkit

from ..errors import SpecError
from .spec import MAX_BOOTSTRAP, ClusterSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOURS = ("idle_hours", "max_hours")
DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(m|min|h|d)")
HOURS_IN = {"m": 1 / 60, "min": 1 / 60, "h": 1.0, "d": 24.0}
BOOTSTRAP_FILE = "bootstrap_file"

# An example and the meaning of each field, in the order of writing.
MEANINGS: Mapping[str, tuple[object, str]] = {
    "name": ("brisk-otter", "unique in account and region; generated if not given"),
    "nodes": (2, "nodes, the master included"),
    "instance_type": ("c7a.2xlarge", "of each node; %ppe_types lists them"),
    "slots": (8, "MPI ranks per node; its physical cores if not given"),
    "zone": ("us-east-1a", "availability zone; any that has the nodes if not given"),
    "subnet": ("subnet-0123456789abcdef0", "the default VPC's if not given"),
    "image": ("debian-12", "id or name; the newest baked one, else Debian 12, if not given"),
    "login_user": ("admin", "of the image, if it is not known"),
    "key_name": ("my-key", "EC2 key pair; one is generated and kept if not given"),
    "caller_cidr": ("203.0.113.7/32", "who may reach port 22; this machine if not given"),
    "security_group": ("sg-0123456789abcdef0", "an existing one; one of its own if not given"),
    "placement": ("auto", "auto, off, or an existing placement group"),
    "threads_per_core": (1, "1 or 2; 1 where the type allows it if not given"),
    "root_gb": (30, "root disk of each node, GiB"),
    "root_type": ("gp3", "gp3 or gp2"),
    "encrypted": (True, "root disks"),
    "imdsv2": (True, "require version 2 of the instance metadata service"),
    "public_addresses": ("all", "all, master or none"),
    "volumes": (["vol-0123456789abcdef0:/data"], "EBS volumes for the master, with mount points"),
    "spot": (False, "workers are spot instances, which EC2 may take back"),
    "spot_max_usd": (0.25, "most for a spot worker, USD per hour; the on-demand price if not given"),
    "spot_fallback": (False, "on-demand workers when there are no spot ones"),
    "idle_hours": ("2h", "without work till the watchdog acts; 0 or off: never"),
    "max_hours": ("8h", "since launch or last start till the watchdog acts"),
    "budget_usd": (20.0, "spent till the watchdog acts"),
    "then": ("park", "what the watchdog does: park or terminate"),
    "instance_profile": ("my-profile", "IAM instance profile, by name or ARN"),
    "efs": (
        "fs-0123456789abcdef0",
        "Amazon EFS file system for ~/shared; a folder of the master's if not given",
    ),
    "bootstrap": (
        "#!/bin/sh",
        f"script run as root at each node's first boot; or {BOOTSTRAP_FILE} = its path",
    ),
    "apt_packages": (["libgsl-dev"], "for all nodes"),
    "r_packages": (["lme4"], "for all nodes"),
    "python_packages": (["scipy"], "for all nodes"),
    "rstudio": (False, "install RStudio Server on the master, once it runs"),
    "tags": ({"project": "rain"}, "on everything that is created"),
}

_STRINGS = "a list of strings"
KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a string", lambda value: isinstance(value, str)),
    "int": ("a whole number", lambda value: type(value) is int),
    "float": ("a number", lambda value: type(value) in (int, float)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "tuple[str, ...]": (
        _STRINGS,
        lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value),
    ),
    "Mapping[str, str]": (
        "a table of strings",
        lambda value: isinstance(value, dict) and all(isinstance(x, str) for x in value.values()),
    ),
}


def load(path: Path) -> dict[str, Any]:
    """The fields of ClusterSpec that the file gives. Raises SpecError, with a line for each thing that is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SpecError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path} is not TOML: {exc}") from exc
    problems: list[str] = []
    if BOOTSTRAP_FILE in values:
        if "bootstrap" in values:
            problems.append(f"bootstrap and {BOOTSTRAP_FILE} exclude each other")
        values["bootstrap"] = _script(path.parent / str(values.pop(BOOTSTRAP_FILE)), problems)
    values, wrong = typed(values, also=[BOOTSTRAP_FILE])
    if problems := [*problems, *wrong]:
        raise SpecError(f"{path}: {'; '.join(problems)}", problems=problems)
    return values


def typed(values: Mapping[str, Any], *, also: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Fields from TOML or JSON, times as hours, and a line for each that there is not or that is of another kind.

    ``also`` are names that could be meant.
    """
    kinds = {each.name: str(each.type).removesuffix(" | None") for each in fields(ClusterSpec)}
    found, problems = dict(values), []
    for key, value in values.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, [*kinds, *also], n=1)
            problems.append(f"there is no field {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
            continue
        if key in HOURS and isinstance(value, str):
            found[key] = hours(value)
        wanted, fits = KINDS[kinds[key]]
        if not fits(found[key]):
            problems.append(f"{key} is not {wanted}{', or a time such as 90m, 2h, 1d' * (key in HOURS)}")
    return found, problems


def hours(text: str) -> float | None:
    """The hours that 90m, 2h, 1.5 h, 1d or off (0) say; None if it is none of these."""
    if text == "off":
        return 0.0
    found = DURATION.fullmatch(text)
    return float(found[1]) * HOURS_IN[found[2]] if found else None


def save(spec: ClusterSpec, path: Path) -> None:
    """Write the spec so that ``load`` gives it again; fields that are not set stand there as comments.

    Raises SpecError when the file cannot be written.
    """
    lines = ["# A cluster; launch it with: %ppe_launch --spec FILE. What is commented out is chosen for you."]
    for key, (example, meaning) in MEANINGS.items():
        value = getattr(spec, key)
        if value is None or value == () or value == {}:
            lines.append(f"# {key} = {_toml(example)}  # {meaning}")
        else:
            lines.append(f"{key} = {_toml(value)}  # {meaning}")
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        new.write_text("\n".join([*lines, ""]), encoding="utf-8")
        new.replace(path)
    except OSError as exc:
        raise SpecError(f"cannot write {path}: {exc.strerror}") from exc


def _script(path: Path, problems: list[str]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        problems.append(f"{BOOTSTRAP_FILE} {path} cannot be read: {exc}")
        return ""
    return text[: MAX_BOOTSTRAP + 1]  # more is refused by ClusterSpec anyway


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        table.update(value)
        return table.as_string()
    if isinstance(value, str) and "\n" in value and value.replace("\n", "").isprintable():
        return tomlkit.string(value, multiline=True).as_string()
    if isinstance(value, tuple):
        value = list(value)
    return tomlkit.item(value).as_string()
