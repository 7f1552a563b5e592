"""Boot: from an answered RunInstances to a verified SSH connection to the master.

One describe call per interval for all nodes together, whatever their number; intervals grow. Makes nothing,
so it has nothing to remove.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import ssh
from ..errors import AuthenticationRefused, CloudError, Unreachable
from .context import Connect
from .ec2 import EC2
from .facts import Instance
from .pace import Pace
from .records import InstanceState

PhaseReport = Callable[[str, int, str], None]

# sshd may answer before cloud-init has written the authorized keys.
AUTHORIZED_SECONDS = 60.0
# While sshd does not answer, look whether the instances still live.
DESCRIBE_SECONDS = 5.0
# A packet to a machine that is only coming up is lost, and TCP repeats it after 1, 3, 7 s: rather begin anew.
SHORTEST_TRY_SECONDS = 2.0
CONSOLE_LINES = 5


class Boot:
    """The instances of one launch on their way up; ``instances`` is what EC2 said last, in order of index."""

    def __init__(
        self, ec2: EC2, instances: Sequence[Instance], *, pace: Pace, report: PhaseReport, boot_timeout: float
    ) -> None:
        self.instances = list(instances)
        self._ec2 = ec2
        self._pace = pace
        self._report = report
        self._boot_timeout = boot_timeout

    def wait_until_running(self, *, cluster: str, launch: str, public: bool) -> None:
        """Until every instance runs and has its addresses. Raises CloudError when one ends or time is up."""
        for last in self._pace.tries(seconds=self._boot_timeout):
            self.describe(cluster=cluster, launch=launch)
            waiting = [each.instance_id for each in self.instances if not _is_up(each, public=public)]
            self._report("booting", len(self.instances) - len(waiting), "")
            if not waiting:
                return
            if last:
                raise CloudError(
                    f"after {self._boot_timeout:.0f} s these nodes do not run yet: {', '.join(waiting)}"
                )

    def describe(self, *, cluster: str, launch: str) -> None:
        """Ask EC2 once. Raises CloudError when an instance has ended."""
        # An instance that is not listed yet stays as RunInstances described it.
        listed = {each.instance_id: each for each in self._ec2.instances(cluster=cluster, launch=launch)}
        self.instances = [listed.get(each.instance_id, each) for each in self.instances]
        for each in self.instances:
            if each.state not in (InstanceState.PENDING, InstanceState.RUNNING):
                reason = each.reason or "EC2 gives no reason"
                raise CloudError(f"node {each.instance_id} is {each.state} before the cluster ran: {reason}")

    def open_master(
        self, target: ssh.Target, *, connect: Connect, timeout: float, check: Callable[[], None]
    ) -> ssh.Connection:
        """Connect to the master as soon as its sshd answers. Raises HostKeyMismatch at once.

        ``check`` is called now and then meanwhile, and may raise.
        """
        answered: float | None = None
        began = checked = self._pace.elapsed
        for last in self._pace.tries(seconds=self._boot_timeout, longest=1.0):
            self._report("connecting", 0, target.host)
            patience = SHORTEST_TRY_SECONDS + (self._pace.elapsed - began) / 4
            try:
                return connect(target, timeout=min(timeout, patience))
            except AuthenticationRefused:
                answered = self._pace.elapsed if answered is None else answered
                if last or self._pace.elapsed - answered > AUTHORIZED_SECONDS:
                    raise
            except Unreachable as exc:
                if last:
                    raise CloudError(f"{exc}{self._console_tail(self.instances[0])}") from exc
            if self._pace.elapsed - checked > DESCRIBE_SECONDS:
                checked = self._pace.elapsed
                check()
        raise AssertionError("the last try returns or raises")

    def _console_tail(self, instance: Instance) -> str:
        """The last lines that the boot printed, for a message."""
        try:
            lines = self._ec2.console_output(instance.instance_id).strip().splitlines()
        except CloudError:
            lines = []
        return f"; its console's last lines: {' | '.join(lines[-CONSOLE_LINES:])}" if lines else ""


def _is_up(instance: Instance, *, public: bool) -> bool:
    addresses = instance.private_ip and (instance.public_ip or not public)
    return instance.state is InstanceState.RUNNING and bool(addresses)
