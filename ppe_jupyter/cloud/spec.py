"""ClusterSpec: what the user asks for, and whether it makes sense in itself.

Frozen and pure. It is validated when it is made, so a ClusterSpec that exists is one that can be planned. It
must not know what the account offers: that is ``plan``'s.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import json
import random
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import SpecError

DEFAULT_TYPE = "c7a.2xlarge"
DEFAULT_ROOT_GB = 30

NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
PATTERNS = {
    "name": (NAME, "small letters, digits and hyphens, a letter first, 40 at most"),
    "instance_type": (re.compile(r"[a-z0-9-]+\.[a-z0-9-]+"), "an instance type such as c7a.2xlarge"),
    "zone": (re.compile(r"[a-z]{2}(-[a-z0-9]+)+"), "an availability zone such as us-east-1a"),
    "subnet": (re.compile(r"subnet-[0-9a-f]{8,17}"), "a subnet's id, subnet-…"),
    "image": (
        re.compile(r"ami-[0-9a-f]{8,17}|[a-z][\w.-]{0,127}"),
        "an image's id, ami-…, or a name of %ppe_images",
    ),
    "login_user": (re.compile(r"[a-z_][a-z0-9_-]{0,31}"), "a user's name"),
    "security_group": (re.compile(r"sg-[0-9a-f]{8,17}"), "a security group's id, sg-…"),
    "placement": (re.compile(r"auto|off|[\x20-\x7e]{1,255}"), "auto, off or a placement group's name"),
    "public_addresses": (re.compile("all|master|none"), "all, master or none"),
    "root_type": (re.compile("gp3|gp2"), "gp3 or gp2"),
    "efs": (re.compile(r"fs-[0-9a-f]{8,40}"), "a file system's id, fs-…"),
    "then": (re.compile("park|terminate"), "park or terminate"),
}
# The limits of io-less root volumes are EC2's (user guide, ebs-volume-types).
LIMITS = {"nodes": (1, 1000), "slots": (1, 1024), "root_gb": (8, 16384), "threads_per_core": (1, 2)}
POSITIVE = ("spot_max_usd", "max_hours", "budget_usd")
LISTS = ("volumes", "apt_packages", "r_packages", "python_packages")
DIGEST = re.compile(r"sha256:[0-9a-f]{16}")
VOLUME = re.compile(r"(vol-[0-9a-f]{8,17})(?::(/[\w./-]+))?")
PACKAGE = re.compile(r"[A-Za-z0-9][\w.+:~=<>\[\]-]*")
MAX_BOOTSTRAP = 8192  # characters; user data holds 16 KB of everything
# EC2 allows 50 tags a resource (user guide, Using_Tags); the rest are ours.
MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 10, 128, 256

ADJECTIVES = (
    "able agile amber ample brave bright brisk calm civil clear clever crisp deft eager early fair fleet "
    "fond frank fresh gentle glad grand happy hardy honest jolly keen kind lively lucid lucky merry mild "
    "modest neat nimble noble plain polite proud quick quiet rapid ready robust sage sharp silent sleek "
    "smart snug solid spry stable steady stout sunny swift tidy trim vivid warm wise witty"
)
ANIMALS = (
    "ant auk badger bat bear beaver bee bison boar carp cat crane crow deer dove duck eagle egret elk "
    "falcon ferret finch fox frog gecko goose gull hare hawk heron ibex ibis jay kestrel kite koala lark "
    "lemur lion llama loon lynx marten mole moose moth newt okapi orca otter owl panda pika plover puffin "
    "quail raven robin salmon seal shrew skua snipe stoat stork swan swift tapir tern tiger toad trout "
    "viper vole walrus weasel whale wolf wren yak zebra"
)


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster as the user wants it; None means "choose for me". Raises SpecError when it makes no sense.

    ``slots`` is ranks per node (None: the type's physical cores). ``image`` is an id or a name of the catalog of
    images. ``root_gb`` is the size of each node's root disk. ``caller_cidr`` is the range that may reach port 22.
    ``security_group`` is an existing one's id (None: one of its own). ``placement`` is auto, off or an existing
    group. ``volumes`` are EBS volumes for the master, ``vol-…`` or ``vol-…:/mount/point``. ``efs`` is a file system of
    Amazon EFS that is to be ~/shared on every node (None: a folder of the master's). ``spot`` is for workers
    only, ``spot_max_usd`` an hour and node; ``spot_fallback`` takes on-demand ones when there are none.

    The watchdog: ``idle_hours`` without work (0: never, None: the settings'), ``max_hours`` since its launch or last
    start, and ``budget_usd``; what it does is ``then``. ``bootstrap`` is a shell script of the user's, run as root on
    every node at its first boot; ``rstudio`` has RStudio Server installed on the master. ``tags`` go on everything that
    is created.
    """

    name: str | None = None
    nodes: int = 2
    instance_type: str = DEFAULT_TYPE
    slots: int | None = None
    zone: str | None = None
    subnet: str | None = None
    image: str | None = None
    login_user: str | None = None
    key_name: str | None = None
    caller_cidr: str | None = None
    security_group: str | None = None
    placement: str = "auto"
    threads_per_core: int | None = None
    root_gb: int = DEFAULT_ROOT_GB
    root_type: str = "gp3"
    encrypted: bool = True
    imdsv2: bool = True
    public_addresses: str = "all"
    volumes: tuple[str, ...] = ()
    spot: bool = False
    spot_max_usd: float | None = None
    spot_fallback: bool = False
    idle_hours: float | None = None
    max_hours: float | None = None
    budget_usd: float | None = None
    then: str = "park"
    instance_profile: str | None = None
    efs: str | None = None
    bootstrap: str | None = None
    apt_packages: tuple[str, ...] = ()
    r_packages: tuple[str, ...] = ()
    python_packages: tuple[str, ...] = ()
    rstudio: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in LISTS:  # from JSON and TOML they come as lists
            object.__setattr__(self, key, tuple(getattr(self, key)))
        problems = [*self._malformed(), *self._contradictions(), *self._bad_tags()]
        if problems:
            raise SpecError("; ".join(problems), problems=problems)

    def _malformed(self) -> Iterator[str]:
        for key, (pattern, wanted) in PATTERNS.items():
            value = getattr(self, key)
            if value is not None and not pattern.fullmatch(str(value)):
                yield f"{key} {value!r} is not {wanted}"
        for key, (least, most) in LIMITS.items():
            value = getattr(self, key)
            if value is not None and not (type(value) is int and least <= value <= most):
                yield f"{key} = {value!r} is not a whole number from {least} to {most}"
        for key in POSITIVE:
            value = getattr(self, key)
            if value is not None and not _number(value) > 0:
                yield f"{key} = {value!r} is not a number above 0"
        if self.idle_hours is not None and not _number(self.idle_hours) >= 0:
            yield f"idle_hours = {self.idle_hours!r} is not a number from 0 (0: never)"
        if self.caller_cidr is not None:
            try:
                ipaddress.IPv4Network(self.caller_cidr)
            except ValueError as exc:
                yield f"caller_cidr {self.caller_cidr!r} is not an IPv4 range: {exc}"
        yield from (
            f"volume {each!r} is not vol-… or vol-…:/mount/point"
            for each in self.volumes
            if not VOLUME.fullmatch(each)
        )
        for key in ("apt_packages", "r_packages", "python_packages"):
            yield from (
                f"{key}: {each!r} is not a package's name"
                for each in getattr(self, key)
                if not PACKAGE.fullmatch(each)
            )

    def _contradictions(self) -> Iterator[str]:
        if not self.spot and (self.spot_max_usd is not None or self.spot_fallback):
            yield "spot_max_usd and spot_fallback need spot"
        if self.spot and self.nodes < 2:
            yield "spot is for workers, and there is none: the master is always on demand"
        if self.bootstrap is not None and len(self.bootstrap) > MAX_BOOTSTRAP:
            yield f"the bootstrap script has more than {MAX_BOOTSTRAP} characters; let it fetch the rest"

    def _bad_tags(self) -> Iterator[str]:
        if len(self.tags) > MAX_TAGS:
            yield f"{len(self.tags)} tags are more than {MAX_TAGS}"
        for key, value in self.tags.items():
            if key == "Name" or key.lower().startswith(("ppe:", "aws:")):
                yield f"tag {key!r} is reserved"
            if not 1 <= len(key) <= MAX_TAG_KEY or len(value) > MAX_TAG_VALUE:
                yield f"tag {key!r}: keys have 1 to {MAX_TAG_KEY} characters, values {MAX_TAG_VALUE}"

    def mounts(self) -> list[tuple[str, str]]:
        """The volumes as (id, mount point); the point is "" when it is only to be attached."""
        found = [VOLUME.fullmatch(each) for each in self.volumes]
        return [(each[1], each[2] or "") for each in found if each]

    def differences(self, other: ClusterSpec) -> list[str]:
        """One line for each field in which ``other`` differs, such as ``nodes: 2, not 3``."""
        mine, others = self._comparable(), other._comparable()
        return [
            f"{key}: {_or_none(mine[key])}, not {_or_none(others[key])}"
            for key in mine
            if mine[key] != others[key]
        ]

    def to_tag(self) -> str:
        """Compact JSON of what is not default; the name and the user's tags are tags of their own.

        Of the bootstrap script only a digest: the script is in the nodes' user data.
        """
        default = ClusterSpec()._comparable()
        chosen = {
            key: value
            for key, value in self._comparable().items()
            if key not in ("name", "tags") and value != default[key]
        }
        return json.dumps(chosen, separators=(",", ":"))

    @classmethod
    def from_tag(cls, text: str, *, name: str, tags: Mapping[str, str]) -> ClusterSpec | None:
        """The spec that ``to_tag`` wrote, or None if it cannot be read (tags can be edited by anyone)."""
        try:
            chosen: Any = json.loads(text)
            return cls(name=name, tags=dict(tags), **chosen)
        except (ValueError, TypeError, SpecError):
            return None

    def _comparable(self) -> dict[str, Any]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        script = self.bootstrap
        if script is not None and not DIGEST.fullmatch(script):
            values["bootstrap"] = f"sha256:{hashlib.sha256(script.encode()).hexdigest()[:16]}"
        return values


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def generate_name(taken: Collection[str], *, rng: random.Random) -> str:
    """A readable name that is not taken, such as ``brisk-otter``."""
    for _ in range(100):
        name = f"{rng.choice(ADJECTIVES.split())}-{rng.choice(ANIMALS.split())}"
        if name not in taken:
            return name
    return next(numbered for i in itertools.count(2) if (numbered := f"{name}-{i}") not in taken)


def _or_none(value: object) -> object:
    return "none" if value in (None, "", [], ()) else value
