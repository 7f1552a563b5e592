"""The images that are there from the start: what this machine has built, and the public ones by record only.

A public image is there so that it can be resolved (Systems Manager's parameter names it), listed and reviewed;
it is launched only where a file system stands behind it, as behind Debian 12's once the stock image is built.
Knows moto's records and where images are built, no containers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami

from .. import REGION, image

# The publishers' accounts: https://wiki.debian.org/Cloud/AmazonEC2Image and
# https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
DEBIAN, UBUNTU = "136693071363", "099720109477"
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # EC2's name: the publishers' name
NODE_TAGS = {"ppe:image": "node", "ppe:login-user": "admin", "ppe:base": "debian-12"}


@dataclass(frozen=True)
class PublicImage:
    """An image of a publisher, and the public parameter whose value is its id."""

    title: str
    name: str
    owner: str
    architecture: str
    root_device: str
    parameter: str

    @property
    def ami_id(self) -> str:
        """Made up, the same whichever daemon registers it."""
        return "ami-" + hashlib.sha256(self.name.encode()).hexdigest()[:17]


def public_images() -> list[PublicImage]:
    """Debian 12 and 13 and Ubuntu 24.04 for both architectures."""
    found = []
    for architecture, arch in ARCHITECTURES.items():
        for release in ("12", "13"):
            parameter = f"/aws/service/debian/release/{release}/latest/{arch}"
            name = f"debian-{release}-{arch}-20260601-2500"
            title = f"Debian {release}"
            found.append(PublicImage(title, name, DEBIAN, architecture, "/dev/xvda", parameter))
        parameter = f"/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
        name = f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-20260601"
        found.append(PublicImage("Ubuntu 24.04", name, UBUNTU, architecture, "/dev/sda1", parameter))
    return found


class ImageRegistry:
    """Keeps moto's AMIs in step with what is built. ``rootfs`` maps the ids of launchable ones to file systems."""

    def __init__(self, backend: EC2Backend, local_root: Path, rootfs: dict[str, Path]) -> None:
        self._backend, self._local_root, self._rootfs = backend, local_root, rootfs
        self._node: str | None = None
        self._stock: str | None = None

    def refresh(self) -> None:
        """Register what has been built since; an earlier build is no AMI any more. Cheap to repeat."""
        node = image.find(self._local_root)
        if node is not None and node.ami_id != self._node:
            self._forget(self._node)
            self._node = node.ami_id
            self._register(
                node.ami_id,
                node.name,
                "Debian 12 with R, Open MPI and Rmpi",
                rootfs=node.rootfs,
                tags=NODE_TAGS,
            )
        stock = image.find_stock(self._local_root)
        for each in public_images():
            built = stock if (each.title, each.architecture) == ("Debian 12", image.architecture()) else None
            ami_id = built.ami_id if built else each.ami_id
            if ami_id in self._backend.amis:
                continue
            if built:
                self._forget(self._stock or each.ami_id)
                self._stock = ami_id
            self._register(
                ami_id, each.name, each.title, owner=each.owner, architecture=each.architecture,
                root_device=each.root_device, rootfs=built.rootfs if built else None,
            )  # fmt: skip

    def parameters(self) -> Mapping[str, str]:
        """The public parameters and the ids that they name."""
        self.refresh()
        mine = ("Debian 12", image.architecture())
        return {
            each.parameter: self._stock
            if self._stock and (each.title, each.architecture) == mine
            else each.ami_id
            for each in public_images()
        }

    def built(self) -> list[str]:
        """The names of the AMIs that can be launched."""
        self.refresh()
        return [str(ami.name) for ami_id, ami in self._backend.amis.items() if ami_id in self._rootfs]

    def _forget(self, ami_id: str | None) -> None:
        if ami_id is not None:
            self._backend.amis.pop(ami_id, None)

    def _register(
        self, ami_id: str, name: str, description: str, *, owner: str = DEFAULT_ACCOUNT_ID,
        architecture: str = image.architecture(), root_device: str = "/dev/xvda",
        rootfs: Path | None = None, tags: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        if rootfs is not None:
            self._rootfs[ami_id] = rootfs
        record: Any = Ami(
            self._backend, ami_id, name=name, description=description, owner_id=owner, tags=dict(tags or {}),
            virtualization_type="hvm", architecture=architecture, hypervisor="xen", root_device_type="ebs",
            root_device_name=root_device, region_name=f"{REGION}a", image_location=f"{owner}/{name}",
            public=owner != DEFAULT_ACCOUNT_ID,
        )  # fmt: skip
        self._backend.amis[ami_id] = record
