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
    """Nodes ``first_index`` and on, in one request, in the first of ``subnets`` that has capacity.

    ``cores`` is given when each is to run one thread: CPU options need both numbers and go at launch only
    (user guide, instance-cpu-options-rules). ``price`` is what each instance alone costs, USD per hour.
    ``public`` says whether each is to get a public address.
    """

    count: int
    first_index: int = 0
    instance_type: str
    image: Image
    subnets: tuple[Subnet, ...]
    root_gb: int
    root_type: str = "gp3"
    encrypted: bool = True
    cores: int | None
    public: bool = True
    spot: bool = False
    spot_max_usd: float | None = None
    spot_fallback: bool = False
    price: float | None = None

    def __str__(self) -> str:
        first, *others = dict.fromkeys(subnet.zone for subnet in self.subnets)
        zones = first + (f" (or {', '.join(others)})" if others else "")
        threads = ", one thread per core" if self.cores else ""
        return (
            f"{self.count} × {self.instance_type}{' spot' * self.spot} in {zones} from {self.image.image_id} "
            f"({self.image.name}){threads}, each with {'an encrypted' if self.encrypted else 'a plain'} "
            f"{self.root_type} disk of {self.root_gb} GB{' and a public address' * self.public}"
        )


@dataclass(frozen=True, kw_only=True)
class StartInstances:
    """Start stopped instances again."""

    instance_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"start {', '.join(self.instance_ids)}"


@dataclass(frozen=True, kw_only=True)
class StopInstances:
    """Stop instances; their disks stay, and are paid for."""

    instance_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"stop {', '.join(self.instance_ids)}; the disk stays"


@dataclass(frozen=True, kw_only=True)
class RebootInstances:
    """Reboot instances; their disks and addresses stay."""

    instance_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"reboot {', '.join(self.instance_ids)}"


@dataclass(frozen=True, kw_only=True)
class TerminateInstances:
    """End instances with their disks."""

    instance_ids: tuple[str, ...]

    def __str__(self) -> str:
        disks = "their disks" if len(self.instance_ids) > 1 else "its disk"
        return f"terminate {', '.join(self.instance_ids)}, with {disks}"


@dataclass(frozen=True, kw_only=True)
class Promote:
    """Make another instance the master."""

    instance_id: str

    def __str__(self) -> str:
        return f"{self.instance_id} becomes the master"


@dataclass(frozen=True, kw_only=True)
class SaveWorkspace:
    """Have the R session save its workspace, to be loaded again at the next start; ``must``: or nothing is done."""

    must: bool = True

    def __str__(self) -> str:
        return f"save the R session's workspace on the master's disk{', if it can be' * (not self.must)}"


@dataclass(frozen=True, kw_only=True)
class AttachVolume:
    """Attach an EBS volume to the master, and mount it if a place is given."""

    volume_id: str
    mount: str

    def __str__(self) -> str:
        return f"attach {self.volume_id} to the master" + (f" at {self.mount}" if self.mount else "")


@dataclass(frozen=True, kw_only=True)
class Configure:
    """Over SSH to the master: names, host keys, host file, agent; until mpirun and R answer."""

    nodes: int
    slots: int

    def __str__(self) -> str:
        return (
            f"configure {self.nodes} {'nodes' if self.nodes > 1 else 'node'} of {self.slots} "
            f"{'slots' if self.slots > 1 else 'slot'}, and check mpirun and R"
        )


@dataclass(frozen=True, kw_only=True)
class InstallRStudio:
    """RStudio Server on the master, last of all; a cluster without it is as good as mended."""

    def __str__(self) -> str:
        return "install RStudio Server on the master, unless it is there"


Step = (
    ImportKeyPair
    | CreateSecurityGroup
    | CreatePlacementGroup
    | RunInstances
    | StartInstances
    | StopInstances
    | RebootInstances
    | TerminateInstances
    | Promote
    | SaveWorkspace
    | AttachVolume
    | Configure
    | InstallRStudio
)
