"""Volumes: EBS volumes listed, created, attached to a node and mounted there, unmounted and detached.

Each step looks first whether it is done, so that a repetition goes on where another client stopped. What happens
on the node is node/machine/volume.py's part, sent over the one SSH connection to the master.
"""

from __future__ import annotations

import json
import re
import shlex
import string
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import CloudError, NothingToDo, RemoteCommandFailed, SpecError
from ...ssh import Connection
from ..context import Context
from ..facts import Volume
from ..pace import Pace, Report, Undertaking
from ..records import ClusterRecord, InstanceState, Node, Progress
from ..tagged import user_tags
from ..tags import MADE, OWNER

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

MOUNT = re.compile(r"(/\w[\w.-]*)+", re.ASCII)  # as it can stand in fstab
# EC2 recommends these names for EBS volumes (user guide, device_naming).
DEVICES = tuple(f"/dev/sd{letter}" for letter in string.ascii_lowercase[5:16])
CREATE_SECONDS = 120.0
# Attaching takes seconds; one that takes minutes is stuck (user guide, ebs-attaching-volume).
ATTACH_SECONDS = 180.0
DETACH_SECONDS = 180.0
# Longer than node/machine/volume.py waits for the device, and mkfs of a large one.
NODE_SECONDS = 600.0
HOP = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=15"
NO_REPORT: Report = lambda progress: None  # noqa: E731


class Volumes:
    """The EBS volumes of one account and region."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ec2 = context.ec2

    def list(self) -> Sequence[Volume]:
        """Every volume that does not end with an instance, the newest first: root disks are not among them."""
        found = [each for each in self._ec2.volumes() if not each.ends_with_instance]
        return sorted(found, key=lambda each: each.created, reverse=True)

    def get(self, volume_id: str) -> Volume:
        """The volume of that id. Raises SpecError if there is none."""
        found = self._ec2.volumes(volume_id=volume_id)
        if not found:
            region = self._ec2.region
            raise SpecError(
                f"there is no volume {volume_id!r} in {region}; %ppe_volumes lists those there are"
            )
        return found[0]

    def create(
        self, *, gb: int, zone: str, tags: Mapping[str, str] | None = None, encrypted: bool = True
    ) -> str:
        """Create an empty gp3 volume of ``gb`` GiB in a zone, and return its id when it is available."""
        ours = {OWNER: self._context.owner(), MADE: "volume"}
        volume_id = self._ec2.create_volume(
            gb=gb, zone=zone, encrypted=encrypted, token=uuid.uuid4().hex, tags={**(tags or {}), **ours}
        )
        self._await(
            self._context.pace(), volume_id, _is("available"), seconds=CREATE_SECONDS, why="be created"
        )
        return volume_id

    def delete(self, volume_id: str) -> None:
        """Delete a volume with all that is on it. Raises SpecError while it is attached."""
        volume = self.get(volume_id)
        if volume.instance_id:
            raise SpecError(
                f"{volume_id} is attached to {volume.instance_id}; first: %ppe_detach_volume {volume_id}"
            )
        self._ec2.delete_volume(volume_id)

    def attach(
        self,
        connection: Connection,
        record: ClusterRecord,
        volume_id: str,
        *,
        node: Node | str | None = None,
        mount: str = "",
        format: str | None = None,
        report: Report = NO_REPORT,
    ) -> dict[str, Any]:
        """Attach the volume to a node (default: the master), and mount it at ``mount`` now and at each boot.

        ``format`` (ext4 or xfs) gives it a file system if it has nothing at all on it; its root directory then
        belongs to the login user. Returns device, file_system, formatted, mounted. Raises SpecError for another
        zone, CloudError for what EC2 refuses, RemoteCommandFailed for what the node says.
        """
        target = find_node(record, node)
        if mount and not MOUNT.fullmatch(mount):
            raise SpecError(f"{mount!r} is no mount point such as /data: letters, digits and . _ - / only")
        pace = self._context.pace()

        def work(send: Report) -> dict[str, Any]:
            send(Progress("attaching", 0, 1, pace.elapsed, volume_id))
            volume = self._attach(volume_id, target, pace)
            if not mount and format is None:
                return {"device": volume.device, "file_system": "", "formatted": False, "mounted": ""}
            send(Progress("mounting", 0, 1, pace.elapsed, mount))
            task = {"mount": mount, "format": format, "user": record.login_user, "device": volume.device}
            return _on_node(connection, record, target, {"act": "mount", "volume_id": volume_id, **task})

        return _undertaken(work, pace, report)

    def detach(
        self,
        connection: Connection | None,
        record: ClusterRecord,
        volume_id: str,
        *,
        force: bool = False,
        report: Report = NO_REPORT,
    ) -> None:
        """Unmount the volume on its node and detach it.

        Raises RemoteCommandFailed naming who uses it, NothingToDo when it is attached to nothing. ``force`` unmounts
        it under those who use it and lets EC2 detach it from a node that does not answer: what was not written is lost.
        """
        volume = self.get(volume_id)
        if not volume.instance_id:
            raise NothingToDo(f"{volume_id} is attached to nothing")
        node = next((each for each in record.nodes if each.instance_id == volume.instance_id), None)
        if node is None:
            raise SpecError(
                f"{volume_id} is attached to {volume.instance_id}, which is no node of {record.name!r}"
            )
        if volume.ends_with_instance:
            raise SpecError(f"{volume_id} is a disk of node {node.index} that goes with it")
        if connection is None and node.state is InstanceState.RUNNING and not force:
            raise CloudError(
                f"{record.name!r} is {record.state}: {volume_id} cannot be unmounted before its node can be asked; "
                f"wait, and see %ppe_status {record.name}. With --force what was not written is lost"
            )
        pace = self._context.pace()

        def work(send: Report) -> None:
            if connection is not None and node.state is InstanceState.RUNNING:
                send(Progress("unmounting", 0, 1, pace.elapsed, volume_id))
                task = {"act": "unmount", "volume_id": volume_id, "device": volume.device, "force": force}
                try:
                    _on_node(connection, record, node, task)
                except RemoteCommandFailed:
                    if not force:
                        raise
            send(Progress("detaching", 0, 1, pace.elapsed, volume_id))
            self._ec2.detach_volume(volume_id, force=force)
            self._await(pace, volume_id, _is("available"), seconds=DETACH_SECONDS, why="be detached")

        _undertaken(work, pace, report)

    def _attach(self, volume_id: str, node: Node, pace: Pace) -> Volume:
        """The volume, attached; whether this call did it or an earlier one."""
        volume = self.get(volume_id)
        if volume.instance_id not in ("", node.instance_id):
            raise SpecError(
                f"{volume_id} is attached to {volume.instance_id}; first: %ppe_detach_volume {volume_id}"
            )
        if volume.zone != node.zone:
            raise SpecError(
                f"{volume_id} is in {volume.zone}, node {node.index} of the cluster in {node.zone}: a volume can be "
                f"attached in its own zone only; launch a cluster with --zone {volume.zone}"
            )
        if node.state is not InstanceState.RUNNING:
            raise SpecError(
                f"node {node.index} ({node.instance_id}) is {node.state}: nothing can be mounted there"
            )
        if not volume.instance_id:
            self._await(pace, volume_id, _is("available"), seconds=CREATE_SECONDS, why="be available")
            used = {each.device for each in self._ec2.volumes(instance_id=node.instance_id)}
            device = next((each for each in DEVICES if each not in used), None)
            if device is None:
                raise SpecError(f"node {node.index} has {len(DEVICES)} volumes already: detach one first")
            pace.check()
            self._ec2.attach_volume(volume_id, instance_id=node.instance_id, device=device)

        def attached(volume: Volume) -> bool:
            return (volume.instance_id, volume.attachment) == (node.instance_id, "attached")

        return self._await(pace, volume_id, attached, seconds=ATTACH_SECONDS, why="be attached")

    def _await(
        self, pace: Pace, volume_id: str, done: Callable[[Volume], bool], *, seconds: float, why: str
    ) -> Volume:
        """The volume as soon as ``done`` holds of it. Raises CloudError after ``seconds``, or when it is in error."""
        for last in pace.tries(seconds=seconds):
            # A volume made a moment ago may not be listed yet (API reference, "Eventual consistency").
            volume = next(iter(self._ec2.volumes(volume_id=volume_id)), None)
            if volume is not None and done(volume):
                return volume
            if volume is not None and volume.state == "error":
                raise CloudError(
                    f"EC2 says that {volume_id} is in error: its data may be lost; see its snapshots"
                )
            if last:
                state = f"{volume.state} {volume.attachment}".strip() if volume else "not listed"
                raise CloudError(
                    f"after {seconds:.0f} s {volume_id} has yet to {why}: it is {state}. If a node does not let it "
                    f"go: %ppe_detach_volume {volume_id} --force, then reboot that node"
                )
        raise AssertionError("the last try returns or raises")


def find_node(record: ClusterRecord, node: Node | str | None) -> Node:
    """The node that is meant: by index, instance id, address or host name; None is the master."""
    if isinstance(node, Node):
        return node
    if node in (None, "", "master"):
        return record.master
    for each in record.nodes:
        names = (str(each.index), each.instance_id, each.private_ip, each.public_ip, each.private_dns)
        if node in (*names, each.private_dns.partition(".")[0]):
            return each
    known = ", ".join(f"{each.index} ({each.instance_id})" for each in record.nodes)
    raise SpecError(f"cluster {record.name!r} has no node {node!r}; there are: {known}")


def attached_to(volume: Volume, records: Iterable[ClusterRecord]) -> str:
    """What the volume is attached to in words, such as ``brisk-otter node 0, /dev/sdf``; "" if to nothing."""
    if not volume.instance_id:
        return ""
    nodes = ((record, node) for record in records for node in record.nodes)
    found = ((r, n) for r, n in nodes if n.instance_id == volume.instance_id)
    name = next((f"{record.name} node {node.index}" for record, node in found), volume.instance_id)
    detail = "" if volume.attachment == "attached" else f" ({volume.attachment})"
    return f"{name}, {volume.device}{detail}"


def table(volumes: Iterable[Volume], records: Sequence[ClusterRecord]) -> pd.DataFrame:
    """A row for each volume: state, zone, GB, what it is attached to, tags."""
    import pandas as pd

    rows = [
        {
            "volume": each.volume_id,
            "state": each.state,
            "zone": each.zone,
            "GB": each.gb,
            "attached to": attached_to(each, records),
            "tags": ", ".join(f"{key}={value}" for key, value in user_tags(each.tags).items()),
        }
        for each in volumes
    ]
    columns = ["volume", "state", "zone", "GB", "attached to", "tags"]
    frame: pd.DataFrame = pd.DataFrame(rows, columns=columns).set_index("volume")
    return frame


def _is(state: str) -> Callable[[Volume], bool]:
    return lambda volume: volume.state == state


def _undertaken(work: Callable[[Report], T], pace: Pace, report: Report) -> T:
    undertaking: Undertaking[T] = Undertaking(work, pace)
    undertaking.wait(report)
    return undertaking.result


def _on_node(
    connection: Connection, record: ClusterRecord, node: Node, task: Mapping[str, Any]
) -> dict[str, Any]:
    """Run node/machine/volume.py on the node, by way of the master; its answer."""
    command = f"sudo -n python3 - {shlex.quote(json.dumps(task))}"
    if node.instance_id != record.master.instance_id:
        command = f"{HOP} {node.private_ip} {shlex.quote(command)}"
    script = (resources.files("ppe_jupyter.node.machine") / "volume.py").read_bytes()
    done = connection.run(command, stdin=script, timeout=NODE_SECONDS, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        answer = {"error": said[-1] if said else f"no answer, status {done.status}"}
    if "error" in answer:
        message = f"{task['volume_id']} on node {node.index} of {record.name!r}: {answer['error']}"
        raise RemoteCommandFailed(message, command=command, status=done.status, stderr=answer["error"])
    return answer
