"""Bring-up: instances that run or are coming up become a cluster that can be used; with those that do come up.

The end of a launch and of every change that adds or loses nodes, from whatever state they are in: waits, connects
to the master (or makes another node the master), has setup.py configure all that answer, and writes the tags that
say so. A node that is lost on the way is left out and named. Removes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from ... import ssh
from ...errors import CloudError, ConnectionLost, PpeError, SetupFailed, Unreachable
from .. import tagged, tags
from ..configure import SetUp, Setup, configure, limits, shared, silence_seconds
from ..context import Context
from ..facts import Instance
from ..keeping.install import Packages
from ..keeping.volumes import Volumes
from ..pace import Pace, Report
from ..records import ClusterRecord, Cost, Progress
from ..spec import ClusterSpec
from ..steps import AttachVolume
from .boot import Boot, NodesLost, PhaseReport, Watch
from .purchase import patiently

# setup.py waits for a worker as long as booting may take in all, but at least so long.
LEAST_PATIENCE_SECONDS = 60.0
# How often setting up is begun again, because a node was lost or the line to the master was cut.
MOST_ROUNDS = 5

ClusterKey = Callable[[ssh.Connection, ClusterRecord], str | None]


@dataclass(frozen=True, kw_only=True)
class BroughtUp:
    """The cluster, degraded if nodes are ``lost`` (what is known of each, by instance id), and the master's line."""

    record: ClusterRecord
    connection: ssh.Connection
    versions: Mapping[str, str]
    lost: Mapping[str, str]


def bring_up(
    context: Context,
    instances: Sequence[Instance],
    spec: ClusterSpec,
    *,
    subnet_cidr: str,
    installs: bool,
    cluster_key: ClusterKey,
    pace: Pace,
    report: PhaseReport,
    watch: Watch = lambda listed: None,
) -> BroughtUp:
    """Make a cluster of ``spec`` of these instances, all that it is to have.

    ``cluster_key`` gives the private half of the cluster's own key for the master's disk, once the master is
    connected (None: it is there). ``installs``: their first boot may have to install software. ``watch`` sees every
    answer of DescribeInstances, and may raise. Raises CloudError or SetupFailed when nothing is usable,
    HostKeyMismatch, AuthenticationRefused, Stopped.
    """
    boot = Boot(context, instances, pace=pace, report=report, watch=watch)
    boot.wait_until_running()
    work = _BringUp(
        context, boot, spec, subnet_cidr, cluster_key, installs=installs, pace=pace, report=report
    )
    try:
        return work.finish(work.set_up())
    except BaseException:
        work.close()
        raise


def attach(context: Context, done: BroughtUp, step: AttachVolume, *, pace: Pace, report: Report) -> BroughtUp:
    """Attach a volume to the new master; without it the cluster is of use nevertheless, and its troubles tell."""
    volumes = Volumes(replace(context, pace=lambda: pace))
    try:
        volumes.attach(done.connection, done.record, step.volume_id, mount=step.mount, report=report)
    except PpeError as exc:
        mount = f" --mount {step.mount}" if step.mount else ""
        said = f"{step.volume_id} is not attached: {exc}; try: %ppe_attach_volume {step.volume_id}{mount}"
        nodes = done.record.nodes
        report(Progress("attaching", sum(node.up for node in nodes), len(nodes), pace.elapsed, said))
        return replace(done, record=replace(done.record, troubles=(*done.record.troubles, said)))
    return done


class _BringUp:
    """Setting up the nodes of one ``boot``."""

    def __init__(
        self,
        context: Context,
        boot: Boot,
        spec: ClusterSpec,
        subnet_cidr: str,
        cluster_key: ClusterKey,
        *,
        installs: bool,
        pace: Pace,
        report: PhaseReport,
    ) -> None:
        self._context = context
        self._boot = boot
        self._spec = spec
        self._subnet_cidr = subnet_cidr
        self._cluster_key = cluster_key
        self._installs = installs
        self._pace = pace
        self._report = report
        self._user_key = context.keys.opening(boot.record.key_name)
        self._connection: ssh.Connection | None = None
        self._keyed = ""  # the instance that has the cluster's key
        self._failed_master = False

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def set_up(self) -> SetUp:
        """Have the master configure every node that answers, in as many rounds as it takes."""
        for round_ in range(MOST_ROUNDS):
            last = round_ == MOST_ROUNDS - 1
            try:
                done = self._round()
            except NodesLost:
                if last:
                    raise CloudError("nodes were lost faster than the rest could be set up") from None
            except (ConnectionLost, Unreachable):
                if last:
                    raise
                self.close()
            except SetupFailed as exc:
                # An instance that ends fails in many ways before EC2 says so.
                if self._more_are_lost() and not last:
                    continue
                failed = next((node for node in self._boot.nodes if node.private_ip == exc.node), None)
                if failed is None or last or len(self._boot.nodes) == 1:
                    raise
                if failed.role == "master":
                    # What two masters could not be set up for is not their fault.
                    if self._failed_master:
                        raise
                    self._failed_master = True
                self._boot.lose(failed.instance_id, f"could not be set up: {exc}")
            else:
                for node in self._boot.nodes:
                    if node.private_ip in done.lost:
                        self._boot.lose(
                            node.instance_id, f"could not be set up: {done.lost[node.private_ip]}"
                        )
                return done
        raise AssertionError("the last round returns or raises")

    def _round(self) -> SetUp:
        boot = self._boot
        master = next((node for node in boot.nodes if node.role == "master"), None)
        if self._connection is None or master is None:
            self.close()
            self._connection = boot.open_master(key=self._user_key)
            master = next(node for node in boot.nodes if node.role == "master")
        self._report("uploading", 0, "")
        key = None
        if self._keyed != master.instance_id:
            key = self._cluster_key(self._connection, boot.record)
        record, now = boot.record, self._context.now()
        # A one-time spot instance, which is a master only for want of others, can but end (user guide, stop-spot).
        spec = replace(self._spec, then="terminate") if master.spot else self._spec
        setup = Setup(
            cluster=record.name,
            login_user=record.login_user,
            subnet_cidr=self._subnet_cidr,
            cluster_private_key=key,
            nodes=[master, *(node for node in boot.nodes if node != master)],
            limits=limits(spec, record, settings=self._context.settings, now=now),
            patience_seconds=max(boot.seconds_left, LEAST_PATIENCE_SECONDS),
            installs=self._installs,
            packages=asdict(Packages.of(self._spec)),
            cran_url=self._context.settings.cran_url,
            shared=shared(
                spec, local=self._context.settings.cloud == "local", region=self._context.ec2.region
            ),
            silence_seconds=silence_seconds(self._context.settings),
        )
        done = configure(
            self._connection,
            setup,
            report=self._report,
            pace=self._pace,
            check=boot.check,
            note_keys=self._note_keys,
        )
        self._keyed = master.instance_id
        if self._more_are_lost():
            raise NodesLost
        return done

    def _more_are_lost(self) -> bool:
        before = len(self._boot.lost)
        self._boot.look()
        return len(self._boot.lost) > before

    def _note_keys(self, host_keys: Mapping[str, str]) -> None:
        """Let other clients, and this one if the line is cut, know the nodes by the keys that they will show."""
        keys = {
            node.index: host_keys[node.private_ip]
            for node in self._boot.nodes
            if node.private_ip in host_keys
        }
        self._boot.note({key: value for key, value in tags.when_running(keys).items() if key != tags.STATE})

    def finish(self, done: SetUp) -> BroughtUp:
        """Write the tags that say what runs, the same on all but for the state of those that are lost."""
        assert self._connection is not None
        self._pace.check()
        record, now, boot = self._boot.record, self._context.now(), self._boot
        ready = [node for node in boot.nodes if node.private_ip in done.host_keys]
        ready_ids = [node.instance_id for node in ready]
        left_ids = [
            each.instance_id
            for each in boot.instances
            if each.state.alive and each.instance_id not in ready_ids
        ]
        if self._spec.then == "park" and not record.master.spot:
            stop = partial(self._context.ec2.set_shutdown_behavior, record.master.instance_id, "stop")
            patiently(self._pace, stop)
        spent = record.cost_so_far(now)
        common = {
            **tags.when_running({node.index: done.host_keys[node.private_ip] for node in ready}),
            **tags.busy(now),
            **tags.of_spec(self._spec),
            **(tags.of_guests(record.guests) if record.guests else {}),
            **tags.of_cost(Cost(spent_usd=spent or 0.0, usd_per_hour=_rate(record, spent), since=now)),
        }
        of_lost = {key: value for key, value in common.items() if key != tags.STATE}
        for ids, these in ((left_ids, of_lost), (ready_ids, common)):
            if ids:
                patiently(self._pace, partial(self._context.ec2.tag, ids, these))
        changed = {**dict.fromkeys(left_ids, of_lost), **dict.fromkeys(ready_ids, common)}
        instances = [
            replace(each, tags={**each.tags, **changed.get(each.instance_id, {})}) for each in boot.instances
        ]
        record = tagged.clusters(instances, now=now)[0]
        said = tuple(boot.said(node.instance_id) for node in record.nodes if node.instance_id in boot.lost)
        return BroughtUp(
            record=replace(record, troubles=said) if said else record,
            connection=self._connection,
            versions=done.versions,
            lost=dict(boot.lost),
        )


def _rate(record: ClusterRecord, spent: float | None) -> float | None:
    """What is not known of the past cannot be reckoned on."""
    return None if record.cost is not None and spent is None else record.usd_per_hour
