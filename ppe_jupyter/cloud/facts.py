"""Facts: what the account and its region offer, as EC2 told it, in this package's own terms.

Frozen values, made by ``ec2`` from the API's answers and read by ``plan``. Pure; must not know boto3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ..catalog import InstanceType
from .lock import Lock
from .records import ClusterRecord, InstanceState

# Where a subnet's traffic for the internet goes; "" when its route table could not be read.
WAYS_OUT = ("internet", "nat", "other", "none")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who is asking, and where: the answer to "whose money"."""

    account: str
    arn: str
    region: str


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A subnet of a VPC; ``public`` if instances in it get a public address unless told otherwise.

    ``way_out`` is one of WAYS_OUT or "": through an internet gateway only what has a public address gets out.
    """

    subnet_id: str
    vpc_id: str
    zone: str
    cidr: str
    public: bool
    way_out: str = ""
    free_addresses: int | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """A machine image; ``node`` if it is a node already, else bootstrap.sh has to make it one.

    ``root_gb`` is the least size of its root disk, ``root_device`` that disk's name. ``snapshot_ids`` are what it
    is stored in, ``state`` is EC2's (available, pending, failed). ``virtualization`` is hvm or paravirtual,
    ``boot_mode`` legacy-bios, uefi, uefi-preferred or "" (the type's own), ``ena`` whether it has the driver of
    enhanced networking. ``surcharge`` is USD per hour and instance.
    """

    image_id: str
    name: str
    architecture: str
    login_user: str
    node: bool
    root_device: str
    root_gb: int
    created: str = ""
    state: str = "available"
    snapshot_ids: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    virtualization: str = "hvm"
    boot_mode: str = ""
    ena: bool = True
    surcharge: float = 0.0

    def unfit(self, kind: InstanceType) -> Iterator[str]:
        """Why it does not boot on a type (user guide, ComponentsAMIs, ami-boot and enhanced-networking-ena)."""
        if not kind.fits(self.architecture):
            yield f"is for {self.architecture}, {kind.name} is {'/'.join(kind.architectures)}"
        if self.virtualization not in kind.virtualizations:
            yield f"is {self.virtualization}, {kind.name} is {'/'.join(kind.virtualizations)}"
        if (
            kind.boot_modes
            and self.boot_mode in ("legacy-bios", "uefi")
            and self.boot_mode not in kind.boot_modes
        ):
            yield f"boots by {self.boot_mode}, {kind.name} by {'/'.join(kind.boot_modes)}"
        if kind.ena == "required" and not self.ena:
            yield f"has no driver for enhanced networking (ENA), which {kind.name} requires"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One answer of DescribeInstances. ``reason`` says why it ended or stopped, ``stopped`` when it stopped."""

    instance_id: str
    launch_index: int
    state: InstanceState
    reason: str
    private_ip: str
    private_dns: str
    public_ip: str
    public_dns: str
    instance_type: str
    zone: str
    subnet_id: str
    key_name: str
    launched: datetime
    tags: Mapping[str, str]
    spot: bool = False
    stopped: datetime | None = None
    image_id: str = ""
    group_ids: tuple[str, ...] = ()
    placement_group: str = ""
    instance_profile: str = ""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An EBS volume. ``state`` is EC2's (creating, available, in-use, deleting, error), ``gb`` its size in GiB.

    While it is attached: to ``instance_id`` as ``device``, ``attachment`` being attaching, attached, busy or
    detaching, and ``ends_with_instance`` whether it is deleted when the instance is terminated.
    """

    volume_id: str
    state: str
    zone: str
    gb: int
    kind: str
    encrypted: bool
    created: datetime
    tags: Mapping[str, str]
    instance_id: str = ""
    device: str = ""
    attachment: str = ""
    ends_with_instance: bool = False


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot of a volume of ``gb`` GiB; it stores, and costs, what of them was written."""

    snapshot_id: str
    volume_id: str
    gb: int
    created: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An inbound rule of a security group; ``protocol`` is tcp, udp, icmp or "-1" (all, of every port).

    ``sources`` are IPv4 ranges, groups' ids and prefix lists' ids.
    """

    protocol: str
    first_port: int
    last_port: int
    sources: tuple[str, ...]

    def allows(self, protocol: str, port: int) -> bool:
        """Whether traffic to that port is let in, from its sources."""
        return self.protocol == "-1" or (
            self.protocol == protocol and self.first_port <= port <= self.last_port
        )


@dataclass(frozen=True, kw_only=True)
class SecurityGroup:
    """A security group and what it lets in."""

    group_id: str
    name: str
    vpc_id: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, kw_only=True)
class PlacementGroup:
    """A placement group; ``strategy`` is cluster, spread or partition, ``zones`` where it has instances."""

    name: str
    strategy: str
    zones: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A quota of vCPUs, and how many of them run now."""

    name: str
    limit: float
    used: int


@dataclass(frozen=True, kw_only=True)
class UserKey:
    """The user's EC2 key pair: whether EC2 has it, and whether its private half is on this machine.

    ``public`` is its public half if we made it, to be imported when EC2 has it not.
    """

    name: str
    in_ec2: bool
    private_here: bool
    public: str = ""


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Limits of the configuration that no option overrides."""

    max_usd_per_hour: float | None = None
    max_nodes: int | None = None


@dataclass(frozen=True, kw_only=True)
class AccountPlan:
    """The account's plan with AWS; on the free one only some instance types can be launched."""

    free: bool
    credits_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that ``plan`` decides from. ``zones`` are those that offer the instance type.

    ``idle_hours`` and ``boot_timeout`` (seconds) are the settings'.
    ``existing`` is a cluster that has the wanted name already; the other facts are then not asked for.
    ``caller_cidr`` is None when the caller's address could not be found out, ``caller_problem`` says why;
    ``caller_given``: the user has named it.
    ``usd_per_hour`` is the type's on-demand price, ``spot_usd`` its spot price now by zone, ``prices`` says
    where they are from. ``group``, ``placement_group`` and ``volumes`` are the existing ones that the spec names,
    as far as they exist. ``local``: it is the local cloud. ``proxy`` is the setting that leads to the
    master on another way than the direct one, or "".

    ``lock`` is the software that the cluster is to have; then ``image`` is one that fits it unless the spec names one.

    What may be refused is None when it was not found out; ``unchecked`` then says so. ``denied`` are the IAM
    actions that EC2's dry run refused, and what it said.
    """

    name: str
    owner: str
    caps: Caps = field(default_factory=Caps)
    idle_hours: float = 0.0
    boot_timeout: float = 600.0
    local: bool = False
    proxy: Literal["", "proxy_jump", "proxy_command"] = ""
    existing: ClusterRecord | None = None
    instance_type: InstanceType | None = None
    zones: frozenset[str] = frozenset()
    subnets: tuple[Subnet, ...] = ()
    image: Image | None = None
    user_key: UserKey | None = None
    caller_cidr: str | None = None
    caller_given: bool = False
    caller_problem: str = ""
    usd_per_hour: float | None = None
    spot_usd: Mapping[str, float] = field(default_factory=dict)
    prices: str = ""
    group: SecurityGroup | None = None
    placement_group: PlacementGroup | None = None
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    spot_role: bool | None = None
    account_plan: AccountPlan | None = None
    instance_profile: bool | None = None
    lock: Lock | None = None
    unchecked: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
