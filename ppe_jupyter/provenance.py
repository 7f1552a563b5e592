"""What a cluster's results depend on: told, noted in a lock, and had again. The part of Cluster that does so."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone

from .cloud import lock_file
from .cloud.keeping.software import Refused, pin, software_of
from .cloud.lock import Difference, Lock
from .cloud.pace import IGNORE, Report, Undertaking
from .cloud.records import named_nodes
from .cloud.software import Software
from .errors import NotAsLocked
from .held import Held
from .node.machine import LOCK
from .node.wire.protocol import MAIN
from .remote.sessions.session import SessionState
from .session_info import SessionInfo

SHORT = 10  # numbers
SNAPSHOT_DATE = "%Y%m%dT%H%M%SZ"  # of snapshot.debian.org


class Provenance(Held):
    """The software of a cluster, to be told and to be had again."""

    def session_info(self) -> SessionInfo:
        """Versions, packages, machines, seeds and cost, of every node; does not wait for R if that is busy.

        Raises RemoteError that names the nodes that do not answer.
        """
        software = software_of(self.ssh(), self.record)
        about = {"cluster": self.record.name, "asked": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"}
        about["nodes"] = f"{len(self.record.nodes)}, {self.record.slots} slots"
        about["cost so far"] = self._spent()
        states = self._states()
        for name, each in states.items():
            of = "" if name == MAIN else f" of session {name}"
            about[f"random numbers{of}"] = _stream(each) if each else "R is busy"
            if each and each.seed:
                about[f"last seed{of}"] = f"{_vector(each.seed)}, of ppe.lapply"
        from .remote.ranks.mapping import last_seed

        if (seed := last_seed(self.ssh())) is not None:
            about["last seed of map"] = str(seed)
        state = states[MAIN]
        return SessionInfo(
            about=about,
            types={node.index: node.instance_type for node in self.record.nodes if node.index in software},
            software=software,
            attached=state.attached if state else None,
            loaded=state.loaded if state else None,
        )

    def _states(self) -> dict[str, SessionState | None]:
        """Of every R session, the main one first; None of those that are busy."""
        names = {row["name"]: row["state"] == "idle" for row in self.sessions()}
        with self.visiting():
            return {
                name: self.r(name).state() if names.get(name) else None
                for name in dict.fromkeys([MAIN, *names])
            }

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
        """Have the lock's versions of all packages on the nodes, and on those that come later. Safe to repeat.

        Raises NotAsLocked, which says of each package that could not be had what is there; SetupFailed.
        """
        software = software_of(self.ssh(), self.record)
        self._have(lock, software, noted=lock_file.dumps(lock), report=report)

    def satisfy_on_new(self, known: Collection[str], *, report: Report = IGNORE) -> None:
        """The same on nodes that have come since, whose instances are not ``known``; nothing if there is no lock.

        What was changed since, by %ppe_install or by hand, they are to have as the master has it. Raises as above.
        """
        if not (noted := self.ssh().run(f"cat {LOCK}", check=False).stdout):
            return
        software, master = software_of(self.ssh(), self.record), self.record.master.index
        lock = lock_file.loads(noted, LOCK).changed_as(software[master])
        new = [node.index for node in self.nodes if node.instance_id not in known and node.index in software]
        self._have(lock, {index: software[index] for index in new}, noted=noted.decode(), report=report)

    def _have(self, lock: Lock, software: Mapping[int, Software], *, noted: str, report: Report) -> None:
        connection, context, master = self.ssh(), self._account.context, self.record.master.index
        pins = lock.pins(software, master=master)
        pace = context.pace()
        written = datetime.fromisoformat(lock.written.replace("Z", "+00:00"))
        snapshot = context.settings.debian_snapshot
        snapshot = snapshot and snapshot.replace("{date}", written.strftime(SNAPSHOT_DATE))
        work = Undertaking(
            lambda send: pin(
                connection, self.record, pins, lock=noted, snapshot=snapshot, report=send, pace=pace
            ),
            pace,
        )
        work.wait(report)
        refused = work.result
        if pins:
            found = software_of(connection, self.record)
            software = {index: found[index] for index in software}
        if left := lock.differences(software, master=master):
            raise NotAsLocked(_said(self.record.name, left, refused), differences=left)

    def _spent(self) -> str:
        spent = self.record.cost_so_far(datetime.now(timezone.utc))
        return "unknown" if spent is None else f"${spent:.2f}{' on EC2, free here' * self._account.is_free}"


def _stream(state: SessionState) -> str:
    """Kinds of random numbers, and where the stream is; whole if it is short, as L'Ecuyer-CMRG's."""
    kinds = ", ".join(state.kinds)
    if not state.stream:
        return f"{kinds}; none drawn yet"
    if len(state.stream) <= SHORT:
        return f"{kinds}; .Random.seed is {_vector(state.stream)}"
    data = b"".join(each.to_bytes(4, "little", signed=True) for each in state.stream)
    return f"{kinds}; .Random.seed has the SHA-256 {hashlib.sha256(data).hexdigest()[:16]}…"


def _vector(numbers: Sequence[int]) -> str:
    """As R writes it."""
    return f"c({', '.join(f'{each}L' for each in numbers)})"


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
