"""ClusterSpec: what the user asks for, and whether it makes sense in itself.

Frozen and pure. It is validated when it is made, so a ClusterSpec that exists is one that can be planned. It
must not know what the account offers: that is ``plan``'s.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import re
from collections.abc import Collection, Mapping
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
    "image": (re.compile(r"ami-[0-9a-f]{8,17}"), "an image's id, ami-…"),
}
LIMITS = {"nodes": (1, 1000), "slots": (1, 1024), "root_gb": (8, 16384)}
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

    ``slots`` is ranks per node (None: the type's physical cores). ``root_gb`` is the size of each node's root
    disk. ``caller_cidr`` is the range that may reach port 22. ``tags`` go on everything that is created.
    """

    name: str | None = None
    nodes: int = 2
    instance_type: str = DEFAULT_TYPE
    slots: int | None = None
    zone: str | None = None
    subnet: str | None = None
    image: str | None = None
    key_name: str | None = None
    caller_cidr: str | None = None
    root_gb: int = DEFAULT_ROOT_GB
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [*self._malformed(), *self._bad_tags()]
        if problems:
            raise SpecError("; ".join(problems), problems=problems)

    def _malformed(self) -> list[str]:
        problems = []
        for key, (pattern, wanted) in PATTERNS.items():
            value = getattr(self, key)
            if value is not None and not pattern.fullmatch(str(value)):
                problems.append(f"{key} {value!r} is not {wanted}")
        for key, (least, most) in LIMITS.items():
            value = getattr(self, key)
            if value is not None and not (type(value) is int and least <= value <= most):
                problems.append(f"{key} = {value!r} is not a whole number from {least} to {most}")
        if self.caller_cidr is not None:
            try:
                ipaddress.IPv4Network(self.caller_cidr)
            except ValueError as exc:
                problems.append(f"caller_cidr {self.caller_cidr!r} is not an IPv4 range: {exc}")
        return problems

    def _bad_tags(self) -> list[str]:
        problems = []
        if len(self.tags) > MAX_TAGS:
            problems.append(f"{len(self.tags)} tags are more than {MAX_TAGS}")
        for key, value in self.tags.items():
            if key == "Name" or key.lower().startswith(("ppe:", "aws:")):
                problems.append(f"tag {key!r} is reserved")
            if not 1 <= len(key) <= MAX_TAG_KEY or len(value) > MAX_TAG_VALUE:
                problems.append(
                    f"tag {key!r}: keys have 1 to {MAX_TAG_KEY} characters, values {MAX_TAG_VALUE}"
                )
        return problems

    def differences(self, other: ClusterSpec) -> list[str]:
        """One line for each field in which ``other`` differs, such as ``nodes: 2, not 3``."""
        return [
            f"{each.name}: {getattr(self, each.name)}, not {getattr(other, each.name)}"
            for each in fields(self)
            if getattr(self, each.name) != getattr(other, each.name)
        ]

    def to_tag(self) -> str:
        """Compact JSON of what is not default; the name and the user's tags are tags of their own."""
        default = ClusterSpec()
        chosen = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("name", "tags") and getattr(self, each.name) != getattr(default, each.name)
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


def generate_name(taken: Collection[str], *, rng: random.Random) -> str:
    """A readable name that is not taken, such as ``brisk-otter``."""
    for _ in range(100):
        name = f"{rng.choice(ADJECTIVES.split())}-{rng.choice(ANIMALS.split())}"
        if name not in taken:
            return name
    return next(numbered for i in itertools.count(2) if (numbered := f"{name}-{i}") not in taken)
