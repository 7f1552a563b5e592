"""What the reconciler needs of an instance's record, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from .container import NodeSpec
from .firewall import Ingress
from .metadata import Identity
from .volumes import Wish


class Action(Enum):
    """What the API asks for."""

    START = "start"
    STOP = "stop"
    TERMINATE = "terminate"
    REBOOT = "reboot"
    DISKS = "disks"  # a volume was attached or shall go
    CAPTURE = "capture"  # an image of it
    REFRESH = "refresh"  # a security group, route or image has changed
    QUIT = "quit"


class Machine(Protocol):
    """An instance's record, as far as the reconciler goes. Its methods are safe to call from any thread."""

    id: str
    has_container: bool

    def spec(self) -> NodeSpec:
        """What its container is made of."""

    def permissions(self) -> list[Ingress]:
        """What its security groups let in."""

    def names(self) -> list[str]:
        """Its DNS names."""

    def has_way_out(self) -> bool:
        """Whether it reaches what is beyond its network."""

    def identity(self) -> Identity:
        """What the metadata service tells it."""

    def terminates_on_shutdown(self) -> bool:
        """Whether a shutdown from inside terminates it."""

    def disks(self) -> Sequence[Wish]:
        """The volumes that are attached to it, or shall go."""

    def disk_moved(self, volume_id: str, state: str) -> None:
        """An attachment is now ``attached``, ``busy`` or ``detached``."""

    def moved(self, state: str, *, code: str = "", reason: str = "", console: bytes = b"") -> None:
        """Its container has changed; ``code`` and ``reason`` are EC2's StateReason."""


@dataclass(frozen=True)
class Capture:
    """An image to be made; ``done`` hears why it was not, or an empty string."""

    ami_id: str
    reboot: bool
    done: Callable[[str], None]
