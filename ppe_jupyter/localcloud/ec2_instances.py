"""moto's instance records made to follow containers.

moto keeps every record and says `running` at once; here an instance is what its container is. The class
takes the place of moto's own in its modules, because moto's backends name it there. Knows moto's records
and the reconciler's wishes, no HTTP.
"""

from __future__ import annotations

import base64
import copy
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import instances as moto_instances

from .container import NodeSpec
from .firewall import ANY, Ingress
from .reconciler import Action, Reconciler

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
Instance = moto_instances.Instance


class ContainerInstance(Instance):
    """An instance whose state is its container's. ``machine_images`` maps image ids to root file systems.

    ``lock`` guards moto's records, which are not made for threads: the endpoint holds it during a request.
    """

    lock: ClassVar[threading.RLock]
    reconciler: ClassVar[Reconciler]
    machine_images: ClassVar[Mapping[str, Path]]

    def __init__(self, ec2_backend: Any, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("subnet_id") and not any("SubnetId" in nic for nic in kwargs.get("nics", ())):
            # Without this moto thinks of EC2-Classic and invents an address.
            zone = kwargs.get("placement") or f"{ec2_backend.region_name}a"
            kwargs["subnet_id"] = ec2_backend.get_default_subnets()[zone].id
        super().__init__(ec2_backend, *args, **kwargs)
        self.cpu_options: dict[str, int] = {}
        self.console = b""
        self._set_state("pending")
        for nic in self.nics.values():
            nic.delete_on_termination = True  # EC2's default for interfaces made at launch
            # An address that is used again must not be hidden behind its last owner in its peers' ARP tables.
            octets = str(nic.private_ip_address).split(".")
            nic.mac_address = "02:00:" + ":".join(f"{int(octet):02x}" for octet in octets)
            if nic.public_ip:
                # There is one address, and what it invents could be somebody's.
                nic.public_ip, nic.public_ip_auto_assign = nic.private_ip_address, False
        self.private_address = str(self.private_ip_address)

    def setup_defaults(self) -> None:
        """The root volume, under the name that the image gives it."""
        volume = self.ec2_backend.create_volume(size=8, zone_name=self._placement.zone)
        self.ec2_backend.attach_volume(volume.id, self.id, self.root_device_name, True)

    def start(self) -> Any:
        """Start a stopped instance."""
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
            self.reconciler.submit(action, self)
        elif previous.name not in unchanged:
            message = f"The instance '{self.id}' cannot {action.value}: it is {previous.name}"
            raise EC2ClientError("IncorrectInstanceState", message)
        return previous

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
        )

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

    def terminates_on_shutdown(self) -> bool:
        """Its InstanceInitiatedShutdownBehavior."""
        return bool(self.instance_initiated_shutdown_behavior == "terminate")

    def moved(self, state: str, *, code: str = "", reason: str = "", console: bytes = b"") -> None:
        """Its container has changed."""
        with self.lock:
            if state == "terminated" and self.state != "terminated":
                self.console = console
                super().terminate()
            elif self.state in ("shutting-down", "terminated"):
                return
            self._set_state(state)
            self.state_reason = moto_instances.StateReason(reason, code)
            self._reason = f"{reason} ({utcnow():%Y-%m-%d %H:%M:%S} GMT)" if code else ""

    def _set_state(self, name: str) -> None:
        self._state = moto_instances.InstanceState(name, STATES[name])
