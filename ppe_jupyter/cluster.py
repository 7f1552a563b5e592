"""Cluster: one cluster as its user holds it: its record, one SSH connection to its master, its R session.

Joins ``cloud`` (where R is) with ``remote`` (how to talk to it). Holds no truth of its own: a record is EC2's
answer at one moment. Knows nothing of magics, widgets or terminals.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import ssh
from .cloud.access import command_line
from .cloud.keeping.volumes import find_node
from .cloud.launching.removal import terminate
from .cloud.pace import IGNORE, Report
from .cloud.plan import Plan
from .cloud.records import ClusterState, InstanceState, Node, advice
from .cloud.steps import InstallRStudio, RunInstances
from .equipment import Equipment
from .errors import NothingToDo, PpeError, SshError, Unreachable
from .guests import Guests
from .limits import Limits
from .maps import Maps
from .provenance import Provenance
from .remote.glance import Glance, glance
from .remote.ranks import cells, team
from .remote.ranks.census import SESSION, Rank, Ranks, kill, ranks
from .remote.sessions.session import Output
from .runs import Runs
from .ssh import Connection


class Cluster(Limits, Guests, Equipment, Provenance, Maps, Runs):
    """One cluster: its record, one SSH connection to its master, and its R session."""

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {self.state}, {len(self.nodes)} nodes, {self.record.slots} slots>"

    def ssh(self) -> ssh.Connection:
        """The SSH connection to the master, made anew if it was cut. An error says if the cluster is parked or ill."""
        with self._lock:
            if self._connection is None or not self._connection.alive:
                if self._connection is not None or not self._connectable:
                    self.refresh()
                try:
                    if not self._connectable:
                        raise Unreachable(f"{self.name!r} cannot be connected to", host=self.master.address)
                    self._connection = self._account.clusters.connect(self.record)
                except Unreachable as exc:
                    what_next = advice(self.refresh().record) or f"see: %ppe_status {self.name}"
                    raise Unreachable(f"{exc}; {what_next}", host=exc.host) from exc
            return self._connection

    def _again(self) -> Connection:
        """The connection, after a cut. Only Unreachable, ConnectionLost and CloudError are worth another try."""
        try:
            return self.ssh()
        except Unreachable as exc:
            if self._connectable:
                raise
            raise SshError(str(exc), host=exc.host) from exc

    def run_python(
        self, code: str, *, ranks: int | None = None, on_output: Callable[[Output], None], **options: Any
    ) -> None:
        """Run Python on the master, or as ``run_ranks`` on ``ranks`` MPI ranks over the nodes (-1: every slot)."""
        if ranks is None:
            cells.run_python(self.ssh(), code, on_output=on_output, **options)
        else:
            team.run(self.ssh(), team.TeamCell(code=code, ranks=ranks), on_output=on_output, **options)

    def run_ranks(self, cell: team.TeamCell, **options: Any) -> list[dict[str, Any]]:
        """Run a cell on MPI ranks that keep their variables (remote/ranks/team.py's ``run``); each rank's outputs."""
        if cell.with_r and "session" not in options:
            options["session"] = self.r()
        return team.run(self.ssh(), cell, **options)

    def end_ranks(self, language: team.Language, ranks: int = -1) -> None:
        """End the ranks of such cells, and their variables."""
        team.end(self.ssh(), language=language, ranks=ranks)

    def run_shell(
        self, code: str, *, all_nodes: bool = False, on_output: Callable[[Output], None], **options: Any
    ) -> None:
        """Run shell commands on the master, or on every node."""
        cells.run_shell(self.ssh(), code, all_nodes=all_nodes, on_output=on_output, **options)

    def ssh_command(self, node: Node | None = None) -> str:
        """The command line that opens a shell on the node (default: the master), its host key verified."""
        account, key = self._account, self._account.clusters.key_file(self.record)
        there, known = node or self.master, self._known_hosts()
        return shlex.join(command_line(account.context, self.record, there, key=key, known_hosts=known))

    # -- changes ----------------------------------------------------------------------------------------

    def plan(self, verb: str, **options: Any) -> Plan:
        """What ``verb`` would do: reboot (node=), park, start (nodes=), resize (nodes=), retry (choice=), terminate.

        ``force=True`` disregards another client at work, and what runs on nodes that go. Changes nothing.
        """
        plan: Plan = self._account.changes.plan(self.refresh().record, verb, **options)
        return plan

    def carry_out(self, plan: Plan, *, report: Report = IGNORE) -> Cluster:
        """Do what the plan says. Raises SpecError for a plan with errors, CloudError, SshError, SetupFailed.

        NotAsLocked says what nodes that have come new cannot have of the cluster's lock.
        """
        plan.check()
        before, began = self.record, time.monotonic()
        rstudio = [step for step in plan.steps if isinstance(step, InstallRStudio)]
        plan = replace(plan, steps=tuple(step for step in plan.steps if step not in rstudio))
        if plan.verb in ("park", "terminate"):
            self.close()
        after = None
        try:
            after = self._account.changes.carry_out(plan, report=report)
        finally:
            if after is None:
                with contextlib.suppress(PpeError):
                    self.refresh()
            else:
                self.record = after
        self._account.note(plan.verb, after or before)
        if rstudio:
            self.add_rstudio(report=report, began=began)
        if any(isinstance(step, RunInstances) for step in plan.steps):
            took = time.monotonic() - began
            known = {node.instance_id for node in before.nodes}
            self.satisfy_on_new(known, report=lambda each: report(replace(each, elapsed=each.elapsed + took)))
        return self

    def reboot(self, node: int | str | None = None, *, report: Report = IGNORE) -> Cluster:
        """Reboot all nodes, or one, and wait until R answers again, its workspace restored."""
        return self.carry_out(self.plan("reboot", node=node), report=report)

    def park(self, *, report: Report = IGNORE) -> Cluster:
        """End the workers and stop the master, whose disk keeps home, results and workspace."""
        return self.carry_out(self.plan("park"), report=report)

    def start(self, nodes: int | None = None, *, report: Report = IGNORE) -> Cluster:
        """Bring a parked cluster back, with its workspace and as many nodes as it had, or so many."""
        return self.carry_out(self.plan("start", nodes=nodes), report=report)

    def resize(self, nodes: int, *, report: Report = IGNORE) -> Cluster:
        """Make it ``nodes`` nodes, the master included; the R session lives on."""
        return self.carry_out(self.plan("resize", nodes=nodes), report=report)

    def retry(self, choice: str = "wait", *, report: Report = IGNORE) -> Cluster:
        """Mend a degraded cluster: ``wait`` for nodes that are late, ``replace`` or ``drop`` those that are lost."""
        return self.carry_out(self.plan("retry", choice=choice), report=report)

    def terminate(self, *, report: Report = IGNORE) -> None:
        """End the cluster and remove all that was made for it. Safe to repeat."""
        self.close()
        with contextlib.suppress(NothingToDo):
            terminate(self._account.context, self.name, report=report)
            self._account.note("terminate", self.record)

    # -- what is on it ----------------------------------------------------------------------------------

    def glance(self) -> Glance:
        """Watchdog, sessions, jobs, ranks and each node's load, in one question that disturbs nothing."""
        return glance(self.ssh())

    def ranks(self) -> Ranks:
        """Every MPI rank on its nodes: R, its workers, any mpirun's."""
        return ranks(self.ssh())

    def kill_rank(self, rank: int, job: str = SESSION) -> Rank:
        """End a rank (of R's workers, if no other ``job`` is named). Raises UsageError."""
        return kill(self.ssh(), rank, job)

    def attach_volume(
        self,
        volume_id: str,
        node: Node | str | None = None,
        *,
        mount: str = "",
        format: str | None = None,
        report: Report = IGNORE,
    ) -> dict[str, Any]:
        """Attach an EBS volume to a node (default: the master), and mount it (``Volumes.attach``)."""
        return self._account.volumes.attach(
            self.ssh(), self.record, volume_id, node=node, mount=mount, format=format, report=report
        )

    def detach_volume(self, volume_id: str, *, force: bool = False, report: Report = IGNORE) -> None:
        """Unmount and detach it; an error names who uses it, unless ``force``."""
        running = self.state in (ClusterState.RUNNING, ClusterState.DEGRADED)
        self._account.volumes.detach(
            self.ssh() if running else None, self.record, volume_id, force=force, report=report
        )

    def _address_of(self, node: int | str) -> str | None:
        found = find_node(self.record, str(node))
        return None if found == self.master else found.private_ip

    def _others(self) -> list[str]:
        return [node.private_ip for node in self.nodes if node.up and node != self.master]

    def _region(self) -> str:
        return self._account.context.ec2.region

    @property
    def _connectable(self) -> bool:
        return self.master.state is InstanceState.RUNNING

    def _known_hosts(self) -> Path:
        """A file of the cluster's host keys, for OpenSSH; written anew each time."""
        path = self._account.context.settings.state_dir / "known_hosts" / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{address} {node.host_key}\n"
            for node in self.nodes
            for address in dict.fromkeys([node.public_ip, node.private_ip])
            if node.host_key and address
        ]
        path.write_text("".join(lines), encoding="ascii")
        return path
