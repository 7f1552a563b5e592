"""Images: the catalog that ``--image`` chooses from: the user's own, and the publishers' by their public parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...catalog import InstanceType
from ...errors import CloudError, SpecError
from ...ssh import Connection
from ..context import Context
from ..facts import Image, Instance, Snapshot
from ..lock import Lock
from ..pace import Report, Undertaking
from ..records import ClusterRecord
from ..spec import PATTERNS
from .bake import BASE, DIGEST, ORIGIN, SOFTWARE, Bake, discard

if TYPE_CHECKING:
    import pandas as pd

ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # EC2's names and the publishers'
DEFAULT = "debian-12"
NO_REPORT: Report = lambda progress: None  # noqa: E731


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A publisher's image, by its public parameter; ``software`` is what its package archive makes it a node with."""

    name: str
    parameter: str
    software: Mapping[str, str]


# Parameters: wiki.debian.org/Cloud/AmazonEC2Image and documentation.ubuntu.com/aws, "Find Ubuntu images". Versions:
# packages.debian.org and packages.ubuntu.com.
STOCK = (
    Stock(
        name="debian-12",
        parameter="/aws/service/debian/release/12/latest/{arch}",
        software={"R": "4.2.2", "Open MPI": "4.1.4", "Rmpi": "0.6-9.2"},
    ),
    Stock(
        name="debian-13",
        parameter="/aws/service/debian/release/13/latest/{arch}",
        software={"R": "4.5.0", "Open MPI": "5.0.7", "Rmpi": "0.7-3.3"},
    ),
    Stock(
        name="ubuntu-24.04",
        parameter="/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id",
        software={"R": "4.3.3", "Open MPI": "4.1.6", "Rmpi": "0.7-2"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """A line of the catalog: ``name`` is what ``--image`` takes; ``base`` the release that it was made from."""

    name: str
    image: Image
    software: Mapping[str, str]
    base: str
    own: bool

    def unfit(self, kind: InstanceType) -> str:
        """Why it cannot be launched on that type, or ""."""
        if self.image.state != "available":
            return self.image.state
        return "; ".join(self.image.unfit(kind))


class ImageStore:
    """The images of one account and region."""

    def __init__(
        self, context: Context, *, on_copy: Callable[[Instance, float | None], None] = lambda copy, usd: None
    ) -> None:
        """``on_copy`` gets the instance that an image was made of, as it was last, and its price, USD an hour."""
        self._context = context
        self._ec2 = context.ec2
        self._on_copy = on_copy

    def list(self) -> Sequence[ImageInfo]:
        """The user's own node images, the newest first, then the stock ones of both architectures."""
        own = [_own(image) for image in self._ec2.own_images() if image.node]
        return [*own, *self._stock(STOCK, tuple(ARCHITECTURES))]

    def resolve(self, name: str | None, architectures: Sequence[str]) -> Image | None:
        """The image of that id or name, for one of the architectures if there is a choice; None if there is none.

        Without a name it is the newest own node image, else Debian 12.
        """
        if name and name.startswith("ami-"):
            return self._ec2.image(name)
        stock = [each for each in STOCK if each.name == (name or DEFAULT)]
        if not (name and stock):
            own = [each for each in self._ec2.own_images() if each.state == "available"]
            own = [each for each in own if (each.name == name if name else each.node)]
            fits = [each for each in own if each.architecture in architectures]
            if fits or name:
                return next(iter(fits or own), None)
        return next((each.image for each in self._stock(stock, architectures)), None)

    def locked(self, lock: Lock) -> Image | None:
        """One of the user's own with just the lock's software, else the one that it names, else one made of that."""
        own = [each for each in self._ec2.own_images() if each.state == "available" and each.node]
        own = [each for each in own if lock.architecture in ("", each.architecture)]
        exact = next((each for each in own if each.tags.get(DIGEST) == lock.digest), None)
        if exact or not lock.image_id:
            return exact
        made = (each for each in own if each.tags.get(ORIGIN) == lock.image_id)
        return self._ec2.image(lock.image_id) or next(made, None)

    def delete(self, image_id: str) -> Sequence[Snapshot]:
        """Let the image go, and what it is stored in: that. Raises SpecError unless it is this account's."""
        image = next((each for each in self._ec2.own_images() if each.image_id == image_id), None)
        if image is None:
            raise SpecError(f"you have no image {image_id!r} in {self._ec2.region}; %ppe_images lists yours")
        stored = self.snapshots(image)
        discard(self._ec2, image)
        return stored

    def snapshots(self, image: Image | None) -> Sequence[Snapshot]:
        """Those of ours that the image is stored in; none if EC2 does not tell: only the ledger wants them."""
        ids = image.snapshot_ids if image else ()
        with contextlib.suppress(CloudError):
            return [each for each in self._ec2.snapshots() if each.snapshot_id in ids]
        return []

    def bake(
        self,
        connection: Connection,
        record: ClusterRecord,
        name: str | None = None,
        *,
        report: Report = NO_REPORT,
    ) -> str:
        """Make an image of the cluster's master as it is now, without its secrets and what is the cluster's; its id.

        Takes minutes; the cluster works on. Raises SpecError for a name that cannot be, CloudError; then the account is
        as it was before, or the message says what is left.
        """
        chosen = name or f"{record.name}-{self._context.now():%Y%m%d-%H%M%S}"
        if len(chosen) < 3 or chosen.startswith("ami-") or not PATTERNS["image"][0].fullmatch(chosen):
            raise SpecError(
                f"{chosen!r} is no name for an image: 3 to 128 letters, digits, dots, hyphens and underscores, the "
                "first a small letter"
            )
        taken = [each.name for each in STOCK] + [each.name for each in self._ec2.own_images()]
        if chosen in taken:
            raise SpecError(f"there is an image {chosen!r} already; choose another name, or delete that one")
        pace = self._context.pace()
        bake = Bake(self._context, connection, record, chosen, pace)
        undertaking = Undertaking(bake.run, pace)
        try:
            undertaking.wait(report)
            return undertaking.result
        finally:
            if bake.copy is not None:
                self._on_copy(bake.copy, record.master.price)

    def _stock(self, wanted: Sequence[Stock], architectures: Sequence[str]) -> Iterator[ImageInfo]:
        """Those of the stock images that there are, in two calls."""
        names = {
            each.parameter.format(arch=ARCHITECTURES[architecture]): each
            for each in wanted
            for architecture in architectures
            if architecture in ARCHITECTURES
        }
        ids = self._ec2.parameters(tuple(names)) if names else {}
        images = {image.image_id: image for image in self._ec2.images(tuple(ids.values()))}
        for parameter, stock in names.items():
            if image := images.get(ids.get(parameter, "")):
                yield ImageInfo(
                    name=stock.name, image=image, software=stock.software, base=stock.name, own=False
                )


def table(images: Iterable[ImageInfo], kind: InstanceType | None = None) -> pd.DataFrame:
    """A row for each image, with its software and login user; those that do not fit the type are marked."""
    import pandas as pd

    rows = [
        {
            "image": each.name,
            "id": each.image.image_id,
            "arch": each.image.architecture,
            **{software: each.software.get(software, "") for software in SOFTWARE},
            "base": each.base,
            "login": each.image.login_user,
            "GB": each.image.root_gb,
            "USD/h": each.image.surcharge,
            "made": each.image.created[:10],
            "state": "ready" if each.image.node and each.image.state == "available" else _state(each),
            **({} if kind is None else {"fits": each.unfit(kind) or "yes"}),
        }
        for each in images
    ]
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame.set_index("image") if rows else frame


def _state(info: ImageInfo) -> str:
    return info.image.state if info.image.state != "available" else "installs at launch"


def _own(image: Image) -> ImageInfo:
    software = {name: image.tags[tag] for name, tag in SOFTWARE.items() if tag in image.tags}
    base = image.tags.get(BASE, "")
    known = next((each.software for each in STOCK if each.name == base), {})
    return ImageInfo(name=image.name, image=image, software=software or known, base=base, own=True)
