"""What a cluster's results depend on: told, noted in a lock, and had again. The part of Cluster that does so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone

from .cloud.keeping.software import Refused, pin, software_of
from .cloud.lock import Difference, Lock
from .cloud.pace import IGNORE, Report, Undertaking
from .cloud.records import named_nodes
from .errors import NotAsLocked
from .held import Held
from .session_info import SessionInfo

SNAPSHOT_DATE = "%Y%m%dT%H%M%SZ"  # of snapshot.debian.org


class Provenance(Held):
    """The software of a cluster, to be told and to be had again."""

    def session_info(self) -> SessionInfo:
        """Versions, packages, machines, seeds and cost, of every node; does not wait for R if that is busy.

        Raises RemoteError that names the nodes that do not answer.
        """
        software = software_of(self.ssh(), self.record)
        state = self.r().state()
        about = {"cluster": self.record.name, "asked": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"}
        about["nodes"] = f"{len(self.record.nodes)}, {self.record.slots} slots"
        about["cost so far"] = self._spent()
        about["random numbers"] = ", ".join(state[0]) if state else "R is busy"
        if state and state[1]:
            about["last seed"] = f"c({', '.join(f'{each}L' for each in state[1])}), of ppe.lapply"
        from .remote.mapping import last_seed

        if (seed := last_seed(self.ssh())) is not None:
            about["last seed of map"] = str(seed)
        return SessionInfo(
            about=about,
            types={node.index: node.instance_type for node in self.record.nodes if node.index in software},
            software=software,
            attached=state[2] if state else None,
            loaded=state[3] if state else None,
        )

    def lock(self) -> Lock:
        """What the nodes have now, for ``cloud.lock_file.save``. Raises RemoteError, CloudError."""
        ec2 = self._account.context.ec2
        software = software_of(self.ssh(), self.record)
        master = self.record.master.instance_id
        found = (each for each in ec2.instances(cluster=self.record.name) if each.instance_id == master)
        image_id = next((each.image_id for each in found), "")
        image = ec2.image(image_id)
        return Lock.of(
            software,
            master=self.record.master.index,
            cluster=self.record.name,
            written=f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            image_id=image_id,
            image_name=image.name if image else "",
        )

    def satisfy(self, lock: Lock, *, report: Report = IGNORE) -> None:
        """Have the lock's versions of all packages on the nodes. Safe to repeat.

        Raises NotAsLocked, which says of each package that could not be had what is there; SetupFailed.
        """
        connection, context, master = self.ssh(), self._account.context, self.record.master.index
        software = software_of(connection, self.record)
        refused: Mapping[int, Refused] = {}
        if pins := lock.pins(software, master=master):
            pace = context.pace()
            written = datetime.fromisoformat(lock.written.replace("Z", "+00:00"))
            snapshot = context.settings.debian_snapshot
            snapshot = snapshot and snapshot.replace("{date}", written.strftime(SNAPSHOT_DATE))
            work = Undertaking(
                lambda send: pin(connection, self.record, pins, snapshot=snapshot, report=send, pace=pace),
                pace,
            )
            work.wait(report)
            refused = work.result
            software = software_of(connection, self.record)
        if left := lock.differences(software, master=master):
            raise NotAsLocked(_said(self.record.name, left, refused), differences=left)

    def _spent(self) -> str:
        spent = self.record.cost_so_far(datetime.now(timezone.utc))
        return "unknown" if spent is None else f"${spent:.2f}{' on EC2, free here' * self._account.is_free}"


def _said(name: str, left: Sequence[Difference], refused: Mapping[int, Refused]) -> str:
    lines = sorted(set(_lines(left, refused)))
    return "\n".join(
        [
            f"{name} runs, but {len(lines)} of its packages are not as the lock has them:",
            *lines,
            f"End it with: %ppe_terminate {name}; or accept it, and write a lock of what is there: %ppe_session_info "
            "--lock FILE",
        ]
    )


def _lines(left: Sequence[Difference], refused: Mapping[int, Refused]) -> Iterator[str]:
    nodes: dict[tuple[str, str, str, str, str], list[int]] = {}
    for each in left:
        why = refused.get(each.index, {}).get(each.kind, {}).get(each.name, "")
        nodes.setdefault((each.kind, each.name, each.wanted, each.there, why), []).append(each.index)
    for (kind, package, wanted, there, why), indices in nodes.items():
        cause = f" ({why})" if why else ""
        yield f"  {kind} {package}: wanted {wanted}, there is {there or 'none'} on {named_nodes(indices)}{cause}"
