"""Choices: what a launch will be made of, as it follows from the spec and the facts, before anything is checked.

Pure. What is wrong with it is found by the ``checks_*`` modules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ... import catalog
from ..bill import Bill
from ..facts import Facts, Image, Subnet, Volume
from ..spec import ClusterSpec

# How long a node may take until it is set up, beside booting.
LEAST_BOOT_SECONDS = 600.0
INSTALL_SECONDS = 3600.0
PACKAGES = "packages"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """``subnets`` are to be tried in order. ``cores`` is given when each is to run one thread, see RunInstances.

    ``volumes`` are those of the spec that exist. ``public`` is how many nodes get a public address, the master
    first. ``spot_usd`` is a spot worker's price an hour, the dearest of the zones to try (None: unknown).
    """

    spec: ClusterSpec
    facts: Facts
    image: Image | None
    subnets: tuple[Subnet, ...]
    volumes: tuple[Volume, ...]
    slots: int
    cores: int | None
    placed: bool
    public: int
    spot_usd: float | None
    bill: Bill | None

    @property
    def workers(self) -> int:
        """The nodes beside the master."""
        return self.spec.nodes - 1

    @property
    def needs_way_out(self) -> str:
        """What the nodes have to fetch from the internet, or ""."""
        return needs_way_out(self.image, self.spec)

    def gets_out(self, subnet: Subnet) -> bool | None:
        """Whether all nodes reach the internet from there; None: unknown."""
        return gets_out(subnet, public=self.public >= self.spec.nodes)


def needs_way_out(image: Image | None, spec: ClusterSpec) -> str:
    """What a node of that image and cluster has to fetch from the internet, or ""."""
    if image is not None and not image.node:
        return "R and Open MPI"
    return PACKAGES if spec.apt_packages or spec.r_packages or spec.python_packages else ""


def boot_installs(image: Image | None, spec: ClusterSpec) -> bool:
    """Whether such a node's first boot runs a script: ours that installs what the image lacks, or the user's own."""
    return bool(spec.bootstrap) or (image is not None and not image.node)


def install_seconds(image: Image | None, spec: ClusterSpec) -> float:
    """How long a new node may take to install what it lacks: during its first boot, and packages after it."""
    packages = bool(spec.apt_packages or spec.r_packages or spec.python_packages)
    return INSTALL_SECONDS * (boot_installs(image, spec) + packages)


def boot_seconds(image: Image | None, spec: ClusterSpec, *, boot_timeout: float) -> float:
    """How long after its boot a node that is not set up by then ends itself."""
    return LEAST_BOOT_SECONDS + 2 * boot_timeout + install_seconds(image, spec)


def gets_out(subnet: Subnet, *, public: bool) -> bool | None:
    """Whether a node with or without a public address reaches the internet from there; None: unknown."""
    if subnet.way_out in ("nat", "other"):
        return True
    if not public:
        return False if subnet.way_out else None
    return subnet.way_out in ("internet", "")


def choose(spec: ClusterSpec, facts: Facts) -> Choices:
    """Fill in what the user left open."""
    spec = replace(
        spec,
        name=facts.name,
        idle_hours=facts.idle_hours if spec.idle_hours is None else spec.idle_hours,
    )
    kind, image = facts.instance_type, facts.image
    if image is not None and spec.login_user:
        image = replace(image, login_user=spec.login_user)
    volumes = tuple(facts.volumes[each] for each, _ in spec.mounts() if each in facts.volumes)
    subnets = _subnets(spec, facts, {each.zone for each in volumes})
    public = _public(spec, subnets)
    spot = [usd for zone, usd in facts.spot_usd.items() if zone in {subnet.zone for subnet in subnets}]
    one_thread = kind is not None and kind.one_thread_per_core and spec.threads_per_core != 2
    spot_usd = max(spot, default=None) if spec.spot else None
    return Choices(
        spec=spec,
        facts=facts,
        image=image,
        subnets=subnets,
        volumes=volumes,
        slots=spec.slots or (kind.cores if kind else 1),
        cores=kind.cores if kind and one_thread else None,
        placed=spec.placement == "auto" and spec.nodes > 1 and kind is not None and kind.cluster,
        public=public,
        spot_usd=spot_usd,
        bill=_bill(spec, facts, image, public, spot_usd),
    )


def _subnets(spec: ClusterSpec, facts: Facts, volume_zones: set[str]) -> tuple[Subnet, ...]:
    """Where the type is offered and the spec allows, by zone."""
    group, placement = facts.group, facts.placement_group
    return tuple(
        subnet
        for subnet in sorted(facts.subnets, key=lambda each: each.zone)
        if subnet.zone in facts.zones
        and spec.zone in (None, subnet.zone)
        and volume_zones <= {subnet.zone}
        and (placement is None or not placement.zones or subnet.zone in placement.zones)
        and (group is None or group.vpc_id == subnet.vpc_id)
        and (subnet.free_addresses is None or subnet.free_addresses >= spec.nodes)
    )


def _public(spec: ClusterSpec, subnets: tuple[Subnet, ...]) -> int:
    """A public address is of use only where an internet gateway is."""
    if not any(subnet.way_out in ("internet", "") for subnet in subnets):
        return 0
    return {"all": spec.nodes, "master": 1, "none": 0}[spec.public_addresses]


def _bill(
    spec: ClusterSpec, facts: Facts, image: Image | None, public: int, spot_usd: float | None
) -> Bill | None:
    """What it costs, if the price is known; a spot price may rise to the maximum, or to the on-demand price."""
    usd = facts.usd_per_hour
    if usd is None:
        return None
    now = most = usd
    if spec.spot:
        now = min(spot_usd or usd, usd)
        most = (
            usd if spec.spot_max_usd is None or spec.spot_fallback else max(now, min(spec.spot_max_usd, usd))
        )
    disk = catalog.disk_usd_per_hour(spec.root_gb, spec.root_type)
    workers = spec.nodes - 1
    return Bill(
        instances=usd + workers * now,
        surcharge=spec.nodes * (image.surcharge if image else 0.0),
        disks=spec.nodes * disk,
        disk=disk,
        addresses=public * catalog.USD_PER_HOUR_PUBLIC_IPV4,
        rise=workers * (most - now),
        prices=_sources(spec, facts, spot_usd),
    )


def _sources(spec: ClusterSpec, facts: Facts, spot_usd: float | None) -> str:
    """Of which kind the instances' prices are, and where they are from."""
    if not spec.spot:
        return f"on demand: {facts.prices}"
    workers = "as of now" if spot_usd is not None else "unknown, so counted as on demand"
    return f"spot price of workers {workers}; on demand: {facts.prices}"
