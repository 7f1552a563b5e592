"""Bake: a configured node becomes an image that later launches start from.

The image is of a copy: the master is imaged while it works on; an instance of that, with no key to it, takes off
itself at its first boot whatever was the cluster's and shuts down; and that is imaged. So the cluster is never
touched, and whatever ends a bake early removes all that carries its mark, or names it. Runs in a thread of its own
(``pace``).
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from ...errors import CloudError, PpeError
from ...ssh import Connection
from ..context import Context
from ..ec2 import EC2
from ..facts import Image, Instance
from ..pace import Pace, Report
from ..records import ClusterRecord, InstanceState, Progress
from ..tags import IMAGE, LOGIN_USER, MADE, OWNER, SURCHARGE, busy
from .software import software_here

BAKE = "ppe:bake"  # the mark of one bake on all that it makes
BASE = "ppe:base"
# What it was launched from, and Software.digest: how a lock knows an image that has what it wants.
ORIGIN, DIGEST = "ppe:origin", "ppe:software"
SOFTWARE = {"R": "ppe:r", "Open MPI": "ppe:openmpi", "Rmpi": "ppe:rmpi"}
# A snapshot of tens of GB takes many minutes; a copy boots, cleans itself and shuts down within a few.
IMAGE_SECONDS = 3600.0
COPY_SECONDS = 900.0
# If it cannot clean itself and nobody is left to end it, the copy stops so much later, far from any success.
GIVE_UP_SECONDS = 3600
ENDED = (InstanceState.STOPPED, InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)
CONSOLE_LINES = 5
NOT_YET_CODES = ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable")
NOT_YET_SECONDS = 20.0

VERSIONS = r"""sync; . /etc/os-release; echo "base=$ID-$VERSION_ID"
echo "Open MPI=$(mpirun --version | sed -n '1s/.* //p')"
Rscript --vanilla -e 'cat(sprintf("R=%s\nRmpi=%s\n", getRversion(), packageDescription("Rmpi")$Version))'
"""
# A boot command comes before any service of ours, so the copy never takes itself for the master. Afterwards nothing
# may run: cloud-init would go on to make host keys. The copy stops soon only if all went well.
CLEAN = """#cloud-config
bootcmd:
- |
  echo '{{"login_user": "{user}"}}' | python3 -B ~{user}/.ppe/node this_node clean && sync && shutdown -h now
  sleep {give_up}; shutdown -h now; sleep 900
"""


class Bake:
    """One bake of one cluster's master."""

    def __init__(
        self, context: Context, connection: Connection, record: ClusterRecord, name: str, pace: Pace
    ) -> None:
        self._context = context
        self._ec2 = context.ec2
        self._connection = connection
        self._record = record
        self._name = name
        self._pace = pace
        self._copies: list[str] = []  # EC2 may not list them yet
        self.copy: Instance | None = None  # as EC2 listed it last
        self._token = uuid.uuid4().hex
        until = context.now() + timedelta(seconds=2 * IMAGE_SECONDS + COPY_SECONDS)
        # What this makes is found by cleanup, but not while this is at work.
        self._busy = busy(until)
        self._passing = {OWNER: context.owner(), MADE: "bake", BAKE: self._token, **self._busy}

    def run(self, send: Report) -> str:
        """Do it; the new image's id."""
        self._send = send
        try:
            image = self._images()
        except PpeError as exc:
            if left := self._undo():
                raise CloudError(f"{exc}. Still there: {left}") from exc
            raise
        except BaseException:
            self._undo()
            raise
        if left := self._undo(keep=image.image_id):
            self._report("made", f"Still there: {left}")
        return image.image_id

    def _images(self) -> Image:
        """The three steps: an image of the master, a copy that cleans itself, an image of that."""
        software = self._software()
        master = self._instance(cluster=self._record.name, instance_id=self._record.master.instance_id)
        if master is None:
            raise CloudError(
                f"the master of {self._record.name!r} is another one now; look again: %ppe_status"
            )
        data_disks = [
            each.device
            for each in self._ec2.volumes(instance_id=master.instance_id)
            if not each.ends_with_instance
        ]
        raw = self._image(
            "copying the master", master.instance_id, name=f"{self._name}-{self._token[:8]}", tags=self._passing,
            without=data_disks,
        )  # fmt: skip
        copy_id = self._clean_copy(master, raw)
        tags = self._tags(software, self._ec2.image(master.image_id))
        image = self._image(
            "making the image", copy_id, name=self._name, tags={**tags, **self._busy}, without=()
        )
        with contextlib.suppress(CloudError):
            self._ec2.tag([image.image_id, *image.snapshot_ids], busy(self._context.now()))
        return image

    def _software(self) -> dict[str, str]:
        """The versions of what matters to results; what was written is on the disk then."""
        lines = self._connection.run(VERSIONS, timeout=60).stdout.decode().splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        return {**found, "digest": software_here(self._connection).digest}

    def _tags(self, software: Mapping[str, str], origin: Image | None) -> dict[str, str]:
        """The new image's tags; the surcharge of the one that the master was launched from goes on."""
        surcharge = origin.tags.get(SURCHARGE, "") if origin else ""
        return {
            "Name": self._name,
            OWNER: self._passing[OWNER],
            MADE: "image",
            BAKE: self._token,
            IMAGE: "node",
            LOGIN_USER: self._record.login_user,
            BASE: software.get("base", ""),
            **{tag: software.get(name, "") for name, tag in SOFTWARE.items()},
            ORIGIN: origin.image_id if origin else "",
            DIGEST: software["digest"],
            **({SURCHARGE: surcharge} if surcharge else {}),
        }

    def _image(
        self, phase: str, instance_id: str, *, name: str, tags: Mapping[str, str], without: Sequence[str]
    ) -> Image:
        """An image of the instance as it is, when it can be launched."""
        self._report(phase)
        self._pace.check()
        image_id = self._create(instance_id, name=name, reboot=False, without=without, tags=tags)
        for last in self._pace.tries(seconds=IMAGE_SECONDS, longest=15.0):
            image = self._ec2.image(image_id)
            if image is not None and image.state == "available":
                return image
            state = image.state if image else "pending"
            if last or state not in ("pending", "transient"):
                raise CloudError(f"image {image_id} of {instance_id} is {state}, not available")
            self._report(phase)
        raise AssertionError("the last try returns or raises")

    def _create(self, instance_id: str, *, name: str, **options: Any) -> str:
        """The image's id; also when the answer was lost and the repetition found the name taken by itself."""
        try:
            return self._ec2.create_image(instance_id, name=name, **options)
        except CloudError:
            for image in self._marked_images():
                if image.name == name:
                    return image.image_id
            raise

    def _clean_copy(self, master: Instance, raw: Image) -> str:
        """The id of an instance that was started from ``raw``, has cleaned itself and stopped."""
        self._report("cleaning the copy")
        self._pace.check()
        copy_id = self._pace.insist(
            partial(
                self._ec2.run_copy,
                raw.image_id,
                instance_type=master.instance_type,
                subnet_id=master.subnet_id,
                group_ids=master.group_ids,
                user_data=CLEAN.format(user=self._record.login_user, give_up=GIVE_UP_SECONDS),
                token=self._token,
                tags={"Name": f"ppe-bake-{self._name}", **self._passing},
            ),
            codes=NOT_YET_CODES,
            seconds=NOT_YET_SECONDS,
        )
        self._copies.append(copy_id)
        for last in self._pace.tries(seconds=COPY_SECONDS):
            copy = self._instance(bake=self._token, instance_id=copy_id)
            self.copy = copy or self.copy
            if copy is not None and copy.state is InstanceState.STOPPED and not self._gave_up(copy):
                self.copy = replace(copy, stopped=copy.stopped or self._context.now())
                return copy_id
            if last or (copy is not None and copy.state in ENDED):
                state = f"is {copy.state}" if copy else "is not listed"
                raise CloudError(f"the copy {copy_id} of the master {state}{self._console(copy_id)}")
            self._report("cleaning the copy")
        raise AssertionError("the last try returns or raises")

    def _gave_up(self, copy: Instance) -> bool:
        """Whether it may have stopped uncleaned, while this client was asleep."""
        return (self._context.now() - copy.launched).total_seconds() >= GIVE_UP_SECONDS

    def _instance(self, *, instance_id: str, **tags: str) -> Instance | None:
        found = (each for each in self._ec2.instances(**tags) if each.instance_id == instance_id)
        return next(found, None)

    def _console(self, instance_id: str) -> str:
        try:
            lines = self._ec2.console_output(instance_id).strip().splitlines()
        except CloudError:
            lines = []
        return f"; its console's last lines: {' | '.join(lines[-CONSOLE_LINES:])}" if lines else ""

    def _marked_images(self) -> list[Image]:
        return [each for each in self._ec2.own_images() if each.tags.get(BAKE) == self._token]

    def _undo(self, *, keep: str = "") -> str:
        """Remove all that carries the mark but for the image ``keep``; what could not be removed, and why."""
        left = []
        try:
            listed = [each.instance_id for each in self._ec2.instances(bake=self._token) if each.state.alive]
            if copies := list({*listed, *self._copies}):
                self._ec2.terminate_instances(copies)
        except CloudError as exc:
            left.append(f"the copy {', '.join(self._copies)} ({exc})")
        try:
            for image in self._marked_images():
                if image.image_id != keep:
                    discard(self._ec2, image)
        except CloudError as exc:
            left.append(f"images with the tag {BAKE}={self._token} ({exc})")
        return "; ".join([*left, "remove it with: %ppe_cleanup --images"] if left else [])

    def _report(self, phase: str, message: str = "") -> None:
        self._send(Progress(phase, 0, 1, self._pace.elapsed, message or self._name))


def discard(ec2: EC2, image: Image) -> None:
    """Deregister the image and delete the snapshots that it was stored in."""
    ec2.deregister_image(image.image_id)
    for snapshot_id in image.snapshot_ids:
        ec2.delete_snapshot(snapshot_id)
