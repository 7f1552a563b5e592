"""moto's instance records made to follow containers.

moto keeps every record and says `running` at once; here an instance is what its container is. The class
takes the place of moto's own in its modules, because moto's backends name it there. Knows moto's records
and the reconciler's wishes, no HTTP.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import instances as moto_instances

from ..machines.container import NodeSpec
from ..machines.firewall import ANY, Ingress
from ..machines.metadata import Identity
from ..machines.reconciler import Action, Reconciler
from ..machines.volumes import Wish
from . import identity as ec2_identity

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
USER, SYSTEM, SPOT = (
    "Client.UserInitiatedShutdown",
    "Client.InstanceInitiatedShutdown",
    "Server.SpotInstanceTermination",
)
LAUNCH = "ppe:launch"  # the tag of all instances of one cluster
Instance = moto_instances.Instance


@dataclass(eq=False)
class DiskAttachment:
    """In place of moto's, for a volume that is a disk in the container; ``nvme`` is its name there."""

    volume: Any
    instance: Any
    device: str
    nvme: str
    status: str = "attaching"
    leaving: bool = False
    forced: bool = False
    delete_on_termination: bool = False
    attach_time: datetime = field(default_factory=utcnow)

    @property
    def volume_id(self) -> str:
        """As moto serializes it."""
        return str(self.volume.id)

    @property
    def instance_id(self) -> str:
        """As moto serializes it."""
        return str(self.instance.id)


class ContainerInstance(Instance):
    """An instance whose state is its container's. ``machine_images`` maps image ids to root file systems.

    ``containerless``: new instances are records only, for tests with hundreds of them. ``lock`` guards moto's
    records, which are not made for threads: the endpoint holds it during a request.
    """

    lock: ClassVar[threading.RLock]
    reconciler: ClassVar[Reconciler]
    machine_images: ClassVar[dict[str, Path]]
    containerless: ClassVar[bool] = False

    def __init__(self, ec2_backend: Any, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("subnet_id") and not any("SubnetId" in nic for nic in kwargs.get("nics", ())):
            # Without this moto thinks of EC2-Classic and invents an address.
            zone = kwargs.get("placement") or f"{ec2_backend.region_name}a"
            kwargs["subnet_id"] = ec2_backend.get_default_subnets()[zone].id
        super().__init__(ec2_backend, *args, **kwargs)
        self.cpu_options: dict[str, int] = {}
        self.console = b""
        self.has_container = not self.containerless
        self.interruption: str | None = None  # when it will be reclaimed, in ISO 8601
        self._set_state("pending")
        for nic in self.nics.values():
            nic.delete_on_termination = True  # EC2's default for interfaces made at launch
            # An address that is used again must not be hidden behind its last owner in its peers' ARP tables.
            octets = str(nic.private_ip_address).split(".")
            nic.mac_address = "02:00:" + ":".join(f"{int(octet):02x}" for octet in octets)
        # There is one address, and what moto invents could be somebody's.
        self._has_public_address, self.nics[0].public_ip_auto_assign = bool(self.public_ip), False
        self.private_address = str(self.private_ip_address)
        self._show_public_address(True)
        self._explain("", "")

    @property
    def private_ip_address(self) -> str | None:
        """As moto has it, until it is terminated: then EC2 shows no address, name or interface."""
        return None if self.state == "terminated" else self.private_ip

    @property
    def private_dns_name(self) -> str:
        """Its name in the network."""
        return "" if self.state == "terminated" else super().private_dns_name

    @property
    def network_interfaces(self) -> list[Any]:
        """Its interfaces."""
        return [] if self.state == "terminated" else super().network_interfaces

    def setup_defaults(self) -> None:
        """The root volume, under the name that the image gives it."""
        volume = self.ec2_backend.create_volume(size=8, zone_name=self._placement.zone)
        self.ec2_backend.attach_volume(volume.id, self.id, self.root_device_name, True)

    def start(self) -> Any:
        """Start a stopped instance."""
        if self.state == "stopped":
            self.launch_time = utcnow()  # as EC2 documents of DescribeInstances
            self._explain("", "")
            self._show_public_address(True)
        return self._ask(Action.START, {"stopped": "pending"}, unchanged=("pending", "running"))

    def stop(self) -> Any:
        """Stop it, keeping its disk and address."""
        return self._ask(
            Action.STOP, {"pending": "stopping", "running": "stopping"}, unchanged=("stopping", "stopped")
        )

    def terminate(self) -> Any:
        """End and remove it."""
        moves = dict.fromkeys(("pending", "running", "stopping", "stopped"), "shutting-down")
        return self._ask(Action.TERMINATE, moves, unchanged=("shutting-down", "terminated"))

    def reboot(self) -> None:
        """Restart it with the same disk and address."""
        self._ask(Action.REBOOT, {"running": "running"}, unchanged=())

    def _ask(self, action: Action, moves: Mapping[str, str], *, unchanged: tuple[str, ...]) -> Any:
        previous = copy.copy(self._state)
        if previous.name in moves:
            self._set_state(moves[previous.name])
            if action in (Action.STOP, Action.TERMINATE):
                self._explain(USER, "User initiated shutdown")
            self.reconciler.submit(action, self)
        elif previous.name not in unchanged:
            message = f"The instance '{self.id}' cannot {action.value}: it is {previous.name}"
            raise EC2ClientError("IncorrectInstanceState", message)
        return previous

    def interrupt(self, seconds: float) -> None:
        """Reclaim it as spot capacity is reclaimed: a notice in its metadata now, the end in so many seconds."""
        self.interruption = f"{utcnow() + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
        reclaim = threading.Timer(seconds, self._reclaim)
        reclaim.daemon = True
        reclaim.start()

    def _reclaim(self) -> None:
        with self.lock:
            if self.state not in ("shutting-down", "terminated"):
                self.terminate()
                self._explain(SPOT, "Spot capacity was reclaimed")

    def spec(self) -> NodeSpec:
        """What its container is made of."""
        nic = self.nics[0]
        key = self.ec2_backend.key_pairs.get(self.key_name)
        return NodeSpec(
            instance_id=self.id,
            hostname=self.private_dns_name.partition(".")[0],
            address=self.private_address,
            mac=nic.mac_address,
            rootfs=self.machine_images[self.image_id],
            user_data=base64.b64decode(str(self.user_data)) if self.user_data else b"",
            public_key=key.public_key.strip() if key else None,
            shared=self._shared(),
        )

    def _shared(self) -> Path | None:
        """What a file system of Amazon EFS, or a server of NFS, would be to the nodes of one launch."""
        launch = self.ec2_backend.tags[self.id].get(LAUNCH)
        name = hashlib.sha256(launch.encode()).hexdigest()[:16] if launch else ""
        return self.reconciler.shared / name if name else None

    def permissions(self) -> list[Ingress]:
        """Its security groups' ingress rules, with the members' addresses in place of source groups."""
        with self.lock:
            rules = [rule for group in self.nics[0].group_set for rule in group.ingress_rules]
            return [self._permission(rule) for rule in rules]

    def _permission(self, rule: Any) -> Ingress:
        sources = [rule.cidr_ipv4] if rule.cidr_ipv4 else []
        if rule.source_group:
            sources += self._members(rule.source_group.get("GroupId"))
        ports = None if rule.from_port is None else (int(rule.from_port), int(rule.to_port))
        return Ingress(rule.ip_protocol or ANY, ports, tuple(sorted(sources)))

    def _members(self, group_id: str | None) -> list[str]:
        return [
            f"{instance.private_address}/32"
            for instance in self.ec2_backend.all_instances()
            if instance.state not in ("terminated", "stopped")
            and any(group.id == group_id for group in instance.nics[0].group_set)
        ]

    def names(self) -> list[str]:
        """Its DNS names, the private one first."""
        return [
            self.private_dns_name,
            self.private_dns_name.partition(".")[0],
            *filter(None, [self.public_dns_name]),
        ]

    def has_way_out(self) -> bool:
        """Whether it has a public address, or a NAT gateway its subnet's route table leads to."""
        with self.lock:
            tables = self.ec2_backend.route_tables.values()
            own = [t for t in tables if self.subnet_id in t._associations.values()]
            main = [t for t in tables if t.main_association_id and t.vpc_id == self.vpc_id]
            routes = [route for table in (own or main)[:1] for route in table.routes]
            return bool(self.public_ip) or any(
                route.nat_gateway is not None and route.destination_cidr_block == "0.0.0.0/0"
                for route in routes
            )

    def identity(self) -> Identity:
        """What the metadata service tells it."""
        with self.lock:
            return ec2_identity.identity(self)

    def disks(self) -> list[Wish]:
        """Its volumes that are disks; those made by its launch are records only."""
        with self.lock:
            blocks = self.block_device_mapping.values()
            attachments = [self.ec2_backend.volumes[block.volume_id].attachment for block in blocks]
            return [
                Wish(each.volume_id, each.nvme, leaving=each.leaving, forced=each.forced)
                for each in attachments
                if isinstance(each, DiskAttachment)
            ]

    def disk_moved(self, volume_id: str, state: str) -> None:
        """A volume was plugged in or pulled out, or shall go and is mounted."""
        with self.lock:
            attachment = self.ec2_backend.volumes[volume_id].attachment
            if attachment is None or attachment.instance is not self:
                return
            attachment.status = state
            self.block_device_mapping[attachment.device].status = "detaching" if state == "busy" else state
            if state == "detached":
                self.ec2_backend.detach_volume(volume_id, self.id, attachment.device)

    def terminates_on_shutdown(self) -> bool:
        """Its InstanceInitiatedShutdownBehavior."""
        return bool(self.instance_initiated_shutdown_behavior == "terminate")

    def moved(self, state: str, *, code: str = "", reason: str = "", console: bytes = b"") -> None:
        """Its container has changed. Who asked for an end has been noted when it was asked for."""
        with self.lock:
            if state == "terminated" and self.state != "terminated":
                self.console = console
                noted, reason_noted = self.state_reason, self._reason
                disks = [wish.volume_id for wish in self.disks()]
                super().terminate()
                self.state_reason, self._reason = noted, reason_noted
                for volume_id in set(disks) - set(self.ec2_backend.volumes):
                    self.reconciler.volumes.delete(volume_id)
            elif self.state in ("shutting-down", "terminated"):
                return
            self._set_state(state)
            if code and code != USER:
                self._explain(code, reason)
            self._show_public_address(state in ("pending", "running"))

    def _explain(self, code: str, reason: str) -> None:
        """EC2's StateReason and StateTransitionReason."""
        self.state_reason: Any = moto_instances.StateReason(f"{code}: {reason}", code) if code else None
        self._reason = code if code.startswith("Server.") else ""
        if code == USER:
            self._reason = f"User initiated ({utcnow():%Y-%m-%d %H:%M:%S} GMT)"

    def _show_public_address(self, shown: bool) -> None:
        self.nics[0].public_ip = self.private_address if shown and self._has_public_address else None

    def _set_state(self, name: str) -> None:
        self._state = moto_instances.InstanceState(name, STATES[name])
