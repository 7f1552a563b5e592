"""The steps of a plan: frozen instructions that ``plan`` makes, ``launch`` carries out, and a review shows.

``str(step)`` is its line in the review. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Image, Subnet


@dataclass(frozen=True, kw_only=True)
class ImportKeyPair:
    """Make the user's key pair known to EC2, once; it stays."""

    name: str
    public: str

    def __str__(self) -> str:
        return f"import the key pair {self.name} (once; it stays)"


@dataclass(frozen=True, kw_only=True)
class CreateSecurityGroup:
    """Port 22 from the caller, everything between members, nothing else in; EC2's default egress."""

    name: str
    vpc_id: str
    caller_cidr: str

    def __str__(self) -> str:
        return f"security group {self.name} in {self.vpc_id}: SSH from {self.caller_cidr}, all between nodes"


@dataclass(frozen=True, kw_only=True)
class CreatePlacementGroup:
    """Nodes close together; one launch request and one type, as EC2 recommends (placement-groups)."""

    name: str

    def __str__(self) -> str:
        return f"cluster placement group {self.name}"


@dataclass(frozen=True, kw_only=True)
class RunInstances:
    """All nodes in one request, in the first of ``subnets`` that has capacity.

    ``cores`` is given when each is to run one thread: CPU options need both numbers and go at launch only
    (user guide, instance-cpu-options-rules).
    """

    count: int
    instance_type: str
    image: Image
    subnets: tuple[Subnet, ...]
    root_gb: int
    cores: int | None

    def __str__(self) -> str:
        zones = " or ".join(dict.fromkeys(subnet.zone for subnet in self.subnets))
        threads = ", one thread per core" if self.cores else ""
        return (
            f"{self.count} × {self.instance_type} in {zones} from {self.image.image_id} ({self.image.name})"
            f"{threads}, each with an encrypted gp3 disk of {self.root_gb} GB"
        )


@dataclass(frozen=True, kw_only=True)
class Configure:
    """Over SSH to the master: names, host keys, host file, agent; until mpirun and R answer."""

    nodes: int
    slots: int

    def __str__(self) -> str:
        return f"configure {self.nodes} nodes of {self.slots} slots, and check mpirun and R"


Step = ImportKeyPair | CreateSecurityGroup | CreatePlacementGroup | RunInstances | Configure
